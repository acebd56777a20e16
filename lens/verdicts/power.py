"""Power of the verdict *lost*: which change of R2 is shown how often.

A change is as sure as its own standard error, which grows with a loss: what is lost differs from
patient to patient. `power_of` is about changes as they were observed, `smallest_loss` about a loss
that there could have been, `power_curve` about losses that were planted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from lens.intervals import LEVEL
from lens.settings import Rules
from lens.verdicts.estimates import Estimate
from lens.verdicts.sign_flips import Significance

POWER = 0.8
"""Power at which a loss counts as detectable."""

_DRAWS = 2000
"""Draws of the views' errors."""


class Power(NamedTuple):
    """Power per feature, from the standard error of its change.

    Attributes:
        detectable: smallest change of R2 that is shown with probability `POWER`.
        expected: probability that a loss of the size of this change is shown.
        limit: Student's t beyond which the test calls a feature.
    """

    detectable: Float[np.ndarray, " k"]
    expected: Float[np.ndarray, " k"]
    limit: Float[np.ndarray, " k"]


def power_of(
    changes: Mapping[str, Estimate], tests: Mapping[str, Significance], rules: Rules
) -> Power:
    """Power to show a change in all of several views at once.

    With standard errors ``s`` and limits by view, and standard normal ``e`` that are correlated as
    the patients' influences are, a change of ``delta`` is shown where ``delta >= s (limit + e)`` in
    every view. One view alone shows ``(limit + z) s`` with power `POWER`, z its normal quantile;
    three that often differ need a little more.

    Args:
        changes: change of R2 in each view.
        tests: of these changes, by the same names.
        rules: level and margin.
    """
    estimates = [*changes.values()]
    patients = np.array([change.patients for change in estimates])
    limits = np.array([tests[view].limit(rules.level) for view in changes])
    errors = np.array([np.linalg.norm(change.influence, axis=0) for change in estimates])
    errors *= np.sqrt(patients / (patients - 1))[:, None]
    losses = -np.array([change.value for change in estimates])
    detectable, expected = np.empty(losses.shape[1]), np.empty(losses.shape[1])
    for column in range(losses.shape[1]):
        influences = np.nan_to_num([change.influence[:, column] for change in estimates])
        needed = errors[:, column] * (limits + _correlated(influences))
        detectable[column] = np.quantile(needed.max(axis=1), POWER)
        expected[column] = (losses[:, column] >= needed).all(axis=1).mean()
    expected[losses.min(axis=0) < rules.margin] = 0.0
    worst = (errors * limits[:, None]).argmax(axis=0)
    return Power(np.maximum(detectable, rules.margin), expected, limits[worst])


def _correlated(influences: Float[np.ndarray, "v p"]) -> Float[np.ndarray, "b v"]:
    """Standard normal draws with the correlation of influences, the same ones each time."""
    length = np.linalg.norm(influences, axis=1, keepdims=True)
    unit = influences / np.where(length > 0, length, 1.0)
    values, vectors = np.linalg.eigh(unit @ unit.T)
    draws = np.random.default_rng(0).normal(size=(_DRAWS, len(unit)))
    return (draws * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def smallest_loss(
    change: Estimate, detectable: Float[np.ndarray, " k"], before: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """Smallest loss of R2 that would be shown with power `POWER`, by feature.

    With s the standard error of the change that was observed, mostly none, the variance of a loss
    of ``L`` is about ``s^2 + V(L) / p`` for p patients (`loss_variance`), and the smallest loss is
    the first with ``L >= (limit + z) sqrt(s^2 + V(L) / p)``, as in `power_of`.

    Args:
        change: of R2, as it was observed.
        detectable: of `power_of`.
        before: R2 before fine-tuning.

    Returns:
        Infinity where not even the loss of the whole R2 before would be shown.
    """
    patients = change.patients
    error = (change.high - change.low) / 2 / stats.t.ppf((1 + LEVEL) / 2, patients - 1)
    # `detectable` is that of the worst view; for some feature it is the one that has the interval.
    ratio = np.divide(detectable, error, out=np.full(len(error), np.inf), where=error > 0)
    factor = ratio.min() if np.isfinite(ratio).any() else 0.0
    loss = np.linspace(0.001, 1.0, 1000)[:, None]
    needed = np.square(detectable) + factor**2 * loss_variance(loss, before) / patients
    shown = (np.square(loss) >= needed) & (loss <= before)
    return np.where(shown.any(axis=0), loss[shown.argmax(axis=0), 0], np.inf)


def loss_variance(
    loss: Float[np.ndarray, "*m one"], before: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "*m k"]:
    """Variance of an observed loss of R2, times the number of patients.

    For normal values, and predictions after fine-tuning that know a part of what those before know
    and nothing else.

    Args:
        loss: of R2.
        before: R2 before fine-tuning.
    """
    return 4 * (1 - loss) ** 2 * loss * (1 - before + loss) + 4 * loss**3 * (before - loss)


def power_curve(planted: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Losses of R2 up to the largest that was planted, and the power at each.

    Every erasure has a probability to be called lost, from its own loss and standard error; zero
    where a loss that was shown was not called. It grows with the loss, which monotone regression
    describes, straight between the erasures.

    Args:
        planted: of `lens.verdicts.doctor.Findings`.
    """
    erased = planted[(planted["kind"] == "erased") & (planted["loss"] > 0)].sort_values("loss")
    if erased.empty:
        return np.zeros(0), np.zeros(0)
    power = IsotonicRegression().fit_transform(erased["loss"], erased["expected"])
    loss = np.linspace(0.0, float(erased["loss"].max()), 1001)
    return loss, np.interp(loss, np.r_[0.0, erased["loss"]], np.r_[0.0, power])


def detectable_loss(planted: pd.DataFrame, margin: float) -> float | None:
    """Smallest loss of R2, at least the margin, that has power `POWER`; None if none has."""
    loss, power = power_curve(planted)
    reached = loss[power >= POWER]
    return max(float(reached[0]), margin) if len(reached) else None
