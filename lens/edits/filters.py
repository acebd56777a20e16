"""Edits of a voxel by its neighbours: smoothing, sharpening, wavelet bands, added texture.

Lengths are in mm and hold on grids with edges of any size. All take and give values of an image in
its own unit; a dose of zero changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter

WAVELET = "coif1"
"""That of the radiomics settings of this package, one level, without decimation."""

PAD = 8
"""Voxels by which an image is continued with its edge before a wavelet, more than it reaches."""


def smoothed(
    values: Float[np.ndarray, "z y x"],
    region: Bool[np.ndarray, "z y x"],
    spacing_mm: Sequence[float],
    sigma_mm: float,
) -> np.ndarray:
    """A Gaussian mean over the voxels of the region alone (normalised convolution).

    What lies outside takes no part, so that the surroundings are not drawn into the region and its
    border stays as sharp as it was.

    Args:
        values: of the image.
        region: whose voxels are averaged; values elsewhere stay as they are.
        spacing_mm: edges of a voxel along z, y, x.
        sigma_mm: standard deviation of the Gaussian.
    """
    if sigma_mm <= 0:
        return values.copy()
    sigma = [
        0.0 if n == 1 else sigma_mm / edge for n, edge in zip(values.shape, spacing_mm, strict=True)
    ]
    inside = region.astype(np.float64)
    # About the mean, so that a large offset costs no precision.
    middle = float(values[region].mean())
    sums = gaussian_filter(np.where(region, values - middle, 0.0), sigma, mode="constant")
    weights = gaussian_filter(inside, sigma, mode="constant")
    means = np.divide(sums, weights, out=np.zeros_like(sums), where=region & (weights > 0))
    return np.where(region, middle + means, values)


def sharpened(
    values: Float[np.ndarray, "z y x"],
    region: Bool[np.ndarray, "z y x"],
    spacing_mm: Sequence[float],
    dose: float,
) -> np.ndarray:
    """``values + dose * (values - smoothed)`` (unsharp mask), smoothed over the longest edge.

    Args:
        values, region, spacing_mm: as in `smoothed`.
        dose: unitless.
    """
    sigma = max(edge for n, edge in zip(values.shape, spacing_mm, strict=True) if n > 1)
    return values + dose * (values - smoothed(values, region, spacing_mm, sigma))


def bands(flat: bool) -> tuple[str, ...]:
    """Names of the wavelet bands as PyRadiomics has them: low or high along x, y and z.

    Args:
        flat: of a single slice, along x and y.
    """
    return tuple("".join(each) for each in product("LH", repeat=2 if flat else 3))


def band(values: Float[np.ndarray, "z y x"], name: str) -> np.ndarray:
    """What one band of the stationary wavelet transform holds of an image; the bands add up to it.

    Args:
        values: of the image; a single slice has z = 1.
        name: one of `bands`.
    """
    from pywt import iswtn, swtn  # pyright: ignore[reportAttributeAccessIssue]

    axes = [axis for axis in (2, 1, 0) if values.shape[axis] > 1][: len(name)]
    if len(axes) != len(name):
        raise ValueError(f"band {name} of an image with {len(axes)} axes")
    # The transform wants even lengths.
    pads = [
        (PAD, PAD + size % 2) if axis in axes else (0, 0) for axis, size in enumerate(values.shape)
    ]
    middle = float(values.mean())
    padded = np.pad(values - middle, pads, mode="edge")
    (parts,) = swtn(padded, WAVELET, level=1, axes=axes)
    key = name.replace("L", "a").replace("H", "d")
    alone = [{which: part if which == key else 0 * part for which, part in parts.items()}]
    inner = tuple(slice(low, low + n) for (low, _), n in zip(pads, values.shape, strict=True))
    part = np.asarray(iswtn(alone, WAVELET, axes=axes))[inner]
    return part + middle if set(name) == {"L"} else part


def gained(values: Float[np.ndarray, "z y x"], name: str, dose: float) -> np.ndarray:
    """The image with one wavelet band multiplied by ``2^dose``.

    Args:
        values: of the image.
        name: of the band.
        dose: binary logarithm of the gain.
    """
    return values + (2.0**dose - 1.0) * band(values, name)


def texture(
    region: Bool[np.ndarray, "z y x"],
    spacing_mm: Sequence[float],
    length_mm: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """White noise smoothed by a Gaussian; mean 0 and standard deviation 1 in the region.

    Args:
        region: of more than one voxel.
        spacing_mm: edges of a voxel along z, y, x.
        length_mm: standard deviation of the Gaussian, the length over which the texture is alike;
            0 for white noise.
        rng: draws it.
    """
    sigma = [
        0.0 if n == 1 else length_mm / e for n, e in zip(region.shape, spacing_mm, strict=True)
    ]
    field = gaussian_filter(rng.standard_normal(region.shape), sigma, mode="wrap")
    inside = field[region]
    return (field - inside.mean()) / (inside.std() or 1.0)


def _in_voxels(length_mm: float, shape: Sequence[int], spacing_mm: Sequence[float]) -> list[float]:
    """A length along each axis; zero along an axis of one voxel."""
    return [
        0.0 if size == 1 else length_mm / edge for size, edge in zip(shape, spacing_mm, strict=True)
    ]
