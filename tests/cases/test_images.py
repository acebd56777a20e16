"""Image files behind public bug reports: read rightly, or refused with the cause and its remedy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import Case, CaseFiles, read_case, read_image, read_mask
from lens.cohort.images import load_mask
from lens.errors import CaseError
from lens.settings import NiftiForm

SHARED_CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
STORED = (0.6, 0.6, 3.0)
"""Spacing at which the grid of a case is that of its files."""


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of inputs behind bug reports; tests that need it skip where it is absent."""
    if not SHARED_CASES.is_dir():
        pytest.skip("the inputs behind bug reports are not part of the repository and not here")
    return SHARED_CASES


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def truth(cases: Path, name: str) -> np.ndarray:
    return array(sitk.ReadImage(str(cases / "grid" / f"{name}.nii")))


def case(
    cases: Path,
    gland: str = "grid/gland.nii",
    labels: dict[str, tuple[int, ...]] | None = None,
    form: NiftiForm | None = None,
    lesion: str | None = None,
    spacing: tuple[float, float, float] = STORED,
    **images: str,
) -> Case:
    masks = {"gland": cases / gland} | ({"lesion": cases / lesion} if lesion else {})
    paths = {name: cases / path for name, path in images.items()}
    files = CaseFiles("P1", None, paths, masks, {}, None, nifti_form=form)
    return read_case(files, spacing_mm=spacing, labels=labels)


def mean(read: Case, name: str) -> float:
    """The first-order mean in the gland as the packaged parameters take it: T2 and DWI are
    normalised over the image (standard deviation 100, cut at 3 and 5 of them), ADC is not."""
    values = array(read.images[name]).astype(np.float64)
    if name != "adc":
        cut = {"t2": 3, "dwi": 5}[name]
        values = np.clip((values - values.mean()) / values.std(), -cut, cut) * 100
    return float(values[array(read.masks["gland"]) > 0].mean())


def refused(path: Path, says: str, **options: NiftiForm) -> CaseError:
    with pytest.raises(CaseError, match=re.escape(says)) as caught:
        read_image(path, "P1", **options)
    assert str(caught.value).startswith(f"patient P1, file {path}: ")
    return caught.value


def test_a_slope_per_slice_is_applied_slice_by_slice(cases: Path) -> None:
    read = array(read_image(cases / "dicom_slope_per_slice" / "dcm_mm", "P1"))
    np.testing.assert_allclose(read[1:], truth(cases, "adc")[1:] / 1000, atol=1.1e-3)
    assert read[1:].min() == pytest.approx(0.554)
    assert read[1:].max() == pytest.approx(1.484)
    made = case(cases, t2="grid/t2.nii", adc="dicom_slope_per_slice/dcm_mm")
    assert mean(made, "adc") == pytest.approx(988.7, abs=0.1)
    assert array(made.images["adc"])[array(made.masks["gland"]) > 0].min() == pytest.approx(554)
    assert any("means 1e-3 mm2/s" in note for note in made.notes)


def test_enhanced_frames_are_placed_and_scaled_each(cases: Path) -> None:
    for name, tolerance in (("enh_one", 0.5), ("enh_slopes", 0.15)):
        read = array(read_image(cases / "dicom_enhanced" / f"{name}.dcm", "P1"))
        np.testing.assert_allclose(read, truth(cases, "b1"), atol=tolerance)
        made = case(cases, t2="grid/t2.nii", dwi=f"dicom_enhanced/{name}.dcm")
        assert mean(made, "dwi") == pytest.approx(211.8, abs=0.1)


def test_several_b_values_per_position_are_never_stacked(cases: Path) -> None:
    says = "multi-frame DICOM with 2 b-values (0, 1000) at each of 12 positions"
    error = refused(cases / "dicom_enhanced" / "enh_zmajor.dcm", says)
    assert "Export the b-value" in error.remedy


