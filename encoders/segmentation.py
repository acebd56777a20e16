"""Segmentation from the encoder's four stages: UPerNet for volumes, and the Dice losses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from encoders.layers import gelu, initial

POOLINGS = (1, 2, 3, 6)

# Voxels added to both sides of the Dice ratio: an empty target is met by an empty prediction.
SMOOTHING = 1.0


class UPerNet(nnx.Module):
    """Unified perceptual parsing over feature maps of rising stride, with an auxiliary head.

    Each stage passes a LayerNorm. The last one is pooled to 1, 2, 3 and 6 positions along each
    axis, which gives it context; the others pass linear layers, and each receives the sum of the
    coarser ones. All are brought to the grid of the first, fused and classified. The auxiliary
    head is a 3x3x3 convolution and a classifier on the third stage. Every convolution but the
    classifiers is followed by LayerNorm and GELU.

    Example:
        >>> decoder = UPerNet(encoder.config.widths, 2, width=32, rngs=nnx.Rngs(0))
        >>> logits, auxiliary = decoder(encoder.stages(volumes), volumes.shape[1:4])
    """

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        *,
        width: int = 512,
        auxiliary_width: int = 256,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the decoder.

        Args:
            widths: channels of the four stages, `encoder.config.widths`.
            classes: the background included; 1 for a single logit of the foreground.
            width: channels inside.
            auxiliary_width: channels inside the auxiliary head.
            dtype: of the arithmetic; parameters and logits are float32.
            rngs: of the initial values.
        """
        if len(widths) != 4:
            raise ValueError(f"{len(widths)} widths; UPerNet reads four stages")
        layer = partial(ConvNormGELU, dtype=dtype, rngs=rngs)
        self.norms = nnx.List(_layer_norm(channels, dtype, rngs) for channels in widths)
        self.pools = nnx.List(layer(widths[-1], width, 1) for _ in POOLINGS)
        self.bottleneck = layer(widths[-1] + len(POOLINGS) * width, width, 3)
        self.laterals = nnx.List(layer(channels, width, 1) for channels in widths[:-1])
        self.smooths = nnx.List(layer(width, width, 3) for _ in widths[:-1])
        self.fusion = layer(len(widths) * width, width, 3)
        self.classifier = nnx.Linear(width, classes, kernel_init=initial, rngs=rngs)
        self.auxiliary = layer(widths[2], auxiliary_width, 3)
        self.auxiliary_classifier = nnx.Linear(
            auxiliary_width, classes, kernel_init=initial, rngs=rngs
        )

    def __call__(
        self, stages: Sequence[Float[Array, "n ..."]], size: Sequence[int]
    ) -> tuple[Float[Array, "n d h w classes"], Float[Array, "n d h w classes"]]:
        """Logits of every voxel.

        Args:
            stages: the four feature maps ``(n, *grid, channels)``, finest first.
            size: (D, H, W) of the input in voxels.

        Returns:
            The logits and the auxiliary head's logits; under `jax.jit` the latter cost nothing
            where they are not used.
        """
        stages = [norm(stage) for norm, stage in zip(self.norms, stages, strict=True)]
        levels = [lateral(stage) for lateral, stage in zip(self.laterals, stages, strict=False)]
        levels.append(self._context(stages[-1]))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resize(levels[i], levels[i - 1].shape[1:4])
        levels = [smooth(level) for smooth, level in zip(self.smooths, levels, strict=False)] + [
            levels[-1]
        ]
        finest = levels[0].shape[1:4]
        fused = self.fusion(jnp.concatenate([resize(level, finest) for level in levels], -1))
        logits = self.classifier(fused.astype(jnp.float32))
        auxiliary = self.auxiliary_classifier(self.auxiliary(stages[2]).astype(jnp.float32))
        return resize(logits, size), resize(auxiliary, size)

    def _context(self, last: Float[Array, "n d h w c"]) -> Float[Array, "n d h w f"]:
        """The last stage with its own averages over coarser and coarser grids."""
        grid = last.shape[1:4]
        pooled = [
            resize(layer(adaptive_average(last, (cells,) * 3)), grid)
            for layer, cells in zip(self.pools, POOLINGS, strict=True)
        ]
        return self.bottleneck(jnp.concatenate([last, *pooled], -1))


