"""Kernel ridge regression with a penalty of its own for every target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import linalg

ALPHAS = tuple(np.geomspace(1e-6, 1e3, 28).tolist())
"""Penalties, in units of the number of patients; a group's kernel has that for its trace."""


class KernelRidge(NamedTuple):
    """A fit: ``k_new @ dual`` predicts centred targets; `alpha` is the penalty of each."""

    dual: Float[np.ndarray, "n t"]
    alpha: Float[np.ndarray, " t"]


def kernel_ridge(
    kernel: Float[np.ndarray, "n n"],
    y: Float[np.ndarray, "n t"],
    alphas: Sequence[float] = ALPHAS,
) -> KernelRidge:
    """Kernel ridge regression of centred targets, each with the penalty that GCV prefers.

    Equals ``sklearn.kernel_ridge.KernelRidge`` and ``himalaya.kernel_ridge.KernelRidge`` at the
    same penalties.

    Args:
        kernel: of centred predictors.
        y: centred targets.
        alphas: in units of n; ties go to the larger.
    """
    values, vectors = linalg.eigh(kernel, overwrite_a=True, check_finite=False)
    values = np.maximum(values, 0.0)
    scores = vectors.T @ y
    alpha = _penalties(values, np.square(scores), np.zeros(y.shape[1]), len(y), alphas)
    return KernelRidge(vectors @ (scores / (values[:, None] + alpha)), alpha)


def narrow_ridge(
    x: Float[np.ndarray, "n c"], y: Float[np.ndarray, "n t"], alphas: Sequence[float] = ALPHAS
) -> Float[np.ndarray, "c t"]:
    """Weights of the same fit as `kernel_ridge` of ``x @ x.T``, for fewer columns than rows.

    Args:
        x: centred predictors.
        y, alphas: as there.
    """
    values, vectors = linalg.eigh(x.T @ x, overwrite_a=True, check_finite=False)
    kept = values > 1e-12 * max(values[-1], np.finfo(np.float64).tiny)
    values, vectors = values[kept], vectors[:, kept]
    scores = vectors.T @ (x.T @ y) / np.sqrt(values)[:, None]
    power = np.square(scores)
    beyond = np.maximum(np.square(y).sum(axis=0) - power.sum(axis=0), 0.0)
    alpha = _penalties(values, power, beyond, len(y), alphas)
    return vectors @ (np.sqrt(values)[:, None] * scores / (values[:, None] + alpha))


def _penalties(
    values: Float[np.ndarray, " r"],
    power: Float[np.ndarray, "r t"],
    beyond: Float[np.ndarray, " t"],
    n: int,
    alphas: Sequence[float],
) -> Float[np.ndarray, " t"]:
    """The penalty of each target by generalised cross-validation.

    Args:
        values: eigenvalues of the kernel; the other ``n - r`` are zero.
        power: squared scores of the targets along their directions.
        beyond: squared length of the targets in no direction.
        n: rows.
        alphas: in units of n.
    """
    grid = np.sort(np.asarray(alphas))[::-1]
    left = n * grid[:, None] / (values + n * grid[:, None])
    # The constant takes a degree of freedom; its direction is one of those without a value.
    free = left.sum(axis=1, keepdims=True) + (n - len(values)) - 1.0
    missed = np.square(left) @ power + beyond
    return n * grid[(missed / np.square(np.maximum(free, 1e-9 * n))).argmin(axis=0)]
