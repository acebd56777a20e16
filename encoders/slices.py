"""Volumes through encoders of images: slice by slice along the first axis, which is axial.

The embedding of a volume is the mean of those of its slices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray


def reads_slices(encoder: Any, x: Array | np.ndarray) -> bool:
    """Whether an input is volumes, (n, D, H, W, c), and the encoder one of images."""
    return encoder.config.dims == 2 and x.ndim == 5


def embedding_of(
    encoder: Any, x: Float[Array | np.ndarray, "n ..."], *, key: PRNGKeyArray | None = None
) -> Float[Array, "n f"]:
    """Embeddings of volumes or images by an encoder of either, all slices at once.

    Args:
        encoder: an `Encoder`, or what stands for one.
        x: volumes ``(n, D, H, W, c)`` or images ``(n, H, W, c)``.
        key: as `Encoder.__call__` takes it.
    """
    if not reads_slices(encoder, x):
        return encoder(x, key=key)
    rows = encoder(x.reshape(-1, *x.shape[2:]), key=key)
    return rows.reshape(*x.shape[:2], -1).mean(axis=1)
