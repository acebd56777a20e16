"""One case: the values of a direct PyRadiomics call, and clear words where there are none."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import Case
from lens.errors import CaseError, InputError
from lens.radiomics.engine import one_thread
from lens.radiomics.extract import (
    bounding_box,
    cut_out,
    extract_case,
    filter_reach,
    intensity_scaling,
    normalise,
    roi_features,
    scaling_of,
)
from lens.radiomics.names import parse_columns
from lens.radiomics.parameters import load_parameters, read_parameters
from tests.radiomics.phantoms import case, direct, ellipsoid, image, texture

DEFAULTS = files("lens.radiomics")


@pytest.fixture(scope="module")
def parameters():
    return load_parameters()


@pytest.fixture(scope="module")
def features(parameters):
    return extract_case(case(), parameters)


def alike(got: dict[str, float], expected: dict[str, float], rtol: float = 1e-9) -> None:
    """Same names in the same order, values up to rounding of the last few digits."""
    assert list(got) == list(expected)
    np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=rtol, atol=1e-12)


def of_region(features: dict[str, float], modality: str, roi: str) -> dict[str, float]:
    prefix = f"{modality}.{roi}."
    return {n.removeprefix(prefix): v for n, v in features.items() if n.startswith(prefix)}


def test_837_columns_a_region_in_order_of_modality_and_roi(features):
    table = parse_columns(list(features))
    assert len(table) == 4 * 837
    assert np.isfinite(list(features.values())).all()
    regions = list(dict.fromkeys(zip(table["modality"], table["roi"], strict=True)))
    assert regions == [("t2", "gland"), ("t2", "lesion"), ("adc", "gland"), ("adc", "lesion")]
    assert table.groupby("image").size().unique().tolist() == [4 * 93]
    assert table["image"].nunique() == 9


@pytest.mark.parametrize("modality", ["t2", "adc"])
@pytest.mark.parametrize("roi", ["gland", "lesion"])
def test_equal_to_a_direct_call_bit_for_bit(features, parameters, tmp_path, modality, roi):
    """On the image as it is standardised about the regions, and PyRadiomics told not to."""
    made, chosen = case(), parameters[modality]
    seen = normalise(made.images[modality], chosen, scaling_of(made, modality, chosen))
    plain = tmp_path / f"{modality}.yaml"
    text = (DEFAULTS / f"{modality}.yaml").read_text()
    plain.write_text(text.replace("normalize: true", "normalize: false"))
    assert of_region(features, modality, roi) == direct(seen, made.masks[roi], plain)


def test_a_file_of_the_user_normalises_over_the_whole_image(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text((DEFAULTS / "t2.yaml").read_text())
    made = case()
    found = extract_case(made, load_parameters({"all": own}))
    expected = direct(made.images["t2"], made.masks["gland"], own)
    assert of_region(found, "t2", "gland") == expected


def test_invariant_to_where_the_grid_lies(features, parameters):
    moved = extract_case(case(origin=(-73.5, 12.25, 400.0)), parameters)
    assert moved == features


def test_background_outside_the_margin_does_not_matter_without_normalisation(parameters):
    volume, mask = texture(3), ellipsoid((10, 14, 14), (3, 5, 5))
    other = np.full_like(volume, -4000)
    reach = filter_reach(parameters["adc"])
    seen = (slice(7 - reach, 14 + reach),) + (slice(9 - reach, 20 + reach),) * 2
    other[seen] = volume[seen]
    expected = roi_features(image(volume), image(mask), parameters["adc"])
    assert roi_features(image(other), image(mask), parameters["adc"]) == expected


def test_at_the_edge_of_the_image_the_edge_voxels_repeat(parameters):
    volume, mask = texture(4), ellipsoid((1, 14, 26), (4, 7, 6))
    pad = ((6, 6),) * 3
    wide = image(np.pad(volume, pad, mode="edge")), image(np.pad(mask, pad))
    got = roi_features(image(volume), image(mask), parameters["adc"])
    alike(got, direct(*wide, DEFAULTS / "adc.yaml"))
    periodic = direct(image(volume), image(mask), DEFAULTS / "adc.yaml")
    name = "wavelet-HLL_firstorder_Maximum"
    assert got[name] != periodic[name]


@pytest.mark.parametrize(
    ("text", "reach"),
    [
        ("setting: {binWidth: 50}\nimageType: {Original: {}}\nfeatureClass: {shape: , glcm: }", 0),
        ("setting: {binWidth: 50, label: 3}\nimageType: {Wavelet: {level: 2}}", 8),
        ("setting: {binWidth: 50}\nimageType: {Wavelet: {wavelet: db4, start_level: 1}}", 10),
        ("setting: {binWidth: 50, preCrop: true, padDistance: 0}\nimageType: {Wavelet: {}}", None),
        ("setting: {binWidth: 50}\nimageType: {LoG: {sigma: [2.0]}, Square: {}}", None),
        ("setting: {binWidth: 50, resampledPixelSpacing: [1.5, 1.5, 1.5]}", None),
        ("setting: {binWidth: 50, resegmentRange: [-2, 2], resegmentMode: sigma}", 0),
    ],
)
def test_a_users_file_gives_what_pyradiomics_gives_on_the_whole_image(tmp_path, text, reach):
    classes = "" if "featureClass" in text else "\nfeatureClass: {firstorder: , ngtdm: }"
    file, plain = tmp_path / "mine.yaml", tmp_path / "plain.yaml"
    file.write_text(text + classes + "\n")
    plain.write_text(file.read_text().replace(", label: 3", ""))
    parameters = read_parameters(file)
    assert filter_reach(parameters) == reach
    shape = (40, 44, 44)
    volume, mask = texture(5, shape=shape), ellipsoid((20, 22, 22), (4, 7, 6), shape)
    got = roi_features(image(volume), image(mask), parameters)
    alike(got, direct(image(volume), image(mask), plain))


def test_cut_out_keeps_the_physical_place():
    volume, mask = texture(6), ellipsoid((1, 14, 26), (4, 7, 6))
    cut, cut_mask = cut_out(image(volume), image(mask), margin=3)
    inside = np.argwhere(sitk.GetArrayFromImage(cut_mask))
    assert len(inside) == mask.sum()
    assert inside.min(0).tolist() == [3, 3, 3]
    assert (np.array(cut_mask.GetSize()[::-1]) - 1 - inside.max(0)).tolist() == [3, 3, 3]
    z, y, x = map(int, inside[0])
    point = cut.TransformIndexToPhysicalPoint((x, y, z))
    assert image(mask)[image(mask).TransformPhysicalPointToIndex(point)] == 1
    assert cut[x, y, z] == image(volume)[image(volume).TransformPhysicalPointToIndex(point)]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("extra", ["", ", removeOutliers: 2", ", normalizeScale: 100"])
def test_a_part_is_normalised_as_the_whole_image_bit_for_bit(tmp_path, kind, extra):
    from radiomics.imageoperations import normalizeImage

    file = tmp_path / "mine.yaml"
    file.write_text(f"setting: {{binWidth: 1, normalize: true{extra}}}\n")
    chosen = read_parameters(file)
    whole = image(texture(7).astype(kind))
    with one_thread():
        expected = normalizeImage(whole, **chosen.settings)[4:20, 3:9, 2:11]
    got = normalise(whole[4:20, 3:9, 2:11], chosen, intensity_scaling(whole, chosen))
    assert got.GetPixelID() == expected.GetPixelID()
    assert got.GetOrigin() == expected.GetOrigin()
    assert np.array_equal(sitk.GetArrayFromImage(got), sitk.GetArrayFromImage(expected))


def test_values_do_not_depend_on_the_number_of_cores(parameters):
    volume, mask = image(texture(8)), image(ellipsoid((10, 14, 14), (2, 3, 3)))
    values = []
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    try:
        for threads in (1, 2, 7):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            values.append(roi_features(volume, mask, parameters["t2"]))
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert values[0] == values[1] == values[2]


def test_bounding_box():
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[1, 2, 3] = mask[4, 2, 6] = 1
    assert bounding_box(image(mask)) == ([3, 2, 1], [6, 2, 4])


def spoilt(change) -> Case:
    """The phantom with its T2 array and gland array changed in place by `change`."""
    made = case()
    volume = sitk.GetArrayFromImage(made.images["t2"])
    mask = sitk.GetArrayFromImage(made.masks["gland"])
    change(volume, mask)
    return Case("p7", None, {"t2": image(volume)}, {"gland": image(mask)}, ())


def _nan_inside(volume, mask):
    volume[10, 14, 14] = np.nan


def _infinite_inside(volume, mask):
    volume[10, 14, 13:15] = np.inf


def _nan_outside_of(volume, mask):
    volume[10, 14, 22] = np.nan


def _constant(volume, mask):
    volume[mask > 0] = 7


def _empty(volume, mask):
    mask[:] = 0


def _one_voxel(volume, mask):
    mask[:] = 0
    mask[10, 14, 14] = 1


def _line(volume, mask):
    mask[:] = 0
    mask[10, 14, 10:16] = 1


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (_nan_inside, "1 of 671 voxels in gland are NaN or infinite"),
        (_infinite_inside, "2 of 671 voxels in gland are NaN or infinite"),
        (_nan_outside_of, "voxels outside gland are NaN or infinite"),
        (_constant, r"constant \(7\) in gland"),
        (_empty, "the mask of gland has no voxel"),
        (_one_voxel, r"gland \(1 voxels on this grid\): mask only contains 1 segmented voxel"),
        (_line, r"gland \(6 voxels on this grid\): mask has too few dimensions"),
    ],
)
def test_a_case_that_gives_no_features_says_why(parameters, tmp_path, change, finding):
    with pytest.raises(CaseError, match=finding) as error:
        extract_case(spoilt(change), parameters, files={"t2": tmp_path / "t2.nii.gz"})
    assert error.value.patient_id == "p7"
    assert error.value.stage == "radiomics"
    assert error.value.file == str(tmp_path / "t2.nii.gz")
    assert error.value.reason.startswith("t2: ")
    assert error.value.remedy


def test_nan_far_away_spoils_only_what_is_normalised(parameters):
    made = spoilt(lambda volume, mask: volume.__setitem__((2, 0, 0), np.nan))
    with pytest.raises(CaseError, match="normalisation"):
        extract_case(made, parameters)
    as_adc = Case("p7", None, {"adc": made.images["t2"]}, made.masks, ())
    assert np.isfinite(list(extract_case(as_adc, parameters).values())).all()


def test_isolated_voxels_leave_glcm_undefined_and_the_rest_defined(parameters, recwarn):
    def scatter(volume, mask):
        mask[:] = 0
        mask[4:16:3, 4:24:3, 4:24:3] = 1

    features = extract_case(spoilt(scatter), parameters)
    table = parse_columns(list(features)).assign(nan=np.isnan(list(features.values())))
    undefined = table.groupby("feature_class")["nan"].mean()
    assert undefined["glcm"] > 0.9
    assert undefined.drop("glcm").eq(0).all()
    assert not recwarn.list


def test_a_modality_without_parameters_is_refused(parameters):
    made = case()
    with pytest.raises(InputError, match="modality 'pd'"):
        extract_case(Case("p", None, {"pd": made.images["t2"]}, made.masks, ()), parameters)


def test_threads_are_as_before():
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(3)
    try:
        with pytest.raises(InputError):
            extract_case(case(), {})
        extract_case(
            Case("p", None, {"t2": case().images["t2"]}, {"lesion": case().masks["lesion"]}, ()),
            load_parameters(),
        )
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 3
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def test_workers_need_not_wait_for_jax_nor_the_import_for_pyradiomics():
    code = (
        "import sys, lens.radiomics.cohort_features, lens.radiomics.names\n"
        "print({'jax', 'radiomics', 'distributed'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_worker_waits_for_no_tables_and_no_dicom():
    """Importing them takes longer than reading a case."""
    code = (
        "import sys, lens.radiomics.extract_part, lens.radiomics.perturb_part\n"
        "print({'jax', 'pandas', 'pydicom', 'distributed', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_without_pyradiomics_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "radiomics", None)
    with pytest.raises(InputError, match="bring a table"):
        load_parameters()
