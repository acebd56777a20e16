"""Radiomics as PyRadiomics' command line, MIRP and pictologics write them."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lens.errors import InputError
from lens.radiomics.ibsi import as_pyradiomics
from lens.radiomics.names import parse_columns
from lens.study.tables import read_radiomics

IDM = "original_glcm_Idm"


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `pyradiomics cases.csv` writes of two cases, in its three formats."""
    import SimpleITK as sitk
    from radiomics.scripts import PyRadiomicsCommandLine

    folder, rng = tmp_path_factory.mktemp("batch"), np.random.default_rng(0)
    mask = np.zeros((6, 8, 8), np.uint8)
    mask[1:5, 2:7, 2:7] = 1
    sitk.WriteImage(sitk.GetImageFromArray(mask), folder / "mask.nii.gz")
    with (folder / "cases.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["Patient", "Image", "Mask", "Reader"])
        for case in ("007", "P2"):
            image = sitk.GetImageFromArray(rng.normal(100, 20, mask.shape))
            sitk.WriteImage(image, folder / f"{case}.nii.gz")
            rows.writerow([case, f"{case}.nii.gz", "mask.nii.gz", "AB"])
    (folder / "p.yaml").write_text(
        "imageType: {Original: {}, Square: {}, LoG: {sigma: [1.0]}}\n"
        "featureClass: {shape: [Elongation], firstorder: [Mean], glcm: [Idm]}\n"
    )
    for form in ("csv", "json", "txt"):
        with pytest.MonkeyPatch.context() as patch:
            flags = ["-o", str(folder / f"r.{form}"), "-f", form, "-p", str(folder / "p.yaml")]
            patch.setattr(sys, "argv", ["pyradiomics", str(folder / "cases.csv"), *flags])
            PyRadiomicsCommandLine().run()
    return folder


@pytest.mark.parametrize("form", ["csv", "json", "txt"])
def test_the_output_of_the_command_line_is_read(
    batch: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = batch / f"r.{form}"
    read = read_radiomics({"t2.gland": path}, id_column="Patient")
    assert read["patient_id"].tolist() == ["007", "P2"]
    parsed = parse_columns(read.columns[1:].tolist())
    assert set(parsed["image"]) == {"original", "square", "log-sigma-1-0-mm-3D"}
    assert set(parsed["feature_class"]) == {"shape", "firstorder", "glcm"}
    assert set(parsed["modality"] + "." + parsed["roi"]) == {"t2.gland"}
    own = pd.read_csv(batch / "r.csv")
    for feature in ("square_glcm_Idm", "original_shape_Elongation", "log-sigma-1-0-mm-3D_glcm_Idm"):
        np.testing.assert_allclose(read[f"t2.gland.{feature}"], own[feature], rtol=1e-12)
    assert "passed over" in caplog.text
    assert "'Image', 'Mask', 'Reader', 'diagnostics_Versions_PyRadiomics'" in caplog.text
    with pytest.raises(InputError, match=r"name no modality and region; .* t2.gland=FILE"):
        read_radiomics(path, id_column="Patient")
    with pytest.raises(InputError, match=r"column patient_id is missing; .*--id-column"):
        read_radiomics({"t2.gland": path})


@pytest.mark.parametrize("column", ["Image", "Mask"])
def test_the_plainest_output_has_its_ids_in_the_list_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    frame = pd.DataFrame({"Image": ["1.nii", "2.nii"], "Mask": ["1m.nii", "2m.nii"], IDM: [1.0, 2]})
    frame.to_csv(tmp_path / "r.csv", index=False)
    read = read_radiomics({"t2.gland": tmp_path / "r.csv"}, id_column=column)
    assert read["patient_id"].tolist() == frame[column].tolist()
    assert read.columns.tolist() == ["patient_id", f"t2.gland.{IDM}"]
    assert "passed over 1 column(s) that are no features" in caplog.text


def test_a_version_in_the_diagnostics_has_no_say_in_decimals(tmp_path: Path) -> None:
    frame = pd.DataFrame({"patient_id": ["a", "b"], "diagnostics_Versions_PyRadiomics": "3.1",
                          IDM: [0.125, 2.5]})  # fmt: skip
    frame.to_csv(tmp_path / "r.csv", index=False, sep=";", decimal=",")
    assert "0,125" in (tmp_path / "r.csv").read_text()
    read = read_radiomics({"t2.gland": tmp_path / "r.csv"})
    assert read[f"t2.gland.{IDM}"].tolist() == [0.125, 2.5]
    frame.assign(other="3.1").to_csv(tmp_path / "r.csv", index=False, sep=";", decimal=",")
    with pytest.raises(InputError, match=r"beside '3.1'"):
        read_radiomics({"t2.gland": tmp_path / "r.csv"})


@pytest.mark.parametrize("name", ["combat_{}", "{}_combat", "t2.gland.combat_{}",
                                  "combat_t2.gland.{}", "t2.gland.{}_combat"])  # fmt: skip
def test_harmonised_values_are_marked_before_or_behind(name: str) -> None:
    frame = table(["a"]).rename(columns={IDM: name.format(IDM)})
    assert read_radiomics({"t2.gland": frame}).columns[1] == f"t2.gland.{IDM}"
    if "gland" in name:
        assert read_radiomics(frame).columns[1] == f"t2.gland.{IDM}"


def table(ids: list[str], seed: int = 0, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"patient_id": ids, IDM: rng.random(len(ids))} | columns)


def test_a_table_per_modality_and_region_is_joined_by_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    t2, dwi = table(["a", "b", "c"]), table(["c", "a", "d"], seed=1)
    read = read_radiomics({"t2.gland": t2, "dwi.gland": dwi})
    assert read["patient_id"].tolist() == ["a", "b", "c", "d"]
    a, b, c = t2[IDM]
    np.testing.assert_array_equal(read[f"t2.gland.{IDM}"], [a, b, c, np.nan])
    c, a, d = dwi[IDM]
    np.testing.assert_array_equal(read[f"dwi.gland.{IDM}"], [a, np.nan, c, d])
    assert "2 of its 3 rows meet the 3 of the tables before it" in caplog.text
    for other, message in [
        (table(["x", "y"]), "none of its 2 rows meet"),
        (table(["A", "B", "c"]), "upper and lower case.*Write ids alike"),
        (table(["a", "b"], study_id=["1", "2"]), "has no column study_id"),
    ]:
        with pytest.raises(InputError, match=message):
            read_radiomics({"t2.gland": t2, "dwi.gland": other})


def test_what_is_no_feature_is_passed_over_or_named() -> None:
    prefixed = table(["a"]).rename(columns={IDM: f"t2.gland.{IDM}"})
    prefixed["t2.gland.diagnostics_Versions_Numpy"] = "2.0"
    assert read_radiomics(prefixed).columns.tolist() == ["patient_id", f"t2.gland.{IDM}"]
    with pytest.raises(InputError, match=r"'volume_ml'. Drop what is none .*original_other_Name"):
        read_radiomics({"t2.gland": table(["a"], volume_ml=[1.0])})
    other = read_radiomics({"t2.gland": table(["a"], original_other_Rim=[1.0])})
    assert parse_columns([*other.columns[1:]])["feature_class"].tolist() == ["glcm", "other"]
    combat = table(["a"]).rename(columns={IDM: f"combat_{IDM}"})
    assert f"t2.gland.{IDM}" in read_radiomics({"t2.gland": combat})
    both = combat.assign(**{IDM: 1.0})
    with pytest.raises(InputError, match=f"'combat_{IDM}' and '{IDM}' are the same feature"):
        read_radiomics({"t2.gland": both})


@pytest.mark.parametrize("column", ["PatientID", "Patient_ID", "participant_id"])
def test_patients_by_another_spelling_are_known(tmp_path: Path, column: str) -> None:
    frame = table(["007", "1e5"]).rename(columns={"patient_id": column})
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert read_radiomics({"t2.gland": tmp_path / "t.csv"})["patient_id"].tolist() == ["007", "1e5"]


def test_names_of_mirp_ibsi_and_pictologics_are_told() -> None:
    for name, ours in {
        "morph_pca_elongation": "original_shape_Elongation",
        "morph_vol_dens_aabb": "original_shape_VolDensAabb",
        "stat_p10": "original_firstorder_10Percentile",
        "cm_inv_diff_mom_norm_d1_3d_v_mrg_fbn_n32":
            "original-d1-3d-v-mrg-fbn-n32_glcm_Idmn",
        "log_s_1.0_cm_inv_diff_d1_3d_avg_fbs_w25.0":
            "log-s-1-0-d1-3d-avg-fbs-w25-0_glcm_Id",
        "dzm_glnu_norm_3d_fbn_n32": "original-3d-fbn-n32_gldzm_GlnuNorm",
        "ih_p90_fbn_n32": "original-fbn-n32_ih_P90",
        "standard_fbn_32__joint_entropy_TU9B": "standard-fbn-32_glcm_JointEntropy",
        "global_peak_0F91": "original_loc_GlobalPeak",
        "Q4LE": "original_firstorder_Mean",
    }.items():  # fmt: skip
        assert as_pyradiomics(name) == ours, name
        parse_columns([f"ct.tumour.{ours}"])
    for name in ("loc_side", "cm_size", "age", "psa_2024", "stat_mean_old", "volume_1234"):
        assert as_pyradiomics(name) is None, name


def test_every_feature_of_mirp_has_a_name_of_ours() -> None:
    """The names that the program itself gives, of all families."""
    import mirp

    mask = np.zeros((6, 12, 12), np.uint8)
    mask[1:5, 3:9, 3:9] = 1
    image = np.random.default_rng(0).normal(100, 20, mask.shape)
    found = mirp.extract_features(
        image=image, mask=mask, base_discretisation_method="fixed_bin_number",
        base_discretisation_n_bins=8, base_feature_families="all", ivh_discretisation_n_bins=10,
        image_export_format="dict",
    )[0]  # fmt: skip
    names = [c for c in found.columns if not c.startswith(("sample_", "image_", "mask_", "roi_"))]
    assert len(names) > 150
    assert [name for name in names if as_pyradiomics(name) is None] == []
    assert len({as_pyradiomics(name) for name in names}) == len(names)


def test_a_real_table_of_an_older_version_is_read(real_data: Path) -> None:
    source = real_data / "tables" / "qin_repeatability_t2_3D_bin15.csv.gz"
    if not source.is_file():
        pytest.skip("the table is not on this machine")
    frame = pd.read_csv(source, sep=";")
    features = [c for c in frame.columns if c.startswith(("original_", "log-", "general_info_"))]
    few = frame[features].head(15).assign(patient_id=[f"P{i}" for i in range(15)])
    read = read_radiomics({"t2.gland": few})
    np.testing.assert_array_equal(
        read["t2.gland.original_glcm_Contrast"], few["original_glcm_Contrast"]
    )
    assert not [c for c in read if "general_info" in c]
