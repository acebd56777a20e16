"""The edit of a contour: tissue is moved, so that a region grows or shrinks.

The image is warped along the distance to the contour. Nothing is painted: every new value is
interpolated between old ones nearby. The price is that tissue on both sides is compressed or
stretched, in a band about the contour as wide as `REACH` doses, which lies outside of the region
too. Filling what a shrunken lesion leaves behind would need a guess at healthy tissue; this does
not guess, and is no lesion of another size with the texture that such a lesion would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

REACH = 3.0
"""Half width of the band that moves, in doses: at 1.6 tissue would fold."""

THINNEST = 1.7
"""Depth that a region needs, in doses, so that its inside is not folded."""


class Warp(NamedTuple):
    """Where the value of each voxel comes from.

    Attributes:
        source: voxel coordinates (3, z, y, x).
        moved: voxels whose source is another place.
    """

    source: Float[np.ndarray, "3 z y x"]
    moved: Bool[np.ndarray, "z y x"]


def distance(
    region: Bool[np.ndarray, "z y x"], spacing_mm: Sequence[float]
) -> Float[np.ndarray, "z y x"]:
    """Distance to the contour in mm, negative inside; the contour runs between voxels.

    Args:
        region: with voxels in it and out of it.
        spacing_mm: edges of a voxel along z, y, x.
    """
    half = min(edge for n, edge in zip(region.shape, spacing_mm, strict=True) if n > 1) / 2
    inside = np.asarray(distance_transform_edt(region, sampling=spacing_mm))
    outside = np.asarray(distance_transform_edt(~region, sampling=spacing_mm))
    return np.where(region, half - inside, outside - half)


def warp(region: Bool[np.ndarray, "z y x"], spacing_mm: Sequence[float], dose_mm: float) -> Warp:
    """Moves the contour of a region outwards (dose above zero) or inwards.

    A place at distance s from the contour goes to ``s + dose w(s)`` along the normal, with w a
    raised cosine from 1 at the contour to 0 at `REACH` doses, inside at the region's depth where
    that is less.

    Args:
        region: with voxels in it and out of it.
        spacing_mm: edges of a voxel along z, y, x.
        dose_mm: how far.

    Raises:
        ValueError: the region is too thin, or all of the image.
    """
    if region.all():
        raise ValueError("it fills the image, where there is no contour to move")
    level = distance(region, spacing_mm)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in region.shape), indexing="ij"))
    source = places.astype(np.float64)
    if dose_mm == 0:
        return Warp(source, np.zeros(region.shape, bool))
    size, depth = abs(dose_mm), -float(level.min())
    if depth < THINNEST * size:
        raise ValueError(
            f"it is {depth:.3g} mm deep, too thin to move its contour by {size:g} mm, which needs "
            f"{THINNEST * size:.3g} mm"
        )
    back = level - _before(level, dose_mm, inner=min(REACH * size, depth), outer=REACH * size)
    for axis, (normal, edge) in enumerate(
        zip(_normals(level, spacing_mm), spacing_mm, strict=True)
    ):
        source[axis] -= normal * back / edge
    return Warp(source, np.abs(source - places).max(axis=0) > 1e-6)


def warped(values: Float[np.ndarray, "z y x"], how: Warp) -> np.ndarray:
    """An image moved by a warp, trilinear; voxels that do not move keep their value exactly."""
    made = map_coordinates(values, how.source, order=1, mode="nearest")
    return np.where(how.moved, made, values)


def warped_mask(inside: Bool[np.ndarray, "z y x"], how: Warp) -> Bool[np.ndarray, "z y x"]:
    """A region moved by a warp: in where more than half of what comes there was in."""
    return warped(inside.astype(np.float64), how) > 0.5


def _before(
    level: Float[np.ndarray, "z y x"], dose: float, *, inner: float, outer: float
) -> Float[np.ndarray, "z y x"]:
    """The distance that a place had before its tissue moved."""
    old = np.linspace(-inner, outer, 4001)
    share = np.where(old < 0, old / inner, old / outer)
    new = old + dose * 0.5 * (1 + np.cos(np.pi * share))
    return np.where((level > -inner) & (level < outer), np.interp(level, new, old), level)


def _normals(
    level: Float[np.ndarray, "z y x"], spacing_mm: Sequence[float]
) -> Float[np.ndarray, "3 z y x"]:
    """Unit vectors away from the region, in mm; zero along an axis of one voxel."""
    # The distance map has the steps of the voxels in it.
    sigma = [0.0 if n == 1 else 1.0 for n in level.shape]
    smooth = gaussian_filter(level, sigma, mode="nearest")
    parts = [
        np.gradient(smooth, edge, axis=axis) if level.shape[axis] > 1 else np.zeros(level.shape)
        for axis, edge in enumerate(spacing_mm)
    ]
    normals = np.stack(parts)
    length = np.linalg.norm(normals, axis=0)
    return np.divide(normals, length, out=np.zeros_like(normals), where=length > 1e-6)
