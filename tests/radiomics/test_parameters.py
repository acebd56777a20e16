"""Parameter files: ours are complete, the user's are validated in PyRadiomics' own words."""

from __future__ import annotations

import json

import pytest
import SimpleITK as sitk

from lens.cohort.prostate import MODALITIES
from lens.errors import InputError
from lens.radiomics.parameters import load_parameters, parameters_for, read_parameters

CLASSES = ["firstorder", "glcm", "glrlm", "glszm", "ngtdm", "gldm"]


def test_defaults_ask_for_six_classes_on_original_and_coif1_wavelet_without_resampling():
    defaults = load_parameters()
    assert tuple(defaults) == MODALITIES
    for parameters in defaults.values():
        assert list(parameters.classes) == CLASSES
        assert list(parameters.images) == ["Original", "Wavelet"]
        assert parameters.images["Wavelet"]["wavelet"] == "coif1"
        assert parameters.settings["resampledPixelSpacing"] is None
    normalised = {name: p.settings["normalize"] for name, p in defaults.items()}
    assert normalised.items() >= {"t2": True, "dwi": True, "adc": False}.items()


def test_a_file_for_all_replaces_ours_and_a_modality_keeps_its_own(tmp_path):
    everything, own = tmp_path / "all.yaml", tmp_path / "own.json"
    everything.write_text("setting: {binWidth: 7}\n")
    own.write_text(json.dumps({"setting": {"binWidth": 9}, "imageType": {"Original": {}}}))
    chosen = load_parameters({"all": everything, "adc": own})
    assert parameters_for(chosen, "t2").settings["binWidth"] == 7
    assert parameters_for(chosen, "adc").settings["binWidth"] == 9
    assert parameters_for(chosen, "adc").images == {"Original": {}}
    next_to_ours = load_parameters({"adc": own})
    assert parameters_for(next_to_ours, "t2") == load_parameters()["t2"]
    assert parameters_for(next_to_ours, "adc") == chosen["adc"]
    assert len({*next_to_ours.values(), *chosen.values()}) == len(MODALITIES) + 1


def test_a_modality_without_parameters_is_refused_with_the_flag_to_use():
    with pytest.raises(InputError, match=r"modality 'pd'.*--parameters pd=FILE.yaml"):
        parameters_for(load_parameters(), "pd")


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("setting:\n  binwidth: 5\n", "'binwidth' was not defined"),
        ("setting:\n  binWidth: wide\n", "not of type 'float'"),
        ("setting:\n  binWidth: 0\n", "binWidth"),
        ("imageType:\n  Original:\n", "/imageType/Original"),
        ("imageType:\n  Wavelets: {}\n", "Wavelets"),
        ("featureClass:\n  glcm: [Idnm]\n", "Idnm"),
        ("setting: [unclosed\n", "not a valid PyRadiomics parameter file"),
        ("", "not a valid PyRadiomics parameter file"),
    ],
)
def test_an_invalid_file_is_refused_by_name_and_finding(tmp_path, text, finding, capfd):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        read_parameters(file)
    assert str(file) in str(error.value)
    assert finding in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such"):
        load_parameters({"t2": tmp_path / "nowhere.yaml"})


def test_reading_leaves_the_tolerance_of_simpleitk_alone(tmp_path):
    file = tmp_path / "loose.yaml"
    file.write_text("setting:\n  geometryTolerance: 0.1\n")
    before = sitk.ProcessObject.GetGlobalDefaultCoordinateTolerance()
    with pytest.raises(InputError, match="geometryTolerance has no effect here"):
        read_parameters(file)
    assert sitk.ProcessObject.GetGlobalDefaultCoordinateTolerance() == before != 0.1
