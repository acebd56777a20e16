"""Volumes whose truth is known, and an encoder small enough to train in a test."""

from __future__ import annotations

import numpy as np
from flax import nnx

from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config


def balls(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise with a bright ball at a random place: volumes, radii in voxels, masks of the ball."""
    rng = np.random.default_rng(seed)
    radius = rng.uniform(2, 6, n)
    centre = rng.uniform(6, 10, (n, 3, 1, 1, 1))
    grid = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"))
    inside = np.square(grid[None] - centre).sum(axis=1) < np.square(radius)[:, None, None, None]
    x = rng.normal(size=(n, 16, 16, 16, 1)) + 1.5 * inside[..., None]
    return x.astype(np.float32), radius, inside


def small_encoder() -> ConvNeXtV2:
    config = ConvNeXtV2Config(depths=(1, 1), widths=(8, 16), strides=(2,), in_channels=1)
    return ConvNeXtV2(config, rngs=nnx.Rngs(0))
