"""Paired bootstrap of the test patients, with projection and decoders held fixed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def patient_weights(groups: np.ndarray, draws: int, seed: int) -> Float[np.ndarray, "b n"]:
    """How often each row is drawn when patients are resampled with replacement.

    Args:
        groups: patient of each row (n,); all rows of a patient are drawn together.
        draws: number of bootstrap samples.
        seed: of the draws; the same seed gives both encoders the same patients.
    """
    _, patient = np.unique(groups, return_inverse=True)
    count = patient.max() + 1
    rng = np.random.default_rng(seed)
    per_patient = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    return per_patient[:, patient].astype(np.float64)


def bootstrap_scores(
    residual: Float[np.ndarray, "n k"],
    deviation: Float[np.ndarray, "n k"],
    variance: Float[np.ndarray, " k"],
    weights: Float[np.ndarray, "b n"],
) -> dict[str, Float[np.ndarray, "b k"]]:
    """The scores of `lens.paper.scores.decoder_scores` in each bootstrap sample.

    Args:
        residual: observed minus decoded, of the test patients.
        deviation: observed minus the mean of the train and validation patients.
        variance: of each feature over the train patients.
        weights: of `patient_weights`.

    Returns:
        ``r2``, ``mse`` and ``mse_z`` in float32; R2 is NaN in a sample without any deviation.
    """
    squared = weights @ np.square(residual)
    total = weights @ np.square(deviation)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(total > 0, 1.0 - squared / total, np.nan)
    mse = squared / weights.sum(axis=1, keepdims=True)
    scores = {"r2": r2, "mse": mse, "mse_z": mse / variance}
    return {name: values.astype(np.float32) for name, values in scores.items()}
