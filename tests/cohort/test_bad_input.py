"""What hospital data brings: one table of inputs, each with the words that the user reads.

A row makes the input and uses it. It is refused (the message is part of the error, which also names
the patient and the file) or accepted with a note; ``PLAIN`` rows are accepted without remark.
"""

from __future__ import annotations

import re
import shutil
import struct
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import Case, CaseFiles, read_case, read_manifest
from lens.cohort.patterns import prepare_patterns
from lens.cohort.picai import prepare_picai
from lens.errors import CaseError, InputError
from tests.cohort.archives import ROWS, STUDIES, WHOLE, picai, touch
from tests.cohort.builders import (
    ball,
    case_files,
    image,
    noise,
    rotation,
    write,
    write_series,
)

SPACING = (1.0, 1.0, 2.0)
WHOLE_NUMBERS = np.rint(noise(seed=4)).astype(np.int16)


def use(files: CaseFiles, **options) -> Case:
    return read_case(files, spacing_mm=SPACING, **options)


def good(folder: Path, **changed: sitk.Image) -> CaseFiles:
    """An unremarkable case with some of its images exchanged."""
    content = {"t2": image(noise(seed=1)), "gland": image(ball())}
    return case_files(folder, **(content | changed))


def files(folder: Path, **changed: Path) -> CaseFiles:
    """An unremarkable case with some of its files exchanged."""
    made = good(folder)
    images = made.images | {k: v for k, v in changed.items() if k in ("t2", "dwi", "adc")}
    masks = made.masks | {k: v for k, v in changed.items() if k in ("gland", "lesion")}
    return CaseFiles("P-07", None, images, masks, {}, None)


def with_images(**changed: sitk.Image) -> Callable[[Path], Case]:
    return lambda folder: use(good(folder, **changed))


def with_t2(name: str, make: Callable[[Path], object]) -> Callable[[Path], Case]:
    """A case whose T2 file `name` is made by a function of its path."""

    def run(folder: Path) -> Case:
        path = folder / name
        make(path)
        return use(files(folder, t2=path))

    return run


