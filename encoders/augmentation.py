"""Random changes of volumes that leave their labels true, compiled and on the device."""

from __future__ import annotations

from functools import partial
from math import ceil

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from encoders.settings import Augmentation

# Cosines along each axis that make up the bias field; the slowest is the constant.
_WAVES = 3


@partial(jax.jit, static_argnames="settings")
def augment(
    key: PRNGKeyArray,
    volumes: Float[Array | np.ndarray, "n d h w c"],
    masks: Bool[Array | np.ndarray, "n d h w"] | Int[Array | np.ndarray, "n d h w"] | None,
    settings: Augmentation,
) -> tuple[Float[Array, "n d h w c"], Array | None]:
    """Changes each volume in its own way, and its mask with it.

    Images are interpolated linearly, masks by the nearest voxel; what enters from outside is zero.
    Voxels that are exactly zero are background: intensities change around them only, so that
    padding and absent channels stay zero.

    Args:
        key: the same key gives the same result.
        volumes: axes are slices, rows (front to back), columns (left to right), channels.
        masks: flags or class numbers of the voxels, or None.
        settings: the strengths; each combination is compiled once.

    Returns:
        Volumes and masks of the same shapes and types; None without masks.
    """
    keys = jax.random.split(key, volumes.shape[0])
    volumes = jnp.asarray(volumes)
    if masks is None:
        return jax.vmap(lambda k, v: _augment_one(k, v, None, settings)[0])(keys, volumes), None
    return jax.vmap(lambda k, v, m: _augment_one(k, v, m, settings))(
        keys, volumes, jnp.asarray(masks)
    )


def _augment_one(
    key: PRNGKeyArray, x: Array, mask: Array | None, settings: Augmentation
) -> tuple[Array, Array | None]:
    """One volume (d, h, w, c) and its mask (d, h, w)."""
    flip, turn, intensity, field, blur = jax.random.split(key, 5)
    if settings.flip:
        flipped = jax.random.bernoulli(flip, settings.flip)
        x = jnp.where(flipped, x[:, :, ::-1], x)
        mask = None if mask is None else jnp.where(flipped, mask[:, :, ::-1], mask)
    if settings.rotation or settings.zoom:
        angle, zoom = jax.random.uniform(turn, (2,), minval=-1, maxval=1)
        angle = jnp.deg2rad(settings.rotation) * angle
        zoom = (1 + settings.zoom) ** zoom
        x = _warp(x, angle, zoom)
        mask = None if mask is None else _warp_mask(mask, angle, zoom)
    x = _change_intensities(intensity, x, settings) if _changes_intensities(settings) else x
    x = _multiply_by_field(field, x, settings.bias_field) if settings.bias_field else x
    x = _smooth(blur, x, settings.smoothing) if settings.smoothing else x
    return x, mask


