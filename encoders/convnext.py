"""ConvNeXt V2 for volumes and images, as Flax NNX modules.

The 3D layout is ProFound's: as the published 2D network, with 7x7x7 depthwise convolutions and a
last downsampling of stride 1, so that the total stride is 16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from encoders.depthwise import depthwise
from encoders.layers import PatchConv, gelu, initial, kept, layer_norm, linear
from encoders.perceptron import Parts, only, perceptron

Size = Literal["atto", "femto", "pico", "nano", "tiny", "base", "large", "huge"]

_SIZES: dict[str, tuple[tuple[int, ...], int]] = {
    "atto": ((2, 2, 6, 2), 40),
    "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64),
    "nano": ((2, 2, 8, 2), 80),
    "tiny": ((3, 3, 9, 3), 96),
    "base": ((3, 3, 27, 3), 128),
    "large": ((3, 3, 27, 3), 192),
    "huge": ((3, 3, 27, 3), 352),
}
"""Blocks per stage and the width of the first stage; widths double from stage to stage."""

KERNEL = 7
STEM = 4

STEM_BIAS = 0.3
"""Standard deviation of the stem's bias where a pre-training starts from a new encoder.

The stem is a linear map of a patch and a LayerNorm over channels. Without a bias the map of a patch
of twice the intensities is twice as large, and the norm takes that away: brightness, contrast and
what follows from them, such as volume, cannot be read, and embeddings use few directions. With a
bias about as large as what the kernels (standard deviation 0.02) make of a standardised patch, the
direction of their sum tells the amplitude.
"""


@dataclass(frozen=True)
class ConvNeXtV2Config:
    """What determines a ConvNeXt V2 encoder.

    Attributes:
        dims: 3 for volumes, 2 for images.
        depths: blocks per stage.
        widths: channels per stage.
        in_channels: channels of the input; ProFound reads T2, high-b DWI, ADC.
        strides: of the downsamplings before stages 2, 3 and 4.
        drop_path: stochastic depth of the last block (the first has 0, linear between), used
            only where a call is given a key.
        dtype: of the arithmetic, ``float32`` or ``bfloat16``; parameters stay float32.
        remat: recompute blocks in the backward pass instead of keeping their activations.
    """

    dims: int = 3
    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    in_channels: int = 3
    strides: tuple[int, ...] = (2, 2, 1)
    drop_path: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        if self.dims not in (2, 3):
            raise ValueError(f"dims is 2 or 3, not {self.dims}")
        for value, most in (
            # The largest published size has 36 blocks; a number far beyond is a damaged file.
            *((blocks, 256) for blocks in (*self.depths, sum(self.depths))),
            *((width, 65_536) for width in (*self.widths, self.in_channels)),
            *((stride, 64) for stride in self.strides),
        ):
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"sizes are whole numbers from 1 to {most}, not {value!r}")
        if self.dtype not in ("float32", "bfloat16", "float16") or not 0 <= self.drop_path < 1:
            raise ValueError(f"no dtype {self.dtype!r}, or a drop_path outside 0 to 1")
        if not len(self.depths) == len(self.widths) == len(self.strides) + 1:
            raise ValueError(
                f"{len(self.depths)} depths, {len(self.widths)} widths and {len(self.strides)} "
                "strides; there is a stride between each two stages"
            )

    @classmethod
    def named(cls, size: Size, *, dims: int = 3, **changes: object) -> ConvNeXtV2Config:
        """The published sizes; `changes` are passed to the constructor."""
        if size not in _SIZES:
            raise ValueError(f"no size {size!r}; there are {', '.join(_SIZES)}")
        depths, width = _SIZES[size]
        layout = {
            "dims": dims,
            "depths": depths,
            "widths": tuple(width * 2**stage for stage in range(4)),
            "strides": (2, 2, 1) if dims == 3 else (2, 2, 2),
        }
        return cls(**(layout | changes))  # type: ignore[arg-type]

    @property
    def features(self) -> int:
        """Numbers of an embedding."""
        return self.widths[-1]

    @property
    def total_strides(self) -> tuple[int, ...]:
        """Voxels of the input per voxel of each stage's feature map, along each axis."""
        return tuple(STEM * prod(self.strides[:stage]) for stage in range(len(self.depths)))


