"""Laws of the planted changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from lens.verdicts.planted_changes import add_noise, gain, remove, rescale, rotate, shuffle

X = np.random.default_rng(0).normal(size=(60, 12))
R = X[:, :2] @ [[1.0, 0.2], [0.0, 1.0]] + 0.1 * np.random.default_rng(1).normal(size=(60, 2))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31))
def test_a_rotation_keeps_all_distances(seed: int) -> None:
    turned = rotate(X, seed)
    np.testing.assert_allclose(turned @ turned.T, X @ X.T, atol=1e-9)
    assert np.abs(turned - X).max() > 0.1


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31))
def test_what_leaves_the_information_can_be_undone(seed: int) -> None:
    for changed in (rotate(X, seed), gain(X, seed), rescale(X, 0.3)):
        back = LinearRegression().fit(changed, X).predict(changed)
        np.testing.assert_allclose(back, X, atol=1e-8)


def test_a_shuffle_holds_the_same_rows() -> None:
    mixed = shuffle(X, 3)
    np.testing.assert_array_equal(np.sort(mixed, axis=0), np.sort(X, axis=0))
    assert (mixed != X).any(axis=1).mean() > 0.9


def test_noise_is_a_share_of_each_channel() -> None:
    x = np.random.default_rng(2).normal(size=(4000, 3)) * [1.0, 10.0, 0.1]
    noise = add_noise(x, 0.5, 1) - x
    # Standard error of a deviation at n = 4000 is 1.1%.
    np.testing.assert_allclose(noise.std(axis=0) / x.std(axis=0), 0.5, rtol=0.05)


def test_a_full_dose_leaves_no_covariance_with_the_features() -> None:
    # Hardly any penalty is chosen here, so that what ridge predicts is the least-squares fit.
    erased = remove(X, R, 1.0)
    before = np.abs((X - X.mean(0)).T @ R).max()
    assert np.abs((erased - erased.mean(0)).T @ R).max() < 0.01 * before
    np.testing.assert_array_equal(remove(X, R, 0.0), X)


def test_doses_are_steps_on_the_same_line_and_other_directions_stay() -> None:
    whole, half = remove(X, R, 1.0), remove(X, R, 0.5)
    np.testing.assert_allclose(X - half, (X - whole) / 2, atol=1e-12)
    assert np.linalg.matrix_rank(X - whole, tol=1e-8) == 2
    with pytest.raises(ValueError, match=r"dose is 1\.5"):
        remove(X, R, 1.5)


def test_erasure_follows_a_rotation_of_the_embedding() -> None:
    # With hardly any penalty the per-channel standardisation of the probe does not matter.
    turned = rotate(X, 5)
    change = np.linalg.norm(turned - remove(turned, R, 1.0), axis=1)
    np.testing.assert_allclose(change, np.linalg.norm(X - remove(X, R, 1.0), axis=1), rtol=0.02)
