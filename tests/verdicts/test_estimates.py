"""Estimates and tests from held-out errors: closed forms, coverage and false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score as sklearn_r2
from statsmodels.stats.weightstats import ttost_paired

from lens.verdicts.estimates import (
    Estimate,
    concatenate,
    delta_r2,
    equivalence,
    mean_of,
    r2_score,
    significance,
)
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import PRE, PROBES, ProbeErrors, held_out_errors


def cohort(seed: int, *, n: int, d: int, erased: float) -> tuple[np.ndarray, ...]:
    """Two encoders of the same six factors, each with its own noise; one loses part of a factor."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(6, d))
    latent = rng.normal(size=(n, 6))
    signal = np.sqrt(np.linspace(0.3, 0.9, 18))
    r = latent[:, np.arange(18) % 6] * signal + rng.normal(size=(n, 18)) * np.sqrt(1 - signal**2)
    pre = latent @ mixing + 2 * rng.normal(size=(n, d))
    latent[:, 0] *= 1 - erased
    return pre, latent @ mixing + 2 * rng.normal(size=(n, d)), r


GROUPS = np.arange(90)

ONE_VIEW = {"per_channel": PROBES["per_channel"]}
"""All that is read here; the other views would cost twice as much again."""


@pytest.fixture(scope="module")
def cohorts() -> list[tuple[ProbeErrors, ProbeErrors, np.ndarray]]:
    """Held-out errors of ridge before and after, and baseline, of forty cohorts."""
    made = []
    for seed in range(40):
        pre, ft, r = cohort(seed, n=90, d=40, erased=0.6)
        folds = make_folds(GROUPS, 5, 1, seed)
        held_out = held_out_errors(pre, {"t": ft}, r, GROUPS, folds, None, probes=ONE_VIEW)
        sides = held_out.probes["per_channel"]
        made.append((sides[PRE], sides["t"], held_out.baseline))
    return made


def test_value_is_scikit_learns_r2_where_the_baseline_is_the_samples_mean() -> None:
    rng = np.random.default_rng(0)
    y, fitted = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    errors = ProbeErrors(np.square(y - fitted), *np.zeros((2, 50, 3)))
    found = r2_score(errors, np.square(y - y.mean(axis=0)), np.arange(50))
    np.testing.assert_allclose(found.value, sklearn_r2(y, fitted, multioutput="raw_values"))


def test_the_interval_is_students_t_times_the_root_of_the_squared_influences() -> None:
    """Twelve patients, the last two with two rows; closed form in plain loops."""
    rng = np.random.default_rng(3)
    error, base = rng.uniform(0.5, 2, size=(2, 14, 3))
    fitted = rng.normal(size=(14, 3))
    groups = np.r_[np.arange(12), 10, 11]
    found = r2_score(ProbeErrors(error, fitted, np.zeros((14, 3))), base, groups)
    for k in range(3):
        r2 = 1 - error[:, k].sum() / base[:, k].sum()
        influence = np.zeros(12)
        for row, patient in enumerate(groups):
            own = base[row, k] - error[row, k] - r2 * base[row, k]
            by_the_fits = fitted[row, k] - fitted[:, k].mean()
            influence[patient] += (own - by_the_fits) / base[:, k].sum()
        half = stats.t.ppf(0.975, 11) * np.sqrt((influence**2).sum())
        np.testing.assert_allclose(found.influence[:, k], influence, atol=1e-12)
        np.testing.assert_allclose(
            [found.value[k], found.low[k], found.high[k]], [r2, r2 - half, r2 + half]
        )


