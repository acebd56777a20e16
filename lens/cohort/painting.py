"""MR images of a painted prostate: tissues, soft shapes, texture and noise.

Coordinates are mm from the centre of the gland: x to the left, y posterior, z to the head. Signal
units are arbitrary; ADC is in 1e-6 mm2/s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float32
from scipy.ndimage import gaussian_filter
from scipy.special import expit

B_LOW, B_HIGH = 50.0, 1400.0
"""Diffusion weightings in s/mm2: the DWI image is the high one, ADC is fitted to both."""


Points = Float32[np.ndarray, "3 n"]
Values = Float32[np.ndarray, " n"]


class Tissue(NamedTuple):
    """Signals of a tissue: T2-weighted, ADC in 1e-6 mm2/s, and fat-suppressed at b = 0."""

    t2: float
    adc: float
    b0: float


FAT = Tissue(600, 300, 40)
MUSCLE = Tissue(170, 1250, 150)
URINE = Tissue(950, 2500, 700)
VESICLE = Tissue(720, 1700, 500)
WALL = Tissue(260, 1300, 200)
GAS = Tissue(30, 300, 6)
CAPSULE = Tissue(200, 1200, 200)
PERIPHERAL = Tissue(580, 1600, 480)
TRANSITION = Tissue(390, 1250, 400)


Texture = dict[str, tuple[float, float]]
"""Tissue (``peripheral``, ``transition``, ``lesion``) -> relative amplitude of its texture, and the
share of fine against coarse structure in it."""


class Ellipsoid(NamedTuple):
    """Centre and semi-axes in mm, with the tissue inside."""

    centre: np.ndarray
    radii: np.ndarray
    tissue: Tissue


class Anatomy(NamedTuple):
    """One patient's shapes and tissue properties, as drawn.

    Attributes:
        radii: semi-axes of the gland in mm (3,).
        warp: of the gland's surface, a row per axis: strength, then the wave.
        transition: the transition zone.
        peripheral: tissue of the peripheral zone.
        nodules: in the transition zone.
        lesions: none, or one and more.
        texture: by tissue.
    """

    radii: np.ndarray
    warp: np.ndarray
    transition: Ellipsoid
    peripheral: Tissue
    nodules: tuple[Ellipsoid, ...]
    lesions: tuple[Ellipsoid, ...]
    texture: Texture


class Scene(NamedTuple):
    """The anatomy evaluated at the voxel centres of one grid.

    Attributes:
        points: (3, n) mm from the centre of the gland, x running fastest.
        signal: (3, n) mean T2, ADC and b = 0 signals.
        memberships: (n,) per tissue with a texture of its own, 0 to 1.
        gland: (n,) inside the gland.
        lesion: (n,) inside a lesion.
        shape: (z, y, x) of the grid.
    """

    points: Points
    signal: Points
    memberships: dict[str, Values]
    gland: np.ndarray
    lesion: np.ndarray
    shape: tuple[int, int, int]


def t2_image(
    texture: Texture, scene: Scene, spacing_mm: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """The T2-weighted image (z, y, x) with texture, receive sensitivity and noise."""
    deviation = _deviation(texture, scene, spacing_mm, rng)
    clean = scene.signal[0] * np.maximum(1 + deviation, 0.05) * _bias(scene.points, rng)
    gain = np.exp(rng.normal(0, 0.25))
    return (gain * _rician(clean, rng.uniform(10, 22), rng)).reshape(scene.shape)


def diffusion_images(
    texture: Texture, scene: Scene, spacing_mm: Sequence[float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The high-b image, and ADC as fitted to it and a low-b image, with the noise of both."""
    deviation = _deviation(texture, scene, spacing_mm, rng)
    adc = scene.signal[1] * np.maximum(1 + 0.8 * deviation, 0.1)
    b0 = scene.signal[2] * _bias(scene.points, rng)
    noise = rng.uniform(3, 6)
    low = _rician(b0 * np.exp(-B_LOW * adc * 1e-6), noise, rng)
    high = _rician(b0 * np.exp(-B_HIGH * adc * 1e-6), noise / 2, rng)
    fitted = 1e6 * np.log(np.maximum(low, 1e-3) / np.maximum(high, 1e-3)) / (B_HIGH - B_LOW)
    gain = 3 * np.exp(rng.normal(0, 0.25))
    return (gain * high).reshape(scene.shape), np.clip(fitted, 0, 4000).reshape(scene.shape)


def voxel_centres(grid: sitk.Image, place: np.ndarray) -> Points:
    """Voxel centres in mm from the centre of the gland, x running fastest."""
    to_mm = np.array(grid.GetDirection()).reshape(3, 3) * np.array(grid.GetSpacing())
    start = np.array(grid.GetOrigin()) - place
    x, y, z = (np.arange(n) * to_mm[:, [k]] for k, n in enumerate(grid.GetSize()))
    volume = z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]
    return (volume.reshape(3, -1) + start[:, None]).astype(np.float32)


def on_grid(array: np.ndarray, grid: sitk.Image) -> sitk.Image:
    """An array (z, y, x, or flat) as an image on `grid`; values are rounded to 16 bits."""
    whole = array if array.dtype == np.uint8 else np.rint(array).astype(np.int16)
    image = sitk.GetImageFromArray(whole.reshape(grid.GetSize()[::-1]))
    image.CopyInformation(grid)
    return image


