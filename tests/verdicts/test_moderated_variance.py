"""Moderated variances: the published formula by brute force, planted priors, and odd cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, optimize, stats
from scipy.special import polygamma

from lens.verdicts.moderated_variance import (
    Prior,
    fit_prior,
    moderated_variance,
    overlap,
    shrink,
    trigamma_inverse,
)


def spreads(rng: np.random.Generator, k: int, prior: Prior) -> np.ndarray:
    """True standard deviations of k features, from the prior."""
    return np.sqrt(prior.variance * prior.df / rng.chisquare(prior.df, k))


def variances(seed: int, k: int, df: int, prior: Prior) -> np.ndarray:
    """Sample variances of k independent features."""
    rng = np.random.default_rng(seed)
    return np.square(spreads(rng, k, prior)) * rng.chisquare(df, k) / df


@pytest.mark.parametrize("y", np.geomspace(1e-12, 1e12, 25))
def test_trigamma_is_inverted(y: float) -> None:
    assert float(polygamma(1, trigamma_inverse(y))) == pytest.approx(y, rel=1e-8)


@pytest.mark.parametrize("prior", [Prior(3.0, 0.04), Prior(8.0, 2.5e-3), Prior(30.0, 7.0)])
@pytest.mark.parametrize("df", [2, 4])
def test_a_planted_prior_is_recovered(prior: Prior, df: int) -> None:
    """100,000 features: the variance of the logs is known to a percent, and with it d0."""
    found = fit_prior(variances(0, 100_000, df, prior), df)
    assert found.variance == pytest.approx(prior.variance, rel=0.02)
    # trigamma(d0/2) is about 2/d0, beside a noise of trigamma(d/2).
    tolerance = 0.01 * (1 + float(polygamma(1, df / 2)) * prior.df / 2)
    assert found.df == pytest.approx(prior.df, rel=3 * tolerance)


def test_the_prior_is_about_that_of_the_greatest_likelihood() -> None:
    """Two consistent estimates from the same 20,000 variances, by moments and by SciPy."""
    variance, df = variances(1, 20_000, 4, Prior(5.0, 0.01)), 4

    def loss(logs: np.ndarray) -> float:
        return -float(stats.f.logpdf(variance, df, np.exp(logs[0]), scale=np.exp(logs[1])).sum())

    best = optimize.minimize(loss, np.log([2.0, variance.mean()]), method="Nelder-Mead").x
    found = fit_prior(variance, df)
    assert found.df == pytest.approx(np.exp(best[0]), rel=0.1)
    assert found.variance == pytest.approx(np.exp(best[1]), rel=0.02)


@pytest.mark.parametrize("own", [0.2, 1.0, 2.5])
def test_shrinking_is_bayes_rule(own: float) -> None:
    """One over the posterior mean of the precision, by numerical integration over the variance."""
    prior, df = Prior(6.0, 1.3), 3

    def posterior(precision: float) -> float:
        before = stats.chi2.pdf(precision * prior.df * prior.variance, prior.df)
        return float(before * precision * stats.chi2.pdf(df * own * precision, df))

    weight, _ = integrate.quad(posterior, 0, np.inf)
    mean, _ = integrate.quad(lambda p: p * posterior(p), 0, np.inf)
    found = shrink(np.full(5, own), df, prior)
    np.testing.assert_allclose(found.variance, weight / mean, rtol=1e-6)
    np.testing.assert_allclose(found.df, prior.df + df)


def test_moderated_is_nearer_to_the_truth_than_a_features_own_variance() -> None:
    rng = np.random.default_rng(2)
    truth = spreads(rng, 2000, Prior(8.0, 0.01))
    draws = truth * rng.normal(size=(3, 2000))
    found = moderated_variance(draws)

    def distance(variance: np.ndarray) -> float:
        return float(np.mean(np.abs(np.log(variance / np.square(truth)))))

    assert distance(found.variance) < 0.5 * distance(draws.var(axis=0, ddof=1))
    assert np.median(found.df) == pytest.approx(10, rel=0.3)


def test_units_and_shifts_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    draws = spreads(rng, 50, Prior(5.0, 1.0)) * rng.normal(size=(3, 50))
    one, other = moderated_variance(draws), moderated_variance(7 * draws + rng.normal(size=50))
    np.testing.assert_allclose(other.variance, 49 * one.variance, rtol=1e-9)
    np.testing.assert_allclose(other.df, one.df, rtol=1e-9)


def test_a_single_feature_and_copies_of_one_keep_their_own_variance() -> None:
    draws = np.random.default_rng(4).normal(size=(3, 1))
    for copies in (draws, draws * np.array([1.0, -3.0, 0.1])):
        found = moderated_variance(copies)
        np.testing.assert_allclose(found.variance, copies.var(axis=0, ddof=1))
        np.testing.assert_array_equal(found.df, 2)


def test_variances_that_are_all_alike_are_pooled() -> None:
    """Four hundred features of one spread: each is known as well as all of them together."""
    draws = np.random.default_rng(5).normal(size=(5, 400))
    found = moderated_variance(draws)
    np.testing.assert_allclose(found.variance, 1.0, rtol=0.25)
    assert np.median(found.df) > 50
    assert found.df.max() <= 4 * 400


def test_nothing_varies() -> None:
    found = moderated_variance(np.tile(np.arange(4.0), (3, 1)))
    np.testing.assert_array_equal(found.variance, 0)
    np.testing.assert_array_equal(found.df, 2)


def test_a_few_features_or_most_without_variation_are_no_obstacle() -> None:
    draws = np.random.default_rng(6).normal(size=(3, 60))
    for still in (3, 40):
        draws[:, :still] = 0.5
        found = moderated_variance(draws)
        assert np.isfinite(found.variance).all()
        assert (found.variance >= 0).all()
        assert (found.variance[:still] < found.variance[still:].max()).all()


def test_a_feature_without_a_value_is_left_out() -> None:
    draws = np.random.default_rng(7).normal(size=(3, 30))
    whole = moderated_variance(draws)
    holes = np.insert(draws, 4, [np.nan, 1.0, 2.0], axis=1)
    found = moderated_variance(holes)
    assert np.isnan(found.variance[4])
    np.testing.assert_array_equal(np.delete(found.variance, 4), whole.variance)
    assert np.isnan(moderated_variance(np.full((3, 2), np.nan)).variance).all()


def test_an_outlying_feature_keeps_its_own_variance() -> None:
    """One of 1,000 varies fifty times as much: the others say nothing about it."""
    draws = np.random.default_rng(8).normal(size=(3, 1000))
    draws[:, 0] = [50.0, 0.0, -50.0]
    found = moderated_variance(draws)
    assert found.df[0] < 2.5
    assert found.variance[0] == pytest.approx(draws[:, 0].var(ddof=1), rel=0.2)
    assert np.median(found.df) > 10


@pytest.mark.parametrize("count", [3, 4, 6])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 1.0])
def test_the_overlap_of_two_features_is_their_squared_correlation(count: int, rho: float) -> None:
    """From the mean over 20,000 pairs, which is known to a hundredth."""
    rng = np.random.default_rng(9)
    one, other = rng.normal(size=(2, count, 20_000))
    other = rho * one + np.sqrt(1 - rho**2) * other
    centred = [each - each.mean(axis=0) for each in (one, other)]
    cosine = (centred[0] * centred[1]).sum(axis=0) / np.prod(
        [np.linalg.norm(each, axis=0) for each in centred], axis=0
    )
    # Draws of two features whose squared cosine is the mean one.
    mean = np.square(cosine).mean()
    basis = np.linalg.qr(np.column_stack([np.ones(count), np.eye(count)[:, :2]]))[0][:, 1:]
    pair = basis @ np.array([[1.0, np.sqrt(mean)], [0.0, np.sqrt(1 - min(mean, 1.0))]])
    assert overlap(pair) == pytest.approx(rho**2, abs=0.02)


def test_independent_features_do_not_overlap_and_one_common_factor_is_seen() -> None:
    rng = np.random.default_rng(10)
    assert overlap(rng.normal(size=(4, 2000))) < 0.01
    found = [
        overlap(rng.normal(size=(6, 1)) + rng.normal(size=(6, 300))) for _ in range(100)
    ]  # fmt: skip
    assert 0.15 < np.mean(found) < 0.35  # The correlation is a half.


def test_two_draws_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        moderated_variance(np.zeros((2, 5)))
