"""Radiomics on real images: PyRadiomics' published values, and a real patient."""

from __future__ import annotations

import ast
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from scipy.stats import f_oneway

from experiments.repeatability import Config, job
from lens.cohort import Case, CaseFiles, read_case
from lens.cohort.intensities import scaling
from lens.radiomics.extract import (
    extract_case,
    normalise,
    roi_features,
)
from lens.radiomics.names import parse_columns
from lens.radiomics.parameters import load_parameters, read_parameters
from lens.radiomics.repeatability import repeatability
from tests.radiomics.phantoms import direct

CLASSES = ("firstorder", "glcm", "glrlm", "glszm", "ngtdm", "gldm")
# The two-dimensional cases have a mask of their own, which is not among the data.
CASES = ("", "_FBN", "_combined", "_flatRegion", "_normalization", "_resampling", "_resegmentation")


def published(folder: Path, feature_class: str, case: str) -> tuple[dict, dict[str, float]] | None:
    """Settings and values of a case as PyRadiomics publishes them; None where it has none."""
    table = pd.read_csv(folder / "baseline" / f"baseline_{feature_class}.csv", index_col=0)
    if case not in table:
        return None
    column = table[case].dropna()
    settings = ast.literal_eval(column["diagnostics_Configuration_Settings"])
    assert column["diagnostics_Configuration_EnabledImageTypes"] == "{'Original': {}}"
    values = column[column.index.str.startswith("original_")].astype(float)
    return settings, values.to_dict()  # pyright: ignore[reportReturnType]


def flat(image: sitk.Image, mask: sitk.Image) -> sitk.Image:
    """What PyRadiomics' own tests do for the case of a flat region."""
    array = sitk.GetArrayFromImage(image)
    array[sitk.GetArrayFromImage(mask) == 1] = 25
    flattened = sitk.GetImageFromArray(array)
    flattened.CopyInformation(image)
    return flattened


@pytest.mark.parametrize("suffix", CASES)
@pytest.mark.parametrize("subject", ["brain1", "breast1"])
def test_published_values(real_data, tmp_path, subject, suffix):
    folder = real_data / "pyradiomics"
    image = sitk.ReadImage(folder / f"{subject}_image.nrrd")
    mask = sitk.Cast(sitk.ReadImage(folder / f"{subject}_label.nrrd") == 1, sitk.sitkUInt8)
    if suffix == "_flatRegion":
        image = flat(image, mask)
    compared = 0
    for feature_class in CLASSES:
        expected = published(folder, feature_class, subject + suffix)
        if expected is None:
            continue
        settings, values = expected
        file = tmp_path / f"{feature_class}.json"
        content = {
            "setting": {name: value for name, value in settings.items() if value is not None},
            "imageType": {"Original": {}},
            "featureClass": {feature_class: [n.rsplit("_", 1)[1] for n in values]},
        }
        file.write_text(json.dumps(content))
        got = roi_features(image, mask, read_parameters(file))
        assert got.keys() == values.keys()
        for name, value in values.items():
            assert got[name] == pytest.approx(value, rel=1e-6, abs=1e-12), (feature_class, name)
        compared += len(values)
    assert compared >= 40
    print(f"{subject}{suffix}: {compared} published values")


@pytest.fixture(scope="module")
def patient(real_data) -> Case:
    """The real study on a grid of 1 x 1 x 2 mm, to keep the test short."""
    return read_case(patient_files(real_data), spacing_mm=(1.0, 1.0, 2.0))


def patient_files(real_data: Path) -> CaseFiles:
    stem = real_data / "prostatex" / "ProstateX-0000"
    images = {"t2": "t2w", "dwi": "hbv", "adc": "adc"}
    return CaseFiles(
        patient_id="ProstateX-0000",
        study_id=None,
        images={m: Path(f"{stem}_{name}.nii.gz") for m, name in images.items()},
        masks={roi: Path(f"{stem}_{roi}.nii.gz") for roi in ("gland", "lesion")},
        labels={},
        split=None,
    )


