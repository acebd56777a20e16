"""Prediction interval of the change of R2, were fine-tuning run again from another seed.

Three or four encoders say little about the spread of one feature, but much about that of all of
them: the variances are moderated over the features (`lens.verdicts.moderated_variance`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from lens.intervals import LEVEL
from lens.verdicts.moderated_variance import moderated_variance

MIN_ENCODERS = 3
"""Two are too few: Student's t of one degree of freedom is 12.7, and whether the features move
together, which decides how much they say about each other's spread, cannot be told."""


class Band(NamedTuple):
    """Change of R2 that one more fine-tuned encoder would make, per feature.

    Attributes:
        mean: of the changes over the encoders; NaN where one of them has no value.
        low, high: prediction interval at `lens.intervals.LEVEL`.
        encoders: fine-tuned encoders behind it, each from its own seed.
        df: degrees of freedom of Student's t, ``encoders - 1`` and what the other features add.
    """

    mean: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]
    encoders: int
    df: Float[np.ndarray, " k"]


def retraining_band(changes: Sequence[Float[np.ndarray, " k"]]) -> Band:
    """Prediction interval from the change of R2 in each of several fine-tuned encoders.

    ``mean +- t s~ sqrt(1 + 1/s)`` for s encoders, with s~ the moderated standard deviation and
    Student's t of its degrees of freedom: seeds of fine-tuning are a random draw, and the interval
    is for the next one. All encoders are scored on the same patients and against the same encoder
    before fine-tuning, so that the spread is that of retraining alone.

    Args:
        changes: after minus before, one array per encoder; NaN where a feature has no value.

    Raises:
        ValueError: fewer than `MIN_ENCODERS`.
    """
    count = len(changes)
    if count < MIN_ENCODERS:
        raise ValueError(
            f"{count} fine-tuned encoders are too few for a retraining band; "
            f"at least {MIN_ENCODERS}, each from its own seed, are needed"
        )
    values = np.stack(changes)
    mean = values.mean(axis=0)
    variance, df = moderated_variance(values)
    half = stats.t.ppf((1 + LEVEL) / 2, df) * np.sqrt(variance * (1 + 1 / count))
    return Band(mean, mean - half, mean + half, count, df)
