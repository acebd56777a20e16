"""Percentiles of values that are sorted already."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def percentile(ordered: Float[np.ndarray, " n"], percent: float) -> float:
    """``numpy.percentile(ordered, percent)`` to the last bit, without another sort.

    Interpolates linearly between the two values at either side, from the nearer one, as NumPy does.

    Args:
        ordered: ascending, at least one.
        percent: from 0 to 100.
    """
    at = (ordered.size - 1) * (percent / 100)
    below = int(np.floor(at))
    share = at - below
    low, high = float(ordered[below]), float(ordered[min(below + 1, ordered.size - 1)])
    step = high - low
    return high - step * (1 - share) if share >= 0.5 else low + step * share
