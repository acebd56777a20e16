"""An encoder seen block by block: each block counts as a stage, so that all can be embedded.

What embeds reads `Encoder.stages`, their widths and their strides; a `ByBlock` gives those of
blocks in their place, from the same parameters in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from encoders.convnext import ConvNeXtV2Config
from encoders.encoder import EncoderConfig
from encoders.vit import ViTConfig
from lens.errors import InputError


@dataclass(frozen=True)
class BlockConfig:
    """The configuration of an encoder with a stage per block; an `EncoderConfig`.

    Attributes:
        dims, in_channels, widths, total_strides, features, dtype: as there.
        whole: of the encoder itself.
    """

    dims: int
    in_channels: int
    widths: tuple[int, ...]
    total_strides: tuple[int, ...]
    features: int
    dtype: str
    whole: EncoderConfig

    unit = "block"
    """What one of its stages is called."""


def block_config(config: EncoderConfig) -> BlockConfig:
    """The configuration with a stage per block.

    Args:
        config: of a ConvNeXt V2 or a ViT.

    Raises:
        InputError: the encoder's blocks are not known.
    """
    if isinstance(config, ConvNeXtV2Config):
        counts = config.depths
    elif isinstance(config, ViTConfig):
        counts = tuple(np.diff((0, *config.ends)).tolist())
    else:
        raise InputError(
            "blocks: those of a ConvNeXt V2 or a ViT are known, not of a function or ONNX file; "
            "give tables of your own layers (docs/layers.md)"
        )
    return BlockConfig(
        config.dims, config.in_channels, _each(config.widths, counts),
        _each(config.total_strides, counts), config.features, config.dtype, config,
    )  # fmt: skip


class ByBlock(nnx.Module):
    """An encoder whose stages are its blocks; shares the encoder's parameters.

    Example:
        >>> encoder = ByBlock(ViT(ViTConfig.named("small"), rngs=nnx.Rngs(0)))
        >>> len(encoder.stages(jnp.zeros((1, 224, 224, 3))))
        12
    """

    def __init__(self, encoder: Any) -> None:
        """Takes a `ConvNeXtV2` or a `ViT`."""
        self.config = block_config(encoder.config)
        self.encoder = encoder

    def __call__(
        self, x: Float[Array | np.ndarray, "n *spatial c"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n f"]:
        """See `encoders.encoder.Encoder`."""
        return self.encoder(x, key=key)

    def stages(
        self,
        x: Float[Array | np.ndarray, "n *spatial c"],
        *,
        key: PRNGKeyArray | None = None,
        visible: Bool[Array | np.ndarray, "n ..."] | None = None,
    ) -> tuple[Float[Array, "n ..."], ...]:
        """The map after each block."""
        # Copies: a block may overwrite the map that it is given.
        maps = self.encoder.block_maps(x, key=key, visible=visible)
        return tuple(jnp.array(each, copy=True) for each in maps)

    def normalise(self, mean: Float[Array, "n f"]) -> Float[Array, "n f"]:
        """See `encoders.encoder.Encoder`."""
        return self.encoder.normalise(mean)

    def layers_above(self, path: tuple[str | int, ...]) -> int:
        """See `encoders.encoder.Encoder`."""
        return self.encoder.layers_above(path[1:])


def layer_names(config: EncoderConfig, stages: tuple[int, ...]) -> tuple[str, ...]:
    """The layer of each number of an embedding of several stages: ``stage1``, or ``block1``.

    Args:
        config: of the encoder.
        stages: side by side in the embedding, from 1.
    """
    unit = getattr(config, "unit", "stage")
    return _each(tuple(f"{unit}{stage}" for stage in stages),
                 tuple(config.widths[stage - 1] for stage in stages))  # fmt: skip


def _each(values: tuple[Any, ...], counts: tuple[int, ...]) -> tuple[Any, ...]:
    """Each value as often as its count says."""
    return tuple(value for value, count in zip(values, counts, strict=True) for _ in range(count))
