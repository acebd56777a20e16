"""Vision transformers in the layout of DINOv2, as Flax NNX modules.

Patch embedding, class token, register tokens, blocks with a norm before and a scale after each
branch, a final norm. Images are read by themselves, volumes slice by slice along the axis of the
table (`encoders.slices`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from encoders.layers import PatchConv, gelu, initial, kept, layer_norm, linear
from encoders.positions import resample
from encoders.settings import Tokens

Size = Literal["small", "base", "large", "giant"]
Perceptron = Literal["gelu", "swiglu"]

_SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 384, "depth": 12, "hidden": 1536},
    "base": {"width": 768, "depth": 12, "hidden": 3072},
    "large": {"width": 1024, "depth": 24, "hidden": 4096},
    "giant": {"width": 1536, "depth": 40, "hidden": 4096, "perceptron": "swiglu"},
}

HEAD = 64
"""Channels of an attention head in every published DINOv2."""

STAGES = 4
"""Feature maps that are given, after each quarter of the blocks."""


_HIDDEN = 1 << 20
"""Numbers inside a perceptron, of the images that go through a block together on a CPU: 4 MiB."""


@dataclass(frozen=True)
class ViTConfig:
    """What determines a vision transformer.

    Attributes:
        depth: blocks.
        width: channels.
        heads: of the attention.
        hidden: channels inside the perceptron of a block; of SwiGLU, of each half.
        perceptron: ``gelu``, two layers; ``swiglu``, gated.
        patch: side of a patch, in pixels.
        grid: rows and columns of the position embeddings.
        registers: register tokens; 0 for none.
        in_channels: channels of the input.
        tokens: what the embedding is, the ``class`` token or the mean of the ``patches``.
        antialias, offset: of the position embeddings on another grid (`encoders.positions`).
        drop_path: stochastic depth of the last block (the first has 0, linear between), used
            only where a call is given a key.
        dtype: of the arithmetic; parameters, attention weights and embeddings stay float32.
        remat: recompute blocks in the backward pass instead of keeping their activations.
    """

    depth: int = 12
    width: int = 384
    heads: int = 6
    hidden: int = 1536
    perceptron: Perceptron = "gelu"
    patch: int = 14
    grid: tuple[int, ...] = (37, 37)
    registers: int = 0
    in_channels: int = 3
    tokens: Tokens = "class"
    antialias: bool = False
    offset: float = 0.0
    drop_path: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        for value, most in (
            # The largest published size has 40 blocks; a number far beyond is a damaged file.
            (self.depth, 256), (self.heads, 1024), (self.patch, 1024),
            *((size, 65_536) for size in (self.width, self.hidden, self.in_channels, *self.grid)),
            (self.registers + 1, 4096),
        ):  # fmt: skip
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"sizes are whole numbers from 1 to {most}, not {value!r}")
        if len(self.grid) != 2:
            raise ValueError(f"position embeddings of a grid of rows and columns, not {self.grid}")
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide {self.width} channels")
        if self.perceptron not in ("gelu", "swiglu") or self.tokens not in ("class", "patches"):
            raise ValueError(f"no perceptron {self.perceptron!r}, or no tokens {self.tokens!r}")
        if self.dtype not in ("float32", "bfloat16", "float16") or not 0 <= self.drop_path < 1:
            raise ValueError(f"no dtype {self.dtype!r}, or a drop_path outside 0 to 1")

    @classmethod
    def named(cls, size: Size, **changes: object) -> ViTConfig:
        """The published sizes; `changes` are passed to the constructor."""
        if size not in _SIZES:
            raise ValueError(f"no size {size!r}; there are {', '.join(_SIZES)}")
        layout = {**_SIZES[size], "heads": _SIZES[size]["width"] // HEAD}
        return cls(**(layout | changes))  # type: ignore[arg-type]

    @property
    def dims(self) -> int:
        """Spatial axes of an image."""
        return 2

    @property
    def features(self) -> int:
        """Numbers of an embedding."""
        return self.width

    @property
    def ends(self) -> tuple[int, ...]:
        """Blocks after which a stage ends: each quarter of them."""
        count = min(STAGES, self.depth)
        return tuple(-(-self.depth * stage // count) for stage in range(1, count + 1))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage's feature map."""
        return (self.width,) * len(self.ends)

    @property
    def total_strides(self) -> tuple[int, ...]:
        """Pixels per patch, the same for each stage."""
        return (self.patch,) * len(self.ends)