def surroundings(radii: np.ndarray, points: Points) -> Points:
    """Fat, muscle, rectum, bladder and seminal vesicles about the gland."""
    x, y, _ = points
    a, b, c = radii.tolist()
    signal = np.tile(np.array(FAT, np.float32)[:, None], points.shape[1])
    signal = mix(signal, expit(np.abs(x) - (a + 4 + 0.004 * y**2)), MUSCLE)
    signal = mix(signal, expit(-(y + b + 7)), MUSCLE)
    organs = [
        ((0, b + 11, -0.2 * c), (16, 10.5, 90), WALL),
        ((0, b + 11, -0.2 * c), (12.5, 7.5, 90), GAS),
        ((0, -0.35 * b, 1.15 * c + 14), (28, 20, 16), WALL),
        ((0, -0.35 * b, 1.15 * c + 14), (25.5, 17.5, 13.5), URINE),
        ((-11, 0.55 * b, 1.05 * c + 4), (11, 5, 6), VESICLE),
        ((11, 0.55 * b, 1.05 * c + 4), (11, 5, 6), VESICLE),
    ]
    for centre, radii, tissue in organs:
        depth = level_of(Ellipsoid(np.array(centre), np.array(radii), tissue), points)
        signal = mix(signal, soft(depth, float(min(radii))), tissue)
    return signal


def draw_nodule(transition: Ellipsoid, rng: np.random.Generator) -> Ellipsoid:
    """A nodule of benign hyperplasia: stromal (dark) to glandular (bright on T2 and ADC)."""
    glandular = rng.beta(0.7, 0.7)
    direction = rng.normal(size=3)
    where = direction / np.linalg.norm(direction) * rng.uniform(0.15, 0.75)
    return Ellipsoid(
        transition.centre + where * transition.radii,
        transition.radii.mean() * rng.uniform(0.16, 0.38) * rng.uniform(0.85, 1.15, 3),
        Tissue(260 + 330 * glandular, 1000 + 550 * glandular, 330 + 120 * glandular),
    )


def vary(tissue: Tissue, rng: np.random.Generator, spread: float) -> Tissue:
    """A tissue with each signal times a factor of its own, 1 - `spread` to 1 + `spread`."""
    return Tissue(*(np.array(tissue) * rng.uniform(1 - spread, 1 + spread, 3)).tolist())


def level_of(shape: Ellipsoid, points: Points) -> Values:
    """Normalised radius in an ellipsoid: below 1 inside."""
    squares = np.zeros(points.shape[1], np.float32)
    for axis in range(3):
        squares += (
            (points[axis] - np.float32(shape.centre[axis])) / np.float32(shape.radii[axis])
        ) ** 2
    return np.sqrt(squares)


def soft(level: Values, radius_mm: float) -> Values:
    """Membership of the inside of a level set, blurred over about a millimetre."""
    return expit((1 - level) * np.float32(radius_mm / 0.5))


def mix(signal: Points, membership: Values, tissue: Tissue) -> Points:
    """Paints a tissue over the signals (T2, ADC, b = 0)."""
    # Most shapes touch a small part of the image.
    where = np.flatnonzero(membership > 1e-4)
    share = membership[where]
    out = signal.copy()
    for channel, value in zip(out, tissue, strict=True):
        channel[where] += share * (np.float32(value) - channel[where])
    return out


def _deviation(
    texture: Texture, scene: Scene, spacing_mm: Sequence[float], rng: np.random.Generator
) -> Values:
    """Relative deviation of the signal: fine and coarse correlated noise, mixed per tissue."""
    fine, coarse = (
        _correlated(scene.shape, scale_mm / np.array(spacing_mm[::-1]), rng)
        for scale_mm in (0.7, 2.2)
    )
    surrounding = 1 - sum(scene.memberships.values())
    out = 0.06 * surrounding * coarse
    for name, membership in scene.memberships.items():
        amplitude, share = texture[name]
        out += amplitude * membership * (share * fine + np.sqrt(1 - share**2) * coarse)
    return out


def _correlated(shape: tuple[int, int, int], sigma: np.ndarray, rng: np.random.Generator) -> Values:
    field = gaussian_filter(rng.standard_normal(shape, np.float32), sigma)
    return (field / field.std()).ravel()


def _bias(points: Points, rng: np.random.Generator) -> Values:
    """Smooth receive sensitivity, within about a fifth of 1 over the gland."""
    scaled = points / np.float32(40)
    slope, curve = rng.normal(0, 0.1, 3), rng.normal(0, 0.06, 3)
    return np.exp(slope.astype(np.float32) @ scaled + curve.astype(np.float32) @ scaled**2)


def _rician(signal: Values, sigma: float, rng: np.random.Generator) -> Values:
    real, imaginary = np.float32(sigma) * rng.standard_normal((2, len(signal)), np.float32)
    return np.hypot(signal + real, imaginary)


def lesion_tissue(base: Tissue, contrast: float) -> Tissue:
    """A lesion in the tissue `base`: darker on T2, restricted diffusion; `contrast` from 0 to 1."""
    return Tissue(
        base.t2 * (1 - 0.55 * contrast),
        base.adc + contrast * (680 - base.adc),
        base.b0 * (1 - 0.1 * contrast),
    )


def draw_texture(grade: int, rng: np.random.Generator) -> Texture:
    """Textures of one patient; those of lesions grow coarser and less even with the grade."""
    return {
        "peripheral": (rng.uniform(0.05, 0.14), rng.uniform(0, 1)),
        "transition": (rng.uniform(0.05, 0.15), rng.uniform(0, 1)),
        "lesion": (0.03 + 0.04 * (grade - 2) * rng.uniform(0.8, 1.2), 0.9 - 0.25 * (grade - 2)),
    }
