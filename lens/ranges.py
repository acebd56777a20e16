"""Ranges of settings: one place that tells a usable number from NaN, infinity, text or a bool."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Range:
    """The finite numbers that a setting may be.

    Attributes:
        low, high: ends of the range.
        above: the lower end itself is left out.
        below: the upper end itself is left out.
        whole: whole numbers alone.
    """

    low: int | float
    high: int | float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def problem(self, name: str, value: Any) -> str:
        """What is wrong with a value, led by the setting's name; an empty text if nothing is."""
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return f"{name} is {value!r}, not {'a whole number' if self.whole else 'a number'}"
        if not self.whole and not math.isfinite(value):
            return f"{name} is {value}; a finite number {self} is needed"
        number: Any = value
        low = number > self.low if self.above else number >= self.low
        high = number < self.high if self.below else number <= self.high
        return "" if low and high else f"{name} is {value}; {self} is needed"

    def __str__(self) -> str:
        end = f"{self.low:g}"
        first = "more than " + end if self.above else "at least " + end
        if math.isinf(self.high):
            return first
        return f"{first} and {'less than' if self.below else 'at most'} {self.high:.10g}"


class Check(NamedTuple):
    """A setting's name, its value or values, and the range of each."""

    name: str
    value: Any
    range: Range


COUNT = Range(1, whole=True)
COUNT_OR_NONE = Range(0, whole=True)
SEED = Range(0, 2**32 - 1, whole=True)
"""Larger seeds would be cut to these by JAX, so that two runs share one."""
NOT_NEGATIVE, POSITIVE = Range(0), Range(0, above=True)
SHARE, INNER_SHARE = Range(0, 1), Range(0, 1, above=True, below=True)
SHARE_BELOW_1, POSITIVE_SHARE = Range(0, 1, below=True), Range(0, 1, above=True)
EDGE_MM = Range(1e-3, 1e3)
"""Of a voxel."""


def first_problem(checks: Iterable[Check | tuple[str, Any, Range]]) -> str:
    """The first problem of all settings, or an empty text; a tuple or list is checked by entry."""
    for name, value, allowed in checks:
        for each in value if isinstance(value, tuple | list) else (value,):
            if problem := allowed.problem(name, each):
                return problem
    return ""
