"""Features and embeddings of one fold: everything here is fitted on the fold's fitted rows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from lens.probes.scaling import fit_standardise
from lens.settings import Scores

_COLUMNS = 64
"""Features that are worked on at once where all are wanted."""


def common_unit(r: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Every feature centred and divided by its standard deviation over all rows; NaN where missing.

    Probes and R2 are equivariant to shift and scale of a feature, so that nothing of the held-out
    rows reaches a fit; the common unit lets errors of different folds be added up.
    """
    unit = np.where(np.isfinite(r), r, np.nan).astype(np.float64, copy=False)
    unit -= np.nanmean(unit, axis=0)
    deviation = np.sqrt(np.nanmean(np.square(unit), axis=0))
    unit /= np.where(deviation > 0, deviation, 1.0)
    return unit


def target_values(
    r: Float[np.ndarray, "n k"], fitted: Bool[np.ndarray, " n"], scores: Scores = "normal"
) -> Float[np.ndarray, "n k"]:
    """What the probes of a fold learn to predict: features, or their normal scores, imputed.

    Args:
        r: features; NaN where missing.
        fitted: rows that map and medians are fitted on.
        scores: ``normal`` takes `normal_scores`, ``raw`` the values.
    """
    return impute(normal_scores(r, fitted) if scores == "normal" else r, fitted)


def all_target_values(
    r: Float[np.ndarray, "n k"], fitted: Bool[np.ndarray, " n"], scores: Scores = "normal"
) -> Float[np.ndarray, "n k"]:
    """`target_values` of features in any units, in one array and next to no further memory."""
    filled = np.empty(r.shape)
    for at in range(0, r.shape[1], _COLUMNS):
        columns = slice(at, at + _COLUMNS)
        filled[:, columns] = target_values(common_unit(r[:, columns]), fitted, scores)
    return filled


def normal_scores(
    r: Float[np.ndarray, "n k"], fitted: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "n k"]:
    """Rank of every value among the fitted rows, as a quantile of the normal distribution.

    ``ndtri((rank - 1/2) / m)`` for the m fitted rows that have the feature, ties at their mean rank
    (Hazen's plotting position); values of other rows are interpolated between the fitted ones, and
    beyond these take the score of the end. Monotone maps of a feature change nothing in the fitted
    rows; a wild value is no further out than the largest of m normal numbers.

    Returns:
        NaN where missing; 0 throughout for a feature that is constant over the fitted rows.
    """
    scores = np.full(r.shape, np.nan)
    for column in range(r.shape[1]):
        known = r[fitted, column]
        levels, counts = np.unique(known[np.isfinite(known)], return_counts=True)
        if len(levels):
            rank = np.cumsum(counts) - (counts - 1) / 2
            scores[:, column] = np.interp(r[:, column], levels, ndtri((rank - 0.5) / counts.sum()))
    return scores


def impute(r: Float[np.ndarray, "n k"], fitted: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "n k"]:
    """Features with missing values replaced by the median over the fitted rows, 0 without any."""
    missing = ~np.isfinite(r)
    if not missing.any():
        return r
    filled = r.copy()
    for column in np.flatnonzero(missing.any(axis=0)):
        values = r[fitted, column]
        values = values[np.isfinite(values)]
        filled[missing[:, column], column] = np.median(values) if len(values) else 0.0
    return filled


def residuals(
    values: Float[np.ndarray, "n k"],
    columns: Float[np.ndarray, "n a"],
    fitted: Bool[np.ndarray, " n"],
) -> Float[np.ndarray, "n k"]:
    """Residuals of a least-squares regression on columns and a constant, fitted on fitted rows."""
    values = values.astype(np.float64)
    design = np.column_stack([np.ones(len(columns)), columns])
    coefficients, *_ = np.linalg.lstsq(design[fitted], values[fitted], rcond=None)
    return values - design @ coefficients


def standardised(
    x: Float[np.ndarray, "n d"], fitted: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "n d"]:
    """Embeddings with mean 0 and standard deviation 1 per dimension over the fitted rows."""
    mean, std = fit_standardise(x[fitted])
    return ((x - mean) / std).astype(np.float32)
