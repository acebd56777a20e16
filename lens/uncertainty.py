"""Intervals: how far scores and importances would move with other patients."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEVEL = 0.95
"""Nominal coverage of every interval."""

Z_VALUE = 1.959963984540054
"""Normal quantile of `LEVEL`."""


class Interval(NamedTuple):
    """Lower and upper end per column (or a scalar pair)."""

    low: np.ndarray
    high: np.ndarray


def patient_weights(groups: np.ndarray, draws: int, seed: int) -> Float[np.ndarray, "b n"]:
    """How often each row is drawn when patients are resampled with replacement.

    Args:
        groups: patient of each row (n,); all rows of a patient are drawn together.
        draws: number of bootstrap samples.
        seed: of the draws; the same seed gives both encoders the same patients.
    """
    _, patient = np.unique(groups, return_inverse=True)
    count = patient.max() + 1
    rng = np.random.default_rng(seed)
    per_patient = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    return per_patient[:, patient].astype(np.float64)


def bootstrap_scores(
    residual: Float[np.ndarray, "n k"],
    deviation: Float[np.ndarray, "n k"],
    variance: Float[np.ndarray, " k"],
    weights: Float[np.ndarray, "b n"],
) -> dict[str, Float[np.ndarray, "b k"]]:
    """Scores of each bootstrap sample of the test patients; the decoders stay as they are.

    Args:
        residual: observed minus decoded.
        deviation: observed minus the mean of the train and validation patients.
        variance: of each column over the train patients.
        weights: times each row is drawn.

    Returns:
        ``r2``, ``mse`` and ``mse_z`` in float32; R2 is NaN in a sample without any deviation.
    """
    squared = weights @ np.square(residual)
    total = weights @ np.square(deviation)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(total > 0, 1.0 - squared / total, np.nan)
    mse = squared / weights.sum(axis=1, keepdims=True)
    scores = {"r2": r2, "mse": mse, "mse_z": mse / variance}
    return {name: values.astype(np.float32) for name, values in scores.items()}


def percentile_interval(samples: Float[np.ndarray, b * axes]) -> Interval:
    """Percentile interval over bootstrap samples, samples without a value left out."""
    tail = 50 * (1 - LEVEL)
    # The NaN-skipping form is some ten times slower; a column without any value gives NaN.
    percentile = np.nanpercentile if np.isnan(samples).any() else np.percentile
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        low, high = percentile(samples, [tail, 100 - tail], axis=0)
    return Interval(low, high)


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
