"""Percentiles of values of which the few that matter are in order already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def places(size: int, percents: Sequence[float]) -> list[int]:
    """Positions, ascending, of the values that `percentile` reads of so many.

    Args:
        size: of the values, at least one.
        percents: from 0 to 100.
    """
    below = {_below(size, percent)[0] for percent in percents}
    return sorted(below | {min(at + 1, size - 1) for at in below})


def percentile(ordered: Float[np.ndarray, " n"], percent: float) -> float:
    """``numpy.percentile(ordered, percent)`` to the last bit, without another sort.

    Interpolates linearly between the two values at either side, from the nearer one, as NumPy does.

    Args:
        ordered: at least one, of which those at `places` are where sorting puts them
            (``numpy.partition``).
        percent: from 0 to 100.
    """
    below, share = _below(ordered.size, percent)
    low, high = float(ordered[below]), float(ordered[min(below + 1, ordered.size - 1)])
    step = high - low
    return high - step * (1 - share) if share >= 0.5 else low + step * share


def _below(size: int, percent: float) -> tuple[int, float]:
    """The last position not beyond a percentile, and how far beyond that it lies."""
    at = (size - 1) * (percent / 100)
    return int(np.floor(at)), at - int(np.floor(at))
