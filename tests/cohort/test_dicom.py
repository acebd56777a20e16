"""DICOM slices and frames: each has its own pixel type, slope and place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import pack_bits
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from lens.cohort import read_image, read_mask
from lens.cohort.images import load_image
from lens.errors import CaseError
from tests.cohort.builders import image, noise, write_series

VOXELS = np.rint(noise((5, 8, 9))).astype(np.int16)
SEG, ENHANCED = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.4.1"


def refused(path: Path, says: str) -> CaseError:
    with pytest.raises(CaseError, match=re.escape(says)) as caught:
        read_image(path, "P-07")
    assert f"patient P-07, file {path}" in str(caught.value)
    return caught.value


def series(folder: Path, edit: Callable[[Dataset, int], object]) -> Path:
    """A series whose slices are edited, from the lowest position on."""
    write_series(image(VOXELS, (0.7, 0.8, 3.0)), folder)
    files = sorted(folder.iterdir(), reverse=True)
    for k, file in enumerate(files):
        slice_ = pydicom.dcmread(file)
        edit(slice_, k)
        slice_.save_as(file)
    return folder


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(read_image(path, "P-07"))


@pytest.mark.parametrize(
    ("slopes", "intercepts"),
    [
        ((1, 0.001, 0.001, 0.001, 0.001), (0, 0, 0, 0, 0)),
        ((1, 1, 1, 1, 1), (0, -32768, 40000, -70000, 0)),
        ((1, 2, 0.5, 300, 1), (0, -1024, 0.25, 65536, 1e6)),
        ((0.25, 1, 1, 1, 1), (0, 0, 0, 0, -5)),
    ],
    ids=["slopes", "intercepts that wrap", "a mix", "the first alone is real"],
)
def test_each_slice_keeps_its_slope_and_intercept(
    tmp_path: Path, slopes: Sequence[float], intercepts: Sequence[float]
) -> None:
    def edit(slice_: Dataset, k: int) -> None:
        slice_.RescaleSlope, slice_.RescaleIntercept = slopes[k], intercepts[k]

    expected = VOXELS * np.reshape(slopes, (5, 1, 1)) + np.reshape(intercepts, (5, 1, 1))
    np.testing.assert_allclose(read(series(tmp_path / "s", edit)), expected, rtol=1e-6)


def test_unsigned_and_signed_slices_mix(tmp_path: Path) -> None:
    def edit(slice_: Dataset, k: int) -> None:
        if k == 2:
            slice_.PixelRepresentation = 0
            slice_.PixelData = np.full((8, 9), 60000, np.uint16).tobytes()

    found = read(series(tmp_path / "s", edit))
    assert np.all(found[2] == 60000)
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(VOXELS, 2, 0))


def put(**values: object) -> Callable[[Dataset, int], None]:
    """Sets attributes of one slice; None deletes."""

    def edit(slice_: Dataset, k: int) -> None:
        for name, value in values.items() if k == 3 else ():
            if value is None:
                delattr(slice_, name)
            else:
                setattr(slice_, name, value)

    return edit


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (put(PixelSpacing=None), "no PixelSpacing in the header of a slice"),
        (put(PixelSpacing=[0, 0.7]), "a PixelSpacing that is not positive"),
        (put(ImagePositionPatient=None), "no ImagePositionPatient in the header of a slice"),
        (put(ImageOrientationPatient=None), "no ImageOrientationPatient in the header"),
        (put(PhotometricInterpretation="MONOCHROME1"), "MONOCHROME1: stored inverted"),
        (put(RescaleSlope=0, RescaleIntercept=5), "a RescaleSlope of 0"),
        (put(Rows=800, Columns=900), "144 bytes of content where its header announces 1440000"),
        (put(NumberOfFrames=2, PixelData=bytes(288)), "a multi-frame file among 5 files"),
        (put(Rows=65535, Columns=65535), "65535 x 65535 x 1 voxels, more than"),
    ],
)
def test_a_slice_that_cannot_be_used_is_named(
    tmp_path: Path, edit: Callable[[Dataset, int], object], says: str
) -> None:
    folder = series(tmp_path / "s", edit)
    error = refused(folder, says)
    assert re.match(r"1-\d\d\.dcm: ", error.reason), "names the slice"


def test_what_macos_keeps_beside_a_slice_is_passed_over(tmp_path: Path) -> None:
    folder = series(tmp_path / "t2", put())
    for file in sorted(folder.iterdir()):
        (folder / f"._{file.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(4096))
    np.testing.assert_array_equal(read(folder), VOXELS)
    # GDCM passes over a slice under such a name, too, and the volume would be short.
    last = min(file for file in folder.iterdir() if not file.name.startswith("._"))
    last.rename(folder / f"._{last.name}")
    refused(folder, f"._{last.name}: a DICOM file that belongs to no series")


def test_a_cut_slice_is_refused(tmp_path: Path) -> None:
    folder = series(tmp_path / "s", put())
    file = min(folder.iterdir())
    content = file.read_bytes()
    for length in (len(content) - 1, len(content) - 150):
        file.write_bytes(content[:length])
        refused(folder, "unreadable image (")


def test_sheared_slices_are_refused(tmp_path: Path) -> None:
    def edit(slice_: Dataset, k: int) -> None:
        slice_.ImageOrientationPatient = [1, 0, 0, 0.05, np.round(np.sqrt(1 - 0.0025), 6), 0]

    refused(series(tmp_path / "s", edit), "sheared axes: two of them lie 87.13 degrees")


def test_padding_is_background_and_said(tmp_path: Path) -> None:
    def edit(slice_: Dataset, k: int) -> None:
        stored = VOXELS[k].copy()
        stored[:2] = -2000
        slice_.PixelData = stored.tobytes()
        slice_.add_new("PixelPaddingValue", "SS", -2000)

    loaded = load_image(series(tmp_path / "s", edit), "P-07")
    assert loaded.notes == ("90 voxels hold the PixelPaddingValue; set to 0",)
    expected = VOXELS.astype(np.float32)
    expected[:, :2] = 0
    np.testing.assert_array_equal(sitk.GetArrayFromImage(loaded.image), expected)


def test_padding_that_is_background_already_is_no_news(tmp_path: Path) -> None:
    def edit(slice_: Dataset, k: int) -> None:
        slice_.add_new("PixelPaddingValue", "SS", 0)

    assert load_image(series(tmp_path / "s", edit), "P-07").notes == ()


def group(**values: object) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def frames(
    path: Path,
    positions: Sequence[float],
    pixels: np.ndarray,
    extra: Callable[[Dataset, int], object] = lambda frame, k: None,
    *,
    segments: Sequence[str] = (),
) -> Path:
    """A multi-frame file with a frame per position along z."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = SEG if segments else ENHANCED
    made.file_meta.MediaStorageSOPClassUID = UID(made.SOPClassUID)
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.Modality = "SEG" if segments else "MR"
    made.NumberOfFrames, made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.PixelRepresentation = 0
    made.BitsAllocated = made.BitsStored = 1 if segments else 16
    made.HighBit = made.BitsStored - 1
    shared = Dataset()
    shared.PlaneOrientationSequence = [group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.PixelMeasuresSequence = [
        group(PixelSpacing=[0.8, 0.7], SpacingBetweenSlices=3, SliceThickness=2)
    ]
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = []
    for k, z in enumerate(positions):
        frame = Dataset()
        frame.PlanePositionSequence = [group(ImagePositionPatient=[1, 2, z])]
        extra(frame, k)
        made.PerFrameFunctionalGroupsSequence.append(frame)
    if segments:
        made.SegmentationType = "BINARY"
        made.SegmentSequence = [
            group(SegmentNumber=n, SegmentLabel=name) for n, name in enumerate(segments, 1)
        ]
        made.PixelData = pack_bits(pixels.astype(np.uint8))
    else:
        made.PixelData = pixels.astype(np.uint16).tobytes()
    made.save_as(path, enforce_file_format=True)
    return path


def test_frames_go_where_their_positions_say(tmp_path: Path) -> None:
    slopes = (1, 0.1, 2, 0.5, 3)

    def scaled(frame: Dataset, k: int) -> None:
        frame.PixelValueTransformationSequence = [
            group(RescaleSlope=slopes[k], RescaleIntercept=-k)
        ]

    path = frames(tmp_path / "e.dcm", (6, 0, 12, 3, 9), VOXELS, scaled)
    image_ = read_image(path, "P-07")
    order = [1, 3, 0, 4, 2]
    expected = [VOXELS[k] * slopes[k] - k for k in order]
    np.testing.assert_allclose(sitk.GetArrayFromImage(image_), expected, rtol=1e-6)
    np.testing.assert_allclose(image_.GetSpacing(), (0.7, 0.8, 3))
    np.testing.assert_allclose(image_.GetOrigin(), (1, 2, 0))
    (tmp_path / "series").mkdir()
    path.rename(tmp_path / "series" / "0001")
    np.testing.assert_allclose(read(tmp_path / "series"), expected, rtol=1e-6)


def test_frames_that_are_no_volume_are_refused(tmp_path: Path) -> None:
    def b_value(frame: Dataset, k: int) -> None:
        frame.MRDiffusionSequence = [group(DiffusionBValue=(50.0, 800.0)[k % 2])]

    path = tmp_path / "e.dcm"
    twice = np.concatenate([VOXELS[:4], VOXELS[:4]])
    at = [0, 0, 3, 3, 6, 6, 9, 9]
    refused(frames(path, at, twice, b_value), "with 2 b-values (50, 800) at each of 4 positions")
    refused(frames(path, at, twice), "with 2 frames at each of 4 positions (echoes")
    refused(frames(path, (0, 3, 9, 12, 15), VOXELS), "slices missing or unevenly spaced: 6.00 mm")
    made = pydicom.dcmread(frames(path, (0, 3, 6, 9, 12), VOXELS))
    made.PixelData = made.PixelData[:-2]
    made.save_as(path)
    refused(path, "718 bytes of content where its header announces 720")
    del made.PerFrameFunctionalGroupsSequence
    made.PixelData = VOXELS.tobytes()
    made.save_as(path)
    refused(path, "whose header does not say where each frame lies")
    made.NumberOfFrames, made.Rows, made.Columns = 99999, 65535, 65535
    made.save_as(path)
    refused(path, "65535 x 65535 x 99999 voxels, more than")


def test_segments_are_masks_of_their_own(tmp_path: Path) -> None:
    def of(*numbers: int) -> Callable[[Dataset, int], None]:
        return lambda frame, k: setattr(
            frame, "SegmentIdentificationSequence", [group(ReferencedSegmentNumber=numbers[k])]
        )

    whole = np.zeros((8, 9), bool)
    whole[2:6, 2:7] = True
    inner = np.zeros((8, 9), bool)
    inner[3:5, 3:5] = True
    pixels = np.stack([whole, whole, inner, inner, whole])
    # The first segment on slices 0, 1 and 4, its third and fourth left out as empty.
    path = frames(
        tmp_path / "seg.dcm", (0, 3, 0, 3, 12), pixels, of(1, 1, 2, 2, 1),
        segments=("prostate", "lesion"),
    )  # fmt: skip
    with pytest.raises(CaseError, match="2 segments: 1 prostate, 2 lesion"):
        read_mask(path, "P-07")
    for number, per_slice in ((1, (20, 20, 0, 0, 20)), (2, (4, 4, 0, 0, 0))):
        mask, counts = read_mask(path, "P-07", labels=(number,))
        assert counts == {1: 60, 2: 8}
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask).sum((1, 2)), per_slice)
        np.testing.assert_allclose(mask.GetSpacing(), (0.7, 0.8, 3))
    both, _ = read_mask(path, "P-07", labels=(1, 2))
    assert sitk.GetArrayFromImage(both).sum() == 60, "a union: they overlap"
    refused(path, "a segmentation (1 prostate, 2 lesion), no image")