def test_a_real_patient_equals_a_direct_call(patient, tmp_path):
    features = extract_case(patient, load_parameters())
    assert np.isfinite(list(features.values())).all()
    table = parse_columns(list(features))
    assert (table["roi"] == "gland").sum() == 2511
    assert len(table) == 2 * 2511
    for modality, image in patient.images.items():
        file = Path(str(files("lens.radiomics") / f"{modality}.yaml"))
        if modality != "adc":
            image, file = standardised(image, patient, file, tmp_path)
        # The direct call is slow; one lesion beside the three glands is enough here.
        for roi in ("gland", "lesion") if modality == "adc" else ("gland",):
            expected = direct(image, patient.masks[roi], file)
            got = [features[f"{modality}.{roi}.{name}"] for name in expected]
            assert len(got) == 837
            np.testing.assert_allclose(got, list(expected.values()), rtol=1e-6, atol=1e-12)


def standardised(
    image: sitk.Image, patient: Case, file: Path, folder: Path
) -> tuple[sitk.Image, Path]:
    """The image as standard scores over the box of both regions with 10 mm on every side, and
    parameters that do not ask for any."""
    clip = yaml.safe_load(file.read_text())["setting"]["removeOutliers"]
    inside = np.any([sitk.GetArrayFromImage(m) > 0 for m in patient.masks.values()], axis=0)
    box, margin = np.argwhere(inside), np.array([5, 10, 10])
    voxels = sitk.GetArrayFromImage(image).astype(float)
    first, last = np.maximum(box.min(0) - margin, 0), box.max(0) + margin + 1
    near = voxels[tuple(map(slice, first, last))]
    near = near[near != 0]
    scores = sitk.GetImageFromArray(100 * np.clip((voxels - near.mean()) / near.std(), -clip, clip))
    scores.CopyInformation(image)
    plain = folder / file.name
    plain.write_text(file.read_text().replace("normalize: true", "normalize: false"))
    return scores, plain


def test_16_to_128_gray_levels_on_the_image_and_every_band(patient):
    """The gland and the lesion; bins that hold a voxel, of each image of each modality."""
    from radiomics import imageoperations

    levels = []
    for modality, image in patient.images.items():
        parameters = load_parameters()[modality]
        about = scaling(image, patient.masks.values()) if modality != "adc" else None
        prepared = normalise(image, parameters, about)
        for roi, mask in patient.masks.items():
            inside = sitk.GetArrayFromImage(mask) > 0
            for filtered, settings in parameters.images.items():
                own = parameters.settings | settings
                make = getattr(imageoperations, f"get{filtered}Image")
                for made, name, used in make(prepared, mask, **own):
                    binned, _ = imageoperations.binImage(
                        sitk.GetArrayFromImage(made), inside, **used
                    )
                    occupied = len(np.unique(binned[inside]))
                    levels.append((modality, roi, name, int(binned[inside].max()), occupied))
    table = pd.DataFrame(levels, columns=["modality", "roi", "image", "levels", "occupied"])
    print(table.to_string())
    assert len(table) == 3 * 2 * 9
    assert table["levels"].between(16, 128).all()
    assert table["occupied"].between(16, 128).all()


