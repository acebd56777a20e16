"""Ridge regression with a penalty of its own for every target: the reference probe.

One eigendecomposition serves all targets and all penalties, and everything derived from them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

ALPHAS = tuple(np.geomspace(1e-3, 1e5, 25).tolist())
"""Penalties in units of the variance of a standardised dimension times the number of patients; the
ends stand for no shrinkage that matters and for a constant prediction."""

_RANK_CUTOFF = 1e-12
"""Eigenvalues below this share of the largest are rounding of the product of X with itself."""


class Ridge(NamedTuple):
    """A fitted probe: ``predict(ridge, x) = (x - x_mean) / x_std @ coef + intercept``.

    Attributes:
        x_mean, x_std: of the fitted rows; `x_std` is one number repeated where the probe leaves
            the channels' relative scales as they are.
        coef: weights per standardised dimension, zero beyond the numerical rank.
        intercept: mean of the fitted targets.
        chosen: index of each target's penalty.
        alpha: each target's penalty as ``||y - Xb||^2 + alpha ||b||^2`` has it.
        gcv: generalised cross-validation error of every penalty and target.
        basis: what the fit was made from, for `teaching`.
    """

    x_mean: Float[np.ndarray, " d"]
    x_std: Float[np.ndarray, " d"]
    coef: Float[np.ndarray, "d k"]
    intercept: Float[np.ndarray, " k"]
    chosen: Int[np.ndarray, " k"]
    alpha: Float[np.ndarray, " k"]
    gcv: Float[np.ndarray, "a k"]
    basis: Basis


class Basis(NamedTuple):
    """Singular value decomposition ``u s v'`` of the standardised rows.

    Attributes:
        u, s, v: with as many columns as the numerical rank; `s` and `v` are those of the rows times
            the root of their weights.
        total: sum of the rows' weights.
        residual: observed minus fitted, on the fitted rows.
    """

    u: Float[np.ndarray, "n r"]
    s: Float[np.ndarray, " r"]
    v: Float[np.ndarray, "d r"]
    total: float
    residual: Float[np.ndarray, "n k"]


def ridge(
    x: Float[np.ndarray, "n d"],
    r: Float[np.ndarray, "m k"],
    alphas: tuple[float, ...] = ALPHAS,
    *,
    weights: Float[np.ndarray, " n"] | None = None,
    per_channel: bool = True,
) -> Ridge:
    """Ridge probe on standardised embeddings, each target with the penalty that GCV prefers.

    Minimises ``sum_i w_i (r_i - x_i b - c)^2 + alpha n ||b||^2`` with `n` the sum of weights, in
    float64. Equals ``sklearn.linear_model.Ridge`` and ``himalaya.ridge.Ridge`` at the same
    penalties. GCV is ``RSS / n / (1 - df / n)^2``; where all rows have the same leverage it is
    the leave-one-out error that ``sklearn.linear_model.RidgeCV`` minimises.

    With `per_channel` a gain per channel of `x` changes nothing; without it, neither a rotation
    nor one scale factor does. A shift of `x`, and shift and scale of a target, never matter.

    Args:
        x: embeddings.
        r: targets, same rows (m = n), any units.
        alphas: penalties to choose from, relative to `n` (see `ALPHAS`); ties go to the larger.
        weights: of the rows; none means 1 each.
        per_channel: divide every dimension by its own standard deviation, not all by one.

    Raises:
        ValueError: an input is not finite, or rows differ.
    """
    if len(x) != len(r):
        raise ValueError(f"x has {len(x)} rows, r has {len(r)}; they must be one patient each")
    x, r = np.asarray(x, np.float64), np.asarray(r, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(r).all()):
        raise ValueError("ridge needs finite embeddings and targets")
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    total, root = w.sum(), np.sqrt(w)
    x_mean, r_mean = w @ x / total, w @ r / total
    x_std = _deviation(x - x_mean, w / total, per_channel)
    standard = (x - x_mean) / x_std
    xs = standard if weights is None else root[:, None] * standard
    centred = r - r_mean
    rs = centred if weights is None else root[:, None] * centred
    u, s, v = _decompose(xs)

    grid = np.sort(np.asarray(alphas, np.float64))[::-1]
    scores = u.T @ rs
    squared = np.square(s)
    kept = squared / (squared + total * grid[:, None])
    # RSS = what no direction reaches + what the penalty holds back in each direction.
    power = np.square(scores)
    beyond = np.maximum(np.einsum("nk,nk->k", rs, rs) - power.sum(axis=0), 0.0)
    df = 1.0 + kept.sum(axis=1, keepdims=True)
    rss = beyond + np.square(1.0 - kept) @ power
    gcv = rss / total / np.square(np.maximum(1.0 - df / total, 1e-9))
    chosen = gcv.argmin(axis=0)

    shrunk = np.take(kept.T, chosen, axis=1)
    shrunk *= scores
    coef = v @ (shrunk / s[:, None])
    fitted = u @ shrunk if weights is None else standard @ coef
    return Ridge(
        x_mean=x_mean,
        x_std=x_std,
        coef=coef,
        intercept=r_mean,
        chosen=chosen,
        alpha=total * grid[chosen],
        gcv=gcv,
        basis=Basis(
            u if weights is None else standard @ v / s,
            s,
            v,
            float(total),
            np.subtract(centred, fitted, out=fitted),
        ),
    )


def predict(probe: Ridge, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m k"]:
    """Predicted targets, in their own units."""
    return (x - probe.x_mean) / probe.x_std @ probe.coef + probe.intercept


def fitted_influence(
    probe: Ridge, x: Float[np.ndarray, "m d"], error: Float[np.ndarray, "m k"]
) -> Float[np.ndarray, "n k"]:
    """What each fitted row does to the sum of squared errors on other rows.

    The derivative of ``sum(error^2)`` in the row's weight, penalties and standardisation held: the
    infinitesimal jackknife. Rows that teach well have negative values. Together with a row's own
    held-out error it is all that a score owes to that row, so that a standard error from the sum
    of both covers another draw of the fitted patients too.

    Args:
        probe: fitted on n rows.
        x: other rows, held out.
        error: observed minus predicted there.
    """
    basis = probe.basis
    pull = basis.v.T @ (((x - probe.x_mean) / probe.x_std).T @ error)
    pull *= basis.s[:, None] / (np.square(basis.s)[:, None] + probe.alpha)
    reach = basis.u @ pull + error.sum(axis=0) / basis.total
    return -2.0 * reach * basis.residual


def _deviation(
    centred: Float[np.ndarray, "n d"], share: Float[np.ndarray, " n"], per_channel: bool
) -> Float[np.ndarray, " d"]:
    variance = share @ np.square(centred)
    if not per_channel:
        variance = np.full_like(variance, variance.mean())
    # float32 embeddings: a spread below their resolution is rounding, not a channel.
    noise = np.finfo(np.float32).eps * np.abs(centred).max(axis=0, initial=0.0)
    deviation = np.sqrt(variance)
    return np.where(deviation <= noise, 1.0, deviation)


def _decompose(
    xs: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "n r"], Float[np.ndarray, " r"], Float[np.ndarray, "d r"]]:
    """Thin SVD from the smaller of the two products; directions of rounding left out."""
    n, d = xs.shape
    wide = d > n
    values, vectors = np.linalg.eigh(xs @ xs.T if wide else xs.T @ xs)
    kept = values > _RANK_CUTOFF * max(values[-1], np.finfo(np.float64).tiny)
    s, vectors = np.sqrt(values[kept]), vectors[:, kept]
    other = (xs.T @ vectors if wide else xs @ vectors) / s
    return (vectors, s, other) if wide else (other, s, vectors)
