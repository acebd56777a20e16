"""Tests of many features at once: sign flips over patients, maxT, Benjamini-Hochberg."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control

_CHUNK = 500
"""Flips computed at once: bounds memory at ``_CHUNK * k`` numbers, whatever their number."""


class Significance(NamedTuple):
    """p and q values per feature.

    Attributes:
        p_maxt: family-wise: the chance that any feature would reach this one's statistic.
        q_bh: false discovery rate at which the feature would be called, by Benjamini and Hochberg.
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
    alternative: Alternative = "two-sided",
) -> Significance:
    """Whether each feature's difference is centred on zero.

    If pre and ft are exchangeable for every patient, the sign of a patient's difference is a coin's
    toss, the same for all features, which keeps their correlation. The statistic is Student's t;
    ``p = (1 + #{null >= observed}) / (1 + flips)``.

    Args:
        difference: per row and feature, as of squared errors of two decoders on held-out patients.
        groups: patient of each row; the rows of a patient are added up and flipped together.
        flips: random sign vectors; the smallest p is ``1 / (1 + flips)``.
        seed: of the flips.
        alternative: ``greater`` tests whether the differences lie above zero.

    Returns:
        Values of 1 where a feature has no difference in any patient, as with the same data twice.
    """
    total = patient_sums(difference, groups)
    # Signs leave a feature's sum of squares as it is, and Student's t rises with the sum over its
    # root: comparing these compares t, at the cost of one product per block of flips.
    size = np.linalg.norm(total, axis=0)
    total = np.divide(total, size, out=np.zeros_like(total), where=size > 0)
    magnitude = np.abs if alternative == "two-sided" else np.positive
    observed = magnitude(total.sum(axis=0))
    # A sum in another order differs by rounding; a tie must count as reached.
    threshold = observed - 1e-9 * np.maximum(np.abs(observed), 1e-3)
    rng = np.random.default_rng(seed)
    reached, reached_by_max = np.zeros_like(observed), np.zeros_like(observed)
    for start in range(0, flips, _CHUNK):
        signs = rng.choice((-1.0, 1.0), size=(min(_CHUNK, flips - start), len(total)))
        null = magnitude(signs @ total)
        reached += (null >= threshold).sum(axis=0)
        reached_by_max += (null.max(axis=1, keepdims=True) >= threshold).sum(axis=0)
    p = (1 + reached) / (1 + flips)
    return Significance((1 + reached_by_max) / (1 + flips), false_discovery_control(p))


def patient_sums(values: Float[np.ndarray, "n k"], groups: np.ndarray) -> Float[np.ndarray, "p k"]:
    """Sums over the rows of each patient, patients in sorted order."""
    _, patient = np.unique(groups, return_inverse=True)
    total = np.zeros((int(patient.max()) + 1, values.shape[1]))
    np.add.at(total, patient, values)
    return total