def _warp(x: Array, angle: Array, zoom: Array) -> Array:
    """Rotation in the plane and zoom, trilinear.

    All slices share the plane's coordinates, so a voxel column with its channels is gathered at
    once; between slices, interpolation is a small matrix product.
    """
    depth, height, width, channels = x.shape
    slices = (jnp.arange(depth) - (depth - 1) / 2) / zoom + (depth - 1) / 2
    weights = jnp.maximum(0, 1 - jnp.abs(slices[:, None] - jnp.arange(depth)))
    # At full precision: an accelerator's short products would blur intensities.
    columns = jnp.einsum("ds,shwc->hwdc", weights, x, precision="highest")
    columns = columns.reshape(height * width, depth * channels)
    rows_at, columns_at = _plane(height, width, angle, zoom)
    top, left = jnp.floor(rows_at), jnp.floor(columns_at)
    total = jnp.zeros_like(columns)
    for row in (top, top + 1):
        for column in (left, left + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = (1 - jnp.abs(rows_at - row)) * (1 - jnp.abs(columns_at - column)) * inside
            total = total + _gather(columns, row, column, (height, width)) * weight[:, None]
    return jnp.moveaxis(total.reshape(height, width, depth, channels), 2, 0).astype(x.dtype)


def _warp_mask(mask: Array, angle: Array, zoom: Array) -> Array:
    """`_warp` by the nearest voxel."""
    depth, height, width = mask.shape
    columns = jnp.moveaxis(mask, 0, 2).reshape(height * width, depth)
    rows_at, columns_at = _plane(height, width, angle, zoom)
    row, column = jnp.round(rows_at), jnp.round(columns_at)
    turned = _gather(columns, row, column, (height, width))
    slices = jnp.round((jnp.arange(depth) - (depth - 1) / 2) / zoom + (depth - 1) / 2)
    turned = turned[:, jnp.clip(slices, 0, depth - 1).astype(int)]
    in_plane = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    inside = in_plane[:, None] & (slices >= 0) & (slices < depth)
    turned = jnp.where(inside, turned, jnp.zeros_like(turned))
    return jnp.moveaxis(turned.reshape(height, width, depth), 2, 0)


def _plane(height: int, width: int, angle: Array, zoom: Array) -> tuple[Array, Array]:
    """Where each voxel of the new plane lies in the old one, in voxels, row by row."""
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    rows, columns = jnp.meshgrid(
        jnp.arange(height) - middle_row, jnp.arange(width) - middle_column, indexing="ij"
    )
    sine, cosine = jnp.sin(angle) / zoom, jnp.cos(angle) / zoom
    rows_at = cosine * rows + sine * columns + middle_row
    columns_at = cosine * columns - sine * rows + middle_column
    return rows_at.ravel(), columns_at.ravel()


def _gather(columns: Array, row: Array, column: Array, shape: tuple[int, int]) -> Array:
    """The voxel columns at these places; the nearest at the border for places outside."""
    height, width = shape
    index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
    return columns.at[index.astype(int)].get(mode="promise_in_bounds")


def _changes_intensities(settings: Augmentation) -> bool:
    return bool(settings.intensity_scale or settings.intensity_shift)


def _change_intensities(key: PRNGKeyArray, x: Array, settings: Augmentation) -> Array:
    """Contrast and brightness of each channel."""
    scale, shift = jax.random.uniform(key, (2, x.shape[-1]), x.dtype, -1, 1)
    changed = x * (1 + settings.intensity_scale * scale) + settings.intensity_shift * shift
    return jnp.where(x == 0, x, changed)


def _multiply_by_field(key: PRNGKeyArray, x: Array, strength: float) -> Array:
    """A smooth field for each channel: a random sum of slow cosines, as a coil's sensitivity.

    Z-scores have lost the scanner's zero. The darkest voxel stands in for it, so that bright
    regions change most, as they do in the scanner.
    """
    strengths, waves = jax.random.split(key)
    channels = x.shape[-1]
    weights = jax.random.normal(waves, (_WAVES, _WAVES, _WAVES, channels), x.dtype)
    weights = weights.at[0, 0, 0].set(0)
    weights = weights / jnp.sqrt(jnp.square(weights).sum(axis=(0, 1, 2)))
    weights = weights * strength * jax.random.uniform(strengths, (channels,), x.dtype)
    d, h, w = (jnp.asarray(_cosines(extent), x.dtype) for extent in x.shape[:3])
    field = jnp.exp(jnp.einsum("ijkc,di,hj,wk->dhwc", weights, d, h, w))
    background = x == 0
    darkest = jnp.where(background, jnp.inf, x).min(axis=(0, 1, 2))
    return jnp.where(background, x, (x - darkest) * field + darkest)


def _cosines(extent: int) -> np.ndarray:
    """Cosines (extent, _WAVES) of half a period more each, orthogonal, of mean square 1."""
    phase = np.pi * (np.arange(extent)[:, None] + 0.5) / extent
    return np.cos(phase * np.arange(_WAVES)) * np.sqrt([1, *[2] * (_WAVES - 1)])


def _smooth(key: PRNGKeyArray, x: Array, strength: float) -> Array:
    """A Gaussian along rows and columns; slices are thick already."""
    sd = strength * jax.random.uniform(key, (), x.dtype)
    radius = ceil(3 * strength)
    # A floor far below the distance of voxels: the Gaussian of width zero is the identity.
    kernel = jnp.exp(-0.5 * jnp.square(jnp.arange(-radius, radius + 1) / jnp.maximum(sd, 1e-3)))
    kernel = (kernel / kernel.sum()).astype(x.dtype)
    smoothed = x
    for axis in (1, 2):
        margins = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        padded = jnp.pad(smoothed, margins)
        parts = [
            jax.lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) * kernel[i]
            for i in range(2 * radius + 1)
        ]
        smoothed = sum(parts[1:], parts[0])
    return jnp.where(x == 0, x, smoothed)
