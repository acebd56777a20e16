"""Closed-form linear decoders from projected embeddings to radiomic features, and their scores."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AnyArray = Array | np.ndarray


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
    solver: Literal["gram", "lstsq"] = "gram",
) -> Decoder:
    """Least-squares linear decoder from projected embeddings to radiomic features.

    Solves ``min ||r - z theta.T - b||_F`` (Sec. 2.3 of the paper, there without `b`), the
    minimum-norm solution where `z` is rank deficient. Equals ``numpy.linalg.lstsq`` on float64
    input, to 1e-5 relative in the predictions for condition numbers of `z` up to 1e4.

    Args:
        z: projected embeddings, one row per patient.
        r: scaled radiomic features (unitless), same rows (m = n).
        intercept: fit `b`; with False, `b` is zero as in the paper.
        solver: ``gram`` diagonalises ``z.T z`` in float64, which costs one product with `r` and
            squares a condition number that float64 can afford; ``lstsq`` is the reference,
            ``jnp.linalg.lstsq`` in float64.

    Raises:
        ValueError: rows differ, or any entry is not finite (names the column).
    """
    _check(z, r)
    solve = _gram if solver == "gram" else _lstsq
    with jax.enable_x64(True):
        theta, b, rank = solve(
            jnp.asarray(z, jnp.float64), jnp.asarray(r, jnp.float64), intercept=intercept
        )
    return Decoder(np.asarray(theta), np.asarray(b), int(rank))


def predict(decoder: Decoder, z: Float[AnyArray, "n h"]) -> Float[np.ndarray, "n k"]:
    """Decoded radiomic features, scaled as in training, float64."""
    return np.asarray(z, np.float64) @ decoder.theta.T + decoder.b


def importance(theta: Float[AnyArray, "k h"]) -> Float[np.ndarray, " k"]:
    """The paper's importance score: the Euclidean norm of each feature's decoder weights.

    It follows the scale of the projected embeddings (doubling them halves it) and grows with the
    noise of a feature when the number of hidden units is not small against the number of patients.
    """
    return np.linalg.norm(np.asarray(theta, np.float64), axis=1)


# Singular values below this share of the largest are float32 rounding of z, not information.
_RANK_CUTOFF = float(np.finfo(np.float32).eps)


@jax.jit(static_argnames="intercept")
def _gram(z: Array, r: Array, *, intercept: bool) -> tuple[Array, Array, Array]:
    z_mean, r_mean = _means(z, r, intercept)
    zc = z - z_mean
    values, vectors = jnp.linalg.eigh(zc.T @ zc)
    kept = values > _RANK_CUTOFF**2 * jnp.maximum(values[-1], 0.0)
    inverse = jnp.where(kept, 1.0 / jnp.where(kept, values, 1.0), 0.0)
    theta = (vectors @ (inverse[:, None] * (vectors.T @ (zc.T @ (r - r_mean))))).T
    return theta, r_mean - theta @ z_mean, kept.sum()


@jax.jit(static_argnames="intercept")
def _lstsq(z: Array, r: Array, *, intercept: bool) -> tuple[Array, Array, Array]:
    z_mean, r_mean = _means(z, r, intercept)
    theta, _, rank, _ = jnp.linalg.lstsq(z - z_mean, r - r_mean, rcond=_RANK_CUTOFF)
    return theta.T, r_mean - theta.T @ z_mean, rank


def _means(z: Array, r: Array, intercept: bool) -> tuple[Array, Array]:
    if intercept:
        return z.mean(axis=0), r.mean(axis=0)
    return jnp.zeros(z.shape[1], z.dtype), jnp.zeros(r.shape[1], r.dtype)


def _check(z: AnyArray, r: AnyArray) -> None:
    if z.shape[0] != r.shape[0]:
        raise ValueError(
            f"z has {z.shape[0]} rows, r has {r.shape[0]}; they must be one patient each"
        )
    for name, values in (("z", z), ("r", r)):
        bad = np.flatnonzero(~np.isfinite(np.asarray(values)).all(axis=0))
        if bad.size:
            raise ValueError(f"{name} is not finite in column {bad[0]} and {bad.size - 1} more")
