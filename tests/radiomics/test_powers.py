"""Powers are NumPy's and statistics of a whole image SimpleITK's, to the last bit."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import SimpleITK as sitk

from lens.radiomics import kernels
from lens.radiomics.engine import one_thread
from lens.radiomics.powers import power
from lens.radiomics.whole_image import LARGE, statistics


@pytest.mark.parametrize("exponent", [3, 4])
@pytest.mark.parametrize("scale", [1e-90, 1e-30, 1e-3, 1.0, 1e4, 1e30, 1e75])
def test_powers_are_those_of_numpy(exponent: Literal[3, 4], scale: float) -> None:
    values = scale * np.random.default_rng(0).normal(size=100_000)
    values[:6] = 0, -0.0, -1, -2, -3, 1
    assert np.array_equal(power(values, exponent), np.power(values, exponent))


@pytest.mark.parametrize("fourth", [False, True])
def test_a_power_near_the_middle_of_two_numbers_is_in_doubt(fourth: bool) -> None:
    values = -np.random.default_rng(1).uniform(1, 2, 100_000)
    powers, doubtful = np.empty(values.size), np.empty(values.size, bool)
    kernels.negative_powers(values, fourth, powers, doubtful)
    assert 0.05 < doubtful.mean() < 0.25
    # All others are the exact powers, rounded: integer arithmetic says what those are.
    for at in range(2000):
        top, bottom = float(values[at]).as_integer_ratio()
        exact = top ** (3 + fourth) / bottom ** (3 + fourth)
        assert powers[at] == exact


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16])
def test_statistics_are_those_of_simpleitk(kind: Any) -> None:
    rng = np.random.default_rng(0)
    shape = (7, 409, 419)
    assert np.prod(shape) > LARGE
    made = rng.gamma(2, 300, shape) * (rng.random(shape) < 0.7)
    made[-1, -1, -64:] += 500  # of which the last few are added apart, each of them
    image = sitk.GetImageFromArray(made.astype(kind))
    theirs = sitk.StatisticsImageFilter()
    with one_thread():
        theirs.Execute(image)
    assert statistics(image) == (theirs.GetMean(), theirs.GetSigma())


def test_what_rounding_takes_from_a_sum_is_kept() -> None:
    values = np.full(LARGE, 1e-9, np.float32)
    values[: LARGE // 2] = 1e9
    total, lost, _, _ = kernels.sums(values)
    assert total.sum() == LARGE // 2 * 1e9
    assert lost.sum() == pytest.approx(LARGE // 2 * 1e-9, rel=1e-6)


@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [np.inf, -np.inf]])
@pytest.mark.parametrize("at", [0, -5])
def test_of_what_is_not_finite_simpleitk_has_the_word(bad: list[float], at: int) -> None:
    made = np.random.default_rng(0).normal(size=LARGE + 33).astype(np.float32)
    made[at : at + len(bad)] = bad
    image = sitk.GetImageFromArray(made.reshape(1, 1, -1))
    theirs = sitk.StatisticsImageFilter()
    with one_thread():
        theirs.Execute(image)
    expected = theirs.GetMean(), theirs.GetSigma()
    assert np.array_equal(statistics(image), expected, equal_nan=True)
