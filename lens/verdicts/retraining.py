"""Prediction interval of the change of R2, were fine-tuning run again from another seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from lens.intervals import LEVEL

MIN_ENCODERS = 3
"""With two, Student's t is 12.7: the band would hold any change, and nothing could be called."""


class Band(NamedTuple):
    """Change of R2 that one more fine-tuned encoder would make, per feature.

    Attributes:
        mean: of the changes over the encoders.
        low, high: prediction interval at `lens.intervals.LEVEL`.
        encoders: fine-tuned encoders behind it, each from its own seed.
    """

    mean: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]
    encoders: int


def retraining_band(changes: Sequence[Float[np.ndarray, " k"]]) -> Band:
    """Prediction interval from the change of R2 in each of several fine-tuned encoders.

    ``mean +- t sd sqrt(1 + 1/s)`` for s encoders, with Student's t of ``s - 1`` degrees of freedom:
    seeds of fine-tuning are a random draw, and the interval is for the next one. With two encoders
    t is 12.7, with three 4.3, with five 2.8. All encoders are scored on the same patients
    and against the same encoder before fine-tuning, so that the spread is that of retraining alone.

    Args:
        changes: after minus before, one array per encoder.

    Raises:
        ValueError: fewer than `MIN_ENCODERS`.
    """
    count = len(changes)
    if count < MIN_ENCODERS:
        raise ValueError(f"a retraining band needs at least {MIN_ENCODERS} fine-tuned encoders")
    values = np.stack(changes)
    mean = values.mean(axis=0)
    reach = stats.t.ppf((1 + LEVEL) / 2, count - 1) * np.sqrt(1 + 1 / count)
    half = reach * values.std(axis=0, ddof=1)
    return Band(mean, mean - half, mean + half, count)
