"""Single slices: pictures, NIfTI and DICOM, as volumes of one slice, with features in the plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import read_case, read_image, read_manifest
from lens.errors import CaseError
from lens.radiomics.extract import extract_case
from lens.radiomics.parameters import load_parameters
from tests.cohort.builders import image as volume
from tests.cohort.builders import noise, write_series

GRAY = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
DISC = (np.hypot(*(np.indices(GRAY.shape) - np.array([[[20]], [[25]]]))) < 10).astype(np.uint8)


def picture(array: np.ndarray, path: Path, colour: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=colour), str(path))
    return path


def cohort(folder: Path, header: str = "us,mass", row: str = "us.png,mass.png"):
    picture(GRAY, folder / "us.png")
    picture(DISC * np.uint8(255), folder / "mass.png")
    path = folder / "cohort.csv"
    path.write_text(f"patient_id,{header}\nP,{row}\n")
    return read_manifest(path)


def test_pictures_are_read_as_they_are_and_measured_in_pixels(tmp_path: Path) -> None:
    read = cohort(tmp_path)
    assert read.flat
    assert (read.modalities, read.rois, read.kinds) == (("us",), ("mass",), {"us": "8-bit"})
    case = read_case(read.cases[0], spacing_mm=(1.0, 1.0, 1.0))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(case.images["us"])[0], GRAY)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(case.masks["mass"])[0], DISC)
    assert any("lengths are in pixels" in note for note in case.notes)


def test_the_pixel_size_of_a_column_counts(tmp_path: Path) -> None:
    read = cohort(tmp_path, "us,mass,spacing_mm", "us.png,mass.png,0.25")
    case = read_case(read.cases[0], spacing_mm=(0.5, 0.5, 1.0))
    assert case.images["us"].GetSize() == (25, 20, 1)
    assert not any("pixels" in note for note in case.notes)


def test_features_are_of_the_plane(tmp_path: Path) -> None:
    case = read_case(cohort(tmp_path).cases[0], spacing_mm=(1.0, 1.0, 1.0))
    values = extract_case(case, load_parameters(kinds={"us": "8-bit"}, flat=True))
    images = {name.split(".")[2].split("_")[0] for name in values}
    assert images == {"original", "wavelet-LH", "wavelet-HL", "wavelet-HH", "wavelet-LL"}
    surface = values["us.mass.original_shape2D_PixelSurface"]
    assert surface == np.count_nonzero(DISC)
    assert np.isfinite(list(values.values())).all()


def test_gray_in_colour_is_gray_and_colour_is_refused(tmp_path: Path) -> None:
    path = picture(np.repeat(GRAY[..., None], 3, -1), tmp_path / "rgb.png", colour=True)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path, "P", flat=True))[0], GRAY)
    red = np.repeat(GRAY[..., None], 3, -1)
    red[:5, :5, 0] = 255 - red[:5, :5, 0]
    with pytest.raises(CaseError, match="a colour picture: 2"):
        read_image(picture(red, tmp_path / "red.png", colour=True), "P", flat=True)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_picture_cut_off_is_refused(tmp_path: Path, ending: str) -> None:
    path = picture(GRAY, tmp_path / f"whole.{ending}")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CaseError, match="cut off"):
        read_image(path, "P", flat=True)


def test_a_slice_across_any_axis_of_nifti(tmp_path: Path) -> None:
    array = noise((1, 12, 14))
    for name, turned in (("axial", array), ("sagittal", array.transpose(1, 2, 0))):
        path = tmp_path / f"{name}.nii.gz"
        sitk.WriteImage(volume(np.ascontiguousarray(turned)), str(path))
        read = read_image(path, "P", flat=True)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read)[0], array[0])


def test_a_single_dicom_slice_lies_where_it_says(tmp_path: Path) -> None:
    stored = volume(noise((3, 12, 14)).astype(np.int16), spacing=(0.5, 0.5, 3.0))
    folder = write_series(stored, tmp_path / "series", skip=(0, 2))
    (file,) = folder.iterdir()
    read = read_image(file, "P", flat=True)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(read)[0], sitk.GetArrayFromImage(stored)[1]
    )
    assert read.GetOrigin() == pytest.approx(stored.TransformIndexToPhysicalPoint((0, 0, 1)))
    with pytest.raises(CaseError, match="a single slice of DICOM, where a volume is needed"):
        read_image(file, "P")


def test_volumes_and_slices_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii.gz"
    sitk.WriteImage(volume(noise()), str(path))
    with pytest.raises(CaseError, match="where the cohort is of single slices"):
        read_image(path, "P", flat=True)
