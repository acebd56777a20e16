"""Scores of a decoder on the test patients."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

STAGES = ("pre", "ft", "delta")
"""Before fine-tuning, after it, and the change: after minus before."""

SCORES = ("r2", "mse", "mse_z")


def decoder_scores(
    residual: Float[np.ndarray, "n k"],
    deviation: Float[np.ndarray, "n k"],
    variance: Float[np.ndarray, " k"],
) -> dict[str, Float[np.ndarray, " k"]]:
    """R2 and mean squared error of each feature.

    Args:
        residual: observed minus decoded, of the test patients.
        deviation: observed minus the mean of the train and validation patients, same rows.
        variance: of each feature over the train patients.

    Returns:
        ``r2``; ``mse`` in the squared unit of the features; ``mse_z``, the same over the variance.
    """
    mse = np.square(residual).mean(axis=0)
    return {"r2": r2(residual, deviation), "mse": mse, "mse_z": mse / variance}


def r2(
    residual: Float[np.ndarray, "n k"], deviation: Float[np.ndarray, "n k"]
) -> Float[np.ndarray, " k"]:
    """``1 - sum residual^2 / sum deviation^2``; NaN where the deviation is zero in all rows."""
    total = np.square(deviation).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = 1.0 - np.square(residual).sum(axis=0) / total
    return np.where(total > 0, score, np.nan)