def test_segments_are_chosen_by_number(cases: Path) -> None:
    path = "dicom_seg_rtstruct/two_fit.dcm"
    with pytest.raises(CaseError, match=r"of 2 segments: 1 S1, 2 S2.*--label gland=1"):
        case(cases, gland=path, t2="grid/t2.nii")
    made = case(cases, gland=path, labels={"gland": (1,)}, t2="grid/t2.nii")
    np.testing.assert_array_equal(array(made.masks["gland"]), truth(cases, "g2"))
    assert array(made.masks["gland"]).sum() == 2279
    _, counts = read_mask(cases / path, "P1", labels=(1,))
    assert counts == {1: 2279, 2: 144}


def test_segment_frames_left_out_leave_their_gap(cases: Path) -> None:
    made = case(cases, lesion="dicom_seg_rtstruct/lesion_gap.dcm", t2="grid/t2.nii")
    np.testing.assert_array_equal(array(made.masks["lesion"]), truth(cases, "lesion_bin"))


def test_contours_and_segments_are_no_image(cases: Path) -> None:
    error = refused(cases / "dicom_seg_rtstruct" / "rt.dcm", "an RTSTRUCT: contours")
    assert "Convert the structure" in error.remedy
    refused(cases / "dicom_seg_rtstruct" / "two_fit.dcm", "a segmentation (1 S1, 2 S2), no image")


def test_two_placements_in_one_header_are_said_and_chosen(cases: Path) -> None:
    folder = "nifti_qform_sform"
    images = {"t2": f"{folder}/t2_q1s2.nii", "adc": f"{folder}/adc_s2.nii"}
    error = refused(cases / images["t2"], "qform and sform place this image 10.0 mm apart")
    assert "--nifti-form" in error.remedy
    made = case(cases, f"{folder}/gland_s2.nii", form="sform", **images)
    assert mean(made, "t2") == pytest.approx(199.2, abs=0.1)
    assert {p.verdict for p in made.geometry} == {"identical"}
    as_q = read_image(cases / images["t2"], "P1", nifti_form="qform")
    np.testing.assert_allclose(as_q.GetOrigin(), (5, -7, 11), atol=1e-5)


def test_what_a_header_announces_must_be_there(cases: Path) -> None:
    for name in ("pair.hdr", "pair.img"):
        refused(
            cases / "headers" / name, "50592 bytes of content where its header announces 110592"
        )
    for name in ("nospace.nrrd", "ns.mhd"):
        refused(cases / "headers" / name, "no spacing in the header")
    refused(cases / "headers" / "nanspace.nrrd", "not positive: 0.6 x 0.6 x nan")


def test_an_identity_affine_is_noted(cases: Path) -> None:
    files = {"t2": "identity_affine/t2.nii.gz", "gland": "identity_affine/g.nii.gz"}
    made = case(cases, **files)
    assert [n for n in made.notes if n.startswith("t2: the affine is the identity")]


def test_rounding_residue_is_no_label(cases: Path) -> None:
    for name in ("m1", "m2", "m3"):
        mask = load_mask(cases / "mask_near_integers" / f"{name}.nii.gz", "P1")
        assert mask.labels == {1: 464}
        assert array(mask.image).sum() == 464
        assert re.match(r"mask values up to \S+ off whole numbers; rounded", mask.notes[-1])


def test_formats_that_are_not_read_are_named(cases: Path) -> None:
    error = refused(cases / "nifti2_and_mgz" / "n2.nii.gz", "NIfTI-2, which is not read")
    assert "nibabel.Nifti1Image" in error.remedy
    error = refused(cases / "nifti2_and_mgz" / "t2.mgz", "FreeSurfer MGH/MGZ")
    assert "mri_convert" in error.remedy


def test_layers_of_a_segmentation_are_listed(cases: Path) -> None:
    with pytest.raises(CaseError, match=r"2 layers.*prostate \(layer 0, value 1\), lesion"):
        read_mask(cases / "seg_nrrd_layers" / "two.seg.nrrd", "P1")
