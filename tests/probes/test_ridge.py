"""The ridge probe against scikit-learn and himalaya, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
from himalaya.ridge import Ridge as HimalayaRidge
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from lens.probes.ridge import ALPHAS, fitted_influence, predict, ridge

# Shapes with fewer and with more patients than dimensions.
SHAPES = [(80, 12), (40, 90)]


def data(n: int, d: int, k: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(2 * n, 4))
    x = latent @ rng.normal(size=(4, d)) + rng.normal(size=(2 * n, d))
    r = latent @ rng.normal(size=(4, k)) + np.geomspace(0.1, 10, k) * rng.normal(size=(2 * n, k))
    return x[:n] * rng.uniform(0.1, 10, d) + 3, r[:n], x[n:]


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_predictions_equal_those_of_scikit_learn_and_himalaya(n: int, d: int) -> None:
    x, r, other = data(n, d)
    probe = ridge(x, r)
    assert len(set(probe.alpha)) > 1, "every target has the same penalty, nothing is tested"
    scaler = StandardScaler().fit(x)
    x, there = scaler.transform(x), scaler.transform(other)
    ours = predict(probe, other)
    theirs = SklearnRidge(alpha=probe.alpha).fit(x, r).predict(there)
    # All are float64; scikit-learn may solve by Cholesky, at the square of the condition number.
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-7)
    himalaya = HimalayaRidge(alpha=probe.alpha, fit_intercept=True).fit(x, r)
    np.testing.assert_allclose(ours, himalaya.predict(there), rtol=1e-4, atol=1e-4)


def test_gcv_is_leave_one_out_where_all_leverages_are_equal() -> None:
    # Cosine and sine of whole periods, in pairs of one amplitude: every row has the same leverage.
    n = 48
    angle = 2 * np.pi * np.arange(n)[:, None] * np.arange(1, 9) / n
    x = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    rng = np.random.default_rng(1)
    r = x @ rng.normal(size=(16, 6)) + np.geomspace(0.1, 20, 6) * rng.normal(size=(n, 6))
    grid = n * np.geomspace(1e-3, 1e3, 13)
    reference = RidgeCV(grid, alpha_per_target=True).fit(StandardScaler().fit_transform(x), r)
    probe = ridge(x, r, tuple(grid / n))
    np.testing.assert_allclose(probe.alpha, reference.alpha_, rtol=1e-12)
    best = probe.gcv.min(axis=0)
    np.testing.assert_allclose(best, -reference.best_score_, rtol=1e-4)
    assert len(set(probe.alpha)) > 2


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_a_weight_of_two_is_the_row_twice(n: int, d: int) -> None:
    x, r, other = data(n, d, seed=2)
    weights = np.random.default_rng(3).integers(1, 4, n)
    weighted = ridge(x, r, (0.1,), weights=weights.astype(float))
    repeated = ridge(np.repeat(x, weights, axis=0), np.repeat(r, weights, axis=0), (0.1,))
    np.testing.assert_allclose(predict(weighted, other), predict(repeated, other), atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), shape=st.sampled_from(SHAPES))
def test_what_each_standardisation_does_not_see(seed: int, shape: tuple[int, int]) -> None:
    x, r, other = data(*shape, seed=seed)
    rng = np.random.default_rng(seed)
    gains, shift = rng.uniform(0.2, 5, shape[1]), rng.normal(size=shape[1])
    plain = predict(ridge(x, r), other)
    gained = predict(ridge(x * gains + shift, r), other * gains + shift)
    np.testing.assert_allclose(gained, plain, atol=1e-7)
    rotation = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))[0] * 7
    plain = predict(ridge(x, r, per_channel=False), other)
    rotated = predict(ridge(x @ rotation, r, per_channel=False), other @ rotation)
    np.testing.assert_allclose(rotated, plain, atol=1e-7)


def test_targets_keep_their_units_and_do_not_see_each_other() -> None:
    x, r, other = data(60, 20)
    plain = predict(ridge(x, r), other)
    scaled = predict(ridge(x, 1e6 * r[:, ::-1] + 5e7), other)
    np.testing.assert_allclose((scaled[:, ::-1] - 5e7) / 1e6, plain, atol=1e-6)
    np.testing.assert_allclose(predict(ridge(x, r[:, 2:3]), other), plain[:, 2:3], atol=1e-9)


def test_noise_gets_the_mean_and_signal_hardly_any_penalty() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 50))
    signal = x[:, :1] + 1e-3 * rng.normal(size=(400, 1))
    r = np.c_[signal, rng.normal(size=(400, 300))]
    probe = ridge(x[:200], r[:200])
    assert probe.alpha[0] <= 200 * ALPHAS[0] * 1.001
    score = 1 - np.square(r[200:] - predict(probe, x[200:])).mean(axis=0) / r[200:].var(axis=0)
    assert score[0] > 0.999
    # Least squares without a penalty would score about -50 / 150 on noise.
    assert -0.05 < score[1:].mean() <= 0.0


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_teaching_is_the_derivative_in_a_rows_weight(n: int, d: int, weighted: bool) -> None:
    x, r, other = data(n, d, seed=5)
    truth = np.random.default_rng(6).normal(size=(len(other), r.shape[1]))
    weights = np.random.default_rng(7).uniform(0.5, 2, n) if weighted else None
    probe = ridge(x, r, weights=weights)
    found = fitted_influence(probe, other, truth - predict(probe, other))
    standard, there = ((v - probe.x_mean) / probe.x_std for v in (x, other))

    def errors(row: int, step: float) -> np.ndarray:
        moved = np.ones(n) if weights is None else weights.copy()
        moved[row] += step
        fitted = SklearnRidge(alpha=probe.alpha, solver="cholesky")
        return np.square(truth - fitted.fit(standard, r, moved).predict(there)).sum(axis=0)

    for row in (0, 3, n - 1):
        slope = (errors(row, 1e-4) - errors(row, -1e-4)) / 2e-4
        # Central differences of step 1e-4 are good to about 1e-7 of the values' scale.
        np.testing.assert_allclose(found[row], slope, atol=1e-5 * np.abs(found).max())


def test_a_constant_channel_and_a_dead_embedding_are_no_obstacle() -> None:
    x, r, other = data(60, 20)
    x[:, 3] = 2.0
    other[:, 3] = 2.0
    without = np.delete(np.arange(20), 3)
    np.testing.assert_allclose(
        predict(ridge(x, r), other), predict(ridge(x[:, without], r), other[:, without]), atol=1e-9
    )
    dead = ridge(np.ones((60, 20)), r)
    np.testing.assert_allclose(predict(dead, np.ones((5, 20))), np.tile(r.mean(axis=0), (5, 1)))


def test_refuses_other_rows_and_values_that_are_not_finite() -> None:
    x, r, _ = data(20, 5)
    with pytest.raises(ValueError, match="x has 19 rows, r has 20"):
        ridge(x[1:], r)
    r[2, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        ridge(x, r)
