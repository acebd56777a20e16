"""The closed-form decoder against LAPACK in float64."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from lens.decoder import decode, importance, predict

SHAPES = [(40, 5, 3), (200, 64, 17), (64, 64, 4), (30, 50, 6), (9, 1, 1)]


def with_condition(n: int, h: int, condition: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.normal(size=(n, h)))
    right, _ = np.linalg.qr(rng.normal(size=(h, h)))
    return ((left * np.geomspace(1, 1 / condition, h)) @ right).astype(np.float32)


def reference(z: np.ndarray, r: np.ndarray, intercept: bool) -> tuple[np.ndarray, np.ndarray]:
    """Minimum-norm weights and predictions by numpy.linalg.lstsq in float64."""
    z = z.astype(np.float64)
    z_mean, r_mean = (z.mean(0), r.mean(0)) if intercept else (0.0, 0.0)
    theta = np.linalg.lstsq(z - z_mean, r - r_mean, rcond=np.finfo(np.float32).eps)[0]
    return theta.T, (z - z_mean) @ theta + r_mean


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("n", "h", "k"), SHAPES)
def test_equals_numpy(n: int, h: int, k: int, intercept: bool) -> None:
    rng = np.random.default_rng(n + h)
    z, r = rng.normal(size=(n, h)).astype(np.float32), rng.normal(size=(n, k))
    theta, fitted = reference(z, r, intercept)
    decoder = decode(z, r, intercept=intercept)
    # Gaussian matrices are well conditioned, except the square one (about 1e3, squared in z'z).
    np.testing.assert_allclose(predict(decoder, z), fitted, rtol=0, atol=1e-7)
    np.testing.assert_allclose(decoder.theta, theta, rtol=0, atol=1e-6 * np.abs(theta).max())
    if not intercept:
        assert not decoder.b.any()


@pytest.mark.parametrize("condition", [1e1, 1e2, 1e3, 1e4])
def test_predictions_hold_to_the_stated_condition_number(condition: float) -> None:
    z = with_condition(300, 40, condition, seed=3)
    r = np.random.default_rng(4).normal(size=(300, 20))
    _, fitted = reference(z, r, intercept=True)
    error = np.abs(predict(decode(z, r), z) - fitted).max() / np.abs(fitted).max()
    assert error < 1e-5


def test_solvers_agree() -> None:
    z = with_condition(120, 30, 1e3, seed=5)
    r = np.random.default_rng(6).normal(size=(120, 8))
    gram, reference_solver = decode(z, r), decode(z, r, solver="lstsq")
    np.testing.assert_allclose(predict(gram, z), predict(reference_solver, z), atol=1e-8)
    assert gram.rank == reference_solver.rank == 30


@pytest.mark.parametrize("solver", ["gram", "lstsq"])
def test_rank_deficient_gives_the_minimum_norm_solution(solver) -> None:
    rng = np.random.default_rng(7)
    z = rng.normal(size=(80, 12)).astype(np.float32)
    z[:, 3] = 0.0  # a dead unit
    z[:, 5] = z[:, 4]  # a duplicate
    r = rng.normal(size=(80, 5))
    theta, _ = reference(z, r, intercept=True)
    decoder = decode(z, r, solver=solver)
    assert decoder.rank == 10
    np.testing.assert_allclose(decoder.theta[:, 3], 0, atol=1e-14)
    np.testing.assert_allclose(decoder.theta[:, 4], decoder.theta[:, 5], atol=1e-10)
    np.testing.assert_allclose(decoder.theta, theta, atol=1e-9)


def test_accepts_jax_arrays_and_leaves_float32_the_default() -> None:
    z = jnp.ones((4, 2)).at[0, 0].set(3.0)
    decode(z, jnp.arange(4.0)[:, None])
    assert jnp.ones(1).dtype == jnp.float32


def test_importance_is_the_row_norm() -> None:
    theta = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_array_equal(importance(theta), [5.0, 0.0])


def test_refuses_other_rows_and_names_the_column_that_is_not_finite() -> None:
    z, r = np.ones((5, 2)), np.ones((5, 3))
    with pytest.raises(ValueError, match="z has 4 rows, r has 5"):
        decode(z[:4], r)
    r[2, 1] = np.nan
    with pytest.raises(ValueError, match="r is not finite in column 1"):
        decode(z, r)