class ViT(nnx.Module):
    """The encoder: tokens of the patches on their grid, and one embedding.

    Example:
        >>> encoder = ViT(ViTConfig.named("small"), rngs=nnx.Rngs(0))
        >>> encoder(jnp.zeros((1, 224, 224, 3))).shape
        (1, 384)
    """

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        size = (config.patch, config.patch)
        self.patches = PatchConv(config.in_channels, config.width, size, config, rngs=rngs)
        # The position of the class token never moves; it is part of the token.
        self.class_token = nnx.Param(initial(rngs.params(), (config.width,)))
        self.positions = nnx.Param(initial(rngs.params(), (*config.grid, config.width)))
        if config.registers:
            self.registers = nnx.Param(initial(rngs.params(), (config.registers, config.width)))
        self.blocks = nnx.List(Block(config, rngs=rngs) for _ in range(config.depth))
        self.norm = layer_norm(config.width, config, rngs)

    def __call__(
        self, x: Float[Array | np.ndarray, "n h w c"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n f"]:
        """Embeddings of images: the class token or the mean of the patches, after the final norm.

        Args:
            x: the images; they are cut to whole patches.
            key: randomness of stochastic depth; without it every block is kept.
        """
        return self.summary(x, self.config.tokens, key=key)

    def summary(
        self,
        x: Float[Array | np.ndarray, "n h w c"],
        tokens: Tokens,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "n f"]:
        """The embedding by these tokens, whatever the configuration says; see `__call__`."""
        *_, last = self.states(x, key=key)
        if tokens == "class":
            return self.norm(last[:, 0]).astype(jnp.float32)
        return self.norm(self._only_patches(last)).astype(jnp.float32).mean(axis=1)

    def stages(
        self,
        x: Float[Array | np.ndarray, "n h w c"],
        *,
        key: PRNGKeyArray | None = None,
        visible: Bool[Array | np.ndarray, "n ..."] | None = None,
    ) -> tuple[Float[Array, "n gh gw f"], ...]:
        """Tokens of the patches on their grid after each quarter of the blocks.

        The last ones pass the final norm, so that a mean over them is an embedding.

        Raises:
            ValueError: `visible` is given, or the images do not fit.
        """
        maps = self.block_maps(x, key=key, visible=visible)
        return tuple(found for number, found in enumerate(maps, 1) if number in self.config.ends)

    def block_maps(
        self,
        x: Float[Array | np.ndarray, "n h w c"],
        *,
        key: PRNGKeyArray | None = None,
        visible: Bool[Array | np.ndarray, "n ..."] | None = None,
    ) -> Iterator[Float[Array, "n gh gw f"]]:
        """The same after each block; see `stages`."""
        if visible is not None:
            raise ValueError("a ViT is not pre-trained here: it cannot leave patches out")
        grid = [side // self.config.patch for side in x.shape[1:3]]
        for number, tokens in enumerate(self.states(x, key=key), start=1):
            patches = self._only_patches(tokens)
            patches = self.norm(patches) if number == self.config.depth else patches
            yield patches.reshape(len(x), *grid, -1)

    def states(
        self, x: Float[Array | np.ndarray, "n h w c"], *, key: PRNGKeyArray | None = None
    ) -> Iterator[Float[Array, "n t f"]]:
        """All tokens after each block, before the final norm: class, registers, patches.

        Args:
            x, key: as in `__call__`.
        """
        config = self.config
        if x.ndim != 4 or x.shape[-1] != config.in_channels or min(x.shape[1:3]) < config.patch:
            raise ValueError(
                f"input of shape {x.shape}; expected images (n, H, W, {config.in_channels}) of "
                f"sides of at least {config.patch}"
            )
        tokens = _tokens(*nnx.split(self), jnp.asarray(x, config.dtype))
        for index, block in enumerate(self.blocks):
            keep = 1 - config.drop_path * index / max(config.depth - 1, 1)
            skip = None
            if key is not None and keep < 1:
                key, block_key = jax.random.split(key)
                skip = jnp.stack([kept(k, keep, len(x)) for k in jax.random.split(block_key)])
            few = None if key is not None else self._images_at_once(tokens)
            tokens = _residual(*nnx.split(block), tokens, skip, remat=config.remat, few=few)
            yield tokens

    def normalise(self, mean: Float[Array, "n f"]) -> Float[Array, "n f"]:
        """Embeddings from means of the last map: the means themselves, their tokens are normed."""
        return mean.astype(jnp.float32)

    def layers_above(self, path: tuple[str | int, ...]) -> int:
        """Layers from a parameter up to the head, its own included.

        Blocks are one layer each; patch embedding, tokens and positions are one. The final norm
        belongs to the last block.
        """
        module, *place = path
        if module == "blocks":
            return self.config.depth - int(place[0])
        return 1 if module == "norm" else self.config.depth + 1

    def tokens_of(self, images: Float[Array, "n h w c"]) -> Float[Array, "n t f"]:
        """Tokens before the first block: class, registers, patches with their positions."""
        config = self.config
        patches = self.patches(images)
        grid = patches.shape[1], patches.shape[2]
        positions = resample(
            self.positions[...], grid, antialias=config.antialias, offset=config.offset
        )
        patches = (patches + positions.astype(patches.dtype)).reshape(len(images), -1, config.width)
        first = self.class_token[...][None]
        if config.registers:
            first = jnp.concatenate([first, self.registers[...]])
        first = jnp.broadcast_to(first.astype(patches.dtype), (len(images), *first.shape))
        return jnp.concatenate([first, patches], axis=1)

    def _images_at_once(self, tokens: Float[Array, "n t f"]) -> int | None:
        """Images whose hidden numbers stay in cache, on a CPU; None for all of them."""
        if jax.default_backend() != "cpu":
            return None
        n, t, _ = tokens.shape
        few = max(1, _HIDDEN // (t * self.config.hidden))
        return few if few < n else None

    def _only_patches(self, tokens: Float[Array, "n t f"]) -> Float[Array, "n p f"]:
        return tokens[:, 1 + self.config.registers :]


class Block(nnx.Module):
    """Attention, then a perceptron; each after a norm, and scaled before it is added."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        self.norm1 = layer_norm(config.width, config, rngs)
        self.attention = Attention(config, rngs=rngs)
        self.scale1 = nnx.Param(jnp.ones(config.width))
        self.norm2 = layer_norm(config.width, config, rngs)
        self.perceptron = MLP(config, rngs=rngs)
        self.scale2 = nnx.Param(jnp.ones(config.width))

    def __call__(
        self, x: Float[Array, "n t f"], skip: Float[Array, "2 n"] | None = None
    ) -> Float[Array, "n t f"]:
        """The tokens after both branches, of which samples are left out by `skip`."""
        x = x + self._scaled(self.attention(self.norm1(x)), self.scale1, skip, 0)
        return x + self._scaled(self.perceptron(self.norm2(x)), self.scale2, skip, 1)

    def _scaled(self, branch: Array, scale: nnx.Param, skip: Array | None, which: int) -> Array:
        branch = branch * scale[...].astype(branch.dtype)
        return branch if skip is None else branch * skip[which].astype(branch.dtype)[:, None, None]


class Attention(nnx.Module):
    """Attention of all tokens to all tokens."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        self.heads = config.heads
        self.qkv = linear(config.width, 3 * config.width, config, rngs)
        self.out = linear(config.width, config.width, config, rngs)

    def __call__(self, x: Float[Array, "n t f"]) -> Float[Array, "n t f"]:
        n, t, width = x.shape
        size = width // self.heads
        q, k, v = jnp.moveaxis(self.qkv(x).reshape(n, t, 3, self.heads, size), 2, 0)
        scores = jnp.einsum("nthc,nshc->nhts", q, k).astype(jnp.float32) * size**-0.5
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        return self.out(jnp.einsum("nhts,nshc->nthc", weights, v).reshape(n, t, width))


class MLP(nnx.Module):
    """Two layers with GELU between, or SwiGLU: SiLU of one half of the first times the other."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        self.gated = config.perceptron == "swiglu"
        self.expand = linear(config.width, (1 + self.gated) * config.hidden, config, rngs)
        self.project = linear(config.hidden, config.width, config, rngs)

    def __call__(self, x: Float[Array, "n t f"]) -> Float[Array, "n t f"]:
        x = self.expand(x)
        if self.gated:
            gate, value = jnp.split(x, 2, axis=-1)
            return self.project(jax.nn.silu(gate) * value)
        return self.project(gelu(x))


def grey(encoder: ViT) -> ViT:
    """The encoder for one channel: equal to showing that channel as each of its own.

    The patch kernel is summed over its channels.
    """
    kernel = encoder.patches.kernel[...].sum(axis=2, keepdims=True)
    folded = nnx.clone(encoder)
    folded.patches.kernel = nnx.Param(kernel)
    folded.config = dataclasses.replace(encoder.config, in_channels=1)
    return folded


@partial(jax.jit, static_argnames="graph")
def _tokens(graph: Any, state: Any, x: Float[Array, "n h w c"]) -> Float[Array, "n t f"]:
    return nnx.merge(graph, state).tokens_of(x)


@partial(jax.jit, static_argnames=("graph", "remat", "few"))
def _residual(
    graph: Any,
    state: Any,
    x: Float[Array, "n t f"],
    skip: Float[Array, "2 n"] | None,
    *,
    remat: bool,
    few: int | None = None,
) -> Float[Array, "n t f"]:
    """A block; compiled once for all of them when called eagerly.

    With `few` so many images at a time, as where nothing is trained: what a block holds between its
    operations is many times its input, and does not leave the cache.
    """

    def run(state: Any, x: Array) -> Array:
        block = nnx.merge(graph, state)
        if few is None:
            return block(x, skip)
        return jax.lax.map(lambda image: block(image[None])[0], x, batch_size=few)

    return (jax.checkpoint(run) if remat else run)(state, x)
