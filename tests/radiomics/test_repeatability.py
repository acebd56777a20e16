"""Intraclass correlation: the published example, an independent route, and planted truths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway

from experiments.repeatability import Config, job
from lens.errors import InputError
from lens.radiomics.repeatability import icc, repeatability
from lens.study.repeats import read_test_retest

# Shrout and Fleiss (1979), table 2: six targets, four judges.
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)


def repeats(values: np.ndarray, column: str = "x") -> pd.DataFrame:
    rows = [
        (f"p{patient}", f"visit {repeat}", value)
        for patient, row in enumerate(values)
        for repeat, value in enumerate(row)
    ]
    return pd.DataFrame(rows, columns=["patient_id", "repeat", column])


@pytest.mark.parametrize(
    ("form", "expected"),
    # The intervals are those of R's psych::ICC on the same table.
    [("1", (0.17, -0.133, 0.72)), ("2", (0.29, 0.019, 0.76)), ("3", (0.71, 0.342, 0.95))],
)
def test_the_published_example(form, expected):
    # Published to two and three digits.
    assert icc(SHROUT_FLEISS, form=form) == pytest.approx(expected, abs=0.0051)


def test_the_one_way_form_follows_from_an_analysis_of_variance():
    values = np.random.default_rng(0).normal(size=(12, 1)) + np.random.default_rng(1).normal(
        0, 0.5, (12, 3)
    )
    ratio = f_oneway(*values).statistic
    assert icc(values).icc == pytest.approx((ratio - 1) / (ratio + 2), rel=1e-12)


@pytest.mark.parametrize("form", ["1", "2", "3"])
def test_planted_share_of_variance_is_found_and_covered(form):
    rng = np.random.default_rng(2)
    found = [
        icc(rng.normal(0, 2, (20, 1)) + rng.normal(0, 1, (20, 3)), form=form) for _ in range(400)
    ]
    truth = 4 / 5
    # ICC is slightly biased downwards in small samples: 400 means of sd 0.07 allow 0.02.
    assert np.mean([f.icc for f in found]) == pytest.approx(truth, abs=0.02)
    covered = np.mean([f.low <= truth <= f.high for f in found])
    assert covered == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 400))


def test_a_shift_between_visits_counts_for_agreement_only():
    values = np.random.default_rng(3).normal(size=(15, 2)) * 0.1
    values += np.linspace(0, 3, 15)[:, None]
    shifted = values + np.array([0.0, 2.0])
    assert icc(shifted, form="3") == pytest.approx(icc(values, form="3"))
    assert icc(shifted).icc < icc(shifted, form="2").icc < 0.7 < icc(shifted, form="3").icc


@pytest.mark.parametrize("form", ["1", "3"])
def test_perfect_repeats_and_no_variance(form):
    perfect = np.repeat(np.arange(5.0)[:, None], 2, axis=1)
    assert icc(perfect, form=form) == (1, 1, 1)
    assert np.isnan(icc(np.ones((5, 2)), form=form)).all()
    assert np.isnan(icc(perfect[:1], form=form)).all()


def test_unit_and_order_do_not_matter():
    table = repeats(SHROUT_FLEISS).assign(y=lambda t: 1e6 - 40 * t["x"])
    result = repeatability(table.sample(frac=1, random_state=0))
    assert result.columns.tolist() == ["column", "icc", "icc_low", "icc_high", "n", "repeats"]
    assert result["column"].tolist() == ["x", "y"]
    assert result.loc[0, "icc"] == pytest.approx(icc(SHROUT_FLEISS).icc)
    assert result.loc[1, "icc"] == pytest.approx(result.loc[0, "icc"])
    assert result[["n", "repeats"]].to_numpy().tolist() == [[6, 4], [6, 4]]


def test_a_patient_without_a_repeat_is_left_out_of_that_column_only():
    table = repeats(SHROUT_FLEISS).assign(y=lambda t: t["x"])
    table.loc[2, "y"] = np.nan
    table = table.drop(index=23)
    result = repeatability(table).set_index("column")
    assert result["n"].tolist() == [5, 4]
    assert result.loc["y", "icc"] == pytest.approx(icc(SHROUT_FLEISS[1:5]).icc)


def test_studies_of_a_patient_are_no_further_subjects():
    """Two studies a patient: one of each is taken, since they would count as alike patients."""
    table = repeats(SHROUT_FLEISS)
    table["study_id"] = table["patient_id"].str[1]
    with pytest.raises(InputError, match="two or more patients, and the table has 1"):
        repeatability(table.assign(patient_id="p"))
    paired = table.assign(patient_id=(table["study_id"].astype(int) // 2).astype(str))
    result = repeatability(paired)
    assert result.loc[0, "n"] == 3
    assert result.loc[0, "icc"] == pytest.approx(icc(SHROUT_FLEISS[::2]).icc)


def test_no_column_with_two_complete_patients_is_refused():
    table = repeats(SHROUT_FLEISS)
    table.loc[table["patient_id"] != "p0", "x"] = np.nan
    with pytest.raises(InputError, match="no column has two patients with all 4 repeats"):
        repeatability(table)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda t: t.drop(columns="repeat"), "needs the column repeat"),
        (lambda t: pd.concat([t, t]), "given twice: .*'p0'"),
        (lambda t: t[t["repeat"] == "visit 0"], "two or more repeats"),
    ],
)
def test_what_is_no_repeat_is_refused(change, finding):
    with pytest.raises(InputError, match=finding):
        repeatability(change(repeats(SHROUT_FLEISS)))


COLUMN = "t2.gland.original_glcm_Idn"


def test_scans_are_told_apart_by_any_words(tmp_path: Path) -> None:
    """Dates as study ids, rows in any order: the table of a cohort with two studies a patient."""
    table = repeats(SHROUT_FLEISS[:, :2], COLUMN)
    dates = table["repeat"].map({"visit 0": "2019-01-", "visit 1": "2019-02-"})
    table["study_id"] = dates + table["patient_id"].str[1].str.zfill(2)
    table = table.drop(columns="repeat").sample(frac=1, random_state=1)
    table.to_csv(tmp_path / "retest.csv", index=False)
    out = tmp_path / "R-repeatability.csv"
    assert job(Config(tmp_path / "retest.csv", out)) == 0
    result = pd.read_csv(out)
    assert result.columns.tolist() == ["column", "icc", "icc_low", "icc_high", "n", "repeats"]
    expected = icc(SHROUT_FLEISS[:, :2])
    row = result.iloc[0]
    assert (row["column"], row["n"], row["repeats"]) == (COLUMN, 6, 2)
    assert row[["icc", "icc_low", "icc_high"]].tolist() == pytest.approx(expected, rel=1e-12)


def test_other_numbers_of_scans_are_left_out_and_said(tmp_path: Path, caplog) -> None:
    table = repeats(SHROUT_FLEISS[:, :3], COLUMN)
    # Four patients with two scans, one with three, one with a single scan.
    table = table.drop(index=[2, 5, 8, 11, 16, 17])
    table.to_csv(tmp_path / "retest.csv", index=False)
    with caplog.at_level("INFO", logger="lens"):
        read = read_test_retest(tmp_path / "retest.csv")
    assert "2 scans a patient are compared; 1 patient(s) with fewer and 1 later scan(s)" in (
        caplog.text
    )
    values = SHROUT_FLEISS[:5, :2]
    np.testing.assert_array_equal(read[COLUMN].to_numpy().reshape(5, 2), values)
    assert repeatability(read).loc[0, "icc"] == pytest.approx(icc(values).icc)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda t: t.drop(columns="repeat"), "needs the columns patient_id and repeat"),
        (lambda t: t.drop(columns="patient_id"), "needs the columns patient_id and repeat"),
        (lambda t: t.assign(repeat=t["repeat"].where(t.index > 0)), "without blanks"),
        (lambda t: pd.concat([t, t[:1]]), "listed twice: p0, visit 0"),
        (lambda t: t[t["repeat"] == "visit 0"], "no patient has two or more scans"),
        (lambda t: t.assign(age=60), "not the name of a radiomic feature: 'age'"),
        (lambda t: t.assign(**{COLUMN: "n/k"}), r"not numeric \(patient p0: 'n/k'\)"),
    ],
)
def test_what_is_no_test_retest_table_is_refused(tmp_path: Path, change, finding) -> None:
    change(repeats(SHROUT_FLEISS, COLUMN)).to_csv(tmp_path / "retest.csv", index=False)
    with pytest.raises(InputError, match=rf"retest.csv: .*{finding}"):
        read_test_retest(tmp_path / "retest.csv")
