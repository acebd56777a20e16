"""DICOM trees: series are known by their headers, whatever their folders are called."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from lens.cohort import read_image
from lens.cohort.dicom_tree import b_value, classify, prepare_dicom
from lens.errors import InputError
from tests.cohort.archives import touch
from tests.cohort.builders import image, noise, rotation, write_series
from tests.cohort.test_dicom import VOXELS, frames, group

UID = "1.2.826.0.1.3680043.2.1125"
AXIAL = {"0020|0037": "1\\0\\0\\0\\0.95\\-0.31", "0008|0060": "MR"}
T2 = {"0018|0020": "SE", "0018|0081": "104", "0008|103e": "serie 4"}
ADC = {"0018|0020": "EP", "0008|0008": "DERIVED\\PRIMARY\\DIFFUSION\\ADC"}
HBV = {"0018|0020": "EP", "0008|103e": "ep2d_diff_tra_DYNDISTCALC_BVAL"}


@pytest.mark.parametrize(
    ("header", "modality"),
    [
        (T2, "t2"),
        (T2 | {"0018|0081": "12"}, ""),
        (T2 | {"0018|0020": "GR"}, ""),
        (T2 | {"0008|103e": "t2_localizer"}, ""),
        (T2 | {"0008|0008": "DERIVED\\SECONDARY\\MPR"}, ""),
        (T2 | {"0020|0037": "0\\1\\0\\0\\0\\-1"}, ""),
        (T2 | {"0020|0037": "1\\0\\0\\0\\0\\-1"}, ""),
        (T2 | {"0020|0037": ""}, ""),
        (ADC, "adc"),
        ({"0018|0020": "EP", "0008|103e": "dWI_ADC (10^-6 mm2/s)"}, "adc"),
        ({"0018|0020": "RM", "0008|103e": "Apparent Diffusion Coefficient"}, "adc"),
        ({"0018|0020": "EP", "0008|103e": "eADC"}, ""),
        (HBV, "dwi"),
        ({"0018|0020": "SE", "0018|0081": "80", "0018|9087": "1000"}, "dwi"),
        ({}, ""),
    ],
)
def test_what_a_header_shows(header: dict[str, str], modality: str) -> None:
    assert classify(AXIAL | header) == modality


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"0018|9087": "800"}, 800),
        ({"0019|100c": "1400 "}, 1400),
        ({"0043|1039": "1000001400\\8\\0\\0"}, 1400),
        ({"0018|0024": "*ep_b1000t"}, 1000),
        ({"0018|0024": "*ep_b50_800"}, None),
        ({"0008|103e": "DWI_b1500"}, 1500),
        ({"0008|103e": "ep2d_diff_CALC_BVAL"}, np.inf),
        ({"0008|103e": "rib2 tse"}, None),
        ({}, None),
    ],
)
def test_the_b_value_as_vendors_write_it(header: dict[str, str], expected: float | None) -> None:
    assert b_value(header) == expected


def volume(seed: int = 0) -> sitk.Image:
    return image(np.rint(noise((4, 6, 7), seed)).astype(np.int16), (1, 1, 3), rotation(x=18))


def series(root: Path, folder: str, number: int, tags: dict[str, str], patient: str = "P-1"):
    """One series; studies are told apart by patient."""
    study = {"0010|0020": patient, "0020|000d": f"{UID}.9.{patient[-1]}", "0008|0020": "20110707"}
    return write_series(
        volume(number),
        root / folder,
        f"{UID}.{patient[-1]}.{number}",
        tags={"0020|0011": str(number)} | study | tags,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "dicom"
    series(root, "1/a", 4, T2)
    series(root, "1/b", 7, ADC)
    series(root, "1/x y", 8, HBV)
    series(root, "1/sag", 3, T2 | {"0008|0008": "DERIVED\\SECONDARY\\MPR"})
    touch(root / "1/a/Thumbs.db")
    touch(tmp_path / "masks/P-1.mha")
    return root


MASKS = {"gland": "masks/{patient}.mha"}


def prepared(tree: Path, **options):
    return prepare_dicom(tree, MASKS, mask_root=tree.parent, progress=False, **options)


def reason(tree: Path) -> str:
    (error,) = prepared(tree).set_aside
    return error.reason


def test_series_are_found_by_their_headers(tree: Path) -> None:
    (row,) = prepared(tree).rows
    assert row == {
        "patient_id": "P-1",
        "study_id": f"{UID}.9.1",
        "study_date": "2011-07-07",
        "t2": tree / "1/a",
        "adc": tree / "1/b",
        "dwi": tree / "1/x y",
        "gland": tree.parent / "masks/P-1.mha",
    }


def test_a_link_to_a_folder_is_followed_once(tree: Path) -> None:
    (tree / "1/up").symlink_to(tree, target_is_directory=True)
    away = tree.parent / "elsewhere"
    shutil.move(tree / "1/b", away)
    (tree / "1/b").symlink_to(away, target_is_directory=True)
    (row,) = prepared(tree).rows
    assert row["adc"] == tree / "1/b"


def test_a_repeated_series_is_refused_or_chosen_by_number(tree: Path) -> None:
    series(tree, "1/again", 12, T2)
    assert reason(tree) == (
        f"2 series could be the t2: series 4 'serie 4' in {tree}/1/a and series 12 'serie 4' in "
        f"{tree}/1/again"
    )
    last = prepared(tree, repeated="last")
    assert last.rows[0]["t2"] == tree / "1/again"
    assert last.notes[0].taken == "took the last, series 12"
    assert prepared(tree, repeated="first").rows[0]["t2"] == tree / "1/a"


def test_a_copy_of_a_series_is_taken_once(tree: Path) -> None:
    shutil.copytree(tree / "1/a", tree / "2/copy")
    next((tree / "2/copy").glob("*.dcm")).unlink()
    both = prepared(tree)
    assert both.rows[0]["t2"] == tree / "1/a"
    found = f"series 4 lies in {tree}/1/a and in {tree}/2/copy"
    assert [(n.found, n.taken) for n in both.notes] == [(found, f"took {tree}/1/a")]


def test_the_highest_b_value_is_the_diffusion_image(tree: Path) -> None:
    for number, b in ((20, 50), (21, 800)):
        series(tree, f"1/{b}", number, {"0018|0020": "EP", "0008|103e": f"dwi b{b}"})
    assert prepared(tree).rows[0]["dwi"] == tree / "1/x y", "a computed image is the highest"
    shutil.rmtree(tree / "1/x y")
    assert prepared(tree).rows[0]["dwi"] == tree / "1/800"


def test_mixed_b_values_are_no_image(tree: Path) -> None:
    shutil.rmtree(tree / "1/x y")
    mixed = series(tree, "1/mixed", 6, {"0018|0020": "EP", "0008|103e": "dwi"})
    for file in sorted(mixed.iterdir()):
        file.rename(mixed / f"b0-{file.name}")
    series(tree, "1/mixed", 6, {"0018|0020": "EP", "0008|103e": "dwi"})
    assert reason(tree).endswith("has 8 images at 4 positions (b-values mixed)")


def test_what_a_study_lacks_is_named(tree: Path) -> None:
    shutil.rmtree(tree / "1/b")
    assert reason(tree).startswith("no adc series, judged by the headers of ")
    assert prepared(tree, modalities=("t2", "dwi")).set_aside == ()
    (tree.parent / "masks/P-1.mha").unlink()
    error = prepared(tree, modalities=("t2",)).set_aside[0]
    assert error.reason.startswith("no gland mask: nothing fits 'masks/{patient}.mha'")


def test_two_series_in_a_folder_cannot_be_named(tree: Path) -> None:
    series(tree, "1/a", 30, T2 | {"0018|0081": "12"})
    assert reason(tree) == "the folder of the t2 series holds other series too"


def test_a_tree_without_series_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "dicom" / "readme.txt")
    with pytest.raises(InputError, match="no DICOM series of MR"):
        prepared(tmp_path / "dicom")
    with pytest.raises(InputError, match="no such folder"):
        prepared(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no \{patient\}"):
        prepare_dicom(tmp_path, {"gland": "gland.mha"}, progress=False)


def enhanced(path: Path, tags: dict[str, object], positions=(0, 3, 6, 9, 12), b_values=()) -> Path:
    """An enhanced multi-frame file of patient P-1, as a scanner writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = VOXELS[np.arange(len(positions)) % len(VOXELS)]

    def extra(frame: Dataset, k: int) -> None:
        frame.MREchoSequence = [group(EffectiveEchoTime=104.0)]
        frame.PixelValueTransformationSequence = [group(RescaleSlope=k + 1, RescaleIntercept=-k)]
        if b_values:
            frame.MRDiffusionSequence = [group(DiffusionBValue=float(b_values[k % len(b_values)]))]

    header = pydicom.dcmread(frames(path, positions, pixels, extra))
    known = {"PatientID": "P-1", "StudyInstanceUID": f"{UID}.9.1", "SeriesInstanceUID": UID + ".5"}
    for name, told in (known | tags).items():
        setattr(header, name, told)
    header.save_as(path)
    return path


