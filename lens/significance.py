"""Tests of many features at once: sign flips over patients, maxT, Benjamini-Hochberg."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control

_CHUNK = 500
"""Flips computed at once: bounds memory at ``_CHUNK * k`` numbers, whatever their number."""


class Significance(NamedTuple):
    """p and q values per feature, two-sided.

    Attributes:
        p_maxt: family-wise: the chance that any feature would reach this one's statistic.
        q_bh: false discovery rate at which the feature would be called, by Benjamini and Hochberg.
    """

    p_maxt: Float[np.ndarray, " k"]
    q_bh: Float[np.ndarray, " k"]


def sign_flip_test(
    difference: Float[np.ndarray, "n k"], groups: np.ndarray, *, flips: int, seed: int
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

    Returns:
        Values of 1 where a feature has no difference in any patient, as with the same data twice.
    """
    _, patient = np.unique(groups, return_inverse=True)
    patients = int(patient.max()) + 1
    total = np.zeros((patients, difference.shape[1]))
    np.add.at(total, patient, difference)
    squares = np.square(total).sum(axis=0)
    observed = np.abs(_student(total.sum(axis=0, keepdims=True), squares, patients))[0]
    rng = np.random.default_rng(seed)
    reached, reached_by_max = np.zeros_like(observed), np.zeros_like(observed)
    for start in range(0, flips, _CHUNK):
        signs = rng.choice((-1.0, 1.0), size=(min(_CHUNK, flips - start), patients))
        null = np.abs(_student(signs @ total, squares, patients))
        # A sum in another order differs by rounding; a tie must count as reached.
        slack = observed * (1 - 1e-9)
        reached += (null >= slack).sum(axis=0)
        reached_by_max += (null.max(axis=1, keepdims=True) >= slack).sum(axis=0)
    p = (1 + reached) / (1 + flips)
    return Significance((1 + reached_by_max) / (1 + flips), false_discovery_control(p))


def _student(
    sums: Float[np.ndarray, "b k"], squares: Float[np.ndarray, " k"], n: int
) -> Float[np.ndarray, "b k"]:
    """Student's t of the mean from sums; zero where every difference is zero."""
    scatter = np.maximum(squares - np.square(sums) / n, 0.0) / (n - 1)
    error = np.sqrt(scatter * n)
    # Without scatter but with a difference (few patients, all the same) t has no bound.
    unbounded = np.where(sums == 0, 0.0, np.copysign(np.inf, sums))
    return np.divide(sums, error, out=unbounded, where=error > 0)
