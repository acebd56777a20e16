"""Closed-form linear decoders from projected embeddings to radiomic features, and their scores."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from lens.probes import least_squares
from lens.probes.checks import AnyArray, check_rows
from lens.probes.least_squares import COLLINEAR, RANK_CUTOFF


class Decoder(NamedTuple):
    """``r = z theta.T + b``.

    Attributes:
        theta: one row of weights per radiomic column.
        b: intercepts, zeros where none was fitted.
        rank: numerical rank of the (centred, if an intercept is fitted) projected embeddings.
    """

    theta: Float[np.ndarray, "k h"]
    b: Float[np.ndarray, " k"]
    rank: int


def decode(
    z: Float[AnyArray, "n h"],
    r: Float[AnyArray, "m k"],
    *,
    intercept: bool = True,
    solver: Literal["auto", "lstsq"] = "auto",
) -> Decoder:
    """Least-squares linear decoder from projected embeddings to radiomic features.

    Solves ``min ||r - z theta.T - b||_F`` (Sec. 2.3 of the paper, there without `b`), the
    minimum-norm solution where `z` is rank deficient. Equals ``numpy.linalg.lstsq`` on float64
    input, to 1e-5 in the predictions, relative to each feature's deviation from its mean, for any
    condition number of `z`; singular values below float32's rounding of the largest count as zero.

    Args:
        z: projected embeddings, one row per patient.
        r: scaled radiomic features (unitless), same rows (m = n).
        intercept: fit `b`; with False, `b` is zero as in the paper.
        solver: ``auto`` is Cholesky's decomposition of ``z.T z`` in float64 with the product with
            `r` in float32 (see `lens.probes.least_squares`; on the accelerator, for arrays there),
            and ``lstsq`` where `z` is too collinear for it; ``lstsq`` is ``jnp.linalg.lstsq`` in
            float64, by a singular value decomposition of `z` and several times slower.

    Raises:
        ValueError: rows differ, or any entry is not finite (names the column).
    """
    check_rows(z=z, r=r)
    if solver == "auto":
        if _accelerated(z) or _accelerated(r):
            found = _on_device(z, r, intercept)
        else:
            found = least_squares.solve(np.asarray(z), np.asarray(r), intercept=intercept)
        if found is not None:
            return Decoder(*found, z.shape[1])
    with jax.enable_x64(True):
        theta, b, rank = _lstsq(
            jnp.asarray(z, jnp.float64), jnp.asarray(r, jnp.float64), intercept=intercept
        )
    return Decoder(np.asarray(theta), np.asarray(b), int(rank))


def predict(decoder: Decoder, z: Float[AnyArray, "n h"]) -> Float[np.ndarray, "n k"]:
    """Decoded radiomic features, scaled as in training, float64."""
    return np.asarray(z, np.float64) @ decoder.theta.T + decoder.b


def _accelerated(values: AnyArray) -> bool:
    return isinstance(values, jax.Array) and all(d.platform != "cpu" for d in values.devices())


def _on_device(z: AnyArray, r: AnyArray, intercept: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """As `lens.probes.least_squares.solve`, in one compiled call where the arrays are."""
    with jax.enable_x64(True):
        theta, b, trusted = _cholesky(jnp.asarray(z), jnp.asarray(r), intercept=intercept)
        return (np.asarray(theta), np.asarray(b)) if trusted else None


@jax.jit(static_argnames="intercept")
def _cholesky(z: Array, r: Array, *, intercept: bool) -> tuple[Array, Array, Array]:
    z, r = z.astype(jnp.float64), r.astype(jnp.float64)
    z_mean, r_mean = _means(z, r, intercept)
    standard, spread = z - z_mean, r - r_mean
    scale = jnp.linalg.norm(standard, axis=0)
    size = jnp.abs(spread).max(axis=0, initial=0.0)
    size = jnp.where(size > 0, size, 1.0)
    standard = standard / scale
    lower = jnp.linalg.cholesky(standard.T @ standard, symmetrize_input=False)
    inverse = solve_triangular(lower, jnp.eye(len(lower)), lower=True)
    q = (standard @ inverse.T).astype(jnp.float32)
    # Some accelerators would round the factors of a float32 product to 10 bits.
    product = jnp.matmul((spread / size).astype(jnp.float32).T, q, precision="highest")
    theta = size[:, None] * (product.astype(jnp.float64) @ inverse) / scale
    inflation = jnp.square(inverse).mean() * len(lower)
    bound = len(lower) * jnp.sqrt(inflation) * scale.max() / scale.min()
    trusted = (inflation < COLLINEAR) & (bound < 1.0 / RANK_CUTOFF)
    return theta, r_mean - theta @ z_mean, trusted


@jax.jit(static_argnames="intercept")
def _lstsq(z: Array, r: Array, *, intercept: bool) -> tuple[Array, Array, Array]:
    z_mean, r_mean = _means(z, r, intercept)
    theta, _, rank, _ = jnp.linalg.lstsq(z - z_mean, r - r_mean, rcond=RANK_CUTOFF)
    return theta.T, r_mean - theta.T @ z_mean, rank


def _means(z: Array, r: Array, intercept: bool) -> tuple[Array, Array]:
    if intercept:
        return z.mean(axis=0), r.mean(axis=0)
    return jnp.zeros(z.shape[1], z.dtype), jnp.zeros(r.shape[1], r.dtype)