class ConvNormGELU(nnx.Module):
    """Convolution that keeps the grid, LayerNorm over channels, GELU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, dtype: str, rngs: nnx.Rngs
    ) -> None:
        size = (kernel,) * 3
        self.conv = nnx.Conv(
            inputs, outputs, size, dtype=jnp.dtype(dtype), kernel_init=initial, rngs=rngs
        )
        self.norm = _layer_norm(outputs, dtype, rngs)

    def __call__(self, x: Float[Array, "n d h w c"]) -> Float[Array, "n d h w f"]:
        return gelu(self.norm(self.conv(x)))


def resize(x: Float[Array, "n d h w c"], size: Sequence[int]) -> Float[Array, "n a b e c"]:
    """Trilinear interpolation to another grid.

    Equals ``torch.nn.functional.interpolate(x, size, mode="trilinear", align_corners=False)``.
    """
    if x.shape[1:4] == tuple(size):
        return x
    shape = (x.shape[0], *size, x.shape[-1])
    return jax.image.resize(x, shape, "trilinear", antialias=False)


def adaptive_average(
    x: Float[Array, "n d h w c"], cells: tuple[int, ...]
) -> Float[Array, "n a b e c"]:
    """Means over a grid of `cells` regions that may overlap: torch's ``AdaptiveAvgPool3d``."""
    d, h, w = (
        jnp.asarray(_averages(extent, count), x.dtype)
        for extent, count in zip(x.shape[1:4], cells, strict=True)
    )
    return jnp.einsum("ndhwc,ad,bh,ew->nabec", x, d, h, w)


def dice_loss(
    logits: Float[Array, "n *spatial classes"],
    target: Int[Array, "n ..."] | Bool[Array, "n ..."],
) -> Float[Array, ""]:
    """One minus the soft Dice coefficient of the foreground.

    ``1 - (2 |P T| + 1) / (|P| + |T| + 1)`` with volumes in voxels, P the softmax probabilities,
    averaged over samples and over the classes but the background. The 1 makes the loss 0 where
    target and prediction are both empty; where only the target is empty, the loss tends to 1 with
    the predicted volume.

    Args:
        logits: of the classes, the background first; a single class is the foreground, as if the
            background's logit was 0.
        target: the class of each voxel, 0 is background.
    """
    logits = _with_background(logits)
    probability = jax.nn.softmax(logits)[..., 1:]
    truth = jax.nn.one_hot(target.astype(jnp.int32), logits.shape[-1])[..., 1:]
    space = tuple(range(1, target.ndim))
    both = (probability * truth).sum(axis=space)
    total = (probability + truth).sum(axis=space)
    return jnp.mean(1 - (2 * both + SMOOTHING) / (total + SMOOTHING))


def dice_cross_entropy(
    logits: Float[Array, "n *spatial classes"],
    target: Int[Array, "n ..."] | Bool[Array, "n ..."],
) -> Float[Array, ""]:
    """`dice_loss` plus the mean cross entropy of all voxels in nats; arguments as there."""
    entropy = optax.softmax_cross_entropy_with_integer_labels(
        _with_background(logits), target.astype(jnp.int32)
    )
    return dice_loss(logits, target) + entropy.mean()


def _with_background(logits: Array) -> Array:
    """Two logits where there is one; float32, since sums over voxels follow."""
    logits = logits.astype(jnp.float32)
    if logits.shape[-1] > 1:
        return logits
    return jnp.concatenate([jnp.zeros_like(logits), logits], -1)


def _averages(extent: int, count: int) -> np.ndarray:
    """The matrix (count, extent) whose rows average the regions of an axis."""
    rows, positions = np.arange(count)[:, None], np.arange(extent)
    first = rows * extent // count
    last = -(-(rows + 1) * extent // count)
    inside = (positions >= first) & (positions < last)
    return inside / inside.sum(axis=1, keepdims=True)


def _layer_norm(width: int, dtype: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        width, epsilon=1e-6, dtype=jnp.dtype(dtype), use_fast_variance=False, rngs=rngs
    )
