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


def smallest_loss(table: pd.DataFrame, patients: int) -> Float[np.ndarray, " k"]:
    """Smallest loss of R2 that would be shown with power `POWER`, by feature.

    With s the standard error of the change that was observed, mostly none, the variance of a loss
    of ``L`` is about ``s^2 + V(L) / p`` for p patients (`loss_variance`), and the smallest loss is
    the first with ``L >= (limit + z) sqrt(s^2 + V(L) / p)``, as in `power_of`.

    Args:
        table: of `lens.verdicts.judge`: ``detectable, delta_r2_low, delta_r2_high, r2_ridge_pre``.
        patients: that were held out.

    Returns:
        Infinity where not even the loss of the whole R2 before would be shown.
    """
    half = (table["delta_r2_high"] - table["delta_r2_low"]).to_numpy() / 2
    error = half / stats.t.ppf(0.975, max(patients - 1, 1))
    detectable, before = table["detectable"].to_numpy(), table["r2_ridge_pre"].to_numpy()
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
