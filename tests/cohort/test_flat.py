"""Single slices: pictures, NIfTI and DICOM, as volumes of one slice, with features in the plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

from lens.cohort import Case, read_case, read_image, read_manifest, read_mask
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


def on(folder: Path, mask: sitk.Image, picture: sitk.Image | None = None, **files: str) -> Case:
    """The case of an image, by default a picture, and a mask written under these names."""
    names = {"us": "us.png", "mass": "mass.png"} | files
    sitk.WriteImage(picture or sitk.GetImageFromArray(GRAY), str(folder / names["us"]))
    sitk.WriteImage(mask, str(folder / names["mass"]))
    path = folder / "cohort.csv"
    path.write_text(f"patient_id,us,mass\nP,{names['us']},{names['mass']}\n")
    return read_case(read_manifest(path).cases[0], spacing_mm=(1.0, 1.0, 1.0))


@pytest.mark.parametrize("other", ["larger", "turned", "one row more"])
def test_a_mask_of_another_size_is_not_laid_on_a_picture(tmp_path: Path, other: str) -> None:
    shape = {"larger": (80, 100), "turned": GRAY.T.shape, "one row more": (41, 50)}[other]
    drawn = np.zeros(shape, np.uint8)
    drawn[10:30, 12:30] = 1
    with pytest.raises(CaseError, match="pictures have no position") as caught:
        on(tmp_path, sitk.GetImageFromArray(drawn))
    assert "to the 50 x 40 pixels of us" in str(caught.value)
    assert caught.value.file.endswith("mass.png")


def test_a_second_picture_of_another_size_is_set_aside(tmp_path: Path) -> None:
    picture(GRAY, tmp_path / "us.png")
    picture(np.kron(GRAY, np.ones((2, 2), np.uint8)), tmp_path / "cxr.png")
    path = tmp_path / "cohort.csv"
    path.write_text("patient_id,us,cxr\nP,us.png,cxr.png\n")
    with pytest.raises(CaseError, match="cxr cannot be laid on us pixel by pixel"):
        read_case(read_manifest(path).cases[0])


def slice_of(array: np.ndarray, spacing: float, sign: float = 1.0) -> sitk.Image:
    direction = np.diag([sign, sign, 1.0])
    return volume(array[None], spacing=(spacing, spacing, 1.0), direction=direction)


def test_a_picture_takes_the_place_of_what_has_one_pixel_by_pixel(tmp_path: Path) -> None:
    case = on(tmp_path, slice_of(DISC, 0.3), mass="mass.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(case.masks["mass"])[0], DISC)
    assert any("mass: laid on us pixel by pixel" in note for note in case.notes)
    image = slice_of(GRAY.astype(np.float32), 1.0)
    case = on(tmp_path, sitk.GetImageFromArray(DISC), image, us="us.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(case.masks["mass"])[0], DISC)
    turned = slice_of(DISC, 1.0, -1.0)
    with pytest.raises(CaseError, match="cannot be laid on us"):
        on(tmp_path, turned, mass="turned.nii.gz")


def test_a_gray_picture_with_a_transparency_is_gray(tmp_path: Path) -> None:
    from PIL import Image

    alpha = np.full_like(GRAY, 255)
    path = tmp_path / "la.png"
    Image.fromarray(np.dstack([GRAY, alpha])).save(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path, "P", flat=True))[0], GRAY)
    alpha[:10] = 0
    Image.fromarray(np.dstack([GRAY, alpha])).save(path)
    with pytest.raises(CaseError, match="a picture that is transparent in places"):
        read_image(path, "P", flat=True)
    content = bytearray(path.read_bytes())
    content[24] = 16
    path.write_bytes(content)
    with pytest.raises(CaseError, match="16-bit gray values with a transparency"):
        read_image(path, "P", flat=True)


def ultrasound(path: Path, colours: np.ndarray, how: str) -> Path:
    """A DICOM file of (y, x, 3) pixels, with a pixel size in its ultrasound region alone."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = UltrasoundImageStorage
    header.SOPInstanceUID = generate_uid()
    header.StudyInstanceUID, header.SeriesInstanceUID = generate_uid(), generate_uid()
    header.Modality, header.PatientID = "US", "P"
    header.Rows, header.Columns = colours.shape[:2]
    header.BitsAllocated, header.BitsStored, header.HighBit = 8, 8, 7
    header.PixelRepresentation = 0
    header.SamplesPerPixel, header.PlanarConfiguration = 3, int(how == "planes")
    header.PhotometricInterpretation = "YBR_FULL" if how == "YBR_FULL" else "RGB"
    stored = colours
    if how == "YBR_FULL":
        stored = np.dstack([colours[..., 0], *[np.full(colours.shape[:2], 128)] * 2])
    stored = stored.transpose(2, 0, 1) if how == "planes" else stored
    header.PixelData = stored.astype(np.uint8).tobytes()
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, -0.03
    header.SequenceOfUltrasoundRegions = [region]
    header.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("how", ["pixels", "planes", "YBR_FULL"])
