"""Position embeddings on another grid than they were trained on: bicubic, as torch interpolates.

``torch.nn.functional.interpolate(..., mode="bicubic", align_corners=False)`` is linear in the
image and separable, so that it is a matrix per axis. Without ``antialias`` it has Keys' kernel with
a = -0.75 and repeats the border; with it, a = -0.5, widened where the grid becomes coarser.
"""

from __future__ import annotations

from functools import cache
from math import floor

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def resample(
    positions: Float[Array, "gh gw c"],
    grid: tuple[int, int],
    *,
    antialias: bool = False,
    offset: float = 0.0,
) -> Float[Array, "h w c"]:
    """Position embeddings on another grid; those of the same grid are returned as they are.

    Args:
        positions: as trained, one per patch.
        grid: rows and columns of the new grid.
        antialias: as torch's argument of this name.
        offset: patches added to the new grid's sides before the scale is taken from them. The
            original DINOv2 adds 0.1, which moves every sample by less than a tenth of a patch;
            Hugging Face and timm add none.
    """
    if positions.shape[:2] == grid:
        return positions
    rows, columns = (
        jnp.asarray(resampling(old, new, antialias=antialias, offset=offset))
        for old, new in zip(positions.shape[:2], grid, strict=True)
    )
    return jnp.einsum("ag,bw,gwc->abc", rows, columns, positions, precision="highest")


@cache
def resampling(
    old: int, new: int, *, antialias: bool = False, offset: float = 0.0
) -> Float[np.ndarray, "new old"]:
    """The matrix of a bicubic interpolation along one axis; arguments as in `resample`."""
    scale = old / (new + offset)
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * scale
        if antialias:
            width = max(scale, 1.0)
            first = max(floor(centre - 2 * width + 0.5), 0)
            last = min(floor(centre + 2 * width + 0.5), old)
            taps = np.arange(first, last)
            weights = _keys((taps - centre + 0.5) / width, -0.5)
            matrix[row, taps] = weights / weights.sum()
        else:
            first = floor(centre - 0.5) - 1
            taps = np.arange(first, first + 4)
            np.add.at(matrix[row], taps.clip(0, old - 1), _keys(taps + 0.5 - centre, -0.75))
    return matrix.astype(np.float32)


def _keys(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic kernel at distances in taps."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
