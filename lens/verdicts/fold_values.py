"""Features and embeddings of one fold: everything here is fitted on the fold's fitted rows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from lens.probes.scaling import fit_standardise


def common_unit(r: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Every feature centred and divided by its standard deviation over all rows; NaN where missing.

    Probes and R2 are equivariant to shift and scale of a feature, so that nothing of the held-out
    rows reaches a fit; the common unit lets errors of different folds be added up.
    """
    r = np.where(np.isfinite(r), r, np.nan).astype(np.float64)
    centred = r - np.nanmean(r, axis=0)
    deviation = np.sqrt(np.nanmean(np.square(centred), axis=0))
    return centred / np.where(deviation > 0, deviation, 1.0)


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
