"""Axes that stay readable beside wild values: what lies beyond stands at the edge as an arrow.

R2 has no lower end. A probe that fails gives -1,000, which means no more than -1 does, and an axis
that reaches there shows nothing else.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from lens.report.palette import MEANINGS
from lens.report.words import number


class Scale(NamedTuple):
    """The part of an axis that is drawn.

    Attributes:
        low, high: its ends, in the unit of the values.
    """

    low: float
    high: float

    def shown(self, values: np.ndarray) -> np.ndarray:
        """Values (n,) with those beyond an end moved onto it; a missing one stays missing."""
        return np.clip(np.asarray(values, float), self.low, self.high)

    def rounded(self, step: float = 0.05) -> Scale:
        """The ends moved outwards to whole steps."""
        low, high = math.floor(self.low / step), math.ceil(self.high / step)
        return Scale(round(low * step, 9), round(high * step, 9))

    def padded(self) -> tuple[float, float]:
        """Ends of the axis with room for the marks that stand on them."""
        room = 0.03 * (self.high - self.low)
        return self.low - room, self.high + room

    def beyond(self, values: np.ndarray) -> tuple[int, int]:
        """How many of the values lie below and above."""
        values = np.asarray(values, float)
        return int((values < self.low).sum()), int((values > self.high).sum())

    def told(self, values: np.ndarray) -> str:
        """Which values are drawn as arrows, for an axis' title: empty, or with a leading ``; ``."""
        below, above = self.beyond(values)
        parts = [
            f"{count} {side} {number(end)}"
            for count, side, end in ((below, "below", self.low), (above, "above", self.high))
            if count
        ]
        missing = int(np.isnan(np.asarray(values, float)).sum())
        told = f"; arrows at the edge: {', '.join(parts)}" if parts else ""
        return told + (f"; without a value: {missing}" if missing else "")


def scale(values: np.ndarray, inner: Scale, outer: Scale) -> Scale:
    """The ends of an axis: where the values end, at least `inner` and at most `outer`.

    Args:
        values: (n,), with missing or infinite ones.
        inner, outer: what is always drawn, and what an axis never goes beyond.
    """
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return inner
    return Scale(
        max(min(float(finite.min()), inner.low), outer.low),
        min(max(float(finite.max()), inner.high), outer.high),
    )


def symmetric(values: np.ndarray, least: float, most: float) -> Scale:
    """As `scale`, with zero in the middle: at least `least` and at most `most` on each side."""
    size = np.abs(np.asarray(values, float))
    end = scale(size, Scale(0.0, least), Scale(0.0, most)).high
    return Scale(-end, end)


def arrows(axes: Axes, values: np.ndarray, heights: np.ndarray, bounds: Scale, colour: str) -> None:
    """An arrow at the edge of a horizontal axis for every value (n,) beyond it.

    Args:
        axes: to draw on.
        values, heights: where the marks would be, (n,) each.
        bounds: what is drawn of the axis.
        colour: of the arrows.
    """
    values, heights = np.asarray(values, float), np.asarray(heights, float)
    for marker, mask, end in (
        ("<", values < bounds.low, bounds.low),
        (">", values > bounds.high, bounds.high),
    ):
        if mask.any():
            axes.plot(
                np.full(mask.sum(), end), heights[mask], marker, ms=6, color=colour, clip_on=False
            )


def no_value(axes: Axes, heights: np.ndarray, at: float) -> None:
    """The words ``no value`` in every row of the heights (m,), at a position of the axis."""
    for height in heights:
        axes.text(
            at, height, "no value", fontsize=7, style="italic", va="center", ha="center",
            color=MEANINGS["unchanged"].light,
        )  # fmt: skip
