"""All files of an image count: the one that is named, and those with its voxels."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import read_image, read_manifest, write_phantoms_on
from lens.cohort.contents import image_files, image_hash, image_stamp
from lens.errors import CaseError
from lens.files import file_hash
from tests.cohort.builders import ball, image, noise, write_series

FORMS = {
    "mhd": ("a.mhd", "a.raw"),
    "packed mhd": ("a.mhd", "a.zraw"),
    "nhdr": ("a.nhdr", "a.raw"),
    "packed nhdr": ("a.nhdr", "a.raw.gz"),
    "hdr": ("a.hdr", "a.img"),
    "img": ("a.img", "a.hdr"),
    "nii": ("a.nii.gz",),
    "mha": ("a.mha",),
}


def written(folder: Path, form: str, seed: int = 0) -> Path:
    """An image in one of the forms; gives what a manifest would name."""
    folder.mkdir(parents=True, exist_ok=True)
    named = folder / FORMS[form][0]
    sitk.WriteImage(image(np.rint(noise((4, 6, 7), seed))), str(named), form.startswith("packed"))
    return named


def changed(path: Path) -> None:
    """Another last byte, under the same size and time."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("form", FORMS)
def test_the_hash_covers_every_file_of_an_image(tmp_path: Path, form: str) -> None:
    named = written(tmp_path / "one", form)
    read_image(named, "P-07")
    assert sorted(image_files(named)) == sorted(tmp_path / "one" / name for name in FORMS[form])
    first = image_hash(named)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert image_hash(tmp_path / "two" / named.name) == first
    for file in image_files(named):
        changed(file)
        assert image_hash(named) != first, file
        changed(file)
        assert image_hash(named) == first
        stamp = image_stamp(named)
        os.utime(file, ns=(0, 0))
        assert image_stamp(named) != stamp, file


def test_an_image_of_one_file_has_the_hash_of_that_file(tmp_path: Path) -> None:
    path = written(tmp_path, "nii")
    assert image_hash(path) == file_hash(path)


def test_either_name_of_a_pair_is_the_same_image(tmp_path: Path) -> None:
    path = written(tmp_path, "hdr")
    assert image_hash(path) == image_hash(path.with_suffix(".img"))


def test_every_slice_of_a_folder_counts(tmp_path: Path) -> None:
    folder = write_series(image(np.rint(noise((4, 6, 7))).astype(np.int16)), tmp_path / "s")
    assert image_files(folder) == tuple(sorted(folder.iterdir()))
    first = image_hash(folder)
    for file in image_files(folder):
        changed(file)
        assert image_hash(folder) != first
        changed(file)
    assert image_hash(folder) == first
    next(iter(image_files(folder))).unlink()
    assert image_hash(folder) != first


@pytest.mark.parametrize("form", ["mhd", "nhdr", "hdr"])
def test_a_partner_that_is_not_there_is_another_content_and_told_by_reading(
    tmp_path: Path, form: str
) -> None:
    named = written(tmp_path, form)
    whole, partner = image_hash(named), tmp_path / FORMS[form][1]
    kept = partner.read_bytes()
    partner.unlink()
    absent = image_hash(named)
    assert absent != whole
    with pytest.raises(CaseError, match=f"its voxels are in {partner.name}, which is not there"):
        read_image(named, "P-07")
    os.mkfifo(partner)  # opening it would wait for ever
    assert image_hash(named) != whole
    partner.unlink()
    partner.write_bytes(kept)
    assert image_hash(named) == whole


def test_a_header_that_names_no_file_is_refused(tmp_path: Path) -> None:
    for form, field in (("mhd", "ElementDataFile ="), ("nhdr", "data file:")):
        named = written(tmp_path, form)
        lines = named.read_text().splitlines()
        named.write_text("\n".join(field if line.startswith(field) else line for line in lines))
        with pytest.raises(CaseError, match="its header names no file with voxels"):
            read_image(named, "P-07")
        assert image_files(named) == (named,)


def test_phantoms_are_made_again_when_the_voxels_beside_a_mask_changed(tmp_path: Path) -> None:
    mask = image(ball((12, 30, 30), 9), (1.0, 1.0, 2.0))
    sitk.WriteImage(mask, str(tmp_path / "gland.mhd"))
    (tmp_path / "cohort.csv").write_text("patient_id,gland\nP-1,gland.mhd\n")
    cohort = read_manifest(tmp_path / "cohort.csv", images=False)

    def made() -> tuple[int, bytes]:
        write_phantoms_on(cohort, tmp_path / "out", 0, spacing_mm=2.0, progress=False)
        file = tmp_path / "out" / "P-1" / "gland.mha"
        return file.stat().st_mtime_ns, file.read_bytes()

    first = made()
    assert made() == first, "nothing changed"
    smaller = image(ball((12, 30, 30), 7), (1.0, 1.0, 2.0))
    (tmp_path / "gland.raw").write_bytes(sitk.GetArrayFromImage(smaller).tobytes())
    assert made()[1] != first[1]
