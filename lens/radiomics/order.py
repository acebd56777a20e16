"""Percentiles of values of which the few that matter are in order already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

BINS = 8192
"""Of which a few hold what is put in order: of 177,129 voxels some hundreds."""


def places(size: int, percents: Sequence[float]) -> list[int]:
    """Positions, ascending, of the values that `percentile` reads of so many.

    Args:
        size: of the values, at least one.
        percents: from 0 to 100.
    """
    below = {_below(size, percent)[0] for percent in percents}
    return sorted(below | {min(at + 1, size - 1) for at in below})


def parted(values: Float[np.ndarray, " n"], percents: Sequence[float]) -> Float[np.ndarray, " n"]:
    """``numpy.partition(values, places(n, percents))`` at these places, with anything elsewhere.

    The values are counted in `BINS` even bins, and only those of a bin in which such a place lies
    are put in order.

    Args:
        values: at least one, all finite.
        percents: from 0 to 100.
    """
    at = np.array(places(values.size, percents))
    bins = _even_bins(values)
    count = np.bincount(bins)
    bin_at = np.searchsorted(np.cumsum(count), at, "right")
    looked_at = np.zeros(count.size, bool)
    looked_at[bin_at] = True
    rank = at - np.cumsum(np.where(looked_at, 0, count))[bin_at]
    ordered = np.empty(values.size)
    ordered[at] = np.partition(values[looked_at[bins]], rank)[rank]
    return ordered


def _even_bins(values: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """A bin of each value, in the same or a higher one than all that are less."""
    low, high = values.min(), values.max()
    with np.errstate(over="ignore", divide="ignore"):
        density = BINS / (high - low)
    if not 0 < density < np.inf:
        return np.zeros(values.size, np.int64)
    return ((values - low) * density).astype(np.int64)


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
