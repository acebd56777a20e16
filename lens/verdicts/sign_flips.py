"""p values of many features at once, and of all together, from sign flips over patients.

Family-wise error is controlled by maxT (Westfall and Young 1993): a feature's statistic is compared
with the largest one over all features in each sign-flipped sample, which keeps the correlation of
the features. The false discovery rate is that of Benjamini and Hochberg (1995).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int8
from scipy.stats import false_discovery_control, rankdata

from lens.scratch import release

_CHUNK = 500
"""Flips computed at once."""

_COLUMNS = 512
"""Features computed at once: with `_CHUNK` it bounds memory, whatever the numbers of both."""


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
    observed = np.concatenate([_unit_columns(total[:, c]).sum(axis=0) for c in _blocks(total)])
    return _flip(
        total, observed, patients=len(total), flips=flips, seed=seed, alternative="two-sided"
    )


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
    error = column_norms(influence) * np.sqrt(patients / (patients - 1))
    # An estimate without any spread (few patients, all the same) is as sure as can be.
    unbounded = np.where(np.nan_to_num(value) == 0, 0.0, np.copysign(np.inf, value))
    t = np.divide(np.nan_to_num(value), error, out=unbounded, where=error > 0)
    with np.errstate(invalid="ignore"):
        # Student's t of a flipped sample with sum u, scaled to unit norm, is u sqrt((p - 1) / (p -
        # u^2)); here the observed t is taken back to the scale of u.
        reached = t * np.sqrt(patients / (patients - 1 + np.square(t)))
    observed = np.where(np.isinf(t), np.copysign(np.sqrt(patients), t), reached)
    return _flip(
        influence, observed, patients=patients, flips=flips, seed=seed, alternative=alternative
    )


def column_norms(values: Float[np.ndarray, "p k"]) -> Float[np.ndarray, " k"]:
    """Euclidean norm of each column, NaN as zero; what lives in a file stays out of memory."""
    norms = np.empty(values.shape[1])
    for columns in _blocks(values):
        norms[columns] = np.linalg.norm(np.nan_to_num(values[:, columns]), axis=0)
        release(values)
    return norms


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
    values: Float[np.ndarray, "p k"],
    observed: Float[np.ndarray, " k"],
    *,
    patients: int,
    flips: int,
    seed: int,
    alternative: Alternative,
) -> Significance:
    """Flips the columns of `values`, brought to norm 1; `observed` are the sums without a flip."""
    magnitude = np.abs if alternative == "two-sided" else np.positive
    observed = magnitude(observed)
    # A sum in another order differs by rounding; a tie must count as reached.
    threshold = observed - 1e-9 * np.maximum(np.abs(observed), 1e-3)
    reached, null = np.zeros_like(observed), np.zeros((flips, 2))
    null[:, 0] = -np.inf
    signs = _signs(flips, len(values), seed)
    for columns in _blocks(values):
        unit = _unit_columns(np.nan_to_num(values[:, columns]))
        release(values)
        for start in range(0, flips, _CHUNK):
            rows = slice(start, start + _CHUNK)
            flipped = magnitude(signs[rows].astype(np.float64) @ unit)
            reached[columns] += (flipped >= threshold[columns]).sum(axis=0)
            null[rows, 0] = np.maximum(null[rows, 0], flipped.max(axis=1))
            null[rows, 1] += _squares(flipped)
    largest = np.sort(null[:, 0])
    reached_by_max = flips - np.searchsorted(largest, threshold, side="left")
    squares = (float(threshold.max()), float(_squares(observed[None])[0] * (1 - 1e-9) - 1e-12))
    return Significance(
        (1 + reached) / (1 + flips),
        (1 + reached_by_max) / (1 + flips),
        any_difference(squares, null),
        _student(largest, patients),
    )


def _blocks(values: Float[np.ndarray, "p k"]) -> Iterator[slice]:
    for start in range(0, values.shape[1], _COLUMNS):
        yield slice(start, start + _COLUMNS)


def _squares(statistics: Float[np.ndarray, "b k"]) -> Float[np.ndarray, " b"]:
    """Sum of squares of the statistics that lie on the tested side, which is above zero."""
    above = np.maximum(statistics, 0.0)
    return np.einsum("bk,bk->b", above, above)


def _student(sums: Float[np.ndarray, " b"], patients: int) -> Float[np.ndarray, " b"]:
    """Student's t of the sum of a patients' column of norm 1."""
    free = np.maximum(patients - np.square(sums), 1e-9)
    return sums * np.sqrt((patients - 1) / free)


def _signs(flips: int, patients: int, seed: int) -> Int8[np.ndarray, "b p"]:
    """Random sign vectors, a byte a sign."""
    rng, signs = np.random.default_rng(seed), np.empty((flips, patients), np.int8)
    for start in range(0, flips, _CHUNK):
        part = signs[start : start + _CHUNK]
        part[:] = rng.choice((-1.0, 1.0), size=part.shape)
    return signs


def patient_sums(values: Float[np.ndarray, "n k"], groups: np.ndarray) -> Float[np.ndarray, "p k"]:
    """Sum over the rows of each patient, patients in sorted order."""
    _, patient = np.unique(groups, return_inverse=True)
    total = np.zeros((int(patient.max()) + 1, values.shape[1]))
    np.add.at(total, patient, values)
    return total
