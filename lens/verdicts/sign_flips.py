"""p and q values of many features at once, from sign flips over patients.

Family-wise error is controlled by maxT (Westfall and Young 1993): a feature's statistic is compared
with the largest one over all features in each sign-flipped sample, which keeps the correlation of
the features. The false discovery rate is that of Benjamini and Hochberg (1995).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control

_CHUNK = 500
"""Flips computed at once: bounds memory at ``_CHUNK * k`` numbers, whatever their number."""


class Significance(NamedTuple):
    """p and q values per feature.

    Attributes:
        p_maxt: family-wise p: the chance under the null hypothesis that any feature would reach
            this one's statistic.
        q_bh: false discovery rate at which the feature would be called.
    """

    p_maxt: Float[np.ndarray, " k"]
    q_bh: Float[np.ndarray, " k"]


Alternative = Literal["two-sided", "greater"]


def sign_flip_test(
    difference: Float[np.ndarray, "n k"],
    groups: np.ndarray,
    *,
    flips: int,
    seed: int,
) -> Significance:
    """p and q of the null hypothesis that the differences are symmetric about zero, two-sided.

    Under exchangeability of the two sides the sign of a patient's difference is random, the same
    for all features. The statistic is Student's t of the patients' sums;
    ``p = (1 + #{null >= observed}) / (1 + flips)``.

    Args:
        difference: per row and feature, as of squared errors of two decoders on held-out patients.
        groups: patient of each row; the rows of a patient are added up and flipped together.
        flips: random sign vectors; the smallest p is ``1 / (1 + flips)``.
        seed: of the flips.

    Returns:
        Values of 1 where a feature has no difference in any patient, as with the same data twice.
    """
    total = patient_sums(difference, groups)
    unit = _unit_columns(total)
    return _flip(unit, unit.sum(axis=0), flips=flips, seed=seed, alternative="two-sided")


def influence_test(
    value: Float[np.ndarray, " k"],
    influence: Float[np.ndarray, "p k"],
    patients: int,
    *,
    flips: int,
    seed: int,
    alternative: Alternative = "two-sided",
) -> Significance:
    """p and q of estimates that are zero under the null hypothesis, from the patients' influences.

    The statistic is Student's t, ``value / sqrt(p / (p - 1) sum influence^2)`` for p patients. Its
    null distribution is that of ``sum sign * influence`` with a random sign per patient, the same
    for all features (a wild bootstrap; Wu 1986). Influences are centred, so that a strong effect
    does not widen its own null distribution, as it does in `sign_flip_test`.

    Args:
        value: estimates; NaN counts as zero.
        influence: of each patient on each value, sums to zero over patients.
        patients: number behind the estimates, at least 2: how well their spread is known.
        flips, seed: as in `sign_flip_test`.
        alternative: ``greater`` tests against values at or below zero.
    """
    influence = np.nan_to_num(influence)
    error = np.linalg.norm(influence, axis=0) * np.sqrt(patients / (patients - 1))
    # An estimate without any spread (few patients, all the same) is as sure as can be.
    unbounded = np.where(np.nan_to_num(value) == 0, 0.0, np.copysign(np.inf, value))
    t = np.divide(np.nan_to_num(value), error, out=unbounded, where=error > 0)
    with np.errstate(invalid="ignore"):
        # Student's t of a flipped sample with sum u, scaled to unit norm, is u sqrt((p - 1) / (p -
        # u^2)); here the observed t is taken back to the scale of u.
        reached = t * np.sqrt(patients / (patients - 1 + np.square(t)))
    observed = np.where(np.isinf(t), np.copysign(np.sqrt(patients), t), reached)
    return _flip(
        _unit_columns(influence), observed, flips=flips, seed=seed, alternative=alternative
    )


def critical_value(
    influence: Float[np.ndarray, "p k"], patients: int, level: float, *, flips: int, seed: int
) -> float:
    """Student's t beyond which `influence_test` calls a feature, two-sided, at a family-wise level.

    Args:
        influence: of each patient on each value.
        patients: number behind the values.
        level: family-wise.
        flips, seed: as in `influence_test`.
    """
    unit = _unit_columns(np.nan_to_num(influence))
    largest = np.concatenate(
        [np.abs(signs @ unit).max(axis=1) for signs in _signs(flips, len(unit), seed)]
    )
    reached = np.quantile(largest, 1 - level, method="higher")
    return float(reached * np.sqrt((patients - 1) / max(patients - reached**2, 1e-9)))


def _unit_columns(values: Float[np.ndarray, "p k"]) -> Float[np.ndarray, "p k"]:
    """Columns of norm 1 (zeros stay zeros).

    Signs leave a feature's sum of squares as it is, and Student's t rises with the sum over its
    root: comparing sums of these compares t, at the cost of one product per block of flips.
    """
    size = np.linalg.norm(values, axis=0)
    return np.divide(values, size, out=np.zeros_like(values), where=size > 0)


def _flip(
    unit: Float[np.ndarray, "p k"],
    observed: Float[np.ndarray, " k"],
    *,
    flips: int,
    seed: int,
    alternative: Alternative,
) -> Significance:
    magnitude = np.abs if alternative == "two-sided" else np.positive
    observed = magnitude(observed)
    # A sum in another order differs by rounding; a tie must count as reached.
    threshold = observed - 1e-9 * np.maximum(np.abs(observed), 1e-3)
    reached, reached_by_max = np.zeros_like(observed), np.zeros_like(observed)
    for signs in _signs(flips, len(unit), seed):
        null = magnitude(signs @ unit)
        reached += (null >= threshold).sum(axis=0)
        reached_by_max += (null.max(axis=1, keepdims=True) >= threshold).sum(axis=0)
    p = (1 + reached) / (1 + flips)
    return Significance((1 + reached_by_max) / (1 + flips), false_discovery_control(p))


def _signs(flips: int, patients: int, seed: int) -> Iterator[Float[np.ndarray, "b p"]]:
    """Random sign vectors in blocks of at most `_CHUNK`."""
    rng = np.random.default_rng(seed)
    for start in range(0, flips, _CHUNK):
        yield rng.choice((-1.0, 1.0), size=(min(_CHUNK, flips - start), patients))


def patient_sums(values: Float[np.ndarray, "n k"], groups: np.ndarray) -> Float[np.ndarray, "p k"]:
    """Sum over the rows of each patient, patients in sorted order."""
    _, patient = np.unique(groups, return_inverse=True)
    total = np.zeros((int(patient.max()) + 1, values.shape[1]))
    np.add.at(total, patient, values)
    return total
