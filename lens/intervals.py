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
    """Lower and upper ends, arrays of one shape; of a single quantity, scalars."""

    low: np.ndarray
    high: np.ndarray


def percentile_interval(samples: Float[np.ndarray, " b *axes"]) -> Interval:
    """Percentile interval at `LEVEL` over bootstrap samples, those without a value (NaN) left out.

    Args:
        samples: a bootstrap sample per row, in any unit.

    Returns:
        Ends of shape `axes`; NaN where no sample has a value.
    """
    tail = 50 * (1 - LEVEL)
    # The form that skips NaN is some ten times slower; it warns of a column without any value.
    percentile = np.nanpercentile if np.isnan(samples).any() else np.percentile
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        low, high = percentile(samples, [tail, 100 - tail], axis=0)
    return Interval(low, high)
