"""The depthwise convolution of the ConvNeXt block, fast on every backend.

XLA runs a grouped convolution on CPU about a hundred times slower than the arithmetic needs. The
CPU path here adds shifted products instead. It lays a few channels apart from the others, as many
as a vector register holds, so that the taps of some rows of a kernel plane stay in registers while
one fused pass filters a slice; loops walk the channels, slices and planes so that what they touch
stays in cache. Where a map has so few positions that most taps fall beside it, as in the last
stages of small volumes, each channel is one small matrix product instead. Other backends have a
grouped convolution that is good; they use it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import gcd, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Channels side by side: the float32 numbers of a vector that XLA makes by default.
_LANES = 8

# Rows of taps in a pass. Four rows of seven fit the 32 registers of AVX-512; all seven would be
# read from memory again for each product.
_ROWS = 4

# Numbers of a padded slice up to which further channels are filtered with it: 256 KiB.
_SLICE = 1 << 16

# Taps fused into one pass of the weight gradient. Below about 28 the passes are too short to
# pay for themselves; above about 64 they only compile longer.
_TAPS = 56

# Positions up to which a map is filtered by a matrix per channel. The matrix has the square of this
# many numbers, which must stay fewer than the taps would multiply, and small.
_POSITIONS = 96


@jax.custom_vjp
def depthwise(
    x: Float[Array, "n d h w c"], kernel: Float[Array, "kd kh kw c"]
) -> Float[Array, "n d h w c"]:
    """Depthwise convolution, stride 1, zero padding that keeps the size, channels last.

    Equals ``lax.conv_general_dilated(x, kernel[..., None, :], (1, 1, 1), "SAME",
    dimension_numbers=("NDHWC", "DHWIO", "NDHWC"), feature_group_count=c)`` to float32 rounding.
    A 2D image is a volume with ``d = kd = 1``. The gradient costs what the forward costs, twice.

    Args:
        x: feature maps.
        kernel: one odd-sized kernel per channel, in the dtype of `x`.

    Returns:
        The filtered maps, in the dtype of `x`.
    """
    cpu = _matrices if _is_small(x.shape, kernel.shape) else _shifted_products
    return lax.platform_dependent(x, kernel, cpu=cpu, default=_grouped)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return depthwise(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dx = depthwise(grad, kernel[::-1, ::-1, ::-1])
    small = _is_small(x.shape, kernel.shape)
    cpu = partial(_pulled, _matrices) if small else _kernel_gradient
    default = partial(_pulled, _grouped)
    return dx, lax.platform_dependent(x, kernel, grad, cpu=cpu, default=default)


def _pulled(convolve: Callable[[Array, Array], Array], x: Array, kernel: Array, grad: Array) -> Any:
    """The kernel's gradient by that of a form of the convolution."""
    return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](grad)[0]


depthwise.defvjp(_forward, _backward)


def _grouped(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel[..., None, :],
        window_strides=(1, 1, 1),
        padding="SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=x.shape[-1],
    )


