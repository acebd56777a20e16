"""Images of a gland with a lesion, of which every visible property has a factor of its own.

What `lens.cohort.factor_phantom` makes patients of. The anatomy is far simpler than that of
`lens.cohort.phantom`: ellipsoids with soft edges, and noise with a correlation length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.fft import irfftn, rfftn
from scipy.special import expit

from lens.errors import InputError

EXTENT_MM = (48.0, 52.0, 62.0)
"""Depth, height and width that the largest gland needs."""


class Factor(NamedTuple):
    """Range of a factor, in which it is uniform, or uniform in its logarithm."""

    low: float
    high: float
    log: bool = False

    def at(self, share: float) -> float:
        """The value below which this share of the patients lies."""
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return float(self.low + share * (self.high - self.low))

    def share(self, value: float) -> float:
        """The share of the patients below this value: from 0 to 1."""
        if self.log:
            return float(np.log(value / self.low) / np.log(self.high / self.low))
        return float((value - self.low) / (self.high - self.low))


FACTORS = {
    "t2_texture": Factor(1.5, 8.0, log=True),
    "t2_contrast": Factor(0.12, 0.48, log=True),
    "adc_level": Factor(1150.0, 1450.0),
    "adc_nodularity": Factor(0.05, 1.0),
    "dwi_contrast": Factor(1.4, 6.0, log=True),
    "dwi_noise": Factor(0.03, 0.3, log=True),
    "gland_volume": Factor(30.0, 60.0, log=True),
    "lesion_size": Factor(15.0, 28.0),
}
"""Factor -> its range: correlation length of the gland's texture on T2 (mm), and its strength
(relative to the gland); ADC of the gland (1e-6 mm2/s), and relative brightness of its nodules, of
which there are more where they are brighter; signal of the lesion on DWI over that of the gland,
and relative noise there; volume of the gland (ml), and diameter of the lesion (mm). Besides them
vary the place and shape of gland and lesion, the places and sizes of the nodules, and the
surroundings. Nodules and lesions are larger than the patch of 4 voxels that an encoder's stem
reads, and nodules are all brighter than the gland: what has no mean effect on a patch is hard to
see for a small encoder."""

T2_NOISE = 0.03
"""White noise on T2, relative to the gland."""

LESION = {"t2": 0.4, "adc": 0.45}
"""Relative drop of the signal in the lesion."""

ADC_NOISE = 35.0
"""White noise of the ADC, in 1e-6 mm2/s."""


class Drawn(NamedTuple):
    """Images by modality, before rounding, and masks by region."""

    images: dict[str, Float32[np.ndarray, "d h w"]]
    masks: dict[str, Bool[np.ndarray, "d h w"]]


def draw(
    factors: dict[str, float],
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> Drawn:
    """Images and masks of a patient with these factors; `rng` draws the rest.

    Args:
        factors: a value per name of `FACTORS`.
        shape: (D, H, W) in voxels.
        spacing_mm: (x, y, z).
        rng: of the place of gland, lesion and nodules, and of all noise.

    Raises:
        InputError: the grid does not hold the largest gland (`EXTENT_MM`).
    """
    grid = _grid(tuple(shape), tuple(spacing_mm))
    anatomy = _anatomy(factors, grid, rng)
    painters = {"t2": _t2, "dwi": _dwi, "adc": _adc}
    images = {name: paint(factors, anatomy, grid, rng) for name, paint in painters.items()}
    return Drawn(images, {"gland": anatomy.gland, "lesion": anatomy.lesion})


class _Grid(NamedTuple):
    """Voxel centres (3, d, h, w) as z, y, x about the middle in mm; squared frequencies of the
    half spectrum in 1/mm2; all float32."""

    points: Float[np.ndarray, "3 d h w"]
    frequencies: Float[np.ndarray, "d h half"]


@lru_cache(maxsize=4)
def _grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> _Grid:
    edges = spacing_mm[::-1]
    extent = [size * edge for size, edge in zip(shape, edges, strict=True)]
    if any(mm < needed for mm, needed in zip(extent, EXTENT_MM, strict=True)):
        raise InputError(
            f"a grid of {' x '.join(f'{mm:g}' for mm in extent)} mm (z, y, x); the largest gland "
            f"needs {' x '.join(f'{mm:g}' for mm in EXTENT_MM)} mm"
        )
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, edges, strict=True)]
    waves = [np.fft.fftfreq(n, mm) for n, mm in zip(shape, edges, strict=True)]
    waves[2] = np.fft.rfftfreq(shape[2], edges[2])
    squares = sum(w**2 for w in np.meshgrid(*waves, indexing="ij"))
    points = np.stack(np.meshgrid(*axes, indexing="ij"))
    return _Grid(points.astype(np.float32), np.asarray(squares, np.float32))


@dataclass(frozen=True)
class _Anatomy:
    """Gland and lesion on the grid: 0/1, and their soft memberships; the gland's ellipsoid."""

    gland: Bool[np.ndarray, "d h w"]
    lesion: Bool[np.ndarray, "d h w"]
    in_gland: Float32[np.ndarray, "d h w"]
    in_lesion: Float32[np.ndarray, "d h w"]
    centre: Float[np.ndarray, " 3"]
    radii: Float[np.ndarray, " 3"]


