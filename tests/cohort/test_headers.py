"""Headers are held to what they announce, the same way in every format."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import read_image, read_manifest, read_mask
from lens.cohort.headers import MAX_VOXELS, SHEAR, HeaderFault, check_axes
from lens.cohort.images import load_image, load_mask
from lens.errors import CaseError, InputError
from tests.cohort.builders import ball, image, noise, write

FORMATS = ("nii", "nii.gz", "hdr", "mha", "mhd", "nrrd", "nhdr")
WHOLE = np.rint(noise((6, 12, 14))).astype(np.int16)


def refused(path: Path, says: str) -> CaseError:
    with pytest.raises(CaseError, match=re.escape(says)) as caught:
        read_image(path, "P-07")
    assert f"patient P-07, file {path}" in str(caught.value)
    assert caught.value.remedy
    return caught.value


def written(folder: Path, ending: str, packed: bool = False) -> tuple[Path, Path]:
    """An image of a format: the file to name, and the file with the voxels."""
    path = folder / f"t2.{ending}"
    sitk.WriteImage(image(WHOLE), str(path), packed)
    others = [file for file in folder.iterdir() if file != path]
    return path, others[0] if others else path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, ending: str, packed: bool) -> None:
    path, voxels = written(tmp_path, ending, packed)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path, "P-07")), WHOLE)
    content = voxels.read_bytes()
    first = len(content) - 200 if voxels == path else 1
    for length in np.linspace(first, len(content) - 1, 7).astype(int):
        voxels.write_bytes(content[:length])
        refused(path, "unreadable image (")


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_a_header_alone_is_refused(tmp_path: Path, ending: str) -> None:
    path, _ = written(tmp_path, ending)
    path.write_bytes(path.read_bytes()[:100])
    refused(path, "unreadable image (")


NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 14 12 6\nencoding: {}\nendian: little\n{}\n"
META = (
    "ObjectType = Image\nNDims = 3\nDimSize = {}\nElementType = MET_SHORT\n{}ElementDataFile = {}\n"
)
SPACE = "space: left-posterior-superior\nspace directions: {}\nspace origin: (0,0,0)\n"
STRAIGHT = SPACE.format("(1,0,0) (0,1,0) (0,0,2)")


def nrrd(path: Path, fields: str, encoding: str = "raw", content: bytes | None = None) -> Path:
    voxels = WHOLE.tobytes() if content is None else content
    path.write_bytes(NRRD.format(encoding, fields).encode() + voxels)
    return path


def meta(path: Path, fields: str, size: str = "14 12 6", data: str = "LOCAL") -> Path:
    path.write_bytes(META.format(size, fields, data).encode() + WHOLE.tobytes())
    return path


def test_other_packings_of_nrrd_are_counted_too(tmp_path: Path) -> None:
    packed = bz2.compress(WHOLE.tobytes())
    for name, content in (("bzip2", packed), ("gzip", gzip.compress(WHOLE.tobytes()))):
        path = nrrd(tmp_path / f"{name}.nrrd", STRAIGHT, name, content)
        header = path.read_bytes()[: -len(content)]
        path.write_bytes(header + content[:-30])
        refused(path, "unreadable image (")
    short = gzip.compress(WHOLE.tobytes()[:-20])
    path = nrrd(tmp_path / "short.nrrd", STRAIGHT, "gzip", short)
    refused(path, "1996 bytes of content where its header announces 2016")


@pytest.mark.parametrize(
    "make",
    [
        lambda p: nrrd(p / "x.nrrd", ""),
        lambda p: meta(p / "x.mha", ""),
        lambda p: meta(p / "x.mha", "elementspacing = 1 1 2\n"),
    ],
    ids=["nrrd", "mha", "mha with a field that ITK does not know"],
)
def test_no_spacing_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    refused(make(tmp_path), "no spacing in the header")


def test_the_other_spacing_of_metaimage_is_taken_and_said(tmp_path: Path) -> None:
    read = load_image(meta(tmp_path / "x.mha", "ElementSize = 0.5 0.7 3\n"), "P-07")
    assert read.image.GetSpacing() == (0.5, 0.7, 3)
    assert "no ElementSpacing in the header; ElementSize is taken in its place" in read.notes
    both = meta(tmp_path / "y.mha", "ElementSize = 9 9 9\nElementSpacing = 0.5 0.7 3\n")
    read = load_image(both, "P-07")
    assert read.image.GetSpacing() == (0.5, 0.7, 3)
    assert not any("ElementSize" in note for note in read.notes)


SCALED = "ElementSpacing = 1 1 2\nElementToIntensityFunction{} = {}\n"


def test_slope_and_offset_of_metaimage_are_used_and_said(tmp_path: Path) -> None:
    fields = SCALED.format("Slope", 0.001) + "ElementToIntensityFunctionOffset = -2\n"
    for name in ("x.mha", "x.mhd"):
        read = load_image(meta(tmp_path / name, fields), "P-07")
        np.testing.assert_allclose(
            sitk.GetArrayFromImage(read.image), WHOLE * 0.001 - 2, rtol=1e-6, atol=1e-6
        )
        assert "stored values times 0.001 plus -2, as its header says" in read.notes
    one = "ElementSpacing = 1 1 2\nElementToIntensityFunctionSlope = 1\n"
    assert not any("stored" in n for n in load_image(meta(tmp_path / "1.mha", one), "P-07").notes)
    mask = ball().astype(np.int16) * 4
    path = write(image(mask), tmp_path / "m.mha")
    head, _, voxels = path.read_bytes().partition(b"ElementDataFile")
    path.write_bytes(head + b"ElementToIntensityFunctionSlope = 0.25\nElementDataFile" + voxels)
    assert load_mask(path, "P-07").labels == {1: int(ball().sum())}


@pytest.mark.parametrize(("field", "bad"), [("Slope", "0"), ("Slope", "nan"), ("Offset", "inf")])
def test_a_slope_that_makes_no_values_is_refused(tmp_path: Path, field: str, bad: str) -> None:
    refused(meta(tmp_path / "x.mha", SCALED.format(field, bad)), "for its values in the header")


@pytest.mark.parametrize("bad", ["nan", "inf", "0", "-1"])
def test_a_spacing_that_is_none_is_refused(tmp_path: Path, bad: str) -> None:
    refused(nrrd(tmp_path / "x.nrrd", f"spacings: 1 {bad} 2\n"), "spacing that is not positive")
    refused(meta(tmp_path / "x.mha", f"ElementSpacing = 1 {bad} 2\n"), "not positive")
    path, _ = written(tmp_path, "nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 84, float(bad))
    path.write_bytes(bytes(content))
    refused(path, "spacing that is not positive")


def test_another_unit_is_refused(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "x.nrrd", STRAIGHT + 'space units: "cm" "cm" "cm"\n')
    refused(path, "a spacing in 'cm', where mm is needed")
    path = meta(tmp_path / "x.mha", "DistanceUnits = um\nElementSpacing = 1 1 2\n")
    refused(path, "a spacing in 'um'")
    read_image(nrrd(tmp_path / "y.nrrd", STRAIGHT + 'space units: "mm" "mm" "mm"\n'), "P-07")


def sheared(folder: Path, ending: str, shear: float) -> Path:
    if ending == "nrrd":
        return nrrd(folder / "x.nrrd", SPACE.format(f"(1,0,0) ({shear},1,0) (0,0,2)"))
    if ending == "mha":
        fields = f"TransformMatrix = 1 0 0 {shear} 1 0 0 0 1\nElementSpacing = 1 1 2\n"
        return meta(folder / "x.mha", fields)
    path, _ = written(folder, ending)
    content = bytearray(path.read_bytes())
    struct.pack_into("<2h", content, 252, 0, 1)
    struct.pack_into("<8f", content, 280, -1, -shear, 0, 0, 0, -1, 0, 0)
    path.write_bytes(bytes(content))
    return path


@pytest.mark.parametrize("ending", ["nii", "hdr", "nrrd", "mha"])
def test_sheared_axes_are_treated_alike(tmp_path: Path, ending: str) -> None:
    """Rounding passes in every format, also where its own reader would refuse it; shear in none."""
    for rounding in (1e-5, 0.4 * SHEAR, 0.9 * SHEAR):
        read_image(sheared(tmp_path, ending, rounding), "P-07")
    for shear in (1.2 * SHEAR, 0.05, 0.5):
        refused(sheared(tmp_path, ending, shear), "sheared axes: two of them lie ")
    assert "ITK_NIFTI_SFORM_PERMISSIVE" not in os.environ


def test_axes_without_a_direction_are_refused() -> None:
    for axes in (np.zeros((3, 3)), np.diag([1, np.nan, 1])):
        with pytest.raises(HeaderFault, match="gives an axis no direction"):
            check_axes(axes)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: meta(p / "x.mha", "ElementSpacing = 1 1 2\n", size="100000 100000 100000"),
        lambda p: nrrd(p / "x.nrrd", "sizes: 99999 99999 99999\n" + STRAIGHT, "gzip"),
    ],
    ids=["mha", "nrrd"],
)
def test_an_absurd_size_is_refused_from_the_header(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    error = refused(make(tmp_path), "voxels, more than the 1.1e+09 of the largest")
    assert "Correct the size" in error.remedy


def test_an_absurd_size_in_nifti_is_refused_though_the_file_is_as_long(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<4h", content, 40, 3, 32767, 32767, 32767)
    path.write_bytes(bytes(content))
    # Sparse: it takes no room on disk, and would take 70 TB of memory.
    os.truncate(path, 1 << 42)
    refused(path, "32767 x 32767 x 32767 voxels")
    assert MAX_VOXELS < 32767**3


def test_what_unpacks_to_more_than_announced_is_not_unpacked(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "nii.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(1 << 24)))
    refused(path, "more content than the 2368 bytes that its header announces")


@pytest.mark.parametrize("form", [None, "qform", "sform"])
def test_the_two_placements_of_nifti(tmp_path: Path, form) -> None:
    path, _ = written(tmp_path, "nii")
    whole = read_image(path, "P-07")
    content = bytearray(path.read_bytes())
    (x,) = struct.unpack_from("<f", content, 292)
    struct.pack_into("<f", content, 292, x - 3)
    path.write_bytes(bytes(content))
    if form is None:
        refused(path, "qform and sform place this image 3.0 mm apart")
        return
    read = load_image(path, "P-07", nifti_form=form).image
    moved = np.subtract(read.GetOrigin(), whole.GetOrigin())
    np.testing.assert_allclose(moved, (3 if form == "sform" else 0, 0, 0), atol=1e-5)
    np.testing.assert_allclose(read.GetDirection(), whole.GetDirection(), atol=1e-6)
    mask = np.argwhere(sitk.GetArrayViewFromImage(read) > 0)
    assert len(mask) == WHOLE.size


def test_placements_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "nii")
    content = bytearray(path.read_bytes())
    (x,) = struct.unpack_from("<f", content, 292)
    struct.pack_into("<f", content, 292, x - 0.2)
    path.write_bytes(bytes(content))
    assert load_image(path, "P-07").notes == ()


def edited(path: Path, *fields: tuple[str, int, tuple[float, ...]]) -> Path:
    """A NIfTI file with fields of its header, each a format, an offset and values, written over."""
    content = bytearray(path.read_bytes())
    for kind, offset, values in fields:
        struct.pack_into(f"<{kind}", content, offset, *values)
    path.write_bytes(bytes(content))
    return path


SFORM_ALONE = ("2h", 252, (0, 1))


@pytest.mark.parametrize("ending", ["nii", "hdr"])
@pytest.mark.parametrize("wrong", [(1, 1, 1), (1.0, 1.0, 2.003), (0.001, 0.001, 0.002)])
def test_a_sform_of_other_voxels_than_pixdim_is_refused(tmp_path: Path, ending, wrong) -> None:
    path, _ = written(tmp_path, ending)
    whole = read_image(path, "P-07")
    edited(path, SFORM_ALONE, ("3f", 80, wrong))
    for form in (None, "qform"):
        with pytest.raises(CaseError, match=r"\(pixdim\), and places them 1 x 1 x 2 mm") as caught:
            read_image(path, "P-07", nifti_form=form)
        assert "--nifti-form sform" in caught.value.remedy
    read = read_image(path, "P-07", nifti_form="sform")
    np.testing.assert_allclose(read.GetSpacing(), (1, 1, 2), rtol=1e-6)
    np.testing.assert_allclose(read.GetOrigin(), whole.GetOrigin(), atol=1e-5)


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("offset", [0.0, 348.0, -8.0, float("nan")])
def test_voxels_that_begin_in_the_header_are_refused(tmp_path: Path, ending, offset) -> None:
    path, _ = written(tmp_path, "nii")
    edited(path, ("f", 108, (offset,)))
    if ending == "nii.gz":
        packed = tmp_path / "t2.nii.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    refused(path, f"vox_offset {offset:g}, where the header alone takes 352 bytes")


def test_voxels_after_an_extension_or_in_a_file_of_their_own_are_read(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "nii")
    content = edited(path, ("f", 108, (400.0,))).read_bytes()
    path.write_bytes(content[:352] + bytes(48) + content[352:])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path, "P-07")), WHOLE)
    path, _ = written(tmp_path, "hdr")
    edited(path, ("f", 108, (0.0,)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path, "P-07")), WHOLE)


@pytest.mark.parametrize("code", [1004, 1005, 1006])
def test_an_intent_that_is_no_number_per_voxel_is_named(tmp_path: Path, code: int) -> None:
    path, _ = written(tmp_path, "nii")
    refused(edited(path, ("h", 68, (code,))), f"per voxel by its intent code, {code}")


def test_vectors_of_one_number_are_an_image(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "nii.gz")
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<h", content, 68, 1007)
    path.write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path, "P-07")), WHOLE)
    mask = edited(write(image(ball()), tmp_path / "m.nii"), ("h", 68, (1007,)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_mask(mask, "P-07")[0]), ball())


def test_a_failure_of_the_reader_in_any_step_is_one_line(tmp_path: Path, monkeypatch) -> None:
    path, _ = written(tmp_path, "nii")

    def fails(*_) -> None:
        raise RuntimeError("Exception thrown in SimpleITK:\nsitk::ERROR: no such\npixels")

    for name, read in (("Cast", load_image), ("GetArrayFromImage", load_mask)):
        with monkeypatch.context() as patched:
            patched.setattr(sitk, name, fails)
            with pytest.raises(CaseError) as caught:
                read(path, "P-07")
        assert caught.value.reason == "unreadable image (no such pixels)"
        assert (caught.value.patient_id, caught.value.file) == ("P-07", str(path))
        assert "\n" not in str(caught.value)


def test_a_sform_of_the_same_voxels_is_read(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "nii")
    edited(path, SFORM_ALONE, ("3f", 80, (1, 1.0005, 2)))
    assert load_image(path, "P-07").notes == ()
    # In metres, pixdim as much as the sform.
    rows = struct.unpack_from("<12f", path.read_bytes(), 280)
    metres = tuple(mm / 1000 for mm in rows)
    edited(path, ("3f", 80, (0.001, 0.001, 0.002)), ("12f", 280, metres), ("B", 123, (1,)))
    np.testing.assert_allclose(read_image(path, "P-07").GetSpacing(), (1, 1, 2), rtol=1e-5)


def test_no_orientation_and_an_identity_are_noted(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<2h", content, 252, 0, 0)
    path.write_bytes(bytes(content))
    assert "no orientation in the header" in load_image(path, "P-07").notes[0]
    plain = sitk.GetImageFromArray(WHOLE)
    for ending in ("nii.gz", "nrrd", "mha"):
        notes = load_image(write(plain, tmp_path / f"x.{ending}"), "P-07").notes
        assert notes[0].startswith("the affine is the identity")


def test_voxels_in_what_is_no_file_are_refused(tmp_path: Path) -> None:
    spaced = "ElementSpacing = 1 1 2\n"
    refused(meta(tmp_path / "x.mhd", spaced, data="/dev/zero"), "which is a device")
    refused(meta(tmp_path / "x.mhd", spaced, data="."), "which is a folder")
    os.mkfifo(tmp_path / "pipe")
    path = nrrd(tmp_path / "x.nhdr", STRAIGHT + "data file: pipe\n")
    refused(path, "which is a named pipe")


def cell(folder: Path, kind: str) -> str:
    if kind == "a named pipe":
        os.mkfifo(folder / "pipe")
        return "pipe"
    if kind == "a socket":
        held = socket.socket(socket.AF_UNIX)
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket is short
        held.bind("s")
        os.chdir(here)
        held.close()
        return "s"
    if kind == "a folder without files":
        (folder / "empty" / "below").mkdir(parents=True)
        return "empty"
    if kind == "a folder that cannot be read: the folder holds a named pipe":
        (folder / "series").mkdir()
        os.mkfifo(folder / "series" / "1.dcm")
        return "series"
    return {"a device": "/dev/zero", "a folder that holds the manifest itself": "."}[kind]


@pytest.mark.parametrize("column", ["t2", "gland"])
@pytest.mark.parametrize(
    "kind",
    [
        "a device",
        "a named pipe",
        "a socket",
        "a folder without files",
        "a folder that holds the manifest itself",
        "a folder that cannot be read: the folder holds a named pipe",
    ],
)
@pytest.mark.timeout(60)
def test_a_cell_that_never_ends_is_refused_at_once(tmp_path: Path, kind: str, column: str) -> None:
    good = write(image(ball()), tmp_path / "x.mha").name
    cells = {"t2": good, "gland": good} | {column: cell(tmp_path, kind)}
    text = f"patient_id,t2,gland\nP-06,{good},{good}\nP-07,{cells['t2']},{cells['gland']}\n"
    (tmp_path / "cohort.csv").write_text(text)
    cohort = read_manifest(tmp_path / "cohort.csv")
    assert [files.patient_id for files in cohort.cases] == ["P-06"]
    (error,) = cohort.set_aside
    assert error.patient_id == "P-07"
    assert error.reason.startswith(f"the {column} cell names {kind}")
    assert error.remedy


@pytest.mark.timeout(60)
def test_what_never_ends_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "a named pipe")
    refused(Path("/dev/zero"), "a device")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match=r"no file\. Give the path of a cohort manifest"):
            read_manifest(path)
    (tmp_path / "series").mkdir()
    os.mkfifo(tmp_path / "series" / "1.dcm")
    refused(tmp_path / "series", "the folder holds a named pipe, 1.dcm")


@pytest.mark.parametrize("residue", [1e-7, 1e-5, 9e-4])
def test_rounding_residue_in_a_mask_is_rounded_and_said(tmp_path: Path, residue: float) -> None:
    shift = np.random.default_rng(1).uniform(-residue, residue, ball().shape)
    path = write(image((ball() + shift).astype(np.float32)), tmp_path / "m.nii.gz")
    read = load_mask(path, "P-07")
    assert read.labels == {1: int(ball().sum())}
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read.image), ball())
    assert "off whole numbers; rounded" in read.notes[0]


def test_a_mask_of_tiny_values_is_not_empty(tmp_path: Path) -> None:
    path = write(image(ball() * np.float32(0.0009)), tmp_path / "m.nii.gz")
    with pytest.raises(CaseError, match=r"fractional values, such as 0\.0009"):
        read_mask(path, "P-07")


@pytest.mark.parametrize("ending", ["nii.gz", "mha", "nrrd"])
def test_a_mask_below_zero_is_refused_unless_values_are_named(tmp_path: Path, ending) -> None:
    voxels = (ball() * np.uint8(255)).view(np.int8)
    path = write(image(voxels), tmp_path / f"m.{ending}")
    count = int(ball().sum())
    says = re.escape(f"a mask with values below zero: -1 ({count} voxels)")
    with pytest.raises(CaseError, match=says) as caught:
        read_mask(path, "P-07")
    assert "255 in a signed byte becomes -1" in caught.value.remedy
    voxels = ball().astype(np.int16)
    voxels[:5] *= -3
    path = write(image(voxels), tmp_path / f"n.{ending}")
    with pytest.raises(CaseError, match="values below zero: -3"):
        read_mask(path, "P-07")
    mask, labels = read_mask(path, "P-07", labels=(1,))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), voxels == 1)
    assert set(labels) == {-3, 1}


def test_other_kinds_of_files_are_named(tmp_path: Path) -> None:
    for begin, says in (
        (b"II*\0" + bytes(200), "a TIFF picture"),
        (b"BM" + bytes(200), "a BMP picture"),
        (b"PK\x03\x04" + bytes(200), "a zip archive"),
        (b"hello, there", "it begins b'hello, there'"),
    ):
        (tmp_path / "t2.img2").write_bytes(begin)
        remedy = refused(tmp_path / "t2.img2", says).remedy
        assert remedy.startswith("Save it as PNG") == ("picture" in says)
    written(tmp_path, "nii")
    content = bytearray((tmp_path / "t2.nii").read_bytes())
    struct.pack_into("<i", content, 0, 540)
    (tmp_path / "t2.nii").write_bytes(bytes(content))
    assert "nibabel.Nifti1Image" in refused(tmp_path / "t2.nii", "NIfTI-2").remedy