def test_influence_is_the_derivative_in_a_patients_weight() -> None:
    rng = np.random.default_rng(1)
    before, after, base = rng.uniform(0.5, 2, size=(3, 40, 5))
    none = np.zeros((40, 5))
    errors = (ProbeErrors(error, none, none) for error in (before, after))
    found = delta_r2(*errors, base, np.arange(40) // 2)
    weights = np.ones(40)
    weights[[6, 7]] += 1e-6
    heavier = weights @ (before - after) / (weights @ base)
    np.testing.assert_allclose(found.influence[3], (heavier - found.value) / 1e-6, rtol=1e-3)
    np.testing.assert_allclose(found.influence.sum(axis=0), 0, atol=1e-12)


def test_noise_upon_noise_is_taken_off_once(cohorts) -> None:
    before, after, base = cohorts[0]
    plain, bare = (
        delta_r2(
            *(s._replace(flipped_influence=scale * s.flipped_influence) for s in (before, after)),
            base,
            GROUPS,
        )
        for scale in (1.0, 0.0)
    )
    np.testing.assert_array_equal(plain.value, bare.value)
    ratio = np.square(plain.influence).sum(axis=0) / np.square(bare.influence).sum(axis=0)
    assert ((ratio >= 0.5) & (ratio < 1)).all()
    whole = np.square(bare.influence).sum(axis=0)
    second = np.square((before.flipped_influence - after.flipped_influence) / base.sum(axis=0)).sum(
        axis=0
    )
    np.testing.assert_allclose(whole * ratio, whole - np.minimum(second, whole / 2), rtol=1e-6)


def test_intervals_cover_and_those_of_fixed_probes_do_not(cohorts) -> None:
    values, inside, narrow = [], [], []
    for before, after, base in cohorts:
        found = delta_r2(before, after, base, GROUPS)
        silent = (
            ProbeErrors(s.error, 0 * s.fitted_influence, 0 * s.flipped_influence)
            for s in (before, after)
        )
        fixed = delta_r2(*silent, base, GROUPS)
        values.append(found.value)
        inside.append((found.high - found.low) / 2)
        narrow.append((fixed.high - fixed.low) / 2)
    deviation = np.abs(np.array(values) - np.mean(values, axis=0))
    # 720 values, correlated within a cohort: a standard error of about two points.
    assert 0.90 < (deviation <= inside).mean() < 0.995
    assert (deviation <= narrow).mean() < 0.92


def test_other_noise_without_loss_raises_no_alarms_beyond_the_level(cohorts) -> None:
    kept = np.flatnonzero(np.arange(18) % 6 != 0)
    alarms = 0
    for seed, (before, after, base) in enumerate(cohorts):
        of_kept = (ProbeErrors(*(part[:, kept] for part in s)) for s in (before, after))
        change = delta_r2(*of_kept, base[:, kept], GROUPS)
        alarms += significance(change, flips=199, seed=seed).p_maxt.min() <= 0.05
    # Binomial(40, 0.05): 6 or more has a chance of 1.4%.
    assert alarms < 6


def test_a_loss_is_found(cohorts) -> None:
    strongest = 12  # of the erased factor's features: R2 falls by about a third
    found = [
        significance(delta_r2(*errors, GROUPS), flips=199, seed=0).p_maxt[strongest]
        for errors in cohorts
    ]
    assert (np.array(found) <= 0.05).mean() > 0.25


def test_no_signal_is_not_above_the_mean() -> None:
    alarms = 0
    for seed in range(30):
        pre, ft, r = cohort(seed, n=60, d=40, erased=0)
        order = np.random.default_rng(seed).permutation(60)
        patients = np.arange(60)
        held_out = held_out_errors(
            pre, {"t": ft}, r[order], patients, make_folds(patients, 5, 1, seed), None,
            probes=ONE_VIEW,
        )  # fmt: skip
        sides = held_out.probes["per_channel"]
        one, two = (r2_score(sides[side], held_out.baseline, patients) for side in (PRE, "t"))
        p = significance(concatenate(one, two), flips=199, seed=seed, alternative="greater").p_maxt
        assert p.shape == (36,)
        alarms += p.min() <= 0.05
        assert one.value.mean() < 0.02
    # Binomial(30, 0.05): 5 or more has a chance of 1.6%.
    assert alarms < 5


def test_a_feature_without_variation_has_no_value() -> None:
    ones, zeros = np.ones((10, 1)), np.zeros((10, 1))
    found = r2_score(ProbeErrors(ones, zeros, zeros), zeros, np.arange(10))
    assert np.isnan(found.value).all()
    assert np.isnan(found.low).all()


def differences(seed: int, n: int, mean: float, k: int = 1) -> tuple[np.ndarray, Estimate]:
    """Values of n patients per feature, and their mean as an estimate."""
    values = mean + np.random.default_rng(seed).normal(size=(n, k))
    found = values.mean(axis=0)
    return values, Estimate(found, found, found, (values - found) / n, n)


@pytest.mark.parametrize("mean", [0.0, 0.1, -0.15, 0.4])
def test_equivalence_is_two_one_sided_tests(mean: float) -> None:
    values, estimate = differences(0, 60, mean)
    found = equivalence(estimate, 0.3, flips=20_000, seed=0)
    expected, *_ = ttost_paired(values[:, 0], np.zeros(60), -0.3, 0.3)
    # Sign flips against Student's t: a Monte Carlo error of 0.003, and the sample's own tails.
    np.testing.assert_allclose(found, [expected], atol=0.012)


def test_equivalence_holds_family_wise_at_the_margin() -> None:
    """Fifty features, each exactly at the margin, on either side: hardly ever is one within it."""
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        common = rng.normal(size=(80, 1))
        noise = 0.5 * common + rng.normal(size=(80, 50))
        values = noise + 0.3 * np.where(np.arange(50) % 2, 1, -1)
        found = values.mean(axis=0)
        estimate = Estimate(found, found, found, (values - found) / 80, 80)
        alarms += equivalence(estimate, 0.3, flips=199, seed=seed).min() <= 0.05
    # Binomial(100, 0.05): 11 or more has a chance of 1.1%.
    assert alarms < 11


def test_nothing_at_all_is_within_any_margin() -> None:
    nothing = np.zeros(3)
    same = Estimate(nothing, nothing, nothing, np.zeros((20, 3)), 20)
    np.testing.assert_array_equal(equivalence(same, 0.1, flips=199, seed=0), 1 / 200)


def test_the_mean_over_features_is_an_estimate_of_its_own() -> None:
    values, estimate = differences(1, 40, 0.2, k=5)
    chosen = np.array([True, False, True, True, False])
    found = mean_of(estimate, chosen)
    mean = values[:, chosen].mean(axis=1)
    half = stats.t.ppf(0.975, 39) * mean.std() / np.sqrt(40)
    np.testing.assert_allclose(found.value, [mean.mean()])
    np.testing.assert_allclose([found.low[0], found.high[0]], mean.mean() + np.r_[-half, half])
    holes = estimate._replace(value=np.where(np.arange(5) == 2, np.nan, estimate.value))
    np.testing.assert_allclose(mean_of(holes, chosen).value, [values[:, [0, 3]].mean()])
    assert np.isnan(mean_of(estimate, np.zeros(5, bool)).value).all()
