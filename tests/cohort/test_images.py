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


def test_text_and_absent_files_are_refused_quietly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(tmp_path / "none.nii.gz", "no such file")
    (tmp_path / "text.mha").write_text("hello")
    refused(tmp_path / "text.mha", "unreadable image (no ElementDataFile in its header)")
    assert capfd.readouterr() == ("", "")


def test_a_fourth_axis_of_length_one_is_no_axis(tmp_path: Path, whole: sitk.Image) -> None:
    four = sitk.JoinSeries([whole])
    read = read_image(write(four, tmp_path / "t2.nrrd"), "P-07")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(whole))


def test_mask_values_are_counted(tmp_path: Path) -> None:
    voxels = np.zeros((4, 5, 6), np.int16)
    voxels[1, 1, :3], voxels[2, 2, :2] = 1, 255
    mask, labels = read_mask(write(image(voxels), tmp_path / "gland.mha"), "P-07")
    assert labels == {1: 3, 255: 2}
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), (voxels > 0).astype(np.uint8))
    assert mask.GetPixelID() == sitk.sitkUInt8


def test_warnings_are_on_again_after_reading(tmp_path: Path, whole: sitk.Image) -> None:
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    read_image(write(whole, tmp_path / "t2.mha"), "P-07")
    assert sitk.ProcessObject.GetGlobalWarningDisplay() == before
