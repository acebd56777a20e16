"""Generalised cross-validation: a ridge penalty for every target, from one decomposition."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def gcv_errors(
    values: Float[np.ndarray, " r"],
    power: Float[np.ndarray, "r k"],
    beyond: Float[np.ndarray, " k"],
    n: int | float,
    alphas: Float[np.ndarray, " a"],
) -> Float[np.ndarray, "a k"]:
    """Generalised cross-validation error of ridge regression at every penalty, for every target.

    ``RSS / n / (1 - df / n)^2`` (Golub, Heath and Wahba 1979), with `df` the trace of the hat
    matrix, of which the intercept takes 1. Where all rows have the same leverage this is the
    leave-one-out error.

    Args:
        values: eigenvalues of the centred kernel that are not zero (squared singular values of the
            centred rows).
        power: squared components of the centred targets along their eigenvectors.
        beyond: squared length of the centred targets outside of these.
        n: rows; fewer where targets are residuals of a fit that took some.
        alphas: penalties, as ``||y - Xb||^2 + alpha ||b||^2`` has them.
    """
    left = alphas[:, None] / (values + alphas[:, None])
    rss = np.square(left) @ power + beyond
    # The constant has a direction of its own, one of the n - r without an eigenvalue.
    free = left.sum(axis=1, keepdims=True) + (n - len(values) - 1)
    return rss / n / np.square(np.maximum(free / n, 1e-9))
