"""p values of many features at once, and of all together, from sign flips over patients.

Family-wise error is controlled by maxT (Westfall and Young 1993): a feature's statistic is compared
with the largest one over all features in each sign-flipped sample, which keeps the correlation of
the features. The false discovery rate is that of Benjamini and Hochberg (1995).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control, rankdata

_CHUNK = 500
"""Flips computed at once: bounds memory at ``_CHUNK * k`` numbers, whatever their number."""


class Significance(NamedTuple):
    """p values per feature, and of all features together.

    Attributes:
        p: of each feature by itself.
        p_maxt: family-wise: the chance under the null hypothesis that any feature would reach this
            one's statistic.
        p_any: of the hypothesis that no feature differs at all (`any_difference`).
        largest: the largest statistic of any feature in each flipped sample, sorted; Student's t.
    """

    p: Float[np.ndarray, " k"]
    p_maxt: Float[np.ndarray, " k"]
    p_any: float
    largest: Float[np.ndarray, " b"]

    @property
    def q_bh(self) -> Float[np.ndarray, " k"]:
        """False discovery rate at which each feature would be called."""
        return false_discovery_control(self.p)

    def limit(self, level: float) -> float:
        """Student's t beyond which a feature is called at a family-wise level."""
        return float(np.quantile(self.largest, 1 - level, method="higher"))


Alternative = Literal["two-sided", "greater"]


def sign_flip_test(
    difference: Float[np.ndarray, "n k"],
    groups: np.ndarray,
    *,
    flips: int,
    seed: int,
) -> Significance:
    """p of the null hypothesis that the differences are symmetric about zero, two-sided.

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
    return _flip(
        unit, unit.sum(axis=0),
        patients=len(unit), flips=flips, seed=seed, alternative="two-sided",
    )  # fmt: skip


def influence_test(
    value: Float[np.ndarray, " k"],
    influence: Float[np.ndarray, "p k"],
    patients: int,
    *,
    flips: int,
    seed: int,
    alternative: Alternative = "two-sided",
) -> Significance:
    """p of estimates that are zero under the null hypothesis, from the patients' influences.

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
        _unit_columns(influence), observed,
        patients=patients, flips=flips, seed=seed, alternative=alternative,
    )  # fmt: skip


def any_difference(observed: tuple[float, float], null: Float[np.ndarray, "b 2"]) -> float:
    """p of no difference in any feature, by whichever of two statistics is the more extreme.

    The largest statistic of a feature sees a strong change of few features, the sum of squares a
    weak one of many. Each is turned into its p value within the flipped samples, and the smaller of
    the two is compared with the smaller of the two in these samples (min-P; Westfall and Young
    1993), so that looking twice costs what it must and no more.

    Args:
        observed: largest and sum of squares.
        null: the same in each flipped sample.
    """
    every = np.concatenate([np.array([observed]), null])
    # Share of samples, the observed one included, that reach each value.
    ranks = np.stack([rankdata(-column, method="max") for column in every.T]) / len(every)
    smaller = ranks.min(axis=0)
    return float((smaller <= smaller[0] * (1 + 1e-9)).mean())


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
    patients: int,
    flips: int,
    seed: int,
    alternative: Alternative,
) -> Significance:
    magnitude = np.abs if alternative == "two-sided" else np.positive
    observed = magnitude(observed)
    # A sum in another order differs by rounding; a tie must count as reached.
    threshold = observed - 1e-9 * np.maximum(np.abs(observed), 1e-3)
    reached, null = np.zeros_like(observed), np.empty((flips, 2))
    start = 0
    for signs in _signs(flips, len(unit), seed):
        flipped = magnitude(signs @ unit)
        reached += (flipped >= threshold).sum(axis=0)
        part = null[start : start + len(signs)]
        part[:, 0] = flipped.max(axis=1)
        part[:, 1] = _squares(flipped)
        start += len(signs)
    largest = np.sort(null[:, 0])
    reached_by_max = flips - np.searchsorted(largest, threshold, side="left")
    squares = (float(threshold.max()), float(_squares(observed[None])[0] * (1 - 1e-9) - 1e-12))
    return Significance(
        (1 + reached) / (1 + flips),
        (1 + reached_by_max) / (1 + flips),
        any_difference(squares, null),
        _student(largest, patients),
    )


def _squares(statistics: Float[np.ndarray, "b k"]) -> Float[np.ndarray, " b"]:
    """Sum of squares of the statistics that lie on the tested side, which is above zero."""
    above = np.maximum(statistics, 0.0)
    return np.einsum("bk,bk->b", above, above)


def _student(sums: Float[np.ndarray, " b"], patients: int) -> Float[np.ndarray, " b"]:
    """Student's t of the sum of a patients' column of norm 1."""
    free = np.maximum(patients - np.square(sums), 1e-9)
    return sums * np.sqrt((patients - 1) / free)


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
