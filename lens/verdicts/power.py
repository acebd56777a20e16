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

from lens.scratch import release
from lens.settings import Rules
from lens.verdicts.estimates import Estimate
from lens.verdicts.sign_flips import Significance, column_norms

POWER = 0.8
"""Power at which a loss counts as detectable."""

_DRAWS = 2000
"""Draws of the views' errors."""

_RELEASED = 512
"""Features after which memory of influences that live in files is given back."""


class Power(NamedTuple):
    """Power per feature, from the standard error of its change.

    Attributes:
        needed: smallest change of R2 that is significant in every view with probability `POWER`.
        detectable: the same, but at least the margin, below which no change is called.
        expected: probability that a loss of the size of this change is shown.
        limit: Student's t beyond which the test calls a feature, in the view that needs most.
    """

    needed: Float[np.ndarray, " k"]
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
    errors = np.array([column_norms(change.influence) for change in estimates])
    errors *= np.sqrt(patients / (patients - 1))[:, None]
    losses = -np.array([change.value for change in estimates])
    least, expected = np.empty(losses.shape[1]), np.empty(losses.shape[1])
    for column in range(losses.shape[1]):
        if column % _RELEASED == 0:
            release(*(change.influence for change in estimates))
        influences = np.nan_to_num([change.influence[:, column] for change in estimates])
        needed = errors[:, column] * (limits + _correlated(influences))
        least[column] = np.quantile(needed.max(axis=1), POWER)
        expected[column] = (losses[:, column] >= needed).all(axis=1).mean()
    expected[losses.min(axis=0) < rules.margin] = 0.0
    worst = (errors * limits[:, None]).argmax(axis=0)
    return Power(least, np.maximum(least, rules.margin), expected, limits[worst])


def _correlated(influences: Float[np.ndarray, "v p"]) -> Float[np.ndarray, "b v"]:
    """Standard normal draws with the correlation of influences, the same ones each time."""
    length = np.linalg.norm(influences, axis=1, keepdims=True)
    unit = influences / np.where(length > 0, length, 1.0)
    values, vectors = np.linalg.eigh(unit @ unit.T)
    draws = np.random.default_rng(0).normal(size=(_DRAWS, len(unit)))
    return (draws * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def smallest_loss(
    power: Power, before: Float[np.ndarray, " k"], patients: int, rules: Rules
) -> Float[np.ndarray, " k"]:
    """Smallest loss of R2 that would be shown with power `POWER`, by feature.

    What was observed, mostly no change, has a spread of its own, of which `Power.needed` tells. A
    loss of ``L`` adds ``V(L) / p`` to its variance for p patients (`loss_variance`), the same in
    all views, since it is the same patients' loss. The smallest loss is the first with ``L >=
    sqrt(needed^2 + (limit + z)^2 V(L) / p)``, z the normal quantile of `POWER`, and at least the
    margin. Normal values are assumed.

    Args:
        power: to show changes as they were observed.
        before: R2 before fine-tuning.
        patients: that were held out.
        rules: level and margin.

    Returns:
        Infinity where not even the loss of the whole R2 before would be shown.
    """
    # Of two embeddings that do not differ in any patient no limit is known: Bonferroni's.
    bonferroni = stats.t.ppf(1 - rules.level / 2 / max(len(before), 1), patients - 1)
    limit = np.where(power.limit > 0, power.limit, bonferroni)
    loss = np.linspace(0.001, 1.0, 1000)[:, None]
    spread = np.square(limit + stats.norm.ppf(POWER)) * loss_variance(loss, before) / patients
    enough = np.square(loss) >= np.square(power.needed) + spread
    shown = enough & (loss >= rules.margin) & (loss <= before)
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
    # Slow to import, and the doctor's short form plants nothing.
    from sklearn.isotonic import IsotonicRegression

    power = IsotonicRegression().fit_transform(erased["loss"], erased["expected"])
    loss = np.linspace(0.0, float(erased["loss"].max()), 1001)
    return loss, np.interp(loss, np.r_[0.0, erased["loss"]], np.r_[0.0, power])


def detectable_loss(planted: pd.DataFrame, margin: float) -> float | None:
    """Smallest loss of R2, at least the margin, that has power `POWER`; None if none has."""
    loss, power = power_curve(planted)
    reached = loss[power >= POWER]
    return max(float(reached[0]), margin) if len(reached) else None
