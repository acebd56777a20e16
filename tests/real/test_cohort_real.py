"""Real cases through the reader: formats agree, rounding is snapped and said, flips are undone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import Case, CaseFiles, read_case, read_image, read_manifest, stack, stack_mask
from lens.cohort.geometry import dice, nearest
from lens.errors import CaseError
from lens.radiomics.extract import extract_case
from lens.radiomics.parameters import load_parameters

SERIES = {"t2": "t2w", "dwi": "hbv", "adc": "adc"}


def array(of: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(of)


def volume_ml(mask: sitk.Image) -> float:
    return float(array(mask).sum() * np.prod(mask.GetSpacing()) / 1000)


@pytest.fixture(scope="module")
def prostatex(real_data: Path) -> Path:
    return real_data / "prostatex"


def files(folder: Path, images: dict[str, str], masks: dict[str, str]) -> CaseFiles:
    return CaseFiles(
        patient_id="real",
        study_id=None,
        images={name: folder / file for name, file in images.items()},
        masks={name: folder / file for name, file in masks.items()},
        labels={},
        split=None,
    )


MASKS = {roi: f"ProstateX-0000_{roi}.nii.gz" for roi in ("gland", "lesion")}


@pytest.fixture(scope="module")
def from_nifti(prostatex: Path) -> Case:
    names = {name: f"ProstateX-0000_{file}.nii.gz" for name, file in SERIES.items()}
    return read_case(files(prostatex, names, MASKS))


COARSE_MM = (1.5, 1.5, 3.0)
"""Of a reading that takes a moment; three voxels of T2 along rows and columns are one, so that no
centre lies halfway between two."""


@pytest.fixture(scope="module")
def coarse(prostatex: Path) -> Case:
    names = {name: f"ProstateX-0000_{file}.nii.gz" for name, file in SERIES.items()}
    return read_case(files(prostatex, names, MASKS), spacing_mm=COARSE_MM)


@pytest.fixture(scope="module")
def from_dicom(prostatex: Path) -> dict[str, sitk.Image]:
    """Images whose geometry has not been through a NIfTI header."""
    return {name: read_image(prostatex / "dicom" / file, "real") for name, file in SERIES.items()}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], dict[str, float]]:
    """Radiomics of the gland and the lesion, all classes, unfiltered to keep the test short."""
    file = tmp_path_factory.mktemp("parameters") / "original.yaml"
    file.write_text("setting: {normalize: true, normalizeScale: 100, binWidth: 10}\n")
    parameters = load_parameters({"all": file})
    return lambda case: extract_case(case, parameters)


@pytest.fixture(scope="module")
def expected_features(coarse: Case, features) -> dict[str, float]:
    return features(coarse)


@pytest.mark.parametrize("name", list(SERIES))
def test_nifti_and_dicom_hold_the_same_voxels(prostatex: Path, from_dicom, name: str) -> None:
    nifti = read_image(prostatex / f"ProstateX-0000_{SERIES[name]}.nii.gz", "real")
    dicom = from_dicom[name]
    np.testing.assert_array_equal(array(nifti), array(dicom))
    for corner in [(0, 0, 0), tuple(n - 1 for n in nifti.GetSize())]:
        # NIfTI holds its geometry in single precision: 1e-5 of some 100 mm.
        np.testing.assert_allclose(
            nifti.TransformIndexToPhysicalPoint(corner),
            dicom.TransformIndexToPhysicalPoint(corner),
            atol=1e-3,
        )


@pytest.mark.parametrize("suffix", ["dicom", "mha", "nrrd", "nii"])
def test_every_format_gives_the_same_case_and_features(
    prostatex: Path, tmp_path: Path, from_dicom, coarse: Case, features, expected_features,
    suffix: str,
) -> None:  # fmt: skip
    if suffix == "dicom":
        found = files(prostatex, {n: f"dicom/{f}" for n, f in SERIES.items()}, MASKS)
    else:
        masks = {roi: sitk.ReadImage(str(prostatex / file)) for roi, file in MASKS.items()}
        for name, content in (from_dicom | masks).items():
            sitk.WriteImage(content, str(tmp_path / f"{name}.{suffix}"))
        named = [{name: f"{name}.{suffix}" for name in group} for group in (from_dicom, masks)]
        found = files(tmp_path, *named)
    case = read_case(found, spacing_mm=COARSE_MM)
    # To the last bit, or feature values would depend on the format.
    for name in SERIES:
        np.testing.assert_array_equal(array(case.images[name]), array(coarse.images[name]))
    for roi in MASKS:
        np.testing.assert_array_equal(array(case.masks[roi]), array(coarse.masks[roi]))
        assert case.masks[roi].GetSpacing() == coarse.masks[roi].GetSpacing()
    assert len(expected_features) > 2 * 3 * 90
    assert features(case) == expected_features


def test_the_gland_is_the_same_in_its_own_grid_or_resampled(
    prostatex: Path, tmp_path: Path, coarse: Case, features, expected_features
) -> None:
    t2 = read_image(prostatex / "ProstateX-0000_t2w.nii.gz", "real")
    adc = read_image(prostatex / "ProstateX-0000_adc.nii.gz", "real")
    gland = sitk.ReadImage(str(prostatex / MASKS["gland"]))

    def on(mask: sitk.Image, grid: sitk.Image) -> sitk.Image:
        return sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor)

    def read(mask: sitk.Image) -> Case:
        sitk.WriteImage(mask, str(tmp_path / "gland.mha"))
        images = {name: f"ProstateX-0000_{SERIES[name]}.nii.gz" for name in ("t2", "adc")}
        return read_case(
            files(prostatex, images, {"gland": str(tmp_path / "gland.mha")}), spacing_mm=COARSE_MM
        )

    expected = array(coarse.masks["gland"])
    for mask in (
        on(gland, t2),
        gland[90:300, 90:310, :],
        on(gland, coarse.images["t2"]),
        sitk.DICOMOrient(gland, "RAS"),
    ):
        np.testing.assert_array_equal(array(read(mask).masks["gland"]), expected)
    found = features(read(on(gland, coarse.images["t2"])))
    assert found == {name: expected_features[name] for name in found}
    # Drawn on the ADC map, whose voxels are 16 times as large.
    drawn = on(gland, adc)
    direct, beforehand = read(drawn), read(on(drawn, t2))
    # Every fourth T2 voxel lies halfway between two of them, where the tools' ties differ.
    assert dice(direct.masks["gland"], beforehand.masks["gland"]) > 0.98
    ours = read(nearest(drawn, t2))
    np.testing.assert_array_equal(array(direct.masks["gland"]), array(ours.masks["gland"]))
    for case in (direct, beforehand):
        np.testing.assert_array_equal(array(case.images["t2"]), array(coarse.images["t2"]))


def test_the_oblique_patient_comes_out_whole(from_nifti: Case) -> None:
    assert from_nifti.images["t2"].GetSize() == (384, 384, 57)
    assert from_nifti.images["t2"].GetSpacing() == (0.5, 0.5, 1.0)
    assert volume_ml(from_nifti.masks["gland"]) == pytest.approx(44.3, abs=0.05)
    assert volume_ml(from_nifti.masks["lesion"]) == pytest.approx(0.31, abs=0.005)
    for roi in MASKS:
        assert any(n.startswith(f"{roi}: geometry snapped to t2") for n in from_nifti.notes)
    assert any("mask values 3 (414 voxels)" in note for note in from_nifti.notes)
    gland = array(from_nifti.masks["gland"]) > 0
    lesion = array(from_nifti.masks["lesion"]) > 0
    adc, dwi = array(from_nifti.images["adc"]), array(from_nifti.images["dwi"])
    # Restricted diffusion: a check that the diffusion images lie where the lesion is.
    assert adc[lesion].mean() < 0.9 * adc[gland & ~lesion].mean()
    assert dwi[lesion].mean() > 1.5 * dwi[gland & ~lesion].mean()


def test_the_slices_of_t2_are_unchanged_where_grids_meet(prostatex: Path, from_nifti: Case) -> None:
    original = array(read_image(prostatex / "ProstateX-0000_t2w.nii.gz", "real"))
    np.testing.assert_allclose(array(from_nifti.images["t2"])[1::3], original, atol=1e-3)


def test_the_encoder_volume_holds_the_gland(from_nifti: Case) -> None:
    volume = stack(from_nifti)
    assert volume.shape == (64, 224, 224, 3)
    assert np.all(np.isfinite(volume))
    mask = stack_mask(from_nifti, "gland")
    assert mask.sum() == array(from_nifti.masks["gland"]).sum()


def test_another_patients_mask_is_refused(prostatex: Path, real_data: Path) -> None:
    wrong = files(
        prostatex,
        {"t2": "ProstateX-0000_t2w.nii.gz"},
        {"gland": str(real_data / "ucla_biopsy" / "gland.nii.gz")},
    )
    with pytest.raises(CaseError, match="size 256 x 256 x 60 against 384 x 384 x 19") as caught:
        read_case(wrong)
    assert caught.value.stage == "geometry"


def test_flipped_axes_give_the_same_region(real_data: Path) -> None:
    cases = [
        read_case(files(real_data / "ucla_biopsy", {"t2": "t2w.nii.gz"}, {"gland": name}))
        for name in ("gland.nii.gz", "gland_as_shipped_flipped_axes.nii.gz")
    ]
    np.testing.assert_array_equal(*[array(case.masks["gland"]) for case in cases])
    assert volume_ml(cases[0].masks["gland"]) == pytest.approx(49.1, abs=0.3)
    flipped = "gland: stored with flipped or permuted axes, put in order (exact)"
    assert [flipped in case.notes for case in cases] == [False, True]


def test_a_cohort_with_adc_alone(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "qin_adc"
    (tmp_path / "cohort.csv").write_text(
        "patient_id,adc,gland,lesion\n"
        f"001,{folder}/adc.nii.gz,{folder}/gland.nii.gz,{folder}/lesion.nii.gz\n"
    )
    case = read_case(read_manifest(tmp_path / "cohort.csv").cases[0])
    assert list(case.images) == ["adc"]
    assert volume_ml(case.masks["gland"]) == pytest.approx(22.7, abs=0.15)
    assert array(case.masks["lesion"]).sum() > 118
    original, region = (
        array(sitk.ReadImage(str(folder / n))) for n in ("adc.nii.gz", "lesion.nii.gz")
    )
    sampled = array(case.images["adc"])[array(case.masks["lesion"]) > 0]
    # Interpolation mixes in the rim of a region of two slices, hence percents rather than digits.
    assert sampled.mean() == pytest.approx(original[region > 0].mean(), rel=0.1)


@pytest.mark.parametrize(("name", "lesion"), [("10040_1000040", True), ("10181_1000184", False)])
def test_an_empty_lesion_mask_of_an_archive_means_none(
    real_data: Path, tmp_path: Path, name: str, lesion: bool
) -> None:
    folder = real_data / "picai_labels"
    gland = sitk.ReadImage(str(folder / "gland" / f"{name}.nii.gz"))
    # The archive has no images: a ramp along x stands in for T2.
    ramp = np.broadcast_to(np.arange(gland.GetSize()[0], dtype=np.float32), gland.GetSize()[::-1])
    t2 = sitk.GetImageFromArray(np.ascontiguousarray(ramp))
    t2.CopyInformation(gland)
    sitk.WriteImage(t2, str(tmp_path / "t2.mha"))
    masks = {roi: f"{roi}/{name}.nii.gz" for roi in MASKS}
    case = read_case(files(folder, {"t2": str(tmp_path / "t2.mha")}, masks))
    assert ("lesion" in case.masks) == lesion
    assert ("lesion: the mask is empty, taken as no lesion" in case.notes) != lesion
    assert volume_ml(case.masks["gland"]) == pytest.approx(volume_ml(gland), rel=0.02)
