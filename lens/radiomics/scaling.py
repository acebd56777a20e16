"""Scaling of radiomic features: fitted on train patients, applied to all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


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
