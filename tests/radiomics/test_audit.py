"""The audit finds what was planted, and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.radiomics.audit import MIN_PATIENTS, Image, audit

COLUMNS = [
    f"t2.{roi}.{image}_{feature}"
    for roi in ("gland", "lesion")
    for image in ("original", "wavelet-LLH")
    for feature in ("firstorder_Mean", "glcm_JointAverage", "glcm_SumAverage", "gldm_X")
]
PATIENTS = [f"p{i}" for i in range(MIN_PATIENTS)]


def sound() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Random values; patient p1 has no lesion. Every image has 64 gray levels."""
    values = np.random.default_rng(0).normal(10, 1, (len(PATIENTS), len(COLUMNS)))
    table = pd.DataFrame(values, columns=COLUMNS)
    table.loc[1, [c for c in COLUMNS if ".lesion." in c]] = np.nan
    table.insert(0, "patient_id", PATIENTS)
    rows = [
        Image(patient, "", "t2", roi, image, 64, 60, 5000)
        for patient in PATIENTS
        for roi in ("gland", "lesion")
        for image in ("original", "wavelet-LLH")
        if (patient, roi) != ("p1", "lesion")
    ]
    return table, pd.DataFrame(rows)


def at(levels: pd.DataFrame, patient: str, roi: str, image: str) -> pd.Series:
    return (levels["patient_id"] == patient) & (levels["roi"] == roi) & (levels["image"] == image)


def found(result) -> list[tuple]:
    return list(
        result.findings[["patient_id", "column", "kind"]].itertuples(index=False, name=None)
    )


def test_a_sound_table_is_left_alone():
    table, levels = sound()
    before = table.copy()
    result = audit(table, levels)
    assert result.findings.empty
    pd.testing.assert_frame_equal(result.table, before, check_exact=True)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"occupied": 15}, "gray levels", "15 gray level"),
        ({"bins": 129}, "gray levels", "129 gray levels, more than 128"),
        ({"voxels": 63}, "small region", "63 voxels for 64 gray levels"),
    ],
)
def test_gray_levels_and_small_regions_are_listed_and_stay(change, kind, words):
    table, levels = sound()
    for name, value in change.items():
        levels.loc[at(levels, "p2", "lesion", "original"), name] = value
    result = audit(table, levels)
    assert found(result) == [("p2", "t2.lesion.original", kind)]
    assert words in result.findings["reason"][0]
    pd.testing.assert_frame_equal(result.table, table, check_exact=True)


def test_texture_of_one_gray_level_is_taken_out():
    table, levels = sound()
    levels.loc[at(levels, "p3", "gland", "wavelet-LLH"), ["bins", "occupied"]] = 1
    result = audit(table, levels)
    gone = [c for c in COLUMNS if c.startswith("t2.gland.wavelet-LLH_g")]
    assert found(result)[0] == ("p3", "t2.gland.wavelet-LLH", "gray levels")
    assert ("p3", gone[0], "one gray level") in found(result)
    assert result.table.loc[3, gone].isna().all()
    assert result.table.drop(columns=["patient_id", *gone]).equals(
        table.drop(columns=["patient_id", *gone])
    )
    assert np.isfinite(table.loc[3, gone].to_numpy(float)).all(), "the table given is not changed"


def test_undefined_and_infinite_values_are_told_from_absent_regions():
    table, levels = sound()
    table.loc[4, COLUMNS[1]] = np.nan
    table.loc[5, COLUMNS[0]] = np.inf
    result = audit(table, levels)
    assert found(result) == [
        ("p4", COLUMNS[1], "undefined"),
        ("p5", COLUMNS[0], "infinite"),
    ]
    assert np.isnan(result.table.loc[5, COLUMNS[0]])


def test_a_constant_column_is_taken_out_of_ten_patients_but_not_of_nine():
    table, levels = sound()
    table[COLUMNS[3]] = 1e6
    result = audit(table, levels)
    assert found(result) == [("", COLUMNS[3], "constant")]
    assert result.findings["reason"][0] == "1e+06 in all 10 patients"
    assert result.table[COLUMNS[3]].isna().all()
    few = audit(table[:9], levels[levels["patient_id"] != "p9"])
    assert few.findings.empty
    lesion = COLUMNS[-1]
    table, levels = sound()
    table.loc[table[lesion].notna(), lesion] = 1.0
    assert audit(table, levels).findings.empty, "nine patients have a lesion"


def test_proportional_columns_are_listed_and_nearly_proportional_ones_not():
    table, levels = sound()
    table[COLUMNS[2]] = 2 * table[COLUMNS[1]]
    table[COLUMNS[4]] = -0.3 * table[COLUMNS[1]]
    table[COLUMNS[5]] = table[COLUMNS[1]] * (1 + 1e-9 * np.arange(len(table)))
    result = audit(table, levels)
    assert found(result) == [
        ("", COLUMNS[2], "proportional"),
        ("", COLUMNS[4], "proportional"),
    ]
    assert result.findings["reason"].tolist() == [
        f"2 x {COLUMNS[1]} in all 10 patients",
        f"-0.3 x {COLUMNS[1]} in all 10 patients",
    ]
    assert np.isfinite(result.table[[COLUMNS[2], COLUMNS[4]]].to_numpy()).all()


def test_studies_of_a_patient_are_told_apart():
    table, levels = sound()
    twice = pd.concat([table, table + table.assign(patient_id="")], ignore_index=True)
    twice.insert(1, "study_id", ["s1"] * 10 + ["s2"] * 10)
    second = levels.assign(study_id="s2")
    second.loc[at(second, "p0", "gland", "original"), ["bins", "occupied"]] = 1
    result = audit(twice, pd.concat([levels.assign(study_id="s1"), second]))
    assert result.table[COLUMNS[1]].isna().tolist() == [row == 10 for row in range(20)]


def test_an_empty_table():
    assert audit(
        pd.DataFrame({"patient_id": []}), pd.DataFrame(columns=list(Image._fields))
    ).findings.empty