class ConvNeXtV2(nnx.Module):
    """The encoder: four stages of feature maps and one embedding.

    Example:
        >>> encoder = ConvNeXtV2(ConvNeXtV2Config.named("atto"), rngs=nnx.Rngs(0))
        >>> encoder(jnp.zeros((1, 32, 64, 64, 3))).shape
        (1, 320)
    """

    def __init__(self, config: ConvNeXtV2Config, *, rngs: nnx.Rngs, stem_bias: float = 0.0) -> None:
        """Builds an encoder with random kernels.

        Args:
            config: the layout.
            rngs: of the initial values.
            stem_bias: standard deviation of the stem's bias at the start. Zero, as published, makes
                the encoder blind to the amplitude of a patch; `STEM_BIAS` is for an encoder that is
                pre-trained from nothing. No other value depends on it.
        """
        self.config = config
        inputs = (config.in_channels, *config.widths)
        strides = (STEM, *config.strides)
        self.downsamples = nnx.List(
            Downsample(inputs[i], inputs[i + 1], strides[i], config, stem=i == 0, rngs=rngs)
            for i in range(len(config.widths))
        )
        self.blocks = nnx.List(
            nnx.List(Block(width, config, rngs=rngs) for _ in range(depth))
            for depth, width in zip(config.depths, config.widths, strict=True)
        )
        self.norm = layer_norm(config.widths[-1], config, rngs)
        if stem_bias:
            # Drawn last, so that the kernels of a seed are the same with it and without.
            bias = stem_bias * jax.random.normal(rngs.params(), (config.widths[0],))
            self.downsamples[0].conv.bias.set_value(bias)

    def __call__(
        self, x: Float[Array | np.ndarray, "n *spatial c"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n f"]:
        """Embeds volumes or images: the LayerNorm of the last stage's mean over space.

        Args:
            x: the input, ``(n, D, H, W, c)`` for volumes, ``(n, H, W, c)`` for images.
            key: randomness of stochastic depth; without it every block is kept.

        Returns:
            float32 embeddings, ``widths[-1]`` numbers each.
        """
        return self.pool(self.stages(x, key=key)[-1])

    def stages(
        self,
        x: Float[Array | np.ndarray, "n *spatial c"],
        *,
        key: PRNGKeyArray | None = None,
        visible: Bool[Array | np.ndarray, "n ..."] | None = None,
    ) -> tuple[Float[Array, "n ..."], ...]:
        """The output of each stage, channels last; the input's remainder modulo a stride is cut.

        Args:
            x: the input, as in `__call__`.
            key: randomness of stochastic depth; without it every block is kept.
            visible: which patches the encoder sees, on a grid that divides the grid of every
                stage. Outputs are those of sparse convolutions over the visible positions, and
                zero elsewhere; nothing of the other patches enters.
        """
        ends = np.cumsum(self.config.depths)
        maps = self.block_maps(x, key=key, visible=visible)
        return tuple(found for number, found in enumerate(maps, start=1) if number in ends)

    def block_maps(
        self,
        x: Float[Array | np.ndarray, "n *spatial c"],
        *,
        key: PRNGKeyArray | None = None,
        visible: Bool[Array | np.ndarray, "n ..."] | None = None,
    ) -> Iterator[Float[Array, "n ..."]]:
        """The output of each block, of all stages in their order; see `stages`."""
        if x.ndim != self.config.dims + 2 or x.shape[-1] != self.config.in_channels:
            raise ValueError(
                f"input of shape {x.shape}; expected {self.config.dims} spatial axes between the "
                f"batch and {self.config.in_channels} channels"
            )
        maps: Array = jnp.asarray(x, self.config.dtype)
        keep = _keep_probabilities(self.config)
        for stage, (downsample, blocks) in enumerate(
            zip(self.downsamples, self.blocks, strict=True)
        ):
            maps = _coarser(*nnx.split(downsample), maps)
            shown = None if visible is None else enlarge(jnp.asarray(visible), maps.shape[1:-1])
            maps = only(shown, maps)
            for index, block in enumerate(blocks):
                skip = None
                if key is not None and keep[stage][index] < 1:
                    key, block_key = jax.random.split(key)
                    skip = kept(block_key, keep[stage][index], len(maps))
                maps = _residual(*nnx.split(block), maps, shown, skip, remat=self.config.remat)
                yield maps

    def pool(self, last: Float[Array, "n *spatial f"]) -> Float[Array, "n f"]:
        """The embedding of the last stage's feature map."""
        return self.normalise(last.astype(jnp.float32).mean(axis=tuple(range(1, last.ndim - 1))))

    def normalise(self, mean: Float[Array, "n f"]) -> Float[Array, "n f"]:
        """The final LayerNorm of means of the last stage's map, float32."""
        return self.norm(mean).astype(jnp.float32)

    def layers_above(self, path: tuple[str | int, ...]) -> int:
        """Layers from a parameter up to the head, its own included.

        Blocks are one layer each, through all stages, and the stem is one. A downsampling belongs
        to the block after it, the final LayerNorm to the last block.
        """
        module, *place = path
        blocks = sum(self.config.depths)
        if module == "blocks":
            stage, block = (int(index) for index in place[:2])
            return blocks - sum(self.config.depths[:stage]) - block
        if module == "downsamples":
            stage = int(place[0])
            return blocks - sum(self.config.depths[:stage]) + (stage == 0)
        return 1


class Downsample(nnx.Module):
    """A convolution whose kernel equals its stride, with a LayerNorm after (stem) or before it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        config: ConvNeXtV2Config,
        *,
        stem: bool,
        rngs: nnx.Rngs,
    ) -> None:
        self.stem = stem
        self.norm = layer_norm(outputs if stem else inputs, config, rngs)
        self.conv = PatchConv(inputs, outputs, (stride,) * config.dims, config, rngs=rngs)

    def __call__(self, x: Float[Array, "n *spatial c"]) -> Float[Array, "n *coarser f"]:
        return self.norm(self.conv(x)) if self.stem else self.conv(self.norm(x))


class Block(nnx.Module):
    """Depthwise convolution, then a two-layer perceptron per voxel with response normalisation."""

    def __init__(self, width: int, config: ConvNeXtV2Config, *, rngs: nnx.Rngs) -> None:
        self.depthwise = DepthwiseConv(width, config, rngs=rngs)
        self.norm = layer_norm(width, config, rngs)
        self.expand = linear(width, 4 * width, config, rngs)
        self.grn = ResponseNorm(4 * width)
        self.project = linear(4 * width, width, config, rngs)

    def __call__(
        self,
        x: Float[Array, "n *spatial c"],
        visible: Bool[Array, "n *spatial 1"] | None = None,
    ) -> Float[Array, "n *spatial c"]:
        """The residual branch; the caller adds it to `x`, which is zero where not `visible`."""
        x = self.depthwise(x)
        graph, state = nnx.split((self.norm, self.expand, self.grn, self.project))

        def hidden(state: Any, x: Array) -> Array:
            norm, expand, _, _ = nnx.merge(graph, state)
            return gelu(expand(norm(x)))

        def response(state: Any, squares: Array) -> Array:
            return nnx.merge(graph, state)[2].response(squares)

        def outcome(state: Any, hidden: Array, response: Array) -> Array:
            _, _, grn, project = nnx.merge(graph, state)
            return project(grn(hidden, response))

        shown = None if visible is None else _flat(visible)
        # Zeros leave the norms of the response normalisation to the visible positions.
        y: Array = perceptron(Parts(hidden, response, outcome), state, _flat(x), shown)
        return only(visible, y.reshape(x.shape))


class DepthwiseConv(nnx.Module):
    """One 7x7(x7) kernel and a bias per channel."""

    def __init__(self, width: int, config: ConvNeXtV2Config, *, rngs: nnx.Rngs) -> None:
        shape = (*(KERNEL,) * config.dims, width)
        self.kernel = nnx.Param(initial(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "n *spatial c"]) -> Float[Array, "n *spatial c"]:
        kernel, bias = self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        if x.ndim == 4:
            return depthwise(x[:, None], kernel[None])[:, 0] + bias
        return depthwise(x, kernel) + bias


class ResponseNorm(nnx.Module):
    """Global response normalisation: channels compete by their norm over the volume."""

    def __init__(self, width: int) -> None:
        self.gamma = nnx.Param(jnp.zeros(width))
        self.beta = nnx.Param(jnp.zeros(width))

    def response(self, squares: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """What each channel is multiplied by, from its sum of squares over the volume, float32."""
        # The gradient of sqrt at exactly zero is infinite; the floor is far below float32 activity.
        norm = jnp.sqrt(jnp.maximum(squares, 1e-24))
        response = norm / (norm.mean(axis=-1, keepdims=True) + 1e-6)
        return 1 + self.gamma[...] * response

    def __call__(
        self, x: Float[Array, "n p c"], response: Float[Array, "n c"]
    ) -> Float[Array, "n p c"]:
        return x * response[:, None].astype(x.dtype) + self.beta[...].astype(x.dtype)


def _flat(x: Array) -> Array:
    """All positions of a sample on one axis."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def enlarge(visible: Bool[Array, "n ..."], grid: tuple[int, ...]) -> Bool[Array, "n *spatial 1"]:
    """The patches' flags at every position of a finer grid."""
    for axis, (extent, patches) in enumerate(zip(grid, visible.shape[1:], strict=True), start=1):
        if extent % patches:
            raise ValueError(f"patches {visible.shape[1:]} do not divide the stage's grid {grid}")
        visible = jnp.repeat(visible, extent // patches, axis=axis)
    return visible[..., None]


def _keep_probabilities(config: ConvNeXtV2Config) -> list[list[float]]:
    """The probability that a block is kept, per stage, falling linearly over all blocks."""
    total = sum(config.depths)
    keep = iter(1 - config.drop_path * i / max(total - 1, 1) for i in range(total))
    return [[next(keep) for _ in range(depth)] for depth in config.depths]


@partial(jax.jit, static_argnames="graph")
def _coarser(
    graph: Any, state: Any, x: Float[Array, "n *spatial c"]
) -> Float[Array, "n *coarser f"]:
    return nnx.merge(graph, state)(x)


@partial(jax.jit, static_argnames=("graph", "remat"), donate_argnames="x")
def _residual(
    graph: Any,
    state: Any,
    x: Float[Array, "n *spatial c"],
    visible: Bool[Array, "n *spatial 1"] | None,
    kept: Float[Array, " n"] | None,
    *,
    remat: bool,
) -> Float[Array, "n *spatial c"]:
    """A block around its input; compiled once for all blocks of a stage when called eagerly."""

    def run(state: Any, x: Array) -> Array:
        return nnx.merge(graph, state)(x, visible)

    branch = (jax.checkpoint(run) if remat else run)(state, x)
    if kept is not None:
        branch = branch * kept.astype(branch.dtype).reshape(-1, *(1,) * (branch.ndim - 1))
    return x + branch
