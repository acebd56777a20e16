"""Layers that several encoders share, and how their kernels start."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from encoders.encoder import EncoderConfig


class PatchConv(nnx.Module):
    """Convolution with kernel = stride and no padding: one matrix product over patches."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, ...],
        config: EncoderConfig,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.dtype = config.dtype
        self.kernel = nnx.Param(initial(rngs.params(), (*size, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "n *spatial c"]) -> Float[Array, "n *coarser f"]:
        *size, inputs, outputs = self.kernel.shape
        kernel = self.kernel[...].astype(self.dtype).reshape(-1, outputs)
        dims = len(size)
        coarse = [extent // step for extent, step in zip(x.shape[1:-1], size, strict=True)]
        x = x[:, *(slice(c * s) for c, s in zip(coarse, size, strict=True))]
        split = [part for pair in zip(coarse, size, strict=True) for part in pair]
        x = x.reshape(x.shape[0], *split, inputs)
        grid, patch = range(1, 2 * dims, 2), range(2, 2 * dims + 1, 2)
        x = x.transpose(0, *grid, *patch, 2 * dims + 1).reshape(x.shape[0], *coarse, -1)
        return x @ kernel + self.bias[...].astype(self.dtype)


def layer_norm(width: int, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm over channels, with the epsilon of the published ConvNeXt V2 and DINOv2: 1e-6."""
    return nnx.LayerNorm(
        width, epsilon=1e-6, dtype=jnp.dtype(config.dtype), use_fast_variance=False, rngs=rngs
    )


def linear(inputs: int, outputs: int, config: EncoderConfig, rngs: nnx.Rngs) -> nnx.Linear:
    """Matrix product over channels, with a bias."""
    return nnx.Linear(
        inputs, outputs, dtype=jnp.dtype(config.dtype), kernel_init=initial, rngs=rngs
    )


def gelu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The exact GELU, by erf and in float32, as PyTorch has it.

    ``jax.nn.gelu`` takes erfc, which costs more than twice as much on a CPU. The two differ by
    less than 1e-6: erfc keeps the leading digits of results too small to matter.
    """
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1 + jax.lax.erf(wide * np.float32(np.sqrt(0.5))))).astype(x.dtype)


def kept(key: PRNGKeyArray, keep: float, samples: int) -> Float[Array, " n"]:
    """Stochastic depth: 0 for samples that skip the branch, ``1 / keep`` for the others."""
    return jax.random.bernoulli(key, keep, (samples,)) / keep


@partial(jax.jit, static_argnums=1)
def _noise(key: PRNGKeyArray, size: int) -> Float[Array, " size"]:
    return 0.02 * jax.random.truncated_normal(key, -2, 2, (size,))


def initial(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """A kernel's start, truncated normal with standard deviation 0.02.

    Drawn in blocks of two sizes and joined by NumPy: XLA takes half a second to compile a
    generator, and keeps the program of every shape it joins in memory.
    """
    size = prod(shape)
    block = 1 << (20 if size > 1 << 19 else 16)
    count = -(-size // block)
    if isinstance(key, Tracer):
        noise = jax.lax.map(lambda i: _noise(jax.random.fold_in(key, i), block), jnp.arange(count))
        return noise.reshape(-1)[:size].reshape(shape).astype(dtype)
    noise = np.concatenate([_noise(jax.random.fold_in(key, i), block) for i in range(count)])
    return jnp.asarray(noise[:size].reshape(shape), dtype)


class _OneKey(nnx.RngStream):
    """The same key at every call: it counts none, which is most of what tracing a model takes."""

    def __call__(self) -> Array:
        return self.key[...]


def shapes_of(make: Callable[[nnx.Rngs], Any]) -> Any:
    """A model with shapes in place of parameters: to be filled.

    Args:
        make: the model, from what draws its start.
    """

    def made() -> Any:
        rngs = nnx.Rngs(params=0)
        rngs.params = _OneKey(0, tag="params")  # pyright: ignore[reportAttributeAccessIssue]
        return make(rngs)

    return nnx.eval_shape(made)
