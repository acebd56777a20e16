"""Reading: every format gives the same voxels, and every damaged file is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import read_image, read_mask
from lens.errors import CaseError
from tests.cohort.builders import image, noise, rotation, write, write_series

OBLIQUE = rotation(x=18.5, y=3)


@pytest.fixture
def whole() -> sitk.Image:
    return image(np.rint(noise((6, 12, 14))).astype(np.int16), (0.7, 0.8, 3.0), OBLIQUE)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mha", "mhd", "nrrd", "dicom"])
def test_every_format_gives_the_same_voxels_and_places(
    tmp_path: Path, whole: sitk.Image, suffix: str
) -> None:
    if suffix == "dicom":
        path = write_series(whole, tmp_path / "series")
    else:
        path = write(whole, tmp_path / f"image.{suffix}")
    read = read_image(path, "P-07")
    assert read.GetPixelID() == sitk.sitkFloat32
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(whole).astype(np.float32)
    )
    for index in [(0, 0, 0), (13, 11, 5), (13, 0, 2)]:
        # NIfTI holds its geometry in single precision.
        np.testing.assert_allclose(
            read.TransformIndexToPhysicalPoint(index),
            whole.TransformIndexToPhysicalPoint(index),
            atol=1e-4,
        )


def refused(path: Path, message: str) -> None:
    with pytest.raises(CaseError, match=re.escape(message)) as caught:
        read_image(path, "P-07")
    assert f"patient P-07, file {path}" in str(caught.value)
    assert caught.value.stage == "read"
    assert caught.value.remedy


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mha", "nrrd"])
def test_a_cut_off_file_is_refused(tmp_path: Path, whole: sitk.Image, suffix: str) -> None:
    path = write(whole, tmp_path / f"image.{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    refused(path, "unreadable image")


def test_a_damaged_gzip_is_refused(tmp_path: Path, whole: sitk.Image) -> None:
    path = write(whole, tmp_path / "image.nii.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(bytes(content))
    refused(path, "unreadable image")


def test_text_and_absent_files_are_refused_quietly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(tmp_path / "none.nii.gz", "no such file")
    (tmp_path / "text.mha").write_text("hello")
    refused(tmp_path / "text.mha", "unreadable image (Unable to determine ImageIO reader")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_voxel_that_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    voxels = noise()
    voxels[3, 4, 5] = value
    refused(write(image(voxels), tmp_path / "t2.mha"), "1 voxel(s) are NaN or infinite")


def test_a_constant_image_is_refused(tmp_path: Path) -> None:
    path = write(image(np.full((5, 6, 7), 41, np.int16)), tmp_path / "adc.mha")
    refused(path, "constant image: every voxel is 41")


def test_images_that_are_not_scalar_volumes_are_refused(tmp_path: Path) -> None:
    four = sitk.GetImageFromArray(np.random.default_rng(0).random((3, 4, 5, 6)), isVector=False)
    refused(write(four, tmp_path / "four.nii.gz"), "6 x 5 x 4 x 3 voxels")
    colour = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    refused(write(colour, tmp_path / "rgb.mha"), "3 components per voxel")
    flat = sitk.GetImageFromArray(noise((1, 5, 6))[0])
    refused(write(flat, tmp_path / "flat.mha"), "6 x 5 voxels")


def test_a_fourth_axis_of_length_one_is_no_axis(tmp_path: Path, whole: sitk.Image) -> None:
    four = sitk.JoinSeries([whole])
    read = read_image(write(four, tmp_path / "t2.nrrd"), "P-07")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(whole))


def test_a_folder_must_hold_one_complete_series(tmp_path: Path, whole: sitk.Image) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "the folder holds no DICOM file")
    two = write_series(whole, tmp_path / "two")
    write_series(whole, two, series_uid="1.2.826.0.1.3680043.2.1125.2")
    refused(two, "the folder holds 2 DICOM series")
    gap = write_series(whole, tmp_path / "gap", skip=(3,))
    refused(gap, "slices missing or unevenly spaced: 6.00 mm between slices 3 and 4, 3.00 mm")
    one = write_series(whole, tmp_path / "one", skip=range(1, 6))
    refused(one, "a single DICOM file")


def test_a_series_with_mixed_slices_is_refused(tmp_path: Path, whole: sitk.Image) -> None:
    twice = write_series(whole, tmp_path / "twice")
    for file in list(twice.iterdir()):
        file.rename(twice / f"b1400-{file.name}")
    write_series(whole, twice)
    refused(twice, "several slices at the same position")
    mixed = write_series(whole, tmp_path / "mixed", skip=(5,))
    turned = sitk.Image(whole)
    turned.SetDirection(rotation(y=90).ravel().tolist())
    write_series(turned, mixed, skip=range(5))
    refused(mixed, "slices of different orientations")


def test_mask_values_are_counted(tmp_path: Path) -> None:
    voxels = np.zeros((4, 5, 6), np.int16)
    voxels[1, 1, :3], voxels[2, 2, :2] = 1, 255
    mask, labels = read_mask(write(image(voxels), tmp_path / "gland.mha"), "P-07")
    assert labels == {1: 3, 255: 2}
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), (voxels > 0).astype(np.uint8))
    assert mask.GetPixelID() == sitk.sitkUInt8


def test_an_image_or_probability_map_is_no_mask(tmp_path: Path) -> None:
    soft = np.zeros((4, 5, 6), np.float32)
    soft[1:3, 1:3, 1:3] = 0.5
    with pytest.raises(CaseError, match=r"patient P-07.*soft.mha: a mask with fractional values"):
        read_mask(write(image(soft), tmp_path / "soft.mha"), "P-07")
    t2 = np.rint(noise()).astype(np.int16)
    with pytest.raises(CaseError, match="different values, which is an image rather than a mask"):
        read_mask(write(image(t2), tmp_path / "t2.mha"), "P-07")


def test_warnings_are_on_again_after_reading(tmp_path: Path, whole: sitk.Image) -> None:
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    read_image(write(whole, tmp_path / "t2.mha"), "P-07")
    assert sitk.ProcessObject.GetGlobalWarningDisplay() == before