T2_FRAMES = {"SeriesNumber": 4, "SeriesDescription": "t2", "EchoPulseSequence": "SPIN"}
DWI_FRAMES = {"SeriesNumber": 9, "SeriesDescription": "dwi", "SeriesInstanceUID": UID + ".6"}


def test_enhanced_files_are_series_whose_frames_go_where_they_say(tree: Path) -> None:
    shutil.rmtree(tree / "1/a")
    shutil.rmtree(tree / "1/x y")
    both = tree / "1/enhanced"
    t2 = enhanced(both / "IM_1", T2_FRAMES, positions=(6, 0, 12, 3, 9))
    dwi = enhanced(both / "IM_2", DWI_FRAMES, b_values=(800,))
    found = prepared(tree)
    assert found.set_aside == ()
    (row,) = found.rows
    assert (row["t2"], row["dwi"], row["adc"]) == (t2, dwi, tree / "1/b")
    order = [1, 3, 0, 4, 2]
    expected = [VOXELS[k] * (k + 1.0) - k for k in order]
    np.testing.assert_allclose(sitk.GetArrayFromImage(read_image(t2, "P-1")), expected)


@pytest.mark.parametrize(
    ("positions", "b_values", "says"),
    [
        ((0, 0, 3, 3, 6, 6), (50, 800), "dwi: multi-frame DICOM with 2 b-values (50, 800) at each"),
        ((0, 3, 6, 60, 63, 66), (800,), "dwi: slices missing or unevenly spaced: 54.00 mm"),
        ((0, 0, 3, 3), (800,), "dwi: multi-frame DICOM with 2 frames at each of 2 positions"),
        ((0,), (800,), "dwi: an enhanced DICOM file of a single frame"),
    ],
    ids=["b-values", "two stacks", "directions", "one frame"],
)
def test_an_enhanced_file_that_is_no_volume_is_set_aside_by_name(
    tree: Path, positions: tuple[int, ...], b_values: tuple[int, ...], says: str
) -> None:
    shutil.rmtree(tree / "1/x y")
    file = enhanced(tree / "1/e/IM_1", DWI_FRAMES, positions, b_values)
    found = prepared(tree)
    assert found.rows == ()
    (error,) = found.set_aside
    assert (error.patient_id, error.file) == ("P-1", str(file))
    assert error.reason.startswith(says)
    assert error.remedy
    series(tree, "1/x y", 8, HBV)
    assert prepared(tree).rows[0]["dwi"] == tree / "1/x y", "another series can be meant"


