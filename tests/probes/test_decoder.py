"""The closed-form decoder against LAPACK in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lens.paper.importance import importance
from lens.probes import decoder as decoder_module
from lens.probes import least_squares
from lens.probes.decoder import Decoder, decode, predict

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


@pytest.mark.parametrize("condition", [1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 3e6])
def test_predictions_hold_to_the_stated_condition_number(condition: float) -> None:
    z = with_condition(300, 40, condition, seed=3)
    r = np.random.default_rng(4).normal(size=(300, 20))
    _, fitted = reference(z, r, intercept=True)
    error = np.abs(predict(decode(z, r), z) - fitted).max() / np.abs(fitted).max()
    assert error < 1e-5


def test_solvers_agree() -> None:
    z = with_condition(120, 30, 1e3, seed=5)
    r = np.random.default_rng(6).normal(size=(120, 8))
    cholesky, svd = decode(z, r), decode(z, r, solver="lstsq")
    np.testing.assert_allclose(predict(cholesky, z), predict(svd, z), atol=1e-8)
    assert cholesky.rank == svd.rank == 30


@pytest.mark.parametrize("solver", ["auto", "lstsq"])
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


# As many products as it takes for the one with r to be in float32.
WIDE = (300, 40, 1500)


def wide_targets(n: int, k: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(11)
    noise = rng.normal(size=(n, k))
    if kind == "float32":
        return (noise + 100.0).astype(np.float32)
    if kind == "far mean":
        return noise + 1e6
    if kind == "scales":  # beyond what float32 can hold at both ends, and constant columns
        spread = np.geomspace(1e-45, 1e45, k)
        r = spread * (noise + 10.0)
        r[:, ::100] = 3.0
        return r
    # Few zeros, drifting: the first rows are no guide to the mean.
    return noise + np.arange(n)[:, None]


def wide_error(z: np.ndarray, r: np.ndarray, found: Decoder, intercept: bool) -> float:
    """Largest error of a feature's predictions, over its deviation from its mean."""
    r = r.astype(np.float64)
    _, fitted = reference(z, r, intercept)
    error = np.linalg.norm(predict(found, z) - fitted, axis=0)
    deviation = np.linalg.norm(r - r.mean(axis=0) * intercept, axis=0)
    # A mean 1e6 spreads away has itself a rounding of 1e-10 spreads; a constant has no spread.
    return float((error / np.maximum(deviation, 1e-4 * np.abs(r).max(axis=0))).max())


def on_device(z: np.ndarray, r: np.ndarray, intercept: bool) -> Decoder | None:
    """What arrays on an accelerator go through, here on CPU."""
    found = decoder_module._on_device(jnp.asarray(z), jax.device_put(r), intercept)
    return None if found is None else Decoder(*found, z.shape[1])


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", ["float32", "far mean", "scales", "drift"])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_float32_product_holds_every_feature(condition, kind, intercept) -> None:
    """To 1e-5 of each feature's own spread, on the fast path, on the host and on a device."""
    n, h, k = WIDE
    z, r = with_condition(n, h, condition, seed=3), wide_targets(n, k, kind)
    assert n * h * k > least_squares._LARGE
    assert least_squares.factorise(z, intercept=intercept) is not None
    assert wide_error(z, r, decode(z, r, intercept=intercept), intercept) < 1e-5
    with jax.enable_x64(True):
        found = on_device(z, r, intercept)
    assert found is not None
    assert wide_error(z, r, found, intercept) < 1e-5


@pytest.mark.parametrize(("n", "k"), [(900, 500), (500, 900)])
def test_benign_columns_take_the_cheaper_order(n: int, k: int) -> None:
    """Products before or after both inverses, whichever have fewer rows."""
    rng = np.random.default_rng(17)
    z, r = rng.normal(size=(n, 40)) + 5.0, rng.normal(size=(n, k)) + 5.0
    factor = least_squares.factorise(z, intercept=True)
    assert factor is not None
    assert factor.inflation < least_squares.BENIGN
    assert wide_error(z, r, decode(z, r), True) < 1e-5


@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3, 1e-4])
def test_near_copies_of_columns(gap: float) -> None:
    """All the inflation of a single pair is on its weights, and on the patients who show it."""
    n, h, k = WIDE
    rng = np.random.default_rng(12)
    z, r = rng.normal(size=(n, h)), rng.normal(size=(n, k))
    z[:, 3] = z[:, 8] + gap * rng.normal(size=n)
    assert least_squares.factorise(z, intercept=True) is not None
    assert wide_error(z, r, decode(z, r), True) < 1e-5


def test_scales_of_columns_do_not_matter() -> None:
    n, h, k = WIDE
    rng = np.random.default_rng(13)
    z, r = rng.normal(size=(n, h)), rng.normal(size=(n, k))
    scale = np.geomspace(1e-2, 1e2, h)
    one, other = decode(z, r), decode(z * scale, r)
    np.testing.assert_allclose(other.theta * scale, one.theta, atol=1e-6)
    assert wide_error(z * scale, r, other, True) < 1e-5


@pytest.mark.parametrize("case", ["condition 1e7", "deficient", "fewer patients", "faint column"])
def test_safe_path_beyond(case: str) -> None:
    """Where Cholesky is not to be trusted, the weights of minimum norm, wherever the arrays are."""
    n, h, k = WIDE
    rng = np.random.default_rng(14)
    z = rng.normal(size=(n, h))
    if case == "condition 1e7":
        z = with_condition(n, h, 1e7, seed=15)
    elif case == "deficient":
        z[:, 5], z[:, 9] = z[:, 4], 0.0
    elif case == "fewer patients":
        z = rng.normal(size=(30, h))
    else:  # below float32's resolution of the others
        z[:, 7] *= 1e-9
    r = rng.normal(size=(len(z), k))
    assert least_squares.factorise(z, intercept=True) is None
    assert on_device(z, r, True) is None
    found = decode(z, r)
    theta, fitted = reference(z, r, True)
    expected = {"deficient": h - 2, "fewer patients": 29, "faint column": h - 1}
    if case in expected:
        assert found.rank == expected[case]
        np.testing.assert_allclose(found.theta, theta, atol=1e-9)
    # Float64's rounding times the condition number.
    assert np.abs(predict(found, z) - fitted).max() < 1e-8


def test_work_is_that_of_the_formula() -> None:
    """Operations counted by the compiler, and one compilation for all calls of a shape."""
    n, h, k = 200, 64, 900
    rng = np.random.default_rng(16)
    z, r = rng.normal(size=(n, h)), rng.normal(size=(n, k))
    cholesky = decoder_module._cholesky
    with jax.enable_x64(True):
        compiled = cholesky.lower(jnp.asarray(z), jnp.asarray(r), intercept=True).compile()
    # z'z, q, the product with r, back-substitution; the factorisation is a call of LAPACK.
    formula = 2 * n * h * h + 2 * n * h * h + 2 * n * h * k + 2 * h * h * k
    # The rest is work per element of r and z.
    assert formula <= compiled.cost_analysis()["flops"] <= 1.15 * formula
    before = cholesky._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(3):
        on_device(z, r, True)
    assert cholesky._cache_size() == before + 1  # pyright: ignore[reportAttributeAccessIssue]


def test_arrays_where_they_are() -> None:
    """Only arrays on an accelerator take the compiled path."""
    assert not decoder_module._accelerated(np.ones(2))
    assert not decoder_module._accelerated(jax.device_put(np.ones(2), jax.devices("cpu")[0]))


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
