"""What a filter or class would leave out in silence is refused before the first patient."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from lens.cohort import read_manifest
from lens.cohort.intensities import Kind
from lens.errors import InputError
from lens.radiomics import computable
from lens.radiomics.cohort_features import extract_cohort
from lens.radiomics.computable import computed
from lens.radiomics.extract import roi_features
from lens.radiomics.parameters import load_parameters, read_parameters
from tests.radiomics.phantoms import case, ellipsoid, image, texture, write_cohort

SPACING = (1.0, 1.0, 2.0)


def parameters(folder, text: str):
    file = folder / "mine.yaml"
    file.write_text(text + "\n")
    return read_parameters(file)


@pytest.mark.parametrize("modality", ["t2", "adc"])
def test_our_files_give_what_an_extraction_gives(modality):
    chosen, made = load_parameters()[modality], case()
    assert (
        computed(chosen) == roi_features(made.images[modality], made.masks["gland"], chosen).keys()
    )


def test_names_are_the_same_with_and_without_compiled_loops(monkeypatch):
    """Which a job whose workers do the extracting does not load."""
    for parameters in load_parameters().values():
        named = computed.__wrapped__(parameters)
        with monkeypatch.context() as patch:
            patch.setattr("lens.radiomics.extract.loaded", lambda: False)
            patch.setattr("lens.radiomics.extract.load", None)
            assert computed.__wrapped__(parameters) == named


@pytest.mark.parametrize(
    "text",
    [
        "imageType: {LoG: {sigma: [1, 2.5, 30.0]}, LBP2D: {}, Gradient: {}, Exponential: {}}\n"
        "featureClass: {firstorder: , shape: }",
        "imageType: {Wavelet: {wavelet: db20, level: 2}}\nfeatureClass: {firstorder: [Mean]}",
        "setting: {binWidth: 1.0e-9, minimumROISize: 100000, resegmentRange: [5, 6]}\n"
        "featureClass: {firstorder: [Mean, StandardDeviation]}",
    ],
)
def test_valid_files_pass_whatever_their_limits(tmp_path, text):
    assert computed(parameters(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("imageType: {LoG: {}}", "LoG has no sigma: give its widths in mm"),
        ("featureClass: {glcm: [Dissimilarity, Idn]}", "no value for glcm Dissimilarity"),
        ("featureClass: {shape2D: }", "shape2D is of regions of a single slice"),
        ("imageType: {LBP3D: {}}", "LBP3D needs .*pip install .*or take LBP3D out of imageType"),
    ],
)
def test_what_gives_nothing_is_refused_by_name(tmp_path, text, finding):
    with pytest.raises(InputError, match=f"mine.yaml: .*{finding}"):
        computed(parameters(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("featureClass: {glcm: }", "looked for in three dimensions. Write force2D: true"),
        ("setting: {force2D: true}\nimageType: {Wavelet: {force2D: false}}", "Wavelet has force2D"),
        ("setting: {force2D: true}\nfeatureClass: {shape: }", "shape is of volumes"),
    ],
)
def test_texture_of_a_single_slice_is_looked_for_in_its_plane(tmp_path, text, finding):
    with pytest.raises(InputError, match=f"mine.yaml: .*{finding}"):
        computed(parameters(tmp_path, text), flat=True)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_our_files_for_single_slices_stay_in_the_plane(kind):
    names = computed(load_parameters(kinds={"x": kind}, flat=True)["x"], flat=True)
    assert {"original_shape2D_PixelSurface", "wavelet-HL_glcm_Contrast"} <= names
    assert not any("_shape_" in name or "-HLL_" in name for name in names)


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    monkeypatch.setattr(computable, "find_spec", lambda name: None)
    chosen = parameters(tmp_path, "imageType: {LBP2D: {lbp2DRadius: 3.0}}")
    with pytest.raises(InputError, match="LBP2D needs scikit-image: pip install scikit-image"):
        computed(chosen)


def test_the_job_refuses_before_it_hashes_an_image(tmp_path, monkeypatch):
    cohort = read_manifest(write_cohort(tmp_path, ["a"]))
    file = tmp_path / "mine.yaml"
    file.write_text("imageType: {Original: {}, LoG: {}}\n")
    monkeypatch.setattr("lens.radiomics.cohort_features.parts_of", None)
    with pytest.raises(InputError, match="LoG has no sigma"):
        extract_cohort(cohort, load_parameters({"t2": file}), cache=tmp_path / "cache")


def test_a_patient_whose_image_is_too_small_for_a_filter_is_set_aside(tmp_path):
    """PyRadiomics would leave out the column, and the table would show a missing value."""
    manifest = write_cohort(tmp_path, ["wide", "flat"])
    thin, mask = texture(1)[8:12], ellipsoid()[8:12]
    for name, array in (("t2", thin), ("gland", mask)):
        sitk.WriteImage(image(np.ascontiguousarray(array)), tmp_path / f"flat_{name}.nii.gz")
    file = tmp_path / "mine.yaml"
    file.write_text(
        "setting: {binWidth: 50}\nimageType: {Original: {}, LoG: {sigma: [1.0, 9.0]}}\n"
        "featureClass: {firstorder: [Mean]}\n"
    )
    table, errors = extract_cohort(
        read_manifest(manifest), load_parameters({"all": file}), cache=tmp_path / "cache",
        spacing_mm=SPACING, workers=1, progress=False,
    )  # fmt: skip
    assert table["patient_id"].tolist() == ["wide"]
    assert not pd.isna(table.to_numpy()).any()
    assert "no log-sigma-9-0-mm-3D of gland" in errors[0].reason
    assert "take the filter out of" in errors[0].remedy
