"""Scaling of radiomic features: fitted on train patients, applied to all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float


class MinMax(NamedTuple):
    """Range of each radiomic column over the train patients, in the column's own unit."""

    r_min: Float[np.ndarray, " k"]
    r_max: Float[np.ndarray, " k"]


def fit_min_max(r: Float[np.ndarray, "n k"]) -> MinMax:
    """Range of each column.

    Args:
        r: radiomic features of the train patients, in their own units, finite.

    Raises:
        ValueError: a column is constant, so that its range is zero.
    """
    scaling = MinMax(r.min(axis=0), r.max(axis=0))
    constant = np.flatnonzero(scaling.r_max <= scaling.r_min)
    if constant.size:
        raise ValueError(f"{constant.size} constant column(s), the first at index {constant[0]}")
    return scaling


def scale(r: Float[np.ndarray, "n k"], scaling: MinMax) -> Float[np.ndarray, "n k"]:
    """Maps the train range to [0, 1] (unitless); other patients may fall outside it."""
    return (r - scaling.r_min) / (scaling.r_max - scaling.r_min)


def fit_standardise(
    x: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Mean and standard deviation per dimension; 1 where a dimension is constant."""
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    # A dimension that only carries rounding noise must not be blown up to unit variance.
    noise = np.finfo(np.float32).eps * np.abs(x).max(axis=0)
    return mean.astype(np.float32), np.where(std <= noise, 1.0, std).astype(np.float32)


def standardise(
    x: Float[Array, "n d"],
    mean: Float[Array | np.ndarray, " d"],
    std: Float[Array | np.ndarray, " d"],
) -> Float[Array, "n d"]:
    """Embeddings with zero mean and unit standard deviation over the train patients."""
    return (x - mean) / std
