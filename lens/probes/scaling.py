"""Scaling of radiomic features and of embeddings: fitted on some patients, applied to all."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lens.probes.checks import AnyArray


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


def fit_channels(
    x: Float[np.ndarray, "n d"], *, per_channel: bool
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Mean and standard deviation per dimension in float64; 1 where a dimension is constant.

    Args:
        x: embeddings, float64.
        per_channel: each dimension's own deviation; otherwise the root of their mean variance.
    """
    mean = column_means(x)
    centred = x - mean
    variance = np.full(len(x), 1.0 / len(x)) @ np.square(centred)
    if not per_channel:
        variance = np.full_like(variance, variance.mean())
    # Embeddings come in float32: a spread below its resolution is rounding, not a channel.
    noise = np.finfo(np.float32).eps * np.abs(centred).max(axis=0, initial=0.0)
    std = np.sqrt(variance)
    return mean, np.where(std <= noise, 1.0, std)


def column_means(values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Mean of each column in float64."""
    return np.ones(len(values)) @ values / len(values)


def standardise(
    x: Float[AnyArray, "n d"], mean: Float[AnyArray, " d"], std: Float[AnyArray, " d"]
) -> Float[Any, "n d"]:
    """Embeddings with zero mean and unit standard deviation over the fitted rows."""
    return (x - mean) / std
