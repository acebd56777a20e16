"""Normal scores: against SciPy and scikit-learn, and what happens outside of the fitted rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.preprocessing import QuantileTransformer

from lens.verdicts.fold_values import normal_scores, target_values

FITTED = np.arange(120) < 90


@pytest.fixture(scope="module")
def r() -> np.ndarray:
    """Skewed, wild, nearly binary and coarse features, the last two with many ties."""
    rng = np.random.default_rng(0)
    g = rng.normal(size=(120, 4))
    return np.c_[np.exp(2.5 * g[:, 0]), rng.standard_t(2, 120), g[:, 2] > 1, np.round(g[:, 3])]


def test_fitted_rows_have_the_normal_quantile_of_their_mean_rank(r: np.ndarray) -> None:
    rank = stats.rankdata(r[FITTED], axis=0)
    expected = stats.norm.ppf((rank - 0.5) / 90)
    np.testing.assert_allclose(normal_scores(r, FITTED)[FITTED], expected, atol=1e-12)


def test_without_ties_they_are_scikit_learns_up_to_the_plotting_position(r: np.ndarray) -> None:
    """Its ranks go from 0 to 1, where the quantile is infinite and cut; ours from 1/2n on."""
    transform = QuantileTransformer(n_quantiles=90, output_distribution="uniform")
    transform.fit(r[FITTED, :2])
    uniform = transform.transform(r[:, :2])
    expected = stats.norm.ppf((uniform * 89 + 0.5) / 90)
    found = normal_scores(r[:, :2], FITTED)
    np.testing.assert_allclose(found[FITTED], expected[FITTED], atol=1e-9)
    # Between two fitted rows it interpolates the rank, ours its quantile.
    np.testing.assert_allclose(found[~FITTED], expected[~FITTED], atol=0.06)


def test_other_rows_are_interpolated_and_no_further_out_than_the_fitted() -> None:
    fitted = np.array([True] * 4 + [False] * 4)
    r = np.array([1.0, 2.0, 4.0, 9.0, 3.0, -1e20, 1e20, 4.0])[:, None]
    ends = stats.norm.ppf([1 / 8, 3 / 8, 5 / 8, 7 / 8])
    expected = [*ends, (ends[1] + ends[2]) / 2, ends[0], ends[3], ends[2]]
    np.testing.assert_allclose(normal_scores(r, fitted)[:, 0], expected)


def test_monotone_maps_of_a_feature_change_nothing_in_the_fitted_rows(r: np.ndarray) -> None:
    bent = np.c_[np.log(r[:, 0]), np.arctan(r[:, 1]), 7 * r[:, 2] - 3, r[:, 3] ** 3]
    scores, other = normal_scores(r, FITTED), normal_scores(bent, FITTED)
    np.testing.assert_allclose(other[FITTED], scores[FITTED], atol=1e-12)


def test_held_out_rows_are_not_looked_at(r: np.ndarray) -> None:
    wild = r.copy()
    wild[~FITTED] = 1e30
    np.testing.assert_array_equal(
        normal_scores(wild, FITTED)[FITTED], normal_scores(r, FITTED)[FITTED]
    )


def test_missing_values_have_no_rank_and_take_the_fitted_median(r: np.ndarray) -> None:
    holes = r.copy()
    holes[[3, 95], 0] = np.nan
    holes[:, 1] = np.where(FITTED, np.nan, r[:, 1])
    scores = normal_scores(holes, FITTED)
    assert np.isnan(scores[[3, 95], 0]).all()
    known = np.delete(np.flatnonzero(FITTED), 3)
    rank = stats.rankdata(r[known, 0])
    np.testing.assert_allclose(scores[known, 0], stats.norm.ppf((rank - 0.5) / 89), atol=1e-12)
    filled = target_values(holes, FITTED)
    np.testing.assert_array_equal(filled[[3, 95], 0], np.median(scores[known, 0]))
    # No fitted row has the feature: nothing is known of it.
    np.testing.assert_array_equal(filled[:, 1], 0)


def test_a_constant_feature_has_score_zero() -> None:
    np.testing.assert_array_equal(normal_scores(np.full((9, 1), 5.0), np.arange(9) < 6), 0)


def test_raw_values_are_imputed_only(r: np.ndarray) -> None:
    np.testing.assert_array_equal(target_values(r, FITTED, "raw"), r)
