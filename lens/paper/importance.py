"""The paper's importance of a feature, its standard error, and statistics that no basis changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lens.probes.decoder import AnyArray, Decoder, decode, predict


def importance(theta: Float[AnyArray, "k h"]) -> Float[np.ndarray, " k"]:
    """The paper's importance score: the Euclidean norm of each feature's decoder weights.

    It follows the scale of the projected embeddings (doubling them halves it) and grows with the
    noise of a feature when the number of hidden units is not small against the number of patients.
    """
    return np.linalg.norm(np.asarray(theta, np.float64), axis=1)


class DecoderFit(NamedTuple):
    """A least-squares decoder with the patients that it was solved on.

    Attributes:
        decoder: its weights, intercepts and rank.
        z: projected embeddings of the fitted patients.
        r: their radiomic features, scaled.
        residual: observed minus decoded features.
        intercept: whether the decoder has one.
    """

    decoder: Decoder
    z: Float[np.ndarray, "n h"]
    r: Float[np.ndarray, "n k"]
    residual: Float[np.ndarray, "n k"]
    intercept: bool


def fit_decoder(
    z: Float[np.ndarray, "n h"], r: Float[np.ndarray, "n k"], *, intercept: bool = True
) -> DecoderFit:
    """Solves the decoder (`lens.probes.decoder.decode`) and keeps what its statistics need.

    Args:
        z: projected embeddings, one row per patient, float64.
        r: scaled radiomic features (unitless), same rows.
        intercept: fit one; the paper does not.
    """
    decoder = decode(z, r, intercept=intercept)
    return DecoderFit(decoder, z, r, r - predict(decoder, z), intercept)


class ImportanceErrors(NamedTuple):
    """Standard errors of importance before fine-tuning, after it, and of their difference."""

    pre: Float[np.ndarray, " k"]
    ft: Float[np.ndarray, " k"]
    delta: Float[np.ndarray, " k"]


def importance_errors(pre: DecoderFit, ft: DecoderFit) -> ImportanceErrors:
    """Standard errors of importance, from the least-squares covariance of the weights.

    ``Cov(theta_k) = s_kk (z'z)^-1``, and for two encoders on the same patients
    ``Cov(theta_k, phi_k) = s_kl (z'z)^-1 z'y (y'y)^-1`` with the residual covariance ``s``. The
    error of the norm follows by the delta method, so the difference accounts for the patients'
    noise that both decoders share. Homoscedastic residuals are assumed; the projection is fixed.

    Returns:
        NaN where no degrees of freedom are left.
    """
    n, k = pre.r.shape
    free = n - max(pre.decoder.rank, ft.decoder.rank) - int(pre.intercept)
    if free < 1:
        return ImportanceErrors(*(np.full(k, np.nan) for _ in ImportanceErrors._fields))
    a, b = _influence(pre), _influence(ft)
    var_pre = _dot(pre.residual, pre.residual) / free * _dot(a, a)
    var_ft = _dot(ft.residual, ft.residual) / free * _dot(b, b)
    covariance = _dot(pre.residual, ft.residual) / free * _dot(a, b)
    var_delta = np.maximum(var_pre + var_ft - 2 * covariance, 0.0)
    return ImportanceErrors(np.sqrt(var_pre), np.sqrt(var_ft), np.sqrt(var_delta))


def explained_sd(fit: DecoderFit) -> Float[np.ndarray, " k"]:
    """Standard deviation of the decoded feature over that of the feature itself.

    ``sqrt(theta_k' Cov(Z) theta_k) / SD(R_k)`` over the fitted patients: does not change under any
    invertible linear map of `z` with the decoder solved again, nor with the unit of `r`. It is the
    spread of the decoder's output, right or wrong: near one for noise, if there are many hidden
    units.
    """
    return np.sqrt(_decoded_variance(fit, fit.z.mean(axis=0))) / fit.r.std(axis=0)


def importance_debiased(fit: DecoderFit) -> Float[np.ndarray, " k"]:
    """Squared importance on whitened `z`, less the part that noise alone would give; at least 0.

    ``||theta_k||^2 - sigma_k^2 tr((Z'Z)^-1)`` with ``Cov(Z) = 1``, in which basis
    ``||theta_k||^2`` is the variance of the decoded feature and the trace is ``rank / n``. Does not
    change under any invertible linear map of `z` with the decoder solved again; in the squared unit
    of the features. With no signal its expectation before the floor is zero.

    Returns:
        NaN where no degree of freedom is left to estimate the noise.
    """
    n, rank = len(fit.z), fit.decoder.rank
    free = n - rank - int(fit.intercept)
    if free < 1:
        return np.full(fit.r.shape[1], np.nan)
    noise = np.square(fit.residual).sum(axis=0) / free
    return np.maximum(_decoded_variance(fit, _centre(fit)) - noise * rank / n, 0.0)


def _influence(fit: DecoderFit) -> Float[np.ndarray, "n k"]:
    """``z (z'z)^+ theta_k / |theta_k|``: the influence of each patient on the importance."""
    theta = fit.decoder.theta
    norm = np.linalg.norm(theta, axis=1)
    unit = np.divide(theta, norm[:, None], where=norm[:, None] > 0, out=np.zeros_like(theta))
    z = fit.z - _centre(fit)
    # rcond as in the decoder: directions that it left out carry no weight here either.
    return np.linalg.lstsq(z.T, unit.T, rcond=float(np.finfo(np.float32).eps))[0]


def _decoded_variance(
    fit: DecoderFit, centre: Float[np.ndarray, " h"] | float
) -> Float[np.ndarray, " k"]:
    return np.square((fit.z - centre) @ fit.decoder.theta.T).mean(axis=0)


def _centre(fit: DecoderFit) -> Float[np.ndarray, " h"] | float:
    """What the decoder's fit subtracts from `z`: nothing without an intercept."""
    return fit.z.mean(axis=0) if fit.intercept else 0.0


def _dot(a: Float[np.ndarray, "n k"], b: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    return np.einsum("nk,nk->k", a, b)
