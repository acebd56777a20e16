"""How many directions an encoder uses before and after training, for a job's metrics and log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from encoders.encoder import Encoder
    from encoders.rows import Rows
    from experiments.common.training_data import TrainingData

log = logging.getLogger(__name__)

MOST_PATIENTS = 200
"""More than these tell no more, and take longer."""


def effective_ranks(
    seed: int,
    before: Encoder,
    after: Encoder,
    volumes: Rows,
    data: TrainingData,
    *,
    batch_size: int,
) -> dict[str, Any]:
    """Effective rank of each stage of an encoder before and after training; logs it.

    Args:
        seed: of the training, for the log.
        before: the encoder that training began with.
        after: the one that is kept.
        volumes: that they are shown, a row per case of `data`.
        data: whose validation patients are embedded, or training patients where there are none;
            test patients never.
        batch_size: volumes per pass.

    Returns:
        ``start`` and ``end``, a number per stage (`encoders.collapse.stage_ranks`); ``patients``,
        ``val`` or ``train``, and how many they are, ``n``.
    """
    from encoders.collapse import collapse_note, stage_ranks
    from encoders.encoder import encoder_hash

    part = "val" if len(data.rows("val")) else "train"
    rows = _some(data.rows(part))
    start = stage_ranks(before, volumes, rows, batch_size=batch_size)
    same = encoder_hash(before) == encoder_hash(after)
    end = start if same else stage_ranks(after, volumes, rows, batch_size=batch_size)
    log.info(
        "seed %d: effective rank of each stage over %d %s patients: %s before training, %s after",
        seed, len(rows), part, _listed(start), _listed(end),
    )  # fmt: skip
    channels = after.config.features
    if note := collapse_note(end, patients=len(rows), channels=channels):
        log.warning("seed %d: %s", seed, note)
    return {"start": start, "end": end, "patients": part, "n": len(rows)}


def _some(rows: np.ndarray) -> np.ndarray:
    """At most `MOST_PATIENTS` of the rows, evenly spread over them."""
    count = min(len(rows), MOST_PATIENTS)
    return rows[np.arange(count) * len(rows) // count]


def _listed(ranks: list[float]) -> str:
    return ", ".join(f"{rank:.1f}" for rank in ranks)
