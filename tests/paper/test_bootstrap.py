"""Intervals: laws, and coverage on simulated cohorts."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import r2_score

from lens.intervals import Z_VALUE, percentile_interval
from lens.paper.bootstrap import bootstrap_scores, patient_weights
from lens.paper.importance import Fit, importance, importance_error
from lens.probes.decoder import decode, predict


def test_a_patients_studies_are_drawn_together() -> None:
    groups = np.array(["a", "b", "a", "c", "c", "c"])
    weights = patient_weights(groups, 200, seed=0)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 3], weights[:, 5])
    drawn = weights[:, [0, 1, 3]].sum(axis=1)
    np.testing.assert_array_equal(drawn, 3)
    np.testing.assert_array_equal(weights, patient_weights(groups, 200, seed=0))


def test_scores_equal_those_of_the_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    y, fitted = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    weights = patient_weights(np.arange(30), 5, seed=2)
    mean, variance = np.full(4, 0.1), np.full(4, 2.0)
    scores = bootstrap_scores(y - fitted, y - mean, variance, weights)
    for draw, weight in enumerate(weights):
        rows = np.repeat(np.arange(30), weight.astype(int))
        mse = np.square(y[rows] - fitted[rows]).mean(axis=0)
        np.testing.assert_allclose(scores["mse"][draw], mse, rtol=1e-5)
        np.testing.assert_allclose(scores["mse_z"][draw], mse / 2, rtol=1e-5)
        expected = 1 - mse / np.square(y[rows] - mean).mean(axis=0)
        np.testing.assert_allclose(scores["r2"][draw], expected, rtol=1e-4, atol=1e-5)


def test_r2_about_the_samples_own_mean_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    y, fitted = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    scores = bootstrap_scores(y - fitted, y - y.mean(axis=0), np.ones(3), np.ones((1, 40)))
    expected = r2_score(y, fitted, multioutput="raw_values")
    np.testing.assert_allclose(scores["r2"][0], expected, rtol=1e-5)


def test_percentile_interval_leaves_out_draws_without_a_value() -> None:
    samples = np.append(np.arange(1001.0), np.nan)[:, None]
    low, high = percentile_interval(samples)
    np.testing.assert_allclose((low[0], high[0]), (25, 975))


def fit(z: np.ndarray, r: np.ndarray) -> Fit:
    decoder = decode(z, r)
    return Fit(z - z.mean(axis=0), r - predict(decoder, z), decoder.theta, decoder.rank)


def test_importance_errors_match_the_spread_over_simulated_noise() -> None:
    rng = np.random.default_rng(5)
    n, h, k = 150, 6, 4
    z_pre = rng.normal(size=(n, h))
    z_ft = z_pre @ rng.normal(size=(h, h)) + 0.5 * rng.normal(size=(n, h))
    signal = z_pre @ rng.normal(size=(h, k))
    found, errors = [], []
    for _ in range(400):
        r = signal + rng.normal(size=(n, k))
        pre, ft = fit(z_pre, r), fit(z_ft, r)
        before, after = importance(pre.theta), importance(ft.theta)
        found.append((before, after, after - before))
        errors.append(importance_error(pre, ft, intercept=True))
    spread = np.std(found, axis=0)
    predicted = np.mean(errors, axis=0)
    # 400 draws give the spread to 3.5%; the fine-tuned fit is misspecified, whose residual
    # variance is conservative for a fixed z.
    np.testing.assert_allclose(predicted[0], spread[0], rtol=0.15)
    assert (predicted[1:] > 0.85 * spread[1:]).all()
    truth = np.mean(found, axis=0)
    covered = np.abs(np.array(found) - truth) < Z_VALUE * np.array(errors)
    assert covered.mean(axis=(0, 2)).min() > 0.92


def test_same_data_on_both_sides_has_no_error_in_the_difference() -> None:
    rng = np.random.default_rng(6)
    one = fit(rng.normal(size=(50, 5)), rng.normal(size=(50, 3)))
    _, _, delta = importance_error(one, one, intercept=True)
    np.testing.assert_allclose(delta, 0, atol=1e-7)


def test_no_degrees_of_freedom_left_is_said() -> None:
    rng = np.random.default_rng(7)
    one = fit(rng.normal(size=(6, 8)), rng.normal(size=(6, 2)))
    assert all(np.isnan(error).all() for error in importance_error(one, one, intercept=True))
