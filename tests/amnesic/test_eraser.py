"""The eraser: its guarantee, its invariances, and parity with an implementation from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens.amnesic.eraser import fit_eraser, fit_whitening, variance_share

SHAPES = [(200, 12, 3), (60, 59, 2), (30, 80, 4), (100, 5, 7)]
"""Rows, channels, targets: usual, nearly as many channels as rows, more, more targets."""


def draw(n: int, d: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    f = rng.standard_normal((n, k))
    x = f @ rng.standard_normal((k, d)) + rng.standard_normal((n, d)) * np.geomspace(3, 0.1, d)
    return x + 5, f + 0.5 * rng.standard_normal((n, k)) - 2


def r2_of_least_squares(x: np.ndarray, z: np.ndarray) -> float:
    """Of the fitted rows, the best of the targets; directions of rounding are no directions."""
    centred, z = x - x.mean(axis=0), z - z.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    u = u[:, s > 1e-9 * np.linalg.norm(x)]
    return float((np.square(u.T @ z).sum(axis=0) / np.square(z).sum(axis=0)).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_no_linear_reader_beats_the_mean_on_the_fitted_rows(shape: tuple[int, int, int]) -> None:
    x, z = draw(*shape)
    assert r2_of_least_squares(x, z) > 0.3
    eraser = fit_eraser(x, z)
    erased = eraser(x)
    assert r2_of_least_squares(erased, z) < 1e-10
    np.testing.assert_allclose(erased.mean(axis=0), x.mean(axis=0), atol=1e-9)
    assert 0 < eraser.variance_removed <= 1 + 1e-12


def reference(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The closed form as the paper writes it: ``x - W+ P W (x - mean)``, W the root of the inverse
    covariance and P the orthogonal projection onto the range of W times the cross-covariance."""
    centred, targets = x - x.mean(axis=0), z - z.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    kept = values > values.max() * 1e-12
    root = vectors[:, kept] * np.sqrt(values[kept]) @ vectors[:, kept].T
    white = np.linalg.pinv(root, rcond=1e-8)
    cross = white @ centred.T @ targets / len(x)
    return x - centred @ (root @ cross @ np.linalg.pinv(cross, rcond=1e-9) @ white).T


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_closed_form(shape: tuple[int, int, int]) -> None:
    x, z = draw(*shape)
    np.testing.assert_allclose(fit_eraser(x, z)(x), reference(x, z), atol=1e-6)


@pytest.mark.parametrize("shape", [(200, 12, 3), (300, 40, 2), (100, 5, 4)])
def test_parity_with_concept_erasure(shape: tuple[int, int, int]) -> None:
    import concept_erasure
    import torch

    x, z = draw(*shape)
    new, _ = draw(*shape, seed=1)
    # Without what it does to covariances of few rows, and with its limit below all correlations.
    theirs = concept_erasure.LeaceFitter.fit(
        torch.from_numpy(x), torch.from_numpy(z), shrinkage=False, constrain_cov_trace=False,
        svd_tol=1e-9,
    ).eraser  # fmt: skip
    ours = fit_eraser(x, z)
    for rows in (x, new):
        np.testing.assert_allclose(ours(rows), theirs(torch.from_numpy(rows)).numpy(), atol=1e-6)


def test_it_changes_less_than_any_other_erasure() -> None:
    x, z = draw(300, 6, 1)
    change = np.square(fit_eraser(x, z)(x) - x).sum()
    # The orthogonal projection along the cross-covariance erases as well, and moves rows further.
    axis = (x - x.mean(axis=0)).T @ (z - z.mean(axis=0))
    axis /= np.linalg.norm(axis)
    other = x - (x - x.mean(axis=0)) @ axis @ axis.T
    assert r2_of_least_squares(other, z) < 1e-10
    assert np.square(other - x).sum() > 1.05 * change


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 3), d=st.integers(2, 8))
def test_maps_of_targets_and_embedding_change_nothing(seed: int, k: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x, z = draw(60, d, k, seed)
    erased = fit_eraser(x, z)(x)
    # Targets: any invertible map, shift, copies, a constant beside them.
    mixed = z @ (np.eye(k) + 0.3 * rng.standard_normal((k, k))) * 100 - 7
    more = np.hstack([mixed, mixed[:, :1], np.ones((60, 1))])
    np.testing.assert_allclose(fit_eraser(x, more)(x), erased, atol=1e-6)
    # Embedding: turned, scaled as a whole and moved, the erased one is turned and moved with it.
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    moved = fit_eraser(3 * x @ turn + 11, z)(3 * x @ turn + 11)
    np.testing.assert_allclose(moved, 3 * erased @ turn + 11, atol=1e-6)
    # Any invertible map, too: erasure knows no scale.
    skewed = turn * np.geomspace(0.1, 10, d)
    np.testing.assert_allclose(fit_eraser(x @ skewed, z)(x @ skewed), erased @ skewed, atol=1e-5)


def test_a_collapsed_embedding_is_erased_all_the_same() -> None:
    x, z = draw(50, 4, 2)
    collapsed = np.hstack([x, x[:, :2], np.full((50, 2), 7.0), x[:, :1] * 1e-6])
    eraser = fit_eraser(collapsed, z)
    erased = eraser(collapsed)
    assert eraser.rank == 2
    assert r2_of_least_squares(erased, z) < 1e-10
    np.testing.assert_array_equal(erased[:, 6:8], 7.0)
    np.testing.assert_allclose(erased[:, 4:6], erased[:, :2], atol=1e-9)


def test_twice_is_once_and_nothing_is_nothing() -> None:
    x, z = draw(80, 6, 2)
    erased = fit_eraser(x, z)(x)
    again = fit_eraser(erased, z)
    assert again.rank == 0
    np.testing.assert_array_equal(again(erased), erased)
    assert fit_eraser(x, np.ones((80, 2))).rank == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, z: (np.where(x == x[3, 1], np.nan, x), z), "embedding has entries"),
        (lambda x, z: (x, np.where(z == z[3, 1], np.inf, z)), "targets have entries"),
        (lambda x, z: (np.ones_like(x), z), "the same in all fitted rows .*; check"),
    ],
)
def test_unusable_rows_are_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_eraser(*change(*draw(50, 4, 2)))


def test_the_variance_that_goes_is_that_of_what_went() -> None:
    x, z = draw(200, 10, 2)
    eraser = fit_eraser(x, z)
    went = (x - eraser(x)).var(axis=0).sum() / x.var(axis=0).sum()
    assert eraser.variance_removed == pytest.approx(went, abs=1e-10)
    whole = fit_whitening(x)
    everything = np.eye(len(whole.scale))[None]
    assert variance_share(whole.scale, everything)[0] == pytest.approx(1.0)