def cut(path: Path) -> None:
    write(image(WHOLE_NUMBERS), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def flip_last_bytes(path: Path) -> None:
    write(image(WHOLE_NUMBERS), path)
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(bytes(content))


def patched(offset: int, form: str, *values: float, of: np.ndarray = WHOLE_NUMBERS):
    """A NIfTI file with other values in its header."""

    def make(path: Path) -> None:
        write(image(of), path)
        content = bytearray(path.read_bytes())
        struct.pack_into(form, content, offset, *values)
        path.write_bytes(bytes(content))

    return make


def sheared(path: Path) -> None:
    patched(280, "<4f", -1, -0.5, 0, 0)(path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<hh", content, 252, 0, 1)
    path.write_bytes(bytes(content))


def renamed(suffix: str) -> Callable[[Path], object]:
    """A file with the content of another kind."""

    def make(path: Path) -> None:
        write(image(WHOLE_NUMBERS), path.parent / f"other{suffix}").rename(path)

    return make


def headless(path: Path) -> None:
    write(image(WHOLE_NUMBERS), path)
    (path.parent / "t2.raw").unlink()


def at(value: float) -> np.ndarray:
    voxels = noise()
    voxels[3, 4, 5] = value
    return voxels


def region(where, value: int = 1) -> sitk.Image:
    voxels = np.zeros((10, 20, 20), np.int16)
    voxels[where] = value
    return image(voxels)


def series(**options) -> Callable[[Path], object]:
    return lambda folder: write_series(image(WHOLE_NUMBERS), folder, **options)


def two_series(folder: Path) -> None:
    series()(folder)
    series(series_uid="1.2.826.0.1.3680043.2.1125.2")(folder)


def copied_slices(folder: Path) -> None:
    series()(folder)
    for file in list(folder.iterdir()):
        shutil.copy(file, folder / f"copy of {file.name}")


def one_slice_copied(folder: Path) -> None:
    series()(folder)
    file = min(folder.iterdir())
    shutil.copy(file, folder / f"copy of {file.name}")


def with_localizer(folder: Path) -> None:
    series(skip=(9,))(folder)
    turned = image(WHOLE_NUMBERS)
    turned.SetDirection(rotation(y=90).ravel().tolist())
    write_series(turned, folder, skip=range(9))


def with_other_size(folder: Path) -> None:
    series(skip=(9,))(folder)
    write_series(image(WHOLE_NUMBERS[:, :18, :18]), folder, skip=range(9))


def shifted_slice(folder: Path) -> None:
    series(skip=(9,))(folder)
    write_series(image(WHOLE_NUMBERS, centre=(3, 0, 0)), folder, skip=range(9))


def scaled_mask(folder: Path) -> Case:
    patched(112, "<ff", 1 / 255, 0, of=ball())(folder / "gland.nii")
    return use(files(folder, gland=folder / "gland.nii"))


def mask_without_affine(folder: Path) -> Case:
    patched(252, "<hh", 0, 0, of=ball())(folder / "gland.nii")
    return use(files(folder, gland=folder / "gland.nii"))


def same_file_twice(folder: Path) -> Case:
    return use(files(folder, adc=folder / "t2.mha"))


def chosen(labels: dict[str, Sequence[int]], **changed: sitk.Image) -> Callable[[Path], Case]:
    return lambda folder: use(good(folder, **changed), labels=labels)


def listed(text: str, encoding: str = "utf-8") -> Callable[[Path], Case]:
    """The first case of a manifest about the files of an unremarkable case."""

    def run(folder: Path) -> Case:
        good(folder)
        (folder / "cohort.csv").write_bytes(text.encode(encoding))
        cohort = read_manifest(folder / "cohort.csv")
        return use(cohort.cases[0])

    return run


def under(*names: str) -> Callable[[Path], Case]:
    """A case in a folder of that name, by way of a manifest beside it."""

    def run(folder: Path) -> Case:
        good(folder.joinpath(*names))
        row = ",".join(f'"{"/".join(names)}/{name}.mha"' for name in ("t2", "gland"))
        text = f"patient_id,t2,gland\nP-07,{row}\n"
        (folder / "cohort.csv").write_text(text, encoding="utf-8")
        return use(read_manifest(folder / "cohort.csv").cases[0])

    return run


def linked(folder: Path) -> Case:
    """A link that leads out of the folder of the cohort, to a folder of images."""
    good(folder / "archive")
    (folder / "cohort").mkdir()
    (folder / "cohort" / "images").symlink_to("../archive", target_is_directory=True)
    text = "patient_id,t2,gland\nP-07,images/t2.mha,images/gland.mha\n"
    (folder / "cohort" / "cohort.csv").write_text(text)
    return use(read_manifest(folder / "cohort" / "cohort.csv").cases[0])


def broken_link(folder: Path) -> Case:
    (folder / "t2.mha").symlink_to("/annex/objects/t2.mha")
    return use(files(folder / "good", t2=folder / "t2.mha"))


def broken_link_in_manifest(folder: Path) -> Case:
    good(folder)
    (folder / "t2.mha").unlink()
    (folder / "t2.mha").symlink_to("/annex/objects/t2.mha")
    (folder / "cohort.csv").write_text("patient_id,t2,gland\nP-07,t2.mha,gland.mha\n")
    return use(read_manifest(folder / "cohort.csv").cases[0])


def archive(edit: Callable[[Path, Path], object], rows: tuple[str, ...] = ROWS):
    """The first reason for which a study of an edited archive is set aside."""

    def run(folder: Path) -> None:
        images, labels = picai(folder, rows)
        edit(images, labels)
        raise prepare_picai(images, labels).set_aside[0]

    return run


def marksheet(pirads: str) -> Callable[[Path], Case]:
    """The notes on an archive whose first study has this cell."""

    def run(folder: Path) -> Case:
        images, labels = picai(folder, (ROWS[0].replace('"4,2"', pirads), *ROWS[1:]))
        notes = prepare_picai(images, labels).notes
        return Case("10000", "1000000", {}, {}, tuple(map(str, notes)))

    return run


def ambiguous_pattern(folder: Path) -> None:
    for name in ("a_T2w.nii.gz", "b_T2w.nii.gz", "gland.nii.gz"):
        touch(folder / "sub-01" / name)
    patterns = {"t2": "sub-{patient}/*_T2w.nii.gz", "gland": "sub-{patient}/gland.nii.gz"}
    raise prepare_patterns(folder, patterns).set_aside[0]


REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    # Files that are not what they seem.
    ("absent file", with_t2("gone.mha", lambda p: None), "no such"),
    ("empty file", with_t2("t2.nii.gz", lambda p: p.write_bytes(b"")), "is empty (0"),
    ("truncated gzip", with_t2("t2.nii.gz", cut), "damaged or cut-off compression"),
    ("damaged gzip", with_t2("t2.nii.gz", flip_last_bytes), "damaged or cut-off compression: CRC"),
    ("truncated NIfTI", with_t2("t2.nii", cut), "bytes of content where its header announces 8352"),
    ("truncated MHA", with_t2("x.mha", cut), "bytes of content where its header announces 8000"),
    ("truncated NRRD", with_t2("t2.nrrd", cut), "bytes of content where its header announces 8000"),
    ("text", with_t2("x.mha", lambda p: p.write_text("hi")), "no ElementDataFile in its header"),
    (
        "a web page saved as an image",
        with_t2("t2.nii.gz", lambda p: p.write_text("<html>log in</html>")),
        "named .nii.gz but not compressed (begins b'<html>log in",
    ),
    ("compressed without saying so", with_t2("t2.nii", renamed(".nii.gz")), "named .nii but compr"),
    (
        "MHD without its voxels",
        with_t2("t2.mhd", headless),
        "its voxels are in t2.raw, which is not",
    ),
    ("broken link", broken_link, "a link to /annex/objects/t2.mha, which does not exist"),
    # Not one volume of numbers.
    (
        "4D",
        with_t2("t2.nii.gz", lambda p: write(sitk.JoinSeries([image(noise())] * 3), p)),
        "20 x 20 x 10 x 3 voxels, where a 3D volume",
    ),
    (
        "RGB",
        with_images(t2=sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)),
        "3 components per voxel, such as colour",
    ),
    (
        "complex",
        with_t2("t2.nii", lambda p: write(sitk.Cast(image(noise()), sitk.sitkComplexFloat32), p)),
        "complex voxels",
    ),
    (
        "a picture",
        with_t2("t2.png", lambda p: write(sitk.GetImageFromArray(ball()[5]), p)),
        "a PNG picture, a single slice where a 3D volume is needed",
    ),
    ("a single slice", with_images(t2=image(noise((1, 20, 20)))), "20 x 20 x 1 voxels"),
    ("NaN", with_images(t2=image(at(np.nan))), "1 voxel(s) are NaN or infinite"),
    ("infinity", with_images(t2=image(at(np.inf))), "1 voxel(s) are NaN or infinite"),
    (
        "NaN in the second image",
        with_images(adc=image(at(np.nan))),
        "adc.mha: 1 voxel(s) are NaN or infinite",
    ),
    ("constant", with_images(t2=image(np.full((5, 6, 7), 41.0))), "every voxel is 41"),
    (
        "constant in the gland",
        with_images(t2=image(np.where(ball(radius=8) > 0, 7.0, noise()))),
        "constant image: every t2 voxel of the gland is 7",
    ),
    # Headers.
    ("negative spacing", with_t2("t2.nii", patched(80, "<f", -1)), "not positive: -1 x 1 x 2"),
    ("spacing of zero", with_t2("t2.nii", patched(84, "<f", 0)), "not positive: 1 x 0 x 2"),
    ("spacing in metres", with_t2("t2.nii", patched(123, "<B", 1)), "1000 x 1000 x 2000 mm, which"),
    ("sheared axes", with_t2("t2.nii", sheared), "sheared axes: two of them lie 63.43 degrees"),
    # DICOM folders.
    ("no DICOM in the folder", with_t2("s", lambda p: touch(p / "a.txt")), "holds no DICOM file"),
    ("an empty folder", with_t2("s", lambda p: p.mkdir()), "holds no DICOM file"),
    ("two series", with_t2("s", two_series), "the folder holds 2 DICOM series"),
    ("a slice missing", with_t2("s", series(skip=(3,))), "4.00 mm between slices 3 and 4, 2.00 mm"),
    ("a lone slice", with_t2("s", series(skip=range(1, 10))), "a single DICOM file"),
    ("every slice twice", with_t2("s", copied_slices), "several slices at the same position"),
    ("one slice twice", with_t2("s", one_slice_copied), "several slices at the same position"),
    ("a localizer among the slices", with_t2("s", with_localizer), "slices of different orient"),
    (
        "a slice of another size",
        with_t2("s", with_other_size),
        "slices of different sizes or pixel",
    ),
    ("a slice beside the others", with_t2("s", shifted_slice), "shifted in their own plane by up"),
    # Masks.
    (
        "probability map",
        with_images(gland=image(ball() * np.float32(0.5))),
        "a mask with fractional values, such as 0.5",
    ),
    (
        "negative values in a mask",
        with_images(gland=image(ball().astype(np.int16) * 2 - 1)),
        "a mask with values below zero: -1 (3536 voxels)",
    ),
    ("an image as mask", with_images(gland=image(WHOLE_NUMBERS)), "an image rather than a mask"),
    ("empty gland", with_images(gland=region(np.s_[0:0])), "the gland mask is empty"),
    (
        "a single voxel",
        with_images(lesion=region(np.s_[5, 9, 9])),
        "too small: 1 voxel(s), 1 x 1 x",
    ),
    ("a line", with_images(gland=region(np.s_[5, 9, 4:14])), "too small: 10 voxel(s), 10 x 1 x 1"),
    (
        "a sheet",
        with_images(lesion=region(np.s_[5, 4:9, 4:9])),
        "too small: 25 voxel(s), 5 x 5 x 1",
    ),
    (
        "a label that is not there",
        chosen({"gland": (2,)}),
        "the gland mask has no voxel of label 2 (it holds 1 (464 voxels))",
    ),
    (
        "lesion outside the gland",
        with_images(lesion=region(np.s_[1:4, 0:3, 0:3])),
        "the lesion lies entirely outside the gland",
    ),
    ("the gland as lesion", with_images(lesion=image(ball())), "the lesion is the whole gland"),
    # Grids.
    (
        "wrong affine",
        mask_without_affine,
        "the gland mask is not on the grid of t2: centres 16.17 mm apart; it may not be resampled",
    ),
    (
        "another grid, turned",
        with_images(gland=image(ball((12, 14, 14)), (2, 2, 2.5), rotation(x=10), (0, 3, 4))),
        "the gland mask is not on the grid of t2: size 14 x 14 x 12 against 20 x 20 x 10, spacing "
        "2 x 2 x 2.5 mm against 1 x 1 x 2 mm, axes turned by 10.0 degrees, centres 5.00 mm apart",
    ),
    (
        "one voxel aside",
        with_images(gland=image(ball(), centre=(1, 0, 0))),
        "along x it reaches from 1.0 to 21.0 mm, where the image reaches from 0 to 20.0 mm",
    ),
    (
        "half a voxel aside",
        with_images(lesion=image(ball((10, 20, 21), 4))),
        "its voxels are of the same size but lie 0.50 voxel beside those of the image",
    ),
    (
        "an image that misses the gland",
        with_images(adc=image(noise((12, 14, 14)), (2, 2, 2.5), centre=(12, 0, 0))),
        "adc does not cover the gland: ",
    ),
    # Modalities.
    (
        "swapped modalities",
        with_images(adc=image(noise() / 20), dwi=image(noise(seed=9) + 800)),
        "adc and dwi look swapped",
    ),
    ("one file as two modalities", same_file_twice, "t2 and adc name the same file"),
    # Manifests.
    (
        "semicolons",
        listed("patient_id;t2;gland\nP-07;t2.mha;gland.mha\n"),
        "the header is one cell, 'patient_id;t2;gland'. Separate columns by commas",
    ),
    (
        "backslashes",
        listed("patient_id,t2,gland\nP-07,img\\t2.mha,gland.mha\n"),
        "Write / rather than \\ between folders",
    ),
    (
        "a manifest in UTF-16",
        listed("patient_id,t2,gland\nP-07,t2.mha,gland.mha\n", "utf-16"),
        "not readable as UTF-8",
    ),
    (
        "a broken link in the manifest",
        broken_link_in_manifest,
        "the t2 file is a link to /annex/objects/t2.mha, which does not exist",
    ),
    # Archives.
    (
        "duplicate series: a study in two folds",
        archive(lambda i, _: shutil.copytree(i / "10000", i / "fold1" / "10000")),
        "10000_1000000_t2w.mha and ",
    ),
    (
        "an interrupted download",
        archive(lambda i, _: (i / "10000/10000_1000000_hbv.mha").write_bytes(b"")),
        "the dwi file is empty (0 bytes)",
    ),
    (
        "a study without a gland",
        archive(lambda _, labels: (labels / WHOLE / f"{STUDIES[0]}.nii.gz").unlink()),
        "no gland mask of study 1000000",
    ),
    (
        "two rows that disagree",
        archive(lambda i, _: None, (*ROWS, ROWS[0].replace("7.7", "7.8"))),
        "lines 2 and 5 say different things about study 1000000",
    ),
    ("two files for one pattern", ambiguous_pattern, "2 files could be the t2: "),
]


