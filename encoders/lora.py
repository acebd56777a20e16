"""Low-rank adaptation of an encoder (LoRA; Hu et al., ICLR 2022), and back to an ordinary one.

Each linear layer ``x W + b`` of the blocks becomes ``x W + b + (alpha / r) (x A) B``, with A of r
columns and B of r rows; A and B are trained, W and b stay. These layers are

- of a ConvNeXt V2, the two pointwise ones of each block, ``expand`` and ``project``;
- of a ViT, ``qkv`` (queries, keys and values share one A) and ``out`` of the attention, and
  ``expand`` and ``project`` of the perceptron.

Patch embeddings, downsamplings, depthwise kernels, norms, biases, tokens and positions are never
adapted. B starts at zero, so the start is the encoder itself. `merge` adds the update to W: what is
left has the parameters of any other encoder of its family.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

STREAM = 1 << 21
"""Folded into the seed of A, which the head's start is drawn from too."""


class LowRank(nnx.Module):
    """A linear layer and its low-rank update; factors are `nnx.LoRAParam`, all else as it was."""

    def __init__(self, base: nnx.Linear, rank: int, alpha: float, *, rngs: nnx.Rngs) -> None:
        self.base, self.scale = base, alpha / rank
        self.lora = nnx.LoRA(
            base.in_features, rank, base.out_features,
            dtype=base.dtype, a_initializer=_uniform, rngs=rngs,
        )  # fmt: skip

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        return self.base(x) + self.scale * self.lora(x)

    def merged(self) -> nnx.Linear:
        """The linear layer of kernel ``W + (alpha / r) A B``; W itself, bitwise, for a zero B."""
        a, b = self.lora.lora_a[...], self.lora.lora_b[...]
        # Accelerators multiply float32 with fewer digits by default.
        update = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
        self.base.kernel.set_value(self.base.kernel[...] + self.scale * update)
        return self.base


def adapt(encoder: Any, rank: int, alpha: float, seed: int) -> None:
    """Gives every linear layer of an encoder a low-rank update of zero, in place.

    Args:
        encoder: an `Encoder`.
        rank: of the updates.
        alpha: the update is ``alpha / rank`` times the product of its factors.
        seed: of A, uniform within ±1/sqrt(inputs).

    Raises:
        ValueError: as `problem` words it.
    """
    if found := problem(encoder, rank):
        raise ValueError(found)
    rngs = nnx.Rngs(jax.random.fold_in(jax.random.key(seed), STREAM))
    for parent, name, layer in list(_layers(encoder, nnx.Linear)):
        setattr(parent, name, LowRank(layer, rank, alpha, rngs=rngs))


def merge(encoder: Any) -> None:
    """Adds every low-rank update to its kernel, in place; an encoder without any stays as it is."""
    for parent, name, layer in list(_layers(encoder, LowRank)):
        setattr(parent, name, layer.merged())


def problem(encoder: Any, rank: int) -> str:
    """Why an encoder cannot have updates of this rank, led by ``lora``; an empty text if it can.

    Args:
        encoder: an `Encoder`; shapes in place of values are enough.
        rank: of the updates.
    """
    layers = [layer for _, _, layer in _layers(encoder, nnx.Linear)]
    if not layers:
        return f"lora is {rank}, and {type(encoder).__name__} has no linear layers to adapt"
    narrow = min(layers, key=lambda each: min(each.in_features, each.out_features))
    most = min(narrow.in_features, narrow.out_features)
    if rank <= most:
        return ""
    return (
        f"lora is {rank}; at most {most} is needed, the width of the encoder's narrowest linear "
        f"layer ({narrow.in_features} to {narrow.out_features} channels): no update has a higher "
        "rank"
    )


def _layers(encoder: Any, kind: type[Any]) -> Iterator[tuple[nnx.Module, str, Any]]:
    """Layers of a kind within an encoder: the module that holds each, its name there, and it."""
    for _, module in nnx.iter_modules(encoder):
        for name, child in nnx.iter_children(module):
            if isinstance(child, kind):
                yield module, str(name), child


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Array:
    """Uniform within ±1/sqrt(inputs), as linear layers of PyTorch and LoRA in its PEFT start.

    Drawn by NumPy: XLA would compile a generator for each shape.
    """
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    limit = shape[0] ** -0.5
    return jnp.asarray(generator.uniform(-limit, limit, shape), dtype)
