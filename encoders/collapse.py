"""Whether an encoder still tells volumes apart: how many directions each of its stages uses.

An encoder whose training has collapsed says nearly the same of everyone, or one thing alone, and
its loss need not show it. The effective rank over patients does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from encoders.embedding import embed
from encoders.encoder import Encoder
from encoders.rows import Rows
from lens.study.spectrum import spectrum

LEAST_RANK = 3.0
"""Effective rank of an embedding, its channels standardised, below which it counts as collapsed:
noise of as many patients would use nearly as many directions as there are."""

LEAST_PATIENTS = 30
"""Patients below which a low rank may be their number."""

LEAST_CHANNELS = 8
"""Channels below which a low rank may be their number."""

ROUNDING = 1e-5
"""Spread of a channel, in units of the stage's values, below which it is constant: means over space
in float32 differ by about as much."""


def stage_ranks(
    encoder: Encoder, volumes: Rows, rows: Int[np.ndarray, " n"], *, batch_size: int = 8
) -> list[float]:
    """Effective rank of each stage over patients: of the means of its feature map over space.

    Of the last stage it is that of the embedding, which is such a mean after the final norm, or a
    ViT's class token where the encoder reads that.

    Args:
        encoder: 2D or 3D.
        volumes: ``(N, D, H, W, C)``.
        rows: which of them.
        batch_size: volumes per pass.

    Returns:
        A number per stage, as `standardised_rank` gives it.
    """
    widths = encoder.config.widths
    stages = range(1, len(widths) + 1)
    means = embed(encoder, (volumes[row] for row in rows), stages=stages, batch_size=batch_size)
    parts = np.split(means, np.cumsum(widths)[:-1], axis=1)
    if getattr(encoder.config, "tokens", None) == "class":
        parts[-1] = embed(encoder, (volumes[row] for row in rows), batch_size=batch_size)
    return [standardised_rank(part) for part in parts]


def standardised_rank(x: Float[np.ndarray, "n d"]) -> float:
    """Effective rank of the correlations between channels: 1 to ``min(n - 1, d)``.

    Exponential of the entropy of the normalised eigenvalues of the correlation matrix. Constant
    channels are left out; 0 where all are.
    """
    x = x.astype(np.float64)
    spread = x.std(axis=0)
    alive = spread > ROUNDING * np.sqrt(np.square(x).mean())
    # The covariance of standardised channels is their correlation.
    return spectrum(x[:, alive] / spread[alive]).effective_rank if alive.any() else 0.0


def collapse_note(ranks: Sequence[float], *, patients: int, channels: int) -> str | None:
    """A sentence where the embedding has collapsed; None where not, or where nobody can tell.

    Args:
        ranks: of the stages (`stage_ranks`).
        patients: over whom they are taken.
        channels: of the embedding.
    """
    if patients < LEAST_PATIENTS or channels < LEAST_CHANNELS or ranks[-1] >= LEAST_RANK:
        return None
    return (
        f"the embedding has collapsed: its effective rank is {ranks[-1]:.1f} of {channels} "
        f"channels over {patients} patients, so it tells hardly more than one thing of them; look "
        "at the curves, and train with a lower rate, for fewer epochs or from another start"
    )