def _anatomy(factors: dict[str, float], grid: _Grid, rng: np.random.Generator) -> _Anatomy:
    shape = np.array([0.92, 0.95, 1.15]) * rng.uniform(0.97, 1.03, 3)
    radii = shape * (factors["gland_volume"] * 1000 / (4 / 3 * np.pi * shape.prod())) ** (1 / 3)
    centre = rng.uniform(-1, 1, 3) * np.array([0.8, 1.5, 1.5])
    semi = factors["lesion_size"] / 2
    towards = rng.normal(size=3)
    towards *= rng.uniform(0.4, 1) / np.linalg.norm(towards)
    place = centre + towards * np.maximum(radii - semi, 0)
    level = _level(grid, centre, radii)
    inner = _level(grid, place, np.full(3, semi))
    gland = level < 1
    in_gland = _soft(level, float(radii.min()))
    in_lesion = in_gland * _soft(inner, semi)
    return _Anatomy(gland, gland & (inner < 1), in_gland, in_lesion, centre, radii)


def _t2(
    factors: dict[str, float], anatomy: _Anatomy, grid: _Grid, rng: np.random.Generator
) -> Float32[np.ndarray, "d h w"]:
    texture = _texture(factors["t2_texture"], anatomy.gland, grid, rng)
    tissue = 450 * (1 + np.float32(factors["t2_contrast"]) * texture)
    tissue *= 1 - np.float32(LESION["t2"]) * anatomy.in_lesion
    noise = rng.standard_normal(tissue.shape, np.float32)
    around = _around(300.0, 0.2, grid, rng)
    return _mixed(around, tissue, anatomy.in_gland) + np.float32(450 * T2_NOISE) * noise


def _dwi(
    factors: dict[str, float], anatomy: _Anatomy, grid: _Grid, rng: np.random.Generator
) -> Float32[np.ndarray, "d h w"]:
    tissue = 100 * (1 + np.float32(factors["dwi_contrast"] - 1) * anatomy.in_lesion)
    noise = rng.standard_normal(tissue.shape, np.float32)
    around = _around(50.0, 0.2, grid, rng)
    return _mixed(around, tissue, anatomy.in_gland) + np.float32(100 * factors["dwi_noise"]) * noise


def _adc(
    factors: dict[str, float], anatomy: _Anatomy, grid: _Grid, rng: np.random.Generator
) -> Float32[np.ndarray, "d h w"]:
    relative = np.ones_like(anatomy.in_gland)
    nodules = 4 + round(10 * FACTORS["adc_nodularity"].share(factors["adc_nodularity"]))
    bright = np.float32(1 + factors["adc_nodularity"])
    for _ in range(nodules):
        towards = rng.normal(size=3)
        towards *= 0.85 * rng.random() ** (1 / 3) / np.linalg.norm(towards)
        size = rng.uniform(4, 8)
        level = _level(grid, anatomy.centre + towards * anatomy.radii, np.full(3, size))
        relative += _soft(level, size) * (bright - relative)
    drop = np.float32(1 - LESION["adc"])
    relative += anatomy.in_lesion * (drop - relative)
    noise = rng.standard_normal(relative.shape, np.float32)
    around = _around(1100.0, 0.1, grid, rng)
    tissue = np.float32(factors["adc_level"]) * relative
    return _mixed(around, tissue, anatomy.in_gland) + np.float32(ADC_NOISE) * noise


def _around(
    level: float, spread: float, grid: _Grid, rng: np.random.Generator
) -> Float32[np.ndarray, "d h w"]:
    """Surroundings of the gland: a level with coarse differences of a relative spread."""
    everywhere = np.ones(grid.points.shape[1:], bool)
    return np.float32(level) * (1 + np.float32(spread) * _texture(6.0, everywhere, grid, rng))


def _texture(
    length_mm: float, region: Bool[np.ndarray, "d h w"], grid: _Grid, rng: np.random.Generator
) -> Float32[np.ndarray, "d h w"]:
    """Gaussian noise smoothed by a Gaussian of this standard deviation; in the region its mean is 0
    and its standard deviation 1, whatever its correlation length."""
    white = rng.standard_normal(region.shape, np.float32)
    filtered = np.exp(np.float32(-2 * (np.pi * length_mm) ** 2) * grid.frequencies)
    field = np.asarray(irfftn(rfftn(white) * filtered, region.shape))
    inside = field[region]
    return np.asarray((field - inside.mean()) / inside.std(), np.float32)


def _level(
    grid: _Grid, centre: Float[np.ndarray, " 3"], radii: Float[np.ndarray, " 3"]
) -> Float32[np.ndarray, "d h w"]:
    """Below 1 inside an ellipsoid, in units of its radii."""
    squares = np.zeros(grid.points.shape[1:], np.float32)
    for points, middle, radius in zip(grid.points, centre, radii, strict=True):
        squares += ((points - np.float32(middle)) / np.float32(radius)) ** 2
    return np.sqrt(squares)


def _soft(level: Float32[np.ndarray, "d h w"], radius_mm: float) -> Float32[np.ndarray, "d h w"]:
    """Membership of the inside of a level set, blurred over about a millimetre."""
    return expit((1 - level) * np.float32(radius_mm / 0.5))


def _mixed(
    around: Float32[np.ndarray, "d h w"],
    tissue: Float32[np.ndarray, "d h w"],
    membership: Float32[np.ndarray, "d h w"],
) -> Float32[np.ndarray, "d h w"]:
    return around + membership * (tissue - around)
