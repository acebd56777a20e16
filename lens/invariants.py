"""Statistics of a linear decoder that do not follow the scale, or the basis, of what it reads."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def explained_sd(
    theta: Float[np.ndarray, "k h"],
    z: Float[np.ndarray, "n h"],
    r: Float[np.ndarray, "n k"],
) -> Float[np.ndarray, " k"]:
    """Standard deviation of the decoded feature over that of the feature itself.

    ``sqrt(theta_k' Cov(Z) theta_k) / SD(R_k)``: does not change under any invertible linear map of
    `z` with the decoder solved again, nor with the unit of `r`. It is what the decoder says, not
    what it is right about: near one for noise, if there are many hidden units.

    Args:
        theta: decoder weights.
        z, r: projected embeddings and features of the fitted patients.
    """
    decoded = np.square((z - z.mean(axis=0)) @ theta.T).mean(axis=0)
    return np.sqrt(decoded) / r.std(axis=0)


def importance_debiased(
    theta: Float[np.ndarray, "k h"],
    z: Float[np.ndarray, "n h"],
    residual: Float[np.ndarray, "n k"],
    *,
    rank: int,
    intercept: bool = True,
) -> Float[np.ndarray, " k"]:
    """Squared importance on whitened `z`, less the part that noise alone would give; at least 0.

    ``||theta_k||^2 - sigma_k^2 tr((Z'Z)^-1)`` with ``Cov(Z) = 1``, in which basis
    ``||theta_k||^2`` is the variance of the decoded feature and the trace is ``rank / n``. Does not
    change under any invertible linear map of `z` with the decoder solved again; in the squared unit
    of the features. With no signal its expectation before the floor is zero.

    Args:
        theta: least-squares weights.
        z: projected embeddings of the fitted patients.
        residual: observed minus decoded, same rows.
        rank: numerical rank of `z`.
        intercept: whether the decoder has one.

    Returns:
        NaN where no degree of freedom is left to estimate the noise.
    """
    n, centre = len(z), z.mean(axis=0) if intercept else 0.0
    free = n - rank - int(intercept)
    if free < 1:
        return np.full(len(theta), np.nan)
    decoded = np.square((z - centre) @ theta.T).mean(axis=0)
    noise = np.square(residual).sum(axis=0) / free
    return np.maximum(decoded - noise * rank / n, 0.0)
