"""Masked autoencoder: pre-training an encoder to fill in what it does not see."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from encoders.convnext import Block, ConvNeXtV2Config, enlarge
from encoders.encoder import Encoder, EncoderConfig
from encoders.layers import PatchConv, initial
from encoders.settings import Target

# Added to the variance of a patch: a patch of one value, such as the padding, has target zero.
EPSILON = 1e-6


class MaskedOutput(NamedTuple):
    """Prediction and loss of a masked autoencoder on a batch.

    Attributes:
        losses: of each volume, mean squared error over the voxels of the patches that count, in
            units of the target. NaN where no patch counts.
        prediction: of the target, laid out as the volumes, float32.
        visible: which patches the encoder saw.
    """

    losses: Float[Array, " n"]
    prediction: Float[Array, "n *spatial c"]
    visible: Bool[Array, "n ..."]

    @property
    def loss(self) -> Float[Array, ""]:
        """Of the batch: the mean over its volumes."""
        return self.losses.mean()


class MaskedAutoencoder(nnx.Module):
    """The FCMAE of ConvNeXt V2: a masked encoder and a decoder of one block.

    The encoder sees some patches, as sparse convolutions would. Its last feature map passes a
    linear layer to `width`; a learned token stands for the masked positions; one ConvNeXt block and
    a linear layer predict all voxels. As published, targets are the patches, each scaled to mean 0
    and variance 1 over its voxels and channels, and the masked ones alone count. An encoder has no
    reason then to keep the level and the contrast of what it sees; `target` and `visible_weight`
    give it one.

    Example:
        >>> encoder = ConvNeXtV2(ConvNeXtV2Config.named("atto"), rngs=nnx.Rngs(0))
        >>> autoencoder = MaskedAutoencoder(encoder, width=64, rngs=nnx.Rngs(1))
        >>> autoencoder(jnp.ones((2, 32, 48, 48, 3)), key=jax.random.key(0)).visible.shape
        (2, 2, 3, 3)
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        patch: int | tuple[int, ...] = 16,
        width: int = 512,
        target: Target = "patch",
        visible_weight: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the decoder around an encoder.

        Args:
            encoder: the encoder to train; it is used, not copied.
            patch: sides of a patch in voxels, multiples of the encoder's total stride; one number
                for all of them alike.
            width: channels of the decoder.
            target: what is predicted, the scaled patches or the input.
            visible_weight: of a visible patch in the loss, over that of a masked one.
            rngs: of the decoder's initial values.

        Raises:
            ValueError: a side of the patch is no multiple of the total stride.
        """
        config = encoder.config
        self.patch = patch_sides(config, patch)
        self.target: Target = target
        self.visible_weight = visible_weight
        stride = config.total_strides[-1]
        self.encoder = encoder
        one = (1,) * config.dims
        layout = ConvNeXtV2Config(dims=config.dims, dtype=config.dtype)
        self.inward = PatchConv(config.features, width, one, layout, rngs=rngs)
        self.token = nnx.Param(initial(rngs.params(), (width,)))
        self.block = Block(width, layout, rngs=rngs)
        voxels = stride**config.dims * config.in_channels
        self.outward = PatchConv(width, voxels, one, layout, rngs=rngs)

    def __call__(
        self,
        volumes: Float[Array | np.ndarray, "n *spatial c"],
        *,
        key: PRNGKeyArray,
        ratio: float = 0.6,
    ) -> MaskedOutput:
        """Masks random patches of each volume and predicts them.

        Args:
            volumes: a batch, z-scored, each side a multiple of the patch.
            key: randomness of the masks.
            ratio: share of masked patches; their number is rounded, at least one and not all.

        Raises:
            ValueError: a side is no multiple of the patch, or there are fewer than 2 patches.
        """
        grid = self.patch_grid(volumes.shape[1:-1])
        visible = random_masks(key, volumes.shape[0], grid, ratio)
        return self.reconstruct(volumes, visible)

    def reconstruct(
        self,
        volumes: Float[Array | np.ndarray, "n *spatial c"],
        visible: Bool[Array | np.ndarray, "n ..."],
    ) -> MaskedOutput:
        """Predicts the volumes from the given visible patches."""
        visible = jnp.asarray(visible)
        prediction = self.decode(self.encoder.stages(volumes, visible=visible)[-1], visible)
        target = (
            normalised_patches(volumes, self.patch)
            if self.target == "patch"
            else jnp.asarray(volumes, jnp.float32)
        )
        per_patch = patches(jnp.square(prediction - target), self.patch).mean(axis=-1)
        weight = jnp.where(visible, self.visible_weight, 1.0)
        # Not only a product: a patch of weight 0 counts nothing, whatever it holds.
        counted = jnp.where(weight > 0, weight * per_patch, 0)
        grid = tuple(range(1, weight.ndim))
        return MaskedOutput(counted.sum(axis=grid) / weight.sum(axis=grid), prediction, visible)

    def decode(
        self, features: Float[Array, "n *grid f"], visible: Bool[Array, "n ..."]
    ) -> Float[Array, "n *spatial c"]:
        """The voxels predicted from the encoder's last feature map."""
        config = self.encoder.config
        x = self.inward(features)
        x = jnp.where(enlarge(visible, x.shape[1:-1]), x, self.token[...].astype(x.dtype))
        x = self.outward(x + self.block(x))
        side = (config.total_strides[-1],) * config.dims
        return _assemble(x.astype(jnp.float32), side, config.in_channels)

    def patch_grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Patches along each axis of volumes with these sides in voxels."""
        return patch_grid(shape, self.patch)


def patch_sides(config: EncoderConfig, patch: int | tuple[int, ...]) -> tuple[int, ...]:
    """Sides of a patch in voxels, one per axis of the encoder's input.

    Args:
        config: of the encoder.
        patch: the sides; one number for all of them alike.

    Raises:
        ValueError: a side is no multiple of the total stride.
    """
    sides = (patch,) if isinstance(patch, int) else tuple(patch)
    sides = sides * config.dims if len(sides) == 1 else sides
    stride = config.total_strides[-1]
    if len(sides) != config.dims or any(side < 1 or side % stride for side in sides):
        raise ValueError(
            f"patch {sides}; it has {config.dims} sides, each a multiple of {stride} "
            "voxels, the encoder's total stride"
        )
    return sides


def patch_grid(shape: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, ...]:
    """Patches along each axis of volumes with these sides in voxels.

    Raises:
        ValueError: a side of the volumes is no multiple of the patch.
    """
    if len(shape) != len(patch) or any(
        size % side for size, side in zip(shape, patch, strict=True)
    ):
        raise ValueError(
            f"volumes of {shape} voxels; each side must be a multiple of the patch {patch}"
        )
    return tuple(size // side for size, side in zip(shape, patch, strict=True))


def hidden_patches(grid: tuple[int, ...], ratio: float) -> int:
    """Number of patches of a volume that are masked: at least one, and not all.

    Raises:
        ValueError: fewer than 2 patches, or a ratio that is no share.
    """
    total = prod(grid)
    if total < 2:
        raise ValueError(f"{total} patch; masking needs at least 2, use larger volumes")
    if not 0 < ratio < 1:
        raise ValueError(f"mask ratio {ratio}; it is a share between 0 and 1")
    return min(max(round(ratio * total), 1), total - 1)


def random_masks(
    key: PRNGKeyArray, samples: int, grid: tuple[int, ...], ratio: float
) -> Bool[Array, "n ..."]:
    """Which patches are visible: the same number in each sample, at random places."""
    total, hidden = prod(grid), hidden_patches(grid, ratio)
    noise = jax.random.uniform(key, (samples, total))
    ranks = noise.argsort(axis=1).argsort(axis=1)
    return (ranks >= hidden).reshape(samples, *grid)


def normalised_patches(
    volumes: Float[Array | np.ndarray, "n *spatial c"], patch: tuple[int, ...]
) -> Float[Array, "n *spatial c"]:
    """The volumes, each patch scaled to mean 0 and variance 1 over its voxels and channels."""
    x = patches(jnp.asarray(volumes, jnp.float32), patch)
    centred = x - x.mean(axis=-1, keepdims=True)
    # The unbiased variance, as in the published code.
    variance = jnp.square(centred).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1)
    return _assemble(centred / jnp.sqrt(variance + EPSILON), patch, volumes.shape[-1])


def patches(
    volumes: Float[Array, "n *spatial c"], patch: tuple[int, ...]
) -> Float[Array, "n *patches values"]:
    """The voxels and channels of each patch side by side, channels fastest."""
    dims = len(patch)
    grid = [size // side for size, side in zip(volumes.shape[1:-1], patch, strict=True)]
    pairs = [part for pair in zip(grid, patch, strict=True) for part in pair]
    x = volumes.reshape(volumes.shape[0], *pairs, volumes.shape[-1])
    order = (0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1)
    return x.transpose(order).reshape(volumes.shape[0], *grid, -1)


def _assemble(
    values: Float[Array, "n *patches values"], patch: tuple[int, ...], channels: int
) -> Float[Array, "n *spatial c"]:
    """The volumes of `patches`."""
    dims = len(patch)
    grid = values.shape[1:-1]
    x = values.reshape(values.shape[0], *grid, *patch, channels)
    order = [axis for i in range(dims) for axis in (1 + i, 1 + dims + i)]
    shape = [cells * side for cells, side in zip(grid, patch, strict=True)]
    return x.transpose(0, *order, 1 + 2 * dims).reshape(values.shape[0], *shape, channels)
