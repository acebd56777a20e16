"""Every setting of PyRadiomics' schema changes the numbers as a direct call does, or is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from lens.cohort import read_manifest
from lens.cohort.placement import Placement
from lens.errors import CaseError, InputError
from lens.radiomics.cohort_features import extract_cohort
from lens.radiomics.extract import roi_features
from lens.radiomics.honoured import check_label, check_taken
from lens.radiomics.parameters import load_parameters, read_parameters
from tests.radiomics.phantoms import direct, ellipsoid, image, texture, write_cohort

PLAIN = "setting: {{binWidth: 50{setting}}}\nimageType: {{{images}}}\nfeatureClass: {{{classes}}}\n"

HONOURED = {
    "binWidth": ("binWidth: 40", "Original: {}", "firstorder: [Entropy]"),
    "binCount": ("binCount: 9", "Original: {}", "firstorder: [Entropy]"),
    "normalize": ("normalize: true, binCount: 9", "Original: {}", "firstorder: [Mean]"),
    "normalizeScale": (
        "normalize: true, binCount: 9, normalizeScale: 7", "Original: {}", "firstorder: [Mean]"
    ),
    "removeOutliers": (
        "normalize: true, binCount: 9, removeOutliers: 1.0", "Original: {}", "firstorder: [Range]"
    ),
    "resampledPixelSpacing": (
        "resampledPixelSpacing: [1.5, 1.5, 2]", "Original: {}", "firstorder: [Mean]"
    ),
    "interpolator": (
        "resampledPixelSpacing: [1.5, 1.5, 2], interpolator: sitkLinear", "Original: {}",
        "firstorder: [Mean]",
    ),
    "padDistance": (
        "resampledPixelSpacing: [1.5, 1.5, 2], padDistance: 1", "Wavelet: {}", "firstorder: [Mean]"
    ),
    "preCrop": ("preCrop: true, padDistance: 1", "Wavelet: {}", "firstorder: [Mean]"),
    "distances": ("distances: [2]", "Original: {}", "ngtdm: [Contrast]"),
    "force2D": ("force2D: true", "Original: {}", "glcm: [Contrast]"),
    "force2Ddimension": ("force2D: true, force2Ddimension: 2", "Original: {}", "glcm: [Contrast]"),
    "resegmentRange": ("resegmentRange: [1100, 1300]", "Original: {}", "firstorder: [Mean]"),
    "resegmentMode": (
        "resegmentRange: [-1, 1], resegmentMode: sigma", "Original: {}", "firstorder: [Mean]"
    ),
    "resegmentShape": (
        "resegmentRange: [1100, 1300], resegmentShape: true", "Original: {}", "shape: [VoxelVolume]"
    ),
    "sigma": ("sigma: [2.5]", "LoG: {}", "firstorder: [Mean]"),
    "start_level": ("start_level: 1", "Wavelet: {}", "firstorder: [Mean]"),
    "level": ("level: 2", "Wavelet: {}", "firstorder: [Mean]"),
    "wavelet": ("wavelet: db2", "Wavelet: {}", "firstorder: [Mean]"),
    "gradientUseSpacing": ("gradientUseSpacing: false", "Gradient: {}", "firstorder: [Mean]"),
    "lbp2DRadius": ("lbp2DRadius: 2.0", "LBP2D: {}", "firstorder: [Mean]"),
    "lbp2DSamples": ("lbp2DSamples: 5", "LBP2D: {}", "firstorder: [Mean]"),
    "lbp2DMethod": ("lbp2DMethod: default", "LBP2D: {}", "firstorder: [Mean]"),
    "voxelArrayShift": ("voxelArrayShift: 99", "Original: {}", "firstorder: [Energy]"),
    "symmetricalGLCM": ("symmetricalGLCM: false", "Original: {}", "glcm: [Imc1, JointAverage]"),
    "weightingNorm": ("weightingNorm: euclidean", "Original: {}", "glcm: [Contrast]"),
    "gldm_a": ("gldm_a: 3", "Original: {}", "gldm: [DependenceVariance]"),
}  # fmt: skip
"""Setting -> a value other than the default, and a filter and features that depend on it."""

REFUSED = {
    "geometryTolerance": "geometryTolerance: 0.1",
    "correctMask": "correctMask: true",
    "label_channel": "label_channel: 1",
}

LIMITS = {"minimumROIDimensions", "minimumROISize"}
"""Settings that refuse regions and change no number."""

ELSEWHERE = {"label", "additionalInfo"}
"""Settings with tests of their own below."""

UNCOMPUTABLE = {"lbp3DLevels", "lbp3DIcosphereRadius", "lbp3DIcosphereSubdivision"}
"""Settings of a filter that the installed SciPy cannot run; refused with it in test_computable."""


def written(folder: Path, setting: str, images: str, classes: str, name: str = "mine") -> Path:
    setting = f", {setting}" if setting else ""
    content = yaml.safe_load(PLAIN.format(setting=setting, images=images, classes=classes))
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_no_setting_of_the_schema_is_forgotten():
    from radiomics import getParameterValidationFiles

    schema = yaml.safe_load(Path(getParameterValidationFiles()[0]).read_text())
    known = HONOURED.keys() | REFUSED.keys() | LIMITS | ELSEWHERE | UNCOMPUTABLE
    assert schema["mapping"]["setting"]["mapping"].keys() == known


@pytest.mark.parametrize("name", HONOURED)
def test_a_setting_is_honoured(tmp_path, name):
    setting, images, classes = HONOURED[name]
    file = written(tmp_path, setting, images, classes)
    others = ", ".join(each for each in setting.split(", ") if not each.startswith(f"{name}:"))
    if "[" in setting:
        others = "" if setting.startswith(name) else setting.rsplit(", ", 1)[0]
    without = written(tmp_path, others, images, classes, "without")
    # Far from the edge of the image, where alone a wavelet differs from a direct call.
    shape = (40, 44, 44) if "Wavelet" in images else (20, 28, 28)
    centre = tuple(edge // 2 for edge in shape)
    volume, mask = image(texture(5, shape=shape)), image(ellipsoid(centre, (4, 7, 6), shape))
    got = roi_features(volume, mask, read_parameters(file))
    expected = direct(volume, mask, file)
    assert list(got) == list(expected)
    np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=1e-9)
    if name == "sigma":
        return  # without any there is no image
    try:
        default = direct(volume, mask, without)
    except ValueError:
        return  # the range of a mode leaves nothing in another one
    assert got != default, f"the test would not see that {name} is ignored"


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_is_decided_elsewhere_is_refused(tmp_path, name):
    file = written(tmp_path, REFUSED[name], "Original: {}", "firstorder: ")
    with pytest.raises(InputError, match=f"mine.yaml: {name} has no effect here.*Take it out"):
        read_parameters(file)


@pytest.mark.parametrize("own", ["label: 2", "normalize: true", "resegmentRange: [1, 2]"])
def test_a_setting_below_a_filter_that_pyradiomics_reads_elsewhere_is_refused(tmp_path, own):
    file = written(tmp_path, "", f"Wavelet: {{{own}}}", "firstorder: ")
    with pytest.raises(InputError, match=f"{own.split(':')[0]} below imageType Wavelet"):
        read_parameters(file)


def test_settings_of_voxel_maps_are_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("voxelSetting: {kernelRadius: 2}\n")
    with pytest.raises(InputError, match=r"voxelSetting \(kernelRadius\) is for maps"):
        read_parameters(file)


@pytest.mark.parametrize(
    ("setting", "images", "note"),
    [
        ("removeOutliers: 3", "Original: {}", "removeOutliers does nothing without normalize"),
        ("sigma: [1]", "Original: {}", "sigma does nothing without LoG"),
        ("binCount: 8", "Original: {}", "binWidth does nothing beside binCount"),
        ("", "LoG: {sigma: [2], wavelet: db2}", "LoG: wavelet does nothing without Wavelet"),
        ("gldm_a: 1", "Original: {}", "gldm_a does nothing without gldm"),
        ("additionalInfo: true", "Original: {}", "diagnostics, which are no features"),
        ("resampledPixelSpacing: [1, 1, 1], interpolator: null", "Original: {}",
         "resampledPixelSpacing does nothing without interpolator"),
    ],
)  # fmt: skip
def test_what_does_nothing_beside_the_others_is_said(tmp_path, caplog, setting, images, note):
    read_parameters(written(tmp_path, setting, images, "firstorder: "))
    assert note in caplog.text
    caplog.clear()
    read_parameters(written(tmp_path, "normalize: true", "Wavelet: {}", "firstorder: "))
    assert caplog.text == ""


def test_our_own_files_have_nothing_idle_and_name_no_label(caplog):
    assert {each.label for each in load_parameters().values()} == {None}
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("label", "labels", "fits"),
    [
        (None, {}, True), (1, {}, True), (1, {"gland": (2,)}, True), (2, {}, False),
        (2, {"gland": (2,)}, False), (2, {"gland": (2,), "lesion": (2,)}, True),
        (2, {"gland": (1,), "lesion": (2,)}, False),
    ],
)  # fmt: skip
def test_another_label_than_one_is_said_per_region(label, labels, fits):
    if fits:
        check_label("mine.yaml", label, ["gland", "lesion"], labels)
        return
    with pytest.raises(InputError, match=r"label: 2 .*--label gland=2 lesion=2"):
        check_label("mine.yaml", label, ["gland", "lesion"], labels)


def test_label_one_means_that_the_mask_holds_nothing_else():
    placed = Placement("gland", "g.nii", "identical", labels=((1, 9), (2, 4)), taken=(1, 2))
    check_taken("a", [placed], {}, {})
    check_taken("a", [placed], {"mine.yaml": 1}, {"gland": (1, 2)})
    check_taken("a", [Placement("gland", "", "identical", taken=(1,))], {"mine.yaml": 1}, {})
    with pytest.raises(CaseError, match=r"label: 1, and the gland mask holds 1 \(9 voxels\), 2"):
        check_taken("a", [placed], {"mine.yaml": 1}, {})


def test_a_label_that_is_written_later_does_not_reuse_the_union(tmp_path):
    cohort = read_manifest(write_cohort(tmp_path, ["a"]))
    two = ellipsoid() + ellipsoid((10, 12, 12), (2, 3, 3))
    sitk.WriteImage(image(two), tmp_path / "a_gland.nii.gz")
    options = {"cache": tmp_path / "cache", "spacing_mm": (1.0, 1.0, 2.0), "progress": False}
    for setting, patients in [("", 1), ("label: 1", 0)]:
        file = written(tmp_path, setting, "Original: {}", "firstorder: [Mean]")
        parameters = load_parameters({"all": file})
        table, errors = extract_cohort(cohort, parameters, workers=1, **options)
        assert len(table) == patients
        assert len(errors) == 1 - patients
    assert "--label gland=1, or gland=1,2" in str(errors[0])