def test_segments_lie_as_far_apart_as_their_frames(tmp_path: Path) -> None:
    """Of two sizes in the header, one of them wrong, the frames tell which is right."""

    def one(frame: Dataset, k: int) -> None:
        frame.SegmentIdentificationSequence = [group(ReferencedSegmentNumber=1)]

    pixels = np.ones((4, 8, 9), bool)
    path = frames(tmp_path / "seg.dcm", (0, 2, 4, 6), pixels, one, segments=("organ",))
    made = pydicom.dcmread(path)
    measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    for between, thickness in ((1, 2), (2, 1)):
        measures.SpacingBetweenSlices, measures.SliceThickness = between, thickness
        made.save_as(path)
        mask, _ = read_mask(path, "P-07")
        assert (mask.GetSize()[2], mask.GetSpacing()[2]) == (4, 2)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    made = pydicom.dcmread(frames(tmp_path / "x.dcm", (0, 3, 6, 9, 12), VOXELS))
    for name in ("Rows", "Columns", "PixelData", "NumberOfFrames"):
        delattr(made, name)
    made.Modality = "RTSTRUCT"
    made.StructureSetROISequence = [group(ROIName="GTV"), group(ROIName="bladder")]
    made.save_as(tmp_path / "x.dcm")
    assert "3D Slicer" in refused(tmp_path / "x.dcm", "an RTSTRUCT: contours of GTV, bl").remedy
    made.Modality = "SR"
    made.save_as(tmp_path / "x.dcm")
    refused(tmp_path / "x.dcm", "a DICOM file without pixels (modality SR)")
    folder = series(tmp_path / "s", put())
    refused(min(folder.iterdir()), "a single slice of DICOM")
