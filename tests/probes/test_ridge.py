"""The ridge probe against scikit-learn and himalaya, and what its two standardisations ignore."""

from __future__ import annotations

import numpy as np
import pytest
from himalaya.ridge import Ridge as HimalayaRidge
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from lens.probes.ridge import FittedRidge, LeadingRidgeProbe, RidgeProbe
from lens.probes.spectral import Solution

# Shapes with fewer and with more patients than dimensions.
SHAPES = [(80, 12), (40, 90)]


def data(n: int, d: int, k: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(2 * n, 4))
    x = latent @ rng.normal(size=(4, d)) + rng.normal(size=(2 * n, d))
    r = latent @ rng.normal(size=(4, k)) + np.geomspace(0.1, 10, k) * rng.normal(size=(2 * n, k))
    return x[:n] * rng.uniform(0.1, 10, d) + 3, r[:n], x[n:]


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_predictions_equal_those_of_himalaya(n: int, d: int) -> None:
    x, r, other = data(n, d)
    fitted = RidgeProbe().fit(x, r)
    scaler = StandardScaler().fit(x)
    himalaya = HimalayaRidge(alpha=fitted.alpha, fit_intercept=True).fit(scaler.transform(x), r)
    # Himalaya solves in float32.
    expected = himalaya.predict(scaler.transform(other))
    np.testing.assert_allclose(fitted.predict(other), expected, rtol=1e-4, atol=1e-4)


def test_gcv_is_leave_one_out_where_all_leverages_are_equal() -> None:
    # Cosine and sine of whole periods, in pairs of one amplitude: every row has the same leverage.
    n = 48
    angle = 2 * np.pi * np.arange(n)[:, None] * np.arange(1, 9) / n
    x = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    rng = np.random.default_rng(1)
    r = x @ rng.normal(size=(16, 6)) + np.geomspace(0.1, 20, 6) * rng.normal(size=(n, 6))
    grid = n * np.geomspace(1e-3, 1e3, 13)
    reference = RidgeCV(grid, alpha_per_target=True).fit(StandardScaler().fit_transform(x), r)
    fitted = RidgeProbe(alphas=tuple(grid / n)).fit(x, r)
    np.testing.assert_allclose(fitted.alpha, reference.alpha_, rtol=1e-12)
    assert len(set(fitted.alpha)) > 2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), shape=st.sampled_from(SHAPES))
def test_gains_per_channel_do_not_matter_nor_do_rotations_at_one_scale(
    seed: int, shape: tuple[int, int]
) -> None:
    x, r, other = data(*shape, seed=seed)
    rng = np.random.default_rng(seed)
    probe = RidgeProbe(per_channel=True)
    gains, shift = rng.uniform(0.2, 5, shape[1]), rng.normal(size=shape[1])
    gained = probe.fit(x * gains + shift, r).predict(other * gains + shift)
    np.testing.assert_allclose(gained, probe.fit(x, r).predict(other), atol=1e-7)
    probe = RidgeProbe(per_channel=False)
    rotation = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))[0] * 7
    rotated = probe.fit(x @ rotation, r).predict(other @ rotation)
    np.testing.assert_allclose(rotated, probe.fit(x, r).predict(other), atol=1e-7)


def test_noise_gets_the_mean_and_signal_hardly_any_penalty() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 50))
    signal = x[:, :1] + 1e-3 * rng.normal(size=(400, 1))
    r = np.c_[signal, rng.normal(size=(400, 300))]
    fitted = RidgeProbe().fit(x[:200], r[:200])
    smallest = np.linalg.svd(StandardScaler().fit_transform(x[:200]), compute_uv=False).min() ** 2
    assert fitted.alpha[0] <= smallest
    score = 1 - np.square(r[200:] - fitted.predict(x[200:])).mean(axis=0) / r[200:].var(axis=0)
    assert score[0] > 0.999
    # Least squares without a penalty would score about -50 / 150 on noise.
    assert -0.05 < score[1:].mean() <= 0.0


def test_a_dominating_direction_hides_nothing_from_the_view_at_one_scale() -> None:
    x, r, other = data(200, 40)
    direction = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0][:, :1]

    def stretched(rows: np.ndarray) -> np.ndarray:
        return rows + 999 * rows @ direction @ direction.T

    plain = RidgeProbe(per_channel=False).fit(x, r).predict(other)
    found = RidgeProbe(per_channel=False).fit(stretched(x), r).predict(stretched(other))
    # With penalties relative to the mean variance every prediction would be about constant.
    assert np.square(found - plain).mean() < 0.03 * plain.var()


def test_leading_components_do_not_see_rotations_or_what_has_no_signal_rescaled() -> None:
    rng = np.random.default_rng(0)
    latent, axes = rng.normal(size=(400, 3)), np.linalg.qr(rng.normal(size=(60, 60)))[0]
    x = 10 * latent @ axes[:3] + rng.normal(size=(400, 60))
    r = latent @ rng.normal(size=(3, 5))
    free = np.eye(60) - axes[:3].T @ axes[:3]
    rotation = 3 * np.linalg.qr(rng.normal(size=(60, 60)))[0]
    probe = LeadingRidgeProbe()
    plain = probe.fit(x[:200], r[:200]).predict(x[200:])
    rotated = probe.fit(x[:200] @ rotation, r[:200]).predict(x[200:] @ rotation)
    np.testing.assert_allclose(rotated, plain, atol=1e-7)
    louder = x + 2 * x @ free
    found = probe.fit(louder[:200], r[:200]).predict(louder[200:])
    assert np.square(found - plain).mean() < 0.03 * plain.var()


def test_a_constant_channel_is_no_channel() -> None:
    x, r, other = data(60, 20)
    x[:, 3] = other[:, 3] = 2.0
    without = np.delete(np.arange(20), 3)
    expected = RidgeProbe().fit(x[:, without], r).predict(other[:, without])
    np.testing.assert_allclose(RidgeProbe().fit(x, r).predict(other), expected, atol=1e-9)


def test_scores_and_weights_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(40, 60)), rng.normal(size=(8, 60))
    r = x[:, :5] @ rng.normal(size=(5, 200)) + rng.normal(size=(40, 200))
    decomposed = RidgeProbe().decompose(x)
    fit, error = decomposed.fit(r), rng.normal(size=(8, 200))
    assert fit._by_scores(len(new)), "few rows and many targets"
    assert not decomposed.fit(r[:, :1])._by_scores(len(new))
    found = []
    for by_scores in (True, False):
        monkeypatch.setattr(FittedRidge, "_by_scores", lambda _self, _rows, b=by_scores: b)
        found.append((fit.predict(new), fit.influence(new, error)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_rows_are_left_out_once_for_all_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, r, calls = rng.normal(size=(40, 6)), rng.normal(size=(40, 3)), []
    plain = Solution.left_out

    def left_out(self: Solution, groups: np.ndarray | None = None) -> np.ndarray:
        calls.append(groups)
        return plain(self, groups)

    monkeypatch.setattr(Solution, "left_out", left_out)
    fit, groups = RidgeProbe().fit(x, r), np.arange(40) // 2
    alone = fit.influence(x, r)
    for _ in range(2):
        together = fit.influence(x, r, groups)
    assert len(calls) == 2
    groups[:] = np.arange(40)  # The caller's array, changed since.
    np.testing.assert_allclose(fit.influence(x, r, groups), alone, rtol=1e-9)
    assert len(calls) == 3
    assert not np.allclose(together, alone)
