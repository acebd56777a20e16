"""How much of a cluster of features is read from an embedding: by ridge, and by a kernel.

The kernel reader (Gaussian, on landmarks: Williams and Seeger 2001) also finds what is curved, and
says how much of a cluster is still there once no linear reader finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lens.probes.gcv import gcv_errors

LANDMARKS = 128
"""Fitted rows at which the kernel is known."""

ALPHAS = tuple(np.geomspace(1e-6, 1e3, 19).tolist())
"""Penalties, in units of the largest eigenvalue of the fitted rows' second moments."""


class Part(NamedTuple):
    """Errors of the held-out rows of a fold.

    Attributes:
        error, baseline: squared errors of the reader and of the fitted mean, summed over rows and
            targets, each target weighted.
    """

    error: float
    baseline: float


class Reader(NamedTuple):
    """Fitted and held-out rows, decomposed once for any number of targets.

    Attributes:
        u, s: left singular vectors and singular values of the centred fitted rows.
        held: held-out rows along the right singular vectors, the fitted mean taken off.
    """

    u: Float[np.ndarray, "m r"]
    s: Float[np.ndarray, " r"]
    held: Float[np.ndarray, "t r"]

    def errors(
        self,
        z_fitted: Float[np.ndarray, "m k"],
        z_held: Float[np.ndarray, "t k"],
        weights: Float[np.ndarray, " k"],
    ) -> Part:
        """Errors of ridge regression, a penalty for each target by generalised cross-validation.

        Args:
            z_fitted, z_held: targets.
            weights: of the targets.
        """
        mean = z_fitted.mean(axis=0)
        baseline = float(np.square(z_held - mean).sum(axis=0) @ weights)
        if not len(self.s):
            return Part(baseline, baseline)
        along = self.u.T @ (z_fitted - mean)
        power = np.square(along)
        beyond = np.maximum(np.square(z_fitted - mean).sum(axis=0) - power.sum(axis=0), 0.0)
        alphas = np.multiply(ALPHAS, self.s[0] ** 2)
        errors = gcv_errors(np.square(self.s), power, beyond, len(z_fitted), alphas)
        # Of equal errors the larger penalty's, as where there is nothing to read.
        alpha = alphas[len(alphas) - 1 - errors[::-1].argmin(axis=0)]
        predicted = mean + self.held @ (self.s[:, None] / (self.s[:, None] ** 2 + alpha) * along)
        return Part(float(np.square(z_held - predicted).sum(axis=0) @ weights), baseline)


def linear_reader(fitted: Float[np.ndarray, "m r"], held: Float[np.ndarray, "t r"]) -> Reader:
    """Ridge regression on the rows as they are."""
    mean = fitted.mean(axis=0)
    centred = fitted - mean
    # Of the smaller matrix: many times faster than a decomposition of the rows. What it loses to
    # rounding lies far below the smallest penalty.
    values, v = np.linalg.eigh(centred.T @ centred)
    kept = values > values.max(initial=0.0) * 1e-12
    s, v = np.sqrt(values[kept][::-1]), v[:, kept][:, ::-1]
    return Reader(centred @ v / s, s, (held - mean) @ v)


def kernel_reader(
    fitted: Float[np.ndarray, "m r"], held: Float[np.ndarray, "t r"], *, seed: int = 0
) -> Reader:
    """Kernel ridge regression, Gaussian, as wide as the median distance of random landmarks."""
    order = np.random.default_rng(seed).permutation(len(fitted))
    chosen = fitted[order[:LANDMARKS]]
    squares = _squared_distances(chosen, chosen)
    positive = squares[np.triu_indices(len(chosen), 1)]
    width = float(np.median(positive[positive > 0])) if (positive > 0).any() else 1.0

    def kernel(rows: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 / width * _squared_distances(rows, chosen))

    values, vectors = np.linalg.eigh(kernel(chosen))
    kept = values > values.max() * 1e-8
    root = vectors[:, kept] / np.sqrt(values[kept])
    return linear_reader(kernel(fitted) @ root, kernel(held) @ root)


def _squared_distances(
    a: Float[np.ndarray, "m r"], b: Float[np.ndarray, "l r"]
) -> Float[np.ndarray, "m l"]:
    """By one matrix product, ten times as fast as pair by pair; rounding is no matter here."""
    found = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2.0 * a @ b.T
    return np.maximum(found, 0.0)


def r2(parts: Sequence[Part]) -> float:
    """R2 over the folds."""
    error, baseline = np.sum(np.asarray(parts), axis=0)
    return float(1.0 - error / baseline) if baseline > 0 else float("nan")
