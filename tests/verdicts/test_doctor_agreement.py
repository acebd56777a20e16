"""The benchmark that holds the doctor against fresh cohorts: how it reads power and counts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.cohorts import GAUSSIAN
from benchmarks.doctor_agreement import FAMILIES, _finite, line, power_at, row_of

LOSS = np.array([0.3, 0.1, 0.2, 0.4])
LOST = np.array([0.5, 0.1, 0.0, 1.0])


def test_power_rises_with_the_loss_and_is_unknown_beyond_it() -> None:
    power = power_at(LOSS, LOST)
    assert power(0.15) == pytest.approx(0.05), "two features that are out of order share a mean"
    assert power(0.35) == pytest.approx(0.75)
    assert np.isnan(power(0.5))


def test_a_row_goes_by_the_larger_loss_and_none_is_infinite() -> None:
    told = {
        "answer": "partly", "short": "yes", "planted": 0.2, "task": 0.35,
        "from the verdicts": 0.3, "alarms": 1, "draws": 21,
    }  # fmt: skip
    found = {
        "loss": LOSS.tolist(), "lost": LOST.tolist(), "called where nothing changed": 2,
        "untouched called": 0, "cohorts": 30,
    }  # fmt: skip
    row = row_of(GAUSSIAN, [told, told | {"planted": None}], found)
    assert row["predicted"] == [0.35, np.inf]
    assert row["power there"][0] == pytest.approx(0.75)
    assert row["measured"] == pytest.approx(0.36, abs=0.001)
    assert (row["doctor's false alarms"], row["false alarms"]) == ("2 of 42", "2 of 30")
    assert "0.35, none" in line(row)
    text = json.dumps({name: _finite(value) for name, value in row.items()}, allow_nan=False)
    assert json.loads(text)["predicted"] == [0.35, None]


def test_a_dominating_direction_is_the_same_on_both_sides() -> None:
    x = np.random.default_rng(0).normal(size=(2, 50, 8))
    sides = FAMILIES[-1].embeddings(x, np.random.default_rng(1))
    changed = sides - x
    assert np.linalg.matrix_rank(changed.reshape(100, 8)) == 1
    largest = np.linalg.svd(np.linalg.lstsq(x[0], sides[0], rcond=None)[0])[1]
    np.testing.assert_allclose(largest, [30, *[1] * 7])