@pytest.mark.parametrize("structure", ["WholeGland", "PeripheralZone", "TumorROI_PZ_1"])
def test_repeatability_of_patients_scanned_twice(real_data, structure):
    """Every column against SciPy's analysis of variance; the gland's volume repeats well."""
    file = real_data / "tables" / "qin_repeatability_t2_3D_bin15.csv.gz"
    table = pd.read_csv(file, sep=";")
    table = table[table["segmentedStructure"] == structure]
    visits = table["study"].str.split("_", n=1, expand=True)
    table = table.select_dtypes("number").drop(columns="series", errors="ignore")
    table = table.loc[:, ~table.columns.str.startswith("general_info")]
    repeat = visits.groupby(0)[1].rank().astype(int).rename("repeat")
    table = pd.concat([visits[0].rename("patient_id"), repeat, table], axis=1)
    result = repeatability(table).set_index("column")
    twice = table[table.groupby("patient_id")["repeat"].transform("size") == 2]
    print(structure, twice["patient_id"].nunique(), result["icc"].describe().to_string())
    assert (result["repeats"] == 2).all()
    assert result["n"].max() == twice["patient_id"].nunique() >= 10
    full = result.index[result["n"] == result["n"].max()]
    groups = [group[full].to_numpy() for _, group in twice.groupby("patient_id")]
    # Values that hardly differ leave nothing but rounding to compare.
    values = np.stack(groups)
    varies = values.std(axis=(0, 1)) > 1e-9 * np.abs(values).max(axis=(0, 1))
    ratio = f_oneway(*groups, axis=0).statistic
    assert varies.sum() > 1000
    np.testing.assert_allclose(
        result.loc[full[varies], "icc"], ((ratio - 1) / (ratio + 1))[varies], atol=1e-6
    )
    known = result.dropna()
    assert known["icc"].between(known["icc_low"], known["icc_high"]).all()
    if structure == "WholeGland":
        assert result.loc["original_shape_Volume", "icc"] > 0.9


def test_the_job_reads_real_patients_scanned_twice(real_data, tmp_path, capsys):
    """The published table under our column names, all ROIs side by side, as a user would bring it.

    Against the numbers of the test above, which SciPy's analysis of variance confirms.
    """
    file = real_data / "tables" / "qin_repeatability_t2_3D_bin15.csv.gz"
    source = pd.read_csv(file, sep=";")
    visits = source["study"].str.split("_", n=1, expand=True)
    visits.columns = pd.Index(["patient_id", "visit"])
    source = pd.concat([source, visits], axis=1)
    names = source.columns[source.columns.str.contains("_(?:firstorder|glcm|glszm|shape)_")]
    rois = {"WholeGland": "gland", "TumorROI_PZ_1": "lesion"}
    parts = []
    for structure, roi in rois.items():
        rows = source[source["segmentedStructure"] == structure]
        part = rows.set_index(["patient_id", "visit"])[list(names)]
        parts.append(part.rename(columns=lambda name, roi=roi: f"t2.{roi}.{name}"))
    table = pd.concat(parts, axis=1).rename_axis(["patient_id", "repeat"]).copy().reset_index()
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "retest.csv", index=False)
    out = tmp_path / "R-repeatability.csv"
    assert job(Config(tmp_path / "retest.csv", out)) == 0
    print(capsys.readouterr().out)
    result = pd.read_csv(out).set_index("column")
    assert len(result) == 2 * len(names)
    assert result["n"].max() == 15
    for structure, roi in rois.items():
        rows = source[source["segmentedStructure"] == structure]
        rows = rows[rows.groupby("patient_id")["visit"].transform("nunique") == 2]
        groups = [group[list(names)].to_numpy(float) for _, group in rows.groupby("patient_id")]
        values = np.stack(groups)
        finite = np.isfinite(values).all(axis=(0, 1))
        spread = values.std(axis=(0, 1))
        usable = finite & (spread > 1e-9 * np.abs(values).max(axis=(0, 1)))
        assert usable.sum() > 500
        ratio = f_oneway(*[group[:, usable] for group in groups], axis=0).statistic
        got = result.loc[[f"t2.{roi}.{name}" for name in names[usable]]]
        assert (got["n"] == len(groups)).all()
        np.testing.assert_allclose(got["icc"], (ratio - 1) / (ratio + 1), atol=1e-6)
    assert result.loc["t2.gland.original_shape_Volume", "icc"] > 0.9