def _is_small(shape: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    return prod(shape[1:4]) <= min(_POSITIONS, prod(kernel[:3]) // 2)


def _matrices(x: Array, kernel: Array) -> Array:
    """The CPU path of small maps: for each channel a matrix from all positions to all positions."""
    n, *grid, channels = x.shape
    size = np.array(kernel.shape[:3])
    places = np.stack(np.unravel_index(np.arange(prod(grid)), grid), axis=-1)
    # From output `o` (column) the tap that reads input `i` (row); the row behind the last is zero.
    taps = places[:, None] - places[None] + size // 2
    within = ((taps >= 0) & (taps < size)).all(axis=-1)
    flat = np.ravel_multi_index(tuple(np.moveaxis(taps.clip(0, size - 1), -1, 0)), tuple(size))
    flat = np.where(within, flat, prod(kernel.shape[:3]))
    weights = jnp.pad(kernel.reshape(-1, channels).astype(jnp.float32), ((0, 1), (0, 0)))[flat]
    out = jnp.einsum("nic,ioc->noc", x.reshape(n, -1, channels).astype(jnp.float32), weights)
    return out.reshape(x.shape).astype(x.dtype)


def _shifted_products(x: Array, kernel: Array) -> Array:
    """The CPU path: for each output slice of a few channels, one pass per few rows of taps."""
    n, depth, height, width, channels = x.shape
    kd, kh, kw = kernel.shape[:3]
    margin, lanes = kd // 2, gcd(channels, _LANES)
    padded = (height + kh - 1, width + kw - 1)
    blocks = _divisor(channels // lanes, _SLICE // (n * prod(padded) * lanes))
    together = blocks * lanes

    def filter_channels(group: Array, result: Array) -> Array:
        first = group * together
        taps = lax.dynamic_slice_in_dim(kernel, first, together, 3).astype(jnp.float32)
        taps = taps.reshape(kd, kh, kw, blocks, 1, 1, lanes)
        maps = lax.dynamic_slice_in_dim(x, first, together, 4).astype(jnp.float32)
        maps = maps.reshape(n, depth, height, width, blocks, lanes).transpose(1, 0, 4, 2, 3, 5)
        maps = jnp.pad(maps, ((0, 0),) * 3 + ((kh // 2,) * 2, (kw // 2,) * 2, (0, 0)))

        def output_slice(d: Array) -> Array:
            def product(k: Array, i: int, j: int) -> Array:
                place = (d + k - margin, 0, 0, i, j, 0)
                shifted = lax.dynamic_slice(maps, place, (1, n, blocks, height, width, lanes))
                tap = lax.dynamic_slice(taps, (k, i, j, 0, 0, 0, 0), (1, 1, 1, *taps.shape[3:]))
                return shifted[0] * tap[0, 0, 0]

            def add_rows(rows: range, k: Array, total: Array) -> Array:
                for i in rows:
                    # A sum per row: the processor adds several at once, and one alone must wait.
                    total = total + sum((product(k, i, j) for j in range(1, kw)), product(k, i, 0))
                return total

            planes = jnp.maximum(0, margin - d), jnp.minimum(kd, depth + margin - d)
            total = jnp.zeros((n, blocks, height, width, lanes), jnp.float32)
            for row in range(0, kh, _ROWS):
                rows = range(row, min(row + _ROWS, kh))
                total = lax.fori_loop(*planes, partial(add_rows, rows), total)
            return total

        out = lax.map(output_slice, jnp.arange(depth)).transpose(1, 0, 3, 4, 2, 5)
        out = out.reshape(n, depth, height, width, together).astype(x.dtype)
        return lax.dynamic_update_slice_in_dim(result, out, first, 4)

    return lax.fori_loop(0, channels // together, filter_channels, jnp.zeros_like(x))


def _divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`, or 1."""
    return next((size for size in range(min(number, most), 1, -1) if number % size == 0), 1)


def _kernel_gradient(x: Array, kernel: Array, grad: Array) -> Array:
    """CPU gradient of the kernel: shifted products with the roles of space and kernel swapped.

    A block of `grad` (some rows of one slice) is the set of taps, the kernel's index is the space
    they slide over; a loop adds the blocks.
    """
    n, depth, height, width, channels = grad.shape
    kd, kh, kw = kernel.shape[:3]
    columns, across = _blocks(width, _TAPS)
    rows, down = _blocks(height, _TAPS // columns)
    # Rows and columns beyond the volume have zero gradient and add nothing.
    spare = (down * rows - height, across * columns - width)
    padded = _pad(x, (kd // 2, kh // 2, kw // 2), spare).astype(jnp.float32)
    grad = _pad(grad, (0, 0, 0), spare).astype(jnp.float32)

    def add_block(index: Array, total: Array) -> Array:
        sample, slice_, row, column = jnp.unravel_index(index, (n, depth, down, across))
        at = (sample, slice_, row * rows, column * columns, 0)
        window = lax.dynamic_slice(padded, at, (1, kd, kh + rows - 1, kw + columns - 1, channels))[
            0
        ]
        taps = lax.dynamic_slice(grad, at, (1, 1, rows, columns, channels))[0, 0]
        for i in range(rows):
            for j in range(columns):
                total = total + window[:, i : i + kh, j : j + kw] * taps[i, j]
        return total

    zero = jnp.zeros((kd, kh, kw, channels), jnp.float32)
    total = lax.fori_loop(0, n * depth * down * across, add_block, zero)
    return total.astype(kernel.dtype)


def _blocks(extent: int, largest: int) -> tuple[int, int]:
    """Size and number of equal blocks, none above `largest`, that cover `extent`."""
    count = -(-extent // largest)
    return -(-extent // count), count


def _pad(x: Array, margins: tuple[int, int, int], spare: tuple[int, int] = (0, 0)) -> Array:
    """Zeros around the three spatial axes, and `spare` more behind the last two."""
    d, h, w = margins
    return jnp.pad(x, ((0, 0), (d, d), (h, h + spare[0]), (w, w + spare[1]), (0, 0)))
