"""The depthwise convolution of the ConvNeXt block, fast on every backend.

XLA runs a grouped convolution on CPU about a hundred times slower than the arithmetic needs. The
CPU path here adds shifted products instead: the taps of one kernel plane fuse into a single pass
over a slice, and a loop walks the slices and planes so that what it touches stays in cache.
Other backends have a grouped convolution that is good; they use it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Taps fused into one pass of the weight gradient. Below about 28 the passes are too short to
# pay for themselves; above about 64 they only compile longer.
_TAPS = 56


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
    return lax.platform_dependent(x, kernel, cpu=_shifted_products, default=_grouped)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return depthwise(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dx = depthwise(grad, kernel[::-1, ::-1, ::-1])
    if jax.default_backend() == "cpu":
        dkernel = _kernel_gradient(x, grad, kernel.shape[:3])
    else:
        _, pull = jax.vjp(lambda k: _grouped(x, k), kernel)
        (dkernel,) = pull(grad)
    return dx, dkernel.astype(kernel.dtype)


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


def _shifted_products(x: Array, kernel: Array) -> Array:
    """The CPU path: for each output slice, one pass per kernel plane that meets the volume."""
    n, depth, height, width, channels = x.shape
    kd, kh, kw = kernel.shape[:3]
    margin = kd // 2
    padded = _pad(x, (0, kh // 2, kw // 2)).astype(jnp.float32)
    kernel = kernel.astype(jnp.float32)

    def output_slice(d: Array) -> Array:
        def add_plane(k: Array, total: Array) -> Array:
            plane = lax.dynamic_index_in_dim(padded, d + k - margin, 1, keepdims=False)
            taps = lax.dynamic_index_in_dim(kernel, k, 0, keepdims=False)
            for i in range(kh):
                for j in range(kw):
                    total = total + plane[:, i : i + height, j : j + width] * taps[i, j]
            return total

        first = jnp.maximum(0, margin - d)
        last = jnp.minimum(kd, depth + margin - d)
        zero = jnp.zeros((n, height, width, channels), jnp.float32)
        return lax.fori_loop(first, last, add_plane, zero)

    out = lax.map(output_slice, jnp.arange(depth))
    return jnp.moveaxis(out, 0, 1).astype(x.dtype)


def _kernel_gradient(x: Array, grad: Array, size: tuple[int, ...]) -> Array:
    """CPU gradient of the kernel: shifted products with the roles of space and kernel swapped.

    A block of `grad` (some rows of one slice) is the set of taps, the kernel's index is the space
    they slide over; a loop adds the blocks.
    """
    n, depth, height, width, channels = grad.shape
    kd, kh, kw = size
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
    return lax.fori_loop(0, n * depth * down * across, add_block, zero)


def _blocks(extent: int, largest: int) -> tuple[int, int]:
    """Size and number of equal blocks, none above `largest`, that cover `extent`."""
    count = -(-extent // largest)
    return -(-extent // count), count


def _pad(x: Array, margins: tuple[int, int, int], spare: tuple[int, int] = (0, 0)) -> Array:
    """Zeros around the three spatial axes, and `spare` more behind the last two."""
    d, h, w = margins
    return jnp.pad(x, ((0, 0), (d, d), (h, h + spare[0]), (w, w + spare[1]), (0, 0)))