def test_enhanced_files_that_share_a_series_are_set_aside(tree: Path) -> None:
    shutil.rmtree(tree / "1/a")
    enhanced(tree / "1/e/IM_1", T2_FRAMES)
    enhanced(tree / "1/e/IM_2", T2_FRAMES)
    assert reason(tree) == "t2: 2 multi-frame files of one series"


def test_a_segmentation_among_the_series_is_told_or_taken_by_name(tree: Path) -> None:
    def of_segment(frame: Dataset, k: int) -> None:
        frame.SegmentIdentificationSequence = [group(ReferencedSegmentNumber=1)]

    file = tree / "1/seg/P-1.dcm"
    file.parent.mkdir()
    header = pydicom.dcmread(
        frames(file, (0, 3), VOXELS[:2] > 300, of_segment, segments=("prostate",))
    )
    header.PatientID, header.StudyInstanceUID = "P-1", f"{UID}.9.1"
    header.SeriesInstanceUID, header.SeriesNumber = UID + ".7", 70
    header.SeriesDescription = "prostate"
    header.save_as(file)
    told = prepared(tree)
    assert len(told.rows) == 1
    (note,) = told.notes
    assert note.found == f"a DICOM segmentation, series 70 'prostate' in {file}"
    assert (note.patient_id, note.taken) == (
        "P-1",
        "not taken, since no pattern of a mask names it",
    )
    masks = {"gland": "1/seg/{patient}.dcm"}
    taken = prepare_dicom(tree, masks, progress=False)
    assert taken.rows[0]["gland"] == file
    assert taken.notes == ()
