"""Invariant statistics of a decoder: invariances, closed forms, no signal."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lens.paper.importance import explained_sd, importance, importance_debiased
from lens.probes.decoder import Decoder, decode, predict


def both(z: np.ndarray, r: np.ndarray, decoder: Decoder) -> tuple[np.ndarray, np.ndarray]:
    residual = r - predict(decoder, z)
    return (
        explained_sd(decoder.theta, z, r),
        importance_debiased(decoder.theta, z, residual, rank=decoder.rank),
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), scale=st.floats(1e-3, 1e3))
def test_any_invertible_map_of_the_projection_changes_nothing(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    z, r = rng.normal(size=(90, 6)), rng.normal(size=(90, 4))
    r[:, :2] += z[:, :2]
    mixing = rng.normal(size=(6, 6)) + 3 * np.eye(6)
    mapped = scale * (z @ mixing + rng.normal(size=6))
    order = rng.permutation(90)
    plain, other = (both(v, r, decode(v, r)) for v in (z, mapped))
    shuffled = both(z[order], r[order], decode(z[order], r[order]))
    for a, b, c in zip(plain, other, shuffled, strict=True):
        # The map's condition number, squared in the decoder's Gram matrix, costs digits.
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(c, a, rtol=1e-7, atol=1e-9)


def test_scale_moves_the_papers_importance_and_not_these() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 3))
    r = z @ rng.normal(size=(3, 2)) + rng.normal(size=(60, 2))
    one, two = decode(z, r), decode(z / 2, r)
    np.testing.assert_allclose(importance(two.theta), 2 * importance(one.theta))
    for a, b in zip(both(z, r, one), both(z / 2, r, two), strict=True):
        np.testing.assert_allclose(a, b)


def test_without_signal_the_debiased_importance_vanishes_and_the_papers_does_not() -> None:
    rng = np.random.default_rng(1)
    z, r = rng.normal(size=(150, 60)), rng.normal(size=(150, 2000))
    decoder = decode(z, r)
    residual = r - predict(decoder, z)
    whitened_norm = np.square((z - z.mean(axis=0)) @ decoder.theta.T).mean(axis=0)
    unfloored = whitened_norm - np.square(residual).sum(axis=0) / (150 - 61) * 60 / 150
    # Standard error of the mean over 2000 columns is about 0.0025; the biased norm is 0.4.
    assert abs(unfloored.mean()) < 0.01
    assert 0.38 < whitened_norm.mean() < 0.42
    found = importance_debiased(decoder.theta, z, residual, rank=decoder.rank)
    np.testing.assert_allclose(found, np.maximum(unfloored, 0), atol=1e-12)


def test_a_perfect_decoder_explains_the_whole_deviation() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(size=(40, 3))
    r = z @ rng.normal(size=(3, 5)) + 2
    sd, debiased = both(z, r, decode(z, r))
    np.testing.assert_allclose(sd, 1)
    np.testing.assert_allclose(debiased, r.var(axis=0))


def test_no_degrees_of_freedom_give_no_value() -> None:
    z, r = np.random.default_rng(3).normal(size=(2, 5, 5))
    decoder = decode(z, r)
    assert np.isnan(importance_debiased(decoder.theta, z, r - r, rank=4)).all()
