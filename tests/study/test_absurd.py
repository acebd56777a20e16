"""Absurd values: one sets its patient aside, and no real or simulated radiomics is ever caught."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens.errors import InputError
from lens.study.absurd import (
    absurd_embeddings,
    absurd_features,
    blame,
    sentinels,
    usual_magnitudes,
)
from lens.study.load import load_study
from tests.planted import Planted, plant

COLUMN = "t2.gland.original_glcm_F0"


@pytest.fixture
def planted() -> Planted:
    return plant(n=60, d=8)


def load(planted: Planted, **options):
    pre, ft = (planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}
    return load_study(pre, ft, planted.radiomics, **options)


def test_one_absurd_feature_sets_its_patient_aside_and_moves_nothing_else(planted: Planted) -> None:
    planted.radiomics.loc[7, COLUMN] = 1e20
    study = load(planted)
    (error,) = study.set_aside
    assert (error.patient_id, error.file) == ("P0007", "radiomics")
    assert error.reason == f"{COLUMN} is 1e+20, more than 1e+06 times its usual size"
    assert error.remedy.startswith("Extract the patient again")
    assert np.abs(study.r).max() < 10
    whole = plant(n=60, d=8)
    without = replace(whole, radiomics=whole.radiomics.drop(index=7))
    np.testing.assert_array_equal(study.r, load(without).r)


@pytest.mark.parametrize("where", ["pre", "ft['cls']", "retrained['cls'][0]"])
@pytest.mark.parametrize("value", [1e20, -1e9])
def test_one_absurd_dimension_sets_its_patient_aside(
    planted: Planted, where: str, value: float
) -> None:
    again = planted.ft + 0.01
    x = {"pre": planted.pre, "ft['cls']": planted.ft, "retrained['cls'][0]": again}[where]
    x[9, 3] = value
    study = load(planted, retrained={"cls": [(planted.ids, again)]})
    (error,) = study.set_aside
    assert (error.patient_id, error.file) == ("P0009", where)
    assert error.reason.startswith(f"dimension 3 (counted from 0) is {value:.6g}, more than")
    assert error.remedy.startswith("Embed the patient again")
    assert len(study.ids) == 59


def test_a_patient_absurd_throughout_is_one_finding(planted: Planted) -> None:
    planted.radiomics.iloc[[3, 4, 5, 6], 1:] *= 1e12
    study = load(planted)
    assert [error.patient_id for error in study.set_aside] == ["P0003", "P0004", "P0005", "P0006"]
    assert "; so are 47 more value(s)" in study.set_aside[0].reason
    assert study.dropped.empty, "the patients are to blame, not every column"


def test_a_column_absurd_in_many_patients_goes_in_their_stead(planted: Planted) -> None:
    planted.radiomics.loc[:3, COLUMN] = 1e30
    study = load(planted)
    assert not study.set_aside
    assert study.dropped.to_numpy().tolist() == [
        [COLUMN, "more than 1e+06 times its usual size in 4 patients"]
    ]


def test_a_dimension_absurd_in_many_patients_is_refused(planted: Planted) -> None:
    planted.ft[:4, 2] = 1e30
    with pytest.raises(InputError, match=r"^ft\['cls'\]: dimension 2 .* in 4 patients.*encoder"):
        load(planted)


Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]

RADIOMICS: dict[str, Draw] = {
    "exponential of 2.5 normal": lambda rng, size: np.exp(2.5 * rng.normal(size=size)),
    "lognormal of sigma 3": lambda rng, size: np.exp(3.0 * rng.normal(size=size)),
    "t with 2 degrees": lambda rng, size: rng.standard_t(2, size=size),
    "energy": lambda rng, size: 10.0 ** rng.uniform(2, 9, size),
    "mostly zero": lambda rng, size: np.where(
        rng.random(size) < 0.97, 0.0, np.exp(3.0 * rng.normal(size=size))
    ),
    "energy, mostly zero": lambda rng, size: np.where(
        rng.random(size) < 0.97, 0.0, 10.0 ** rng.uniform(2, 9, size)
    ),
    "rounding of a flat texture, mostly": lambda rng, size: np.where(
        rng.random(size) < 0.95, 1e-16 * rng.normal(size=size), rng.random(size)
    ),
    "coarseness, 1e6 in a flat region": lambda rng, size: np.where(
        rng.random(size) < 0.98, 1e-3 * rng.random(size), 1e6
    ),
    "diffusion in mm2/s": lambda rng, size: 1e-3 * np.exp(rng.normal(size=size)),
    "nothing but zeros": lambda rng, size: np.zeros(size),
}


@pytest.mark.parametrize("patients", [10, 40, 104, 850])
@pytest.mark.parametrize("kind", RADIOMICS)
def test_heavy_tails_are_no_absurd_values(kind: str, patients: int) -> None:
    """Fifty thousand values or more of each kind. An absurd one among them is still found."""
    rng = np.random.default_rng(patients)
    values = RADIOMICS[kind](rng, (patients, max(200, 50_000 // patients)))
    assert not absurd_features(values).any()
    values[1, 5] = 1e20
    assert np.argwhere(absurd_features(values)).tolist() == [[1, 5]]


EMBEDDINGS: dict[str, Draw] = {
    "softmax": lambda rng, size: (
        np.exp(a := 9 * rng.normal(size=size)) / np.exp(a).sum(axis=1, keepdims=True)
    ),
    "dead but for a few patients": lambda rng, size: (
        np.where(rng.random(size) < 0.98, 1e-7 * rng.normal(size=size), 5.0)
        * (np.arange(size[1]) > 0)
        + (np.arange(size[1]) == 0) * rng.normal(size=size)
    ),
    "one dimension a thousand times larger": lambda rng, size: (
        rng.normal(size=size) * np.where(np.arange(size[1]) == 3, 1e3, 1.0)
    ),
    "small": lambda rng, size: 1e-4 * rng.normal(size=size),
}


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_sparse_or_uneven_embeddings_are_not_absurd(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = EMBEDDINGS[kind](rng, (300, 64)).astype(np.float32)
    assert not absurd_embeddings(x).any()
    x[2, 7] = 1e20
    assert np.argwhere(absurd_embeddings(x)).tolist() == [[2, 7]]


def test_the_usual_magnitude_is_an_order_statistic_of_what_is_not_zero() -> None:
    values = np.r_[np.zeros(80), -np.arange(1.0, 21.0), np.nan, np.inf][:, None]
    expected = np.quantile(np.arange(1.0, 21.0), 0.9, method="lower")
    assert usual_magnitudes(values).tolist() == [expected]
    assert np.isnan(usual_magnitudes(values[:89])), "nine values are too few"


def test_one_patient_never_makes_a_column_absurd() -> None:
    absurd = np.zeros((10, 6), bool)
    absurd[4, 2] = True
    columns, rows = blame(absurd)
    assert not columns.any()
    assert np.flatnonzero(rows).tolist() == [4]


def test_the_papers_size_takes_well_under_a_second() -> None:
    values = np.exp(np.random.default_rng(0).normal(size=(850, 2511)))
    start = time.perf_counter()
    blame(absurd_features(values))
    # 0.1 s on two cores; a loop over columns took several.
    assert time.perf_counter() - start < 1.5


def test_a_value_that_stands_for_a_missing_one_is_noted(planted: Planted, caplog) -> None:
    planted.radiomics.loc[[4, 9, 11], COLUMN] = -999.0
    study = load(planted)
    (note,) = [note for note in study.notes if "-999" in note]
    assert note == (
        f"radiomics: -999 is the value of 3 patients in 1 column(s), and far from all others, such "
        f"as {COLUMN} of patient P0004; where it stands for a missing value, leave the cell blank"
    )
    assert note in caplog.text
    assert len(study.ids) == 60, "nobody is set aside for it"


@pytest.mark.parametrize(
    ("rest", "value", "count", "expected"),
    [
        ("normal", -999.0, 3, True), ("normal", 1e5, 2, True), ("normal", -999.0, 1, False),
        ("normal", 7.0, 3, False), ("large", -999.0, 3, True), ("large", -7.0, 3, False),
        ("negative", -999.0, 3, False), ("normal", -999.0, 31, False),
        ("wide", -999.0, 3, False), ("grades", 99.0, 3, False),
    ],
)  # fmt: skip
def test_which_values_stand_for_missing_ones(
    rest: str, value: float, count: int, expected: bool
) -> None:
    rng = np.random.default_rng(0)
    column = {
        "normal": rng.normal(size=60), "large": rng.uniform(5e3, 5e4, 60),
        "negative": rng.uniform(-5e4, 5e4, 60), "wide": rng.uniform(-900, 900, 60),
        "grades": rng.integers(0, 3, 60).astype(float),
    }[rest]  # fmt: skip
    column[:count] = value
    found = sentinels(np.c_[rng.normal(size=60), column])
    assert not found[:, 0].any()
    assert np.flatnonzero(found[:, 1]).tolist() == (list(range(count)) if expected else [])


def test_features_that_differ_in_case_alone_are_noted(planted: Planted) -> None:
    planted.radiomics[COLUMN.replace("_F0", "_f0")] = planted.radiomics[COLUMN] ** 2
    notes = [note for note in load(planted).notes if "upper and lower case" in note]
    assert len(notes) == 1
    assert notes[0].startswith("radiomics: 2 columns have names that are the same but for")
    assert "_F0'" in notes[0]
    assert "_f0'" in notes[0]


def test_no_real_value_is_absurd(real_data: Path) -> None:
    tables = real_data / "tables"
    for name, separator in (
        ("Song2020.csv.gz", ","), ("qin_repeatability_t2_3D_bin15.csv.gz", ";")
    ):  # fmt: skip
        table = pd.read_csv(tables / name, sep=separator).select_dtypes("number")
        assert not absurd_features(table.to_numpy(np.float64)).any()
        assert not sentinels(table.to_numpy(np.float64)).any()
