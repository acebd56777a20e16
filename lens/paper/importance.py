"""The paper's importance of a feature, its standard error, and statistics that no basis changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lens.probes.decoder import AnyArray


def importance(theta: Float[AnyArray, "k h"]) -> Float[np.ndarray, " k"]:
    """The paper's importance score: the Euclidean norm of each feature's decoder weights.

    It follows the scale of the projected embeddings (doubling them halves it) and grows with the
    noise of a feature when the number of hidden units is not small against the number of patients.
    """
    return np.linalg.norm(np.asarray(theta, np.float64), axis=1)


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


class Fit(NamedTuple):
    """What an importance's standard error needs of a decoder's fit.

    Attributes:
        z: projected embeddings of the fitted patients, centred if an intercept was fitted.
        residual: observed minus decoded, same rows.
        theta: decoder weights.
        rank: numerical rank of `z`.
    """

    z: Float[np.ndarray, "n h"]
    residual: Float[np.ndarray, "n k"]
    theta: Float[np.ndarray, "k h"]
    rank: int


def importance_error(
    pre: Fit, ft: Fit, *, intercept: bool
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Standard errors of importance before, after, and of their difference.

    With least squares ``Cov(theta_k) = s_kk (z'z)^-1``, and for two encoders on the same patients
    ``Cov(theta_k, phi_k) = s_kl (z'z)^-1 z'y (y'y)^-1`` with the residual covariance ``s``. The
    error of the norm follows by the delta method, so the difference accounts for the patients'
    noise that both decoders share. Homoscedastic residuals are assumed; the projection is fixed.

    Returns:
        Three arrays; NaN where no degrees of freedom are left.
    """
    n = len(pre.z)
    a, b = _direction(pre), _direction(ft)
    used = max(pre.rank, ft.rank) + int(intercept)
    if n <= used:
        return tuple(np.full(len(pre.theta), np.nan) for _ in range(3))  # type: ignore[return-value]

    def residual_covariance(first: Fit, second: Fit) -> np.ndarray:
        return np.einsum("nk,nk->k", first.residual, second.residual) / (n - used)

    var_pre = residual_covariance(pre, pre) * np.einsum("nk,nk->k", a, a)
    var_ft = residual_covariance(ft, ft) * np.einsum("nk,nk->k", b, b)
    covariance = residual_covariance(pre, ft) * np.einsum("nk,nk->k", a, b)
    var_delta = np.maximum(var_pre + var_ft - 2 * covariance, 0.0)
    return np.sqrt(var_pre), np.sqrt(var_ft), np.sqrt(var_delta)


def _direction(fit: Fit) -> Float[np.ndarray, "n k"]:
    """``z (z'z)^+ theta_k / |theta_k|``: the influence of each patient on the importance."""
    norm = np.linalg.norm(fit.theta, axis=1)
    unit = np.divide(
        fit.theta, norm[:, None], where=norm[:, None] > 0, out=np.zeros_like(fit.theta)
    )
    # rcond as in the decoder: directions that it left out carry no weight here either.
    return np.linalg.lstsq(fit.z.T, unit.T, rcond=float(np.finfo(np.float32).eps))[0]
