"""Changes of independent cohorts together: heterogeneity, and two means for two questions.

With ``y_i`` the change of R2 in cohort i of k, ``s_i`` its standard error (taken as known) and
``w_i = 1 / s_i^2``::

    m    = sum w_i y_i / sum w_i,  SE_m = 1 / sqrt(sum w_i)
    Q    = sum w_i (y_i - m)^2                             chi2(k - 1) if all changes are equal
    I2   = max(0, (Q - (k - 1)) / Q)
    tau2 = max(0, (Q - (k - 1)) / (sum w_i - sum w_i^2 / sum w_i))        (DerSimonian and Laird)
    M    = sum v_i y_i / sum v_i,  v_i = 1 / (s_i^2 + tau2)
    SE^2 = max(1, sum v_i (y_i - M)^2 / (k - 1)) / sum v_i                (Hartung and Knapp)

``m`` answers what happened in these cohorts: their own changes averaged, the surer ones counting
for more, whether they are equal or not (fixed effects in the plural; Rice, Higgins and Lumley). Its
interval is ``m -+ 1.96 SE_m``. ``M`` answers what happens in cohorts of this kind, of which these
are a sample; its interval is ``M -+ t(k - 1) SE``, and is wide where there are few. The factor
below 1 is not used (Roever, Knapp and Friede): two cohorts that agree by chance would else have
next to no interval. From three cohorts on, the change of the next one is expected within
``M -+ t(k - 2) sqrt(tau2 + SE^2)`` (Higgins, Thompson and Spiegelhalter).

Assumed are cohorts without common patients, and standard errors that are known: with 20 patients
they are off by a sixth, as a rule. Of few cohorts ``tau2`` is hardly known, and Q sees
large differences alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from lens.intervals import LEVEL, Z_VALUE

Changes = Float[np.ndarray, "k m"]
"""A row per cohort, a column per feature or group."""


class Pooled(NamedTuple):
    """Of each feature or group (m,); NaN where a cohort has no value or no spread.

    Attributes:
        mean, low, high: change of R2 in these cohorts, the weighted mean, with its `LEVEL`
            interval.
        p_mean: p of no such change.
        random, random_low, random_high: change in cohorts of this kind, the random-effects mean.
        q, p: Cochran's Q, and its p under equal changes.
        i2: share of the spread between cohorts that is beyond chance.
        tau2: variance of the changes between cohorts, R2 squared.
        next_low, next_high: where the change of another cohort is expected; NaN below three.
    """

    mean: Float[np.ndarray, " m"]
    low: Float[np.ndarray, " m"]
    high: Float[np.ndarray, " m"]
    p_mean: Float[np.ndarray, " m"]
    random: Float[np.ndarray, " m"]
    random_low: Float[np.ndarray, " m"]
    random_high: Float[np.ndarray, " m"]
    q: Float[np.ndarray, " m"]
    p: Float[np.ndarray, " m"]
    i2: Float[np.ndarray, " m"]
    tau2: Float[np.ndarray, " m"]
    next_low: Float[np.ndarray, " m"]
    next_high: Float[np.ndarray, " m"]


def pool(changes: Changes, errors: Changes) -> Pooled:
    """Means and heterogeneity over independent cohorts.

    Equals ``statsmodels.stats.meta_analysis.combine_effects(method_re="chi2", use_t=True)`` with
    its HKSJ interval, where `tau2` is not below zero and the factor not below 1.

    Args:
        changes: of R2, of at least two cohorts with different patients.
        errors: their standard errors.

    Raises:
        ValueError: a single cohort, or arrays of different shapes.
    """
    if changes.shape != errors.shape or len(changes) < 2:
        raise ValueError(f"two or more cohorts are needed; shapes {changes.shape}, {errors.shape}")
    k = len(changes)
    usable = (np.isfinite(changes) & np.isfinite(errors) & (errors > 0)).all(axis=0)
    y = np.where(usable, changes, np.nan)
    w = np.where(usable, 1 / np.square(np.where(usable, errors, 1.0)), np.nan)
    mean, error = _mean(y, w), 1 / np.sqrt(w.sum(axis=0))
    q = (w * np.square(y - mean)).sum(axis=0)
    excess = np.maximum(q - (k - 1), 0.0)
    tau2 = excess / (w.sum(axis=0) - np.square(w).sum(axis=0) / w.sum(axis=0))
    v = 1 / (1 / w + tau2)
    random = _mean(y, v)
    spread = (v * np.square(y - random)).sum(axis=0) / (k - 1)
    variance = np.maximum(1.0, spread) / v.sum(axis=0)
    half = _t(k - 1) * np.sqrt(variance)
    ahead = _t(k - 2) * np.sqrt(tau2 + variance) if k > 2 else np.full_like(mean, np.nan)
    return Pooled(
        mean=mean,
        low=mean - Z_VALUE * error,
        high=mean + Z_VALUE * error,
        p_mean=2 * stats.norm.sf(np.abs(mean) / error),
        random=random,
        random_low=random - half,
        random_high=random + half,
        q=q,
        p=stats.chi2.sf(q, k - 1),
        i2=np.divide(excess, q, out=np.where(np.isnan(q), np.nan, 0.0), where=q > 0),
        tau2=tau2,
        next_low=random - ahead,
        next_high=random + ahead,
    )


def standard_error(
    low: Float[np.ndarray, " m"], high: Float[np.ndarray, " m"], patients: int
) -> Float[np.ndarray, " m"]:
    """Standard error behind an interval of ``value -+ t(patients - 1) error``.

    Args:
        low, high: ends of the `LEVEL` interval.
        patients: that were held out.
    """
    return (high - low) / 2 / _t(max(patients - 1, 1))


def _t(freedom: int) -> float:
    """Student's t of `LEVEL`."""
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def _mean(y: Changes, weights: Changes) -> Float[np.ndarray, " m"]:
    return (weights * y).sum(axis=0) / weights.sum(axis=0)
