"""A case is read as far as its features look: the same values, from fewer voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import CaseFiles, read_case
from lens.cohort.intensities import Kind
from lens.radiomics import extract_part as module
from lens.radiomics.extract import extract_case, filter_reach, margin_needed
from lens.radiomics.extract_part import extract_part
from lens.radiomics.parameters import Parameters, load_parameters
from lens.radiomics.parts import Part, Reading
from tests.radiomics.phantoms import ellipsoid, image, texture

SHAPE = (40, 70, 80)
SPACING = (1.0, 1.0, 2.0)
KINDS: dict[str, Kind] = {"adc": "units", "t2": "mr"}
T2: dict[str, Kind] = {"t2": "mr"}
ADC: dict[str, Kind] = {"adc": "units"}


@pytest.fixture(scope="module")
def parameters() -> dict[str, Parameters]:
    return load_parameters()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CaseFiles:
    """Zeros beside the tissue, since those take no part in means; a lesion that is not measured."""
    folder, paths = tmp_path_factory.mktemp("case"), {}
    tissue = {"t2": texture(1, shape=SHAPE), "adc": texture(2, shape=SHAPE)}
    for volume in tissue.values():
        volume[:, :, :20] = 0
    masks = {
        "gland": ellipsoid((20, 35, 34), (4, 9, 8), SHAPE),
        "lesion": ellipsoid((21, 38, 40), (4, 5, 5), SHAPE),
    }
    for name, array in (tissue | masks).items():
        paths[name] = folder / f"{name}.nii.gz"
        sitk.WriteImage(image(array, spacing=SPACING), str(paths[name]))
    return CaseFiles(
        patient_id="P",
        study_id=None,
        images={name: paths[name] for name in tissue},
        masks={name: paths[name] for name in masks},
        labels={},
        split=None,
        extracted=("gland",),
    )


def own(tmp_path: Path, text: str) -> Parameters:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    return load_parameters({"all": file})["all"]


@pytest.mark.parametrize("spacing", [SPACING, (0.8, 0.9, 1.5), (3.0, 3.0, 4.0)])
def test_features_are_those_of_the_whole_image(files, parameters, spacing) -> None:
    margin = margin_needed(KINDS, parameters, spacing)
    whole = read_case(files, spacing_mm=spacing)
    near = read_case(files, spacing_mm=spacing, margin=margin)
    assert near.images["t2"].GetNumberOfPixels() < whole.images["t2"].GetNumberOfPixels() / 2
    assert extract_case(near, parameters) == extract_case(whole, parameters)


def test_the_margin_is_what_filters_and_standardisation_reach(parameters) -> None:
    reach = filter_reach(parameters["adc"])
    assert reach is not None
    assert margin_needed(ADC, parameters, (0.5, 0.5, 1.0)) == (reach,) * 3
    assert margin_needed(KINDS, parameters, (0.5, 0.5, 1.0)) == (20, 20, 10)
    assert margin_needed(KINDS, parameters, (0.5, 0.5, 8.0)) == (20, 20, max(2, reach))


@pytest.mark.parametrize(
    ("text", "margin"),
    [
        ("setting: {normalize: true}\nimageType: {Original: {}}", None),
        ("setting: {binWidth: 50}\nimageType: {LoG: {sigma: [2.0]}}", None),
        ("setting: {binWidth: 50, resampledPixelSpacing: [1, 1, 1]}", None),
        ("setting: {binWidth: 50}\nimageType: {Original: {}}", (0, 0, 0)),
    ],
)
def test_all_of_the_image_where_all_of_it_decides(tmp_path, parameters, text, margin) -> None:
    mine = own(tmp_path, text)
    assert margin_needed(T2, {"t2": mine}, SPACING) == margin
    # One modality that needs all of the grid is enough.
    both = {"adc": parameters["adc"], "t2": mine}
    found = margin_needed(KINDS, both, SPACING)
    assert found == (None if margin is None else (filter_reach(parameters["adc"]),) * 3)


def test_a_worker_reads_no_more(files, parameters, tmp_path, monkeypatch) -> None:
    seen = []

    def read(*args, **kwargs):
        seen.append(kwargs["margin"])
        return read_case(*args, **kwargs)

    monkeypatch.setattr(module, "read_case", read)
    part = Part(tmp_path / "part.json", "key")
    assert extract_part(files, parameters, Reading(SPACING), part) is None
    whole = read_case(files, spacing_mm=SPACING)
    expected = extract_case(whole, parameters)
    found = part.read()["features"]
    assert found == {name: value for name, value in expected.items() if ".gland." in name}
    assert seen == [(10, 10, 5)]
    assert np.isfinite(list(found.values())).all()
