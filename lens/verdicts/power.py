"""Power of the verdict *lost*: which change of R2 is shown how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from lens.settings import Rules
from lens.verdicts.estimates import Estimate
from lens.verdicts.sign_flips import Significance

POWER = 0.8
"""Power at which a loss counts as detectable."""


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
    """Power in the worst of several views, all of which must show the change.

    A change of delta with standard error s is shown with probability ``Phi(delta / s - limit)``,
    Phi the normal distribution function, so that ``(limit + z) s`` is shown with power `POWER`, z
    its normal quantile.

    Args:
        changes: change of R2 in each view.
        tests: of these changes, by the same names.
        rules: level and margin.
    """
    detectable, expected, limits = [], [], []
    for view, change in changes.items():
        p, limit = change.patients, tests[view].limit(rules.level)
        error = np.linalg.norm(change.influence, axis=0) * np.sqrt(p / (p - 1))
        detectable.append((limit + stats.norm.ppf(POWER)) * error)
        limits.append(limit)
        t = np.divide(-change.value, error, out=np.zeros_like(error), where=error > 0)
        shown = stats.norm.cdf(t - limit)
        expected.append(np.where(-change.value >= rules.margin, shown, 0.0))
    worst = np.argmax(detectable, axis=0)
    return Power(
        np.maximum(np.max(detectable, axis=0), rules.margin),
        np.min(expected, axis=0),
        np.array(limits)[worst],
    )


def power_curve(planted: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Losses of R2 up to the largest that was planted, and the power at each.

    Each erasure has a loss that would be shown there with power `POWER`, from its own standard
    error. It grows with the loss of the erasure, which monotone regression describes; Student's t
    gives the power at any other loss.

    Args:
        planted: of `lens.verdicts.doctor.Findings`.
    """
    erased = planted[(planted["kind"] == "erased") & (planted["loss"] > 0)]
    if erased.empty:
        return np.zeros(0), np.zeros(0)
    fit = IsotonicRegression(out_of_bounds="clip").fit(erased["loss"], erased["detectable"])
    loss = np.linspace(0.0, float(erased["loss"].max()), 1001)
    limit, quantile = float(erased["limit"].mean()), stats.norm.ppf(POWER)
    power = stats.norm.cdf((limit + quantile) * loss / fit.predict(loss) - limit)
    return loss, np.maximum.accumulate(power)


def detectable_loss(planted: pd.DataFrame, margin: float) -> float | None:
    """Smallest loss of R2, at least the margin, that has power `POWER`; None if none has."""
    loss, power = power_curve(planted)
    reached = loss[power >= POWER]
    return max(float(reached[0]), margin) if len(reached) else None