def test_gray_dicom_in_colour_is_gray_and_colour_is_refused(tmp_path: Path, how: str) -> None:
    colours = np.repeat(GRAY[..., None], 3, -1)
    path = ultrasound(tmp_path / "us.dcm", colours, how)
    read = read_image(path, "P", flat=True)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read)[0], GRAY)
    assert read.GetSpacing()[:2] == pytest.approx((0.2, 0.3)), "of its ultrasound region, in mm"
    header = pydicom.dcmread(path)
    header.SequenceOfUltrasoundRegions.append(Dataset())
    other = header.SequenceOfUltrasoundRegions[1]
    other.PhysicalUnitsXDirection = other.PhysicalUnitsYDirection = 3
    other.PhysicalDeltaX = other.PhysicalDeltaY = 0.01
    header.save_as(path)
    assert read_image(path, "P", flat=True).GetSpacing()[:2] == (1, 1), "regions that disagree"
    with pytest.raises(CaseError, match="a colour image"):
        read_image(path, "P")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CaseError, match=r"cut off|truncated|bytes"):
        read_image(path, "P", flat=True)
    if how != "YBR_FULL":
        colours[:5, :5, 0] = 255 - colours[:5, :5, 0]
        with pytest.raises(CaseError, match="a colour picture: 2"):
            read_image(ultrasound(tmp_path / "red.dcm", colours, how), "P", flat=True)


def test_a_single_slice_among_volumes_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "slice.nii.gz"
    sitk.WriteImage(slice_of(GRAY.astype(np.float32), 1.0), str(path))
    for file in (path, picture(GRAY, tmp_path / "us.png")):
        with pytest.raises(CaseError, match="a single slice where a 3D volume") as caught:
            read_image(file, "P")
        assert "cohorts of their own" in caught.value.remedy
        assert "4D" not in str(caught.value)


def test_a_picture_that_is_shown_turned_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    path, exif = tmp_path / "us.jpg", Image.Exif()
    for turn in (1, 6):
        exif[0x0112] = turn
        Image.fromarray(GRAY).save(path, exif=exif)
        if turn == 1:
            assert read_image(path, "P", flat=True).GetSize() == (*GRAY.shape[::-1], 1)
    with pytest.raises(CaseError, match=r"EXIF orientation \(6\) shows it turned"):
        read_image(path, "P", flat=True)


def test_masks_in_colour_or_blurred_are_told_how_to_save_them(tmp_path: Path) -> None:
    from PIL import Image

    colours = Image.fromarray(DISC).convert("P")
    colours.putpalette([0, 0, 0, 128, 0, 0])
    blurred = Image.fromarray(DISC * np.uint8(255)).resize((75, 60), Image.Resampling.BICUBIC)
    transparent = Image.fromarray(np.dstack([DISC * np.uint8(255)] * 4))
    for mask, reason, remedy in (
        (colours, "a colour picture", "the gray value is the number of the label"),
        (transparent, "transparent in places", "the gray value is the number of the label"),
        (blurred, "rather than a mask", "JPEG and smooth scaling blur a mask: save it as PNG"),
    ):
        mask.save(tmp_path / "mass.png")
        with pytest.raises(CaseError, match=reason) as caught:
            read_mask(tmp_path / "mass.png", "P", flat=True)
        assert remedy in caught.value.remedy
    Image.fromarray(DISC * np.uint8(255)).save(tmp_path / "mass.jpg", quality=95)
    with pytest.raises(CaseError, match="different values, as JPEG changes them"):
        read_mask(tmp_path / "mass.jpg", "P", flat=True)
