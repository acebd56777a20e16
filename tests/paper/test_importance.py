"""Importance, its standard error and its invariant relatives: laws, closed forms, no signal."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lens.intervals import Z_VALUE
from lens.paper.importance import (
    explained_sd,
    fit_decoder,
    importance,
    importance_debiased,
    importance_errors,
)


def both(z: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fit = fit_decoder(z, r)
    return explained_sd(fit), importance_debiased(fit)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), scale=st.floats(1e-3, 1e3))
def test_any_invertible_map_of_the_projection_changes_nothing(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    z, r = rng.normal(size=(90, 6)), rng.normal(size=(90, 4))
    r[:, :2] += z[:, :2]
    mixing = rng.normal(size=(6, 6)) + 3 * np.eye(6)
    mapped = scale * (z @ mixing + rng.normal(size=6))
    order = rng.permutation(90)
    plain, other = (both(v, r) for v in (z, mapped))
    shuffled = both(z[order], r[order])
    for a, b, c in zip(plain, other, shuffled, strict=True):
        # The map's condition number, squared in the decoder's Gram matrix, costs digits.
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(c, a, rtol=1e-7, atol=1e-9)


def test_scale_moves_the_papers_importance_and_not_these() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 3))
    r = z @ rng.normal(size=(3, 2)) + rng.normal(size=(60, 2))
    one, two = (importance(fit_decoder(v, r).decoder.theta) for v in (z, z / 2))
    np.testing.assert_allclose(two, 2 * one)
    for a, b in zip(both(z, r), both(z / 2, r), strict=True):
        np.testing.assert_allclose(a, b)


def test_without_signal_the_debiased_importance_vanishes_and_the_papers_does_not() -> None:
    rng = np.random.default_rng(1)
    z, r = rng.normal(size=(150, 60)), rng.normal(size=(150, 2000))
    fit = fit_decoder(z, r)
    whitened_norm = np.square((z - z.mean(axis=0)) @ fit.decoder.theta.T).mean(axis=0)
    unfloored = whitened_norm - np.square(fit.residual).sum(axis=0) / (150 - 61) * 60 / 150
    # Standard error of the mean over 2000 columns is about 0.0025; the biased norm is 0.4.
    assert abs(unfloored.mean()) < 0.01
    assert 0.38 < whitened_norm.mean() < 0.42
    np.testing.assert_allclose(importance_debiased(fit), np.maximum(unfloored, 0), atol=1e-12)


def test_a_perfect_decoder_explains_the_whole_deviation() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(size=(40, 3))
    r = z @ rng.normal(size=(3, 5)) + 2
    sd, debiased = both(z, r)
    np.testing.assert_allclose(sd, 1)
    np.testing.assert_allclose(debiased, r.var(axis=0))


def test_no_degrees_of_freedom_give_no_value() -> None:
    z, r = np.random.default_rng(3).normal(size=(2, 5, 5))
    fit = fit_decoder(z, r)
    assert fit.decoder.rank >= 4
    assert np.isnan(importance_debiased(fit)).all()


def test_importance_errors_match_the_spread_over_simulated_noise() -> None:
    rng = np.random.default_rng(5)
    n, h, k = 150, 6, 4
    z_pre = rng.normal(size=(n, h))
    z_ft = z_pre @ rng.normal(size=(h, h)) + 0.5 * rng.normal(size=(n, h))
    signal = z_pre @ rng.normal(size=(h, k))
    found, errors = [], []
    for _ in range(400):
        r = signal + rng.normal(size=(n, k))
        pre, ft = fit_decoder(z_pre, r), fit_decoder(z_ft, r)
        before, after = importance(pre.decoder.theta), importance(ft.decoder.theta)
        found.append((before, after, after - before))
        errors.append(importance_errors(pre, ft))
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
    one = fit_decoder(rng.normal(size=(50, 5)), rng.normal(size=(50, 3)))
    np.testing.assert_allclose(importance_errors(one, one).delta, 0, atol=1e-7)


def test_without_degrees_of_freedom_no_error_is_known() -> None:
    rng = np.random.default_rng(7)
    one = fit_decoder(rng.normal(size=(6, 8)), rng.normal(size=(6, 2)))
    assert all(np.isnan(error).all() for error in importance_errors(one, one))