@pytest.mark.parametrize(("make", "says"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused_with_the_reason(
    tmp_path: Path, make: Callable[[Path], object], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        make(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message, "names the file"
    if isinstance(caught.value, CaseError):
        assert caught.value.patient_id in message
        assert caught.value.remedy
    assert "Traceback" not in "".join(capfd.readouterr())


NOTED: list[tuple[str, Callable[[Path], Case], str]] = [
    (
        "int mask stored as 0.0039",
        scaled_mask,
        "gland: mask values of 1/255, a scale factor in the header; taken as 1",
    ),
    (
        "mask of 0 and 255",
        with_images(gland=image(ball() * np.uint8(255))),
        "gland: mask values 255 (464 voxels); every value above 0 is taken as gland",
    ),
    (
        "empty lesion mask",
        with_images(lesion=region(np.s_[0:0])),
        "lesion: the mask is empty, taken as no lesion",
    ),
    (
        "lesion partly outside the gland",
        with_images(lesion=region(np.s_[3:7, 8:12, 0:10])),
        "of its volume lies outside the gland, and is kept",
    ),
    (
        "axes stored the other way",
        with_images(gland=image(ball())[::-1, :, ::-1]),
        "gland: stored with flipped or permuted axes, put in order (exact)",
    ),
    (
        "negative spacing that means a flipped axis",
        with_t2("x.mha", lambda p: write(image(noise())[::-1], p)),
        "t2: axes stored as RPS, put in LPS order (exact)",
    ),
    (
        "rounded header",
        with_images(gland=image(ball(), direction=rotation(z=0.4))),
        "gland: geometry snapped to t2, which it left by up to",
    ),
    (
        "mask on its own grid",
        with_images(gland=image(ball((20, 40, 40), 6, (0.5, 0.5, 1)), (0.5, 0.5, 1))),
        "of 0.5 x 0.5 x 1 mm of its own, resampled (nearest neighbour; Dice 0.9",
    ),
    (
        "ADC in mm2/s",
        with_images(adc=image((noise() + 800) * np.float32(1e-6))),
        "means mm2/s; multiplied by 1e+06 to 1e-6 mm2/s",
    ),
    (
        "an odd ADC map",
        with_images(adc=image(noise() / 10)),
        "fits no unit of ADC (300 to 3500 expected in 1e-6 mm2/s); left as it is",
    ),
    (
        "a marksheet with two PIRADS values, one of them none",
        marksheet('"4,6"'),
        "patient 10000, study 1000000, pirads: '4,6': 6 is no PIRADS category; taken as 4",
    ),
    (
        "a marksheet with words for PIRADS",
        marksheet("high"),
        "pirads: 'high': high is no PIRADS category; taken as blank",
    ),
]


@pytest.mark.parametrize(("make", "says"), [r[1:] for r in NOTED], ids=[r[0] for r in NOTED])
def test_accepted_with_a_note(tmp_path: Path, make: Callable[[Path], Case], says: str) -> None:
    notes = make(tmp_path).notes
    assert [says in note for note in notes].count(True) == 1, notes


DECOMPOSED = unicodedata.normalize("NFD", "Zoë")

PLAIN: list[tuple[str, Callable[[Path], Case]]] = [
    ("spaces in paths", under("hospital data (2019)", "P 07")),
    ("commas and quotes in paths", under("Müller, J.", "it's 7")),
    ("other scripts in paths", under("前列腺", "пациент 7")),
    ("decomposed letters in paths", under(DECOMPOSED)),
    ("a link out of the cohort's folder", linked),
    ("a byte-order mark", listed("\ufeffpatient_id,t2,gland\nP-07,t2.mha,gland.mha\n")),
    (
        "line ends of other systems",
        listed("patient_id,t2,gland\r\nP-07, t2.mha ,gland.mha\r\n\r\n"),
    ),
    (
        "a fourth axis of length one",
        with_t2("x.nrrd", lambda p: write(sitk.JoinSeries([image(noise())]), p)),
    ),
    (
        "capital letters in the suffix",
        with_t2("X.NII.GZ", lambda p: renamed(".nii.gz")(p)),
    ),
]


@pytest.mark.parametrize("make", [r[1] for r in PLAIN], ids=[r[0] for r in PLAIN])
def test_accepted_without_remark(tmp_path: Path, make: Callable[[Path], Case]) -> None:
    case = make(tmp_path)
    assert case.notes == ()
    assert sitk.GetArrayFromImage(case.masks["gland"]).sum() == ball().sum()


def test_the_table_is_as_long_as_it_claims() -> None:
    names = [row[0] for row in (*REFUSED, *NOTED, *PLAIN)]
    assert len(set(names)) == len(names) >= 70
