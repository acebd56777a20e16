"""Pooled changes against statsmodels, closed forms and drawn cohorts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from lens.cards.pooling import pool, standard_error


@pytest.mark.parametrize("k", [2, 3, 6])
def test_it_is_what_statsmodels_finds(k: int) -> None:
    rng = np.random.default_rng(k)
    errors = rng.uniform(0.02, 0.1, (k, 40))
    # From no spread between cohorts to a spread far beyond chance.
    y = rng.normal(size=(k, 40)) * np.hypot(errors, np.linspace(0, 0.2, 40))
    found = pool(y, errors)
    seen = set()
    for column in range(40):
        variances = errors[:, column] ** 2
        with np.errstate(invalid="ignore"):
            peer: Any = combine_effects(y[:, column], variances, method_re="chi2", use_t=True)
        np.testing.assert_allclose(found.q[column], peer.q, rtol=1e-10)
        np.testing.assert_allclose(found.i2[column], max(peer.i2, 0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.p[column], peer.test_homogeneity().pvalue, rtol=1e-8)
        if peer.tau2 < 0:
            # It goes on with a negative variance; the method stops at zero, the fixed effect.
            mean, error, kind = peer.mean_effect_fe, peer.sd_eff_w_fe, "fixed"
        elif peer.scale_hksj_re < 1:
            mean, error, kind = peer.mean_effect_re, peer.sd_eff_w_re, "plain"
        else:
            mean, error, kind = peer.mean_effect_re, peer.sd_eff_w_re_hksj, "hksj"
        half = stats.t.ppf(0.975, k - 1) * error
        np.testing.assert_allclose(found.tau2[column], max(peer.tau2, 0), rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(found.random[column], mean, rtol=1e-10)
        np.testing.assert_allclose(found.random_high[column] - found.random[column], half)
        # Of the weighted mean it has a t, or a normal interval by `use_t`; ours is normal.
        np.testing.assert_allclose(found.mean[column], peer.mean_effect_fe, rtol=1e-10)
        half = stats.norm.ppf(0.975) * peer.sd_eff_w_fe
        np.testing.assert_allclose(found.high[column] - found.mean[column], half)
        seen.add(kind)
    # Of two cohorts with a variance between them the two forms agree.
    assert seen >= {"fixed", "hksj"}


def test_two_equal_cohorts_by_hand() -> None:
    found = pool(np.array([[0.1], [0.3]]), np.array([[0.05], [0.05]]))
    # Q = 2 w (0.1)^2 = 8, tau2 = (8 - 1) / (800 - 400), M = 0.2, SE^2 = (0.1^2 * 2 / 1) / 2.
    np.testing.assert_allclose(
        [found.q[0], found.i2[0], found.tau2[0], found.mean[0]], [8, 7 / 8, 7 / 400, 0.2]
    )
    np.testing.assert_allclose(found.random_high[0], 0.2 + stats.t.ppf(0.975, 1) * 0.1)
    np.testing.assert_allclose(found.high[0], 0.2 + 1.96 * 0.05 / np.sqrt(2), rtol=1e-4)
    np.testing.assert_allclose(found.p_mean[0], 2 * stats.norm.sf(0.2 / 0.05 * np.sqrt(2)))
    assert np.isnan(found.next_low[0]), "two cohorts say nothing of the next one"


def test_what_cannot_be_pooled_is_nan_and_stays_alone() -> None:
    y = np.array([[0.1, 0.0, np.nan], [0.2, 0.0, 0.1]])
    found = pool(y, np.array([[0.05, 0.0, 0.1], [0.05, 0.1, 0.1]]))
    assert np.isfinite(found.mean).tolist() == [True, False, False]
    assert np.isfinite(found.i2).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="two or more"):
        pool(y[:1], y[:1])


def test_coverage_and_false_alarms_over_drawn_cohorts() -> None:
    """Nominal levels where all changes are equal, and the interval's where they are not."""
    rng, k, draws = np.random.default_rng(0), 4, 4000
    errors = rng.uniform(0.03, 0.06, (k, draws))
    equal = pool(0.1 + errors * rng.normal(size=(k, draws)), errors)
    # 4000 draws: a rate has a standard error of 0.35%.
    assert abs(np.mean(equal.p < 0.05) - 0.05) < 0.012
    assert abs(np.mean((equal.low < 0.1) & (equal.high > 0.1)) - 0.95) < 0.012
    between = 0.05 * rng.normal(size=(k, draws))
    varied = pool(0.1 + between + errors * rng.normal(size=(k, draws)), errors)
    covered = np.mean((varied.random_low < 0.1) & (varied.random_high > 0.1))
    assert 0.93 < covered < 0.99
    new = 0.1 + 0.05 * rng.normal(size=draws)
    assert 0.90 < np.mean((varied.next_low < new) & (new < varied.next_high)) < 0.99


def test_the_error_behind_an_interval() -> None:
    half = stats.t.ppf(0.975, 99) * 0.04
    found = standard_error(np.array([0.1 - half]), np.array([0.1 + half]), 100)
    np.testing.assert_allclose(found, 0.04)
