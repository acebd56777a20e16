"""A seeded cohort of prostate MRI phantoms, whose truth is known.

Coordinates are mm from the centre of the gland: x to the left, y posterior, z to the head. Tissues
are painted in order as soft memberships of implicit shapes, so that the same anatomy is evaluated
on the grid of each image. Signal units are arbitrary; ADC is in 1e-6 mm2/s.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import SimpleITK as sitk
from jaxtyping import Float32
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from tqdm import tqdm

from lens.errors import InputError
from lens.files import atomic, write_json, write_table

GENERATOR = 1
"""Raised whenever the same seed would give other images, so that old folders are not reused."""

GRADES = (2, 2, 2, 2, 3, 3, 4, 4, 5, 5)
"""PIRADS-like grades of every ten consecutive phantoms, in an order drawn from the seed."""

LESIONS = {3: ((8.0, 10.0), 0.55), 4: ((10.5, 14.0), 0.8), 5: ((16.0, 23.0), 1.0)}
"""Grade -> range of the diameter in mm, contrast to the surrounding tissue (0 to 1)."""

B_LOW, B_HIGH = 50.0, 1400.0
"""Diffusion weightings in s/mm2: the DWI image is the high one, ADC is fitted to both."""


Points = Float32[np.ndarray, "3 n"]
Values = Float32[np.ndarray, " n"]


@dataclass(frozen=True)
class Phantom:
    """One simulated patient.

    Attributes:
        patient_id: ``phantom-0000`` and so on.
        images: t2, dwi and adc as int16; dwi and adc share a grid coarser than that of t2.
        masks: gland and, from grade 3 on, lesion as uint8 0/1 on the grid of t2.
        pirads: grade 2 (no lesion) to 5.
        volume_ml: of the gland mask.
    """

    patient_id: str
    images: dict[str, sitk.Image]
    masks: dict[str, sitk.Image]
    pirads: int
    volume_ml: float


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


class Ellipsoid(NamedTuple):
    """Centre and semi-axes in mm, with the tissue inside."""

    centre: np.ndarray
    radii: np.ndarray
    tissue: Tissue


class Anatomy(NamedTuple):
    """One patient's shapes and tissue properties, as drawn.

    ``texture`` holds, for the peripheral zone, the transition zone and the lesions, the relative
    amplitude and the share of fine (against coarse) structure.
    """

    radii: np.ndarray
    warp: np.ndarray
    transition: Ellipsoid
    peripheral: Tissue
    nodules: tuple[Ellipsoid, ...]
    lesions: tuple[Ellipsoid, ...]
    texture: dict[str, tuple[float, float]]


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


def phantom(index: int, seed: int) -> Phantom:
    """Simulates patient `index` of the cohort drawn from `seed`; equal arguments, equal voxels.

    Args:
        index: position in the cohort, from 0; each run of ten has the grades of `GRADES`.
        seed: of the cohort.

    Returns:
        Images of about 80 x 80 x 64 mm: T2 at 1 x 1 x 2 to 3 mm, oblique in a third of the
        patients; DWI and ADC at 2 x 2 x 3 mm.
    """
    rng = np.random.default_rng([seed, index])
    grade = _grade(index, seed)
    anatomy = _anatomy(rng, grade)
    place = rng.uniform(-40, 40, 3)
    tilt = rng.uniform(4, 18) if rng.random() < 1 / 3 else 0.0
    thickness = float(rng.choice([2.0, 2.5, 3.0]))
    fine = _grid((80, 80, round(64 / thickness)), (1.0, 1.0, thickness), tilt, place, rng)
    # Half of the oblique T2 series come with diffusion images that are not tilted.
    coarse = _grid((46, 44, 24), (2.0, 2.0, 3.0), tilt * rng.integers(2), place, rng)
    scene = _paint(anatomy, fine, place)
    t2 = _t2(anatomy, scene, fine.GetSpacing(), rng)
    dwi, adc = _diffusion(anatomy, _paint(anatomy, coarse, place), coarse.GetSpacing(), rng)
    masks = {"gland": scene.gland} | ({"lesion": scene.lesion} if anatomy.lesions else {})
    return Phantom(
        patient_id=f"phantom-{index:04d}",
        images={"t2": _image(t2, fine), "dwi": _image(dwi, coarse), "adc": _image(adc, coarse)},
        masks={roi: _image(mask.astype(np.uint8), fine) for roi, mask in masks.items()},
        pirads=grade,
        volume_ml=float(scene.gland.sum() * np.prod(fine.GetSpacing()) / 1000),
    )


def write_phantoms(folder: Path, n: int, seed: int, *, progress: bool = True) -> Path:
    """Writes a phantom cohort: images, masks and the manifest ``cohort.csv``.

    A folder that already holds this very cohort, complete, is left as it is. The manifest is
    written last, so that it only ever describes files that exist.

    Args:
        folder: created where needed.
        n: number of patients.
        seed: of the cohort.
        progress: show a progress bar.

    Returns:
        The path of the manifest.

    Raises:
        InputError: `n` is not positive, or the folder holds a manifest of another origin.
    """
    if n < 1:
        raise InputError(f"{n} phantoms: at least one is needed")
    manifest, record = folder / "cohort.csv", folder / "phantoms.json"
    made_as = {"generator": GENERATOR, "n": n, "seed": seed}
    if manifest.exists():
        if not record.exists():
            raise InputError(
                f"{manifest}: a manifest that was not written here. Choose another folder"
            )
        if _is_complete(manifest, record, made_as):
            return manifest
        manifest.unlink()
    rows = []
    for index in tqdm(range(n), desc="phantoms", unit="patient", disable=not progress):
        rows.append(_write(phantom(index, seed), folder))
    write_json(record, made_as)
    write_table(pd.DataFrame(rows), manifest)
    return manifest


def _write(patient: Phantom, folder: Path) -> dict[str, str | int | float]:
    """Writes the files of one patient and gives the row of the manifest."""
    row: dict[str, str | int | float] = {"patient_id": patient.patient_id}
    for name in ("t2", "dwi", "adc", "gland", "lesion"):
        image = (patient.images | patient.masks).get(name)
        row[name] = f"{patient.patient_id}/{name}.mha" if image is not None else ""
        if image is not None:
            with atomic(folder / str(row[name])) as temporary:
                # Compression only pays for masks; the noise of the images does not shrink.
                sitk.WriteImage(image, str(temporary), name in patient.masks)
    return row | {"pirads": patient.pirads, "volume_ml": round(patient.volume_ml, 3)}


def _is_complete(manifest: Path, record: Path, made_as: dict[str, int]) -> bool:
    if json.loads(record.read_text(encoding="utf-8")) != made_as:
        return False
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    named = table[["t2", "dwi", "adc", "gland", "lesion"]].to_numpy().ravel()
    return all((manifest.parent / name).is_file() for name in named if name)


def _grade(index: int, seed: int) -> int:
    order = np.random.default_rng([seed, 1 << 20, index // len(GRADES)]).permutation(GRADES)
    return int(order[index % len(GRADES)])


def _anatomy(rng: np.random.Generator, grade: int) -> Anatomy:
    volume_mm3 = 1000 * np.exp(rng.uniform(np.log(20), np.log(90)))
    shape = np.array([1.18, 0.9, 0.94]) * rng.uniform(0.94, 1.06, 3)
    # 4.2 is close to 4/3 pi; the exact volume is counted from the mask.
    radii = shape * (volume_mm3 / (4.2 * shape.prod())) ** (1 / 3)
    growth = 0.8 + 0.35 * np.log(volume_mm3 / 20000) / np.log(4.5)
    transition = Ellipsoid(
        radii * np.array([0.0, -0.2, 0.1]),
        radii * np.array([0.7, 0.64, 0.74]) * growth * rng.uniform(0.94, 1.06),
        _vary(TRANSITION, rng, 0.1),
    )
    peripheral = _vary(PERIPHERAL, rng, 0.1)
    nodules = tuple(_nodule(transition, rng) for _ in range(rng.integers(2, 5) + int(growth * 5)))
    lesions = [_lesion(grade, radii, transition, peripheral, rng)] if grade > 2 else []
    if grade > 3 and rng.random() < 0.25:
        lesions.append(_lesion(3, radii, transition, peripheral, rng))
    texture = {
        "peripheral": (rng.uniform(0.05, 0.14), rng.uniform(0, 1)),
        "transition": (rng.uniform(0.05, 0.15), rng.uniform(0, 1)),
        # Lesions grow coarser and less even with their grade.
        "lesion": (0.03 + 0.04 * (grade - 2) * rng.uniform(0.8, 1.2), 0.9 - 0.25 * (grade - 2)),
    }
    return Anatomy(
        radii, rng.normal(0, 1, (3, 4)), transition, peripheral, nodules, tuple(lesions), texture
    )


def _nodule(transition: Ellipsoid, rng: np.random.Generator) -> Ellipsoid:
    """A nodule of benign hyperplasia: stromal (dark) to glandular (bright on T2 and ADC)."""
    glandular = rng.beta(0.7, 0.7)
    direction = rng.normal(size=3)
    where = direction / np.linalg.norm(direction) * rng.uniform(0.15, 0.75)
    return Ellipsoid(
        transition.centre + where * transition.radii,
        transition.radii.mean() * rng.uniform(0.16, 0.38) * rng.uniform(0.85, 1.15, 3),
        Tissue(260 + 330 * glandular, 1000 + 550 * glandular, 330 + 120 * glandular),
    )


def _lesion(
    grade: int,
    radii: np.ndarray,
    transition: Ellipsoid,
    peripheral: Tissue,
    rng: np.random.Generator,
) -> Ellipsoid:
    (low, high), contrast = LESIONS[grade]
    semi = rng.uniform(low, high) / 2 * np.array([1.1, 0.9, 1.0])
    contrast *= rng.uniform(0.93, 1.07)
    if rng.random() < 0.7:
        angle = rng.choice([-1, 1]) * rng.uniform(0.35, 1.1)
        direction = np.array([np.sin(angle), np.cos(angle), rng.uniform(-0.45, 0.35)])
        # Its outer edge near the capsule, its centre never nearer to the middle than half way.
        depth = max(0.5, 0.93 - semi.mean() / radii.mean())
        centre, base = direction * depth * radii, peripheral
    else:
        shift = np.array([rng.uniform(-0.35, 0.35), -0.4, rng.uniform(-0.3, 0.3)])
        centre, base = transition.centre + shift * transition.radii, transition.tissue
        semi = semi * np.array([1.25, 0.8, 1.0])
    return Ellipsoid(
        centre,
        semi,
        Tissue(
            base.t2 * (1 - 0.55 * contrast),
            base.adc + contrast * (680 - base.adc),
            base.b0 * (1 - 0.1 * contrast),
        ),
    )


def _vary(tissue: Tissue, rng: np.random.Generator, spread: float) -> Tissue:
    return Tissue(*(np.array(tissue) * rng.uniform(1 - spread, 1 + spread, 3)).tolist())


def _level(anatomy: Anatomy, points: Points) -> Values:
    """Below 1 inside the gland: a superellipsoid, wider at the base, notched behind, warped.

    Infinite well outside, where the powers need not be computed.
    """
    reach = (1.5 * anatomy.radii[:, None]).astype(np.float32)
    near = np.flatnonzero(np.all(np.abs(points) < reach, axis=0))
    level = np.full(points.shape[1], np.inf, np.float32)
    level[near] = _level_near(anatomy, points[:, near])
    return level


def _level_near(anatomy: Anatomy, points: Points) -> Values:
    size = float(anatomy.radii.mean())
    bent = points.copy()
    for axis, (strength, *wave) in enumerate(anatomy.warp):
        turns = np.array(wave) / (0.9 * size * np.linalg.norm(wave))
        amplitude = 0.045 * size * strength / (1 + abs(strength))
        bent[axis] += np.float32(amplitude) * np.sin(
            turns.astype(np.float32) @ points + np.float32(strength)
        )
    x, y, z = bent / anatomy.radii[:, None].astype(np.float32)
    x = x / (1 + 0.12 * z)
    y = y + 0.14 * np.exp(-((x / 0.3) ** 2)) * expit(6 * y)
    return ((np.abs(x) ** 2.3 + np.abs(y) ** 2.3) ** (2.2 / 2.3) + np.abs(z) ** 2.2) ** (1 / 2.2)


def _depth(shape: Ellipsoid, points: Points) -> Values:
    """Normalised radius in an ellipsoid: below 1 inside."""
    squares = np.zeros(points.shape[1], np.float32)
    for axis in range(3):
        squares += (
            (points[axis] - np.float32(shape.centre[axis])) / np.float32(shape.radii[axis])
        ) ** 2
    return np.sqrt(squares)


def _soft(level: Values, radius_mm: float) -> Values:
    """Membership of the inside of a level set, blurred over about a millimetre."""
    return expit((1 - level) * np.float32(radius_mm / 0.5))


def _mix(signal: Points, membership: Values, tissue: Tissue) -> Points:
    """Paints a tissue over the signals (T2, ADC, b = 0)."""
    # Most shapes touch a small part of the image.
    where = np.flatnonzero(membership > 1e-4)
    share = membership[where]
    out = signal.copy()
    for channel, value in zip(out, tissue, strict=True):
        channel[where] += share * (np.float32(value) - channel[where])
    return out


def _paint(anatomy: Anatomy, grid: sitk.Image, place: np.ndarray) -> Scene:
    """Evaluates the anatomy on a grid; `place` is the gland's centre in the patient, in mm."""
    points = _points(grid, place)
    level = _level(anatomy, points)
    signal = _surroundings(anatomy, points)
    signal = _mix(signal, _soft(level / 1.06, float(anatomy.radii[1])), CAPSULE)
    # The gland is a fifth of the image and holds most shapes: those are painted only there.
    near = np.flatnonzero(level < 1.3)
    signal[:, near], inner = _gland(anatomy, points[:, near], level[near], signal[:, near])
    memberships = {name: np.zeros_like(level) for name in inner}
    for name, values in inner.items():
        memberships[name][near] = values
    gland = level < 1
    within = np.zeros_like(gland)
    for shape in anatomy.lesions:
        within[near] |= _depth(shape, points[:, near]) < 1
    return Scene(points, signal, memberships, gland, gland & within, grid.GetSize()[::-1])


def _surroundings(anatomy: Anatomy, points: Points) -> Points:
    """Fat, muscle, rectum, bladder and seminal vesicles about the gland."""
    x, y, _ = points
    a, b, c = anatomy.radii.tolist()
    signal = np.tile(np.array(FAT, np.float32)[:, None], points.shape[1])
    signal = _mix(signal, expit(np.abs(x) - (a + 4 + 0.004 * y**2)), MUSCLE)
    signal = _mix(signal, expit(-(y + b + 7)), MUSCLE)
    organs = [
        ((0, b + 11, -0.2 * c), (16, 10.5, 90), WALL),
        ((0, b + 11, -0.2 * c), (12.5, 7.5, 90), GAS),
        ((0, -0.35 * b, 1.15 * c + 14), (28, 20, 16), WALL),
        ((0, -0.35 * b, 1.15 * c + 14), (25.5, 17.5, 13.5), URINE),
        ((-11, 0.55 * b, 1.05 * c + 4), (11, 5, 6), VESICLE),
        ((11, 0.55 * b, 1.05 * c + 4), (11, 5, 6), VESICLE),
    ]
    for centre, radii, tissue in organs:
        depth = _depth(Ellipsoid(np.array(centre), np.array(radii), tissue), points)
        signal = _mix(signal, _soft(depth, float(min(radii))), tissue)
    return signal


def _gland(
    anatomy: Anatomy, points: Points, level: Values, signal: Points
) -> tuple[Points, dict[str, Values]]:
    """The zones, nodules and lesions over `signal`, and the memberships that carry texture."""
    gland = _soft(level, float(anatomy.radii[1]))
    signal = _mix(signal, gland, anatomy.peripheral)
    rim = float(anatomy.transition.radii.min())
    inner = np.maximum(_depth(anatomy.transition, points), level / 0.94)
    signal = _mix(signal, _soft(inner / 1.05, rim), CAPSULE)
    transition = _soft(inner, rim)
    signal = _mix(signal, transition, anatomy.transition.tissue)
    for nodule in anatomy.nodules:
        depth, size = _depth(nodule, points), float(nodule.radii.min())
        signal = _mix(signal, transition * _soft(depth / 1.12, size), CAPSULE)
        signal = _mix(signal, transition * _soft(depth, size), nodule.tissue)
    lesion = np.zeros_like(level)
    for shape in anatomy.lesions:
        inside = gland * _soft(_depth(shape, points), float(shape.radii.min()))
        signal = _mix(signal, inside, shape.tissue)
        lesion = np.maximum(lesion, inside)
    return signal, {
        "peripheral": gland * (1 - transition) * (1 - lesion),
        "transition": transition * (1 - lesion),
        "lesion": lesion,
    }


def _texture(
    anatomy: Anatomy, scene: Scene, spacing_mm: Sequence[float], rng: np.random.Generator
) -> Values:
    """Relative deviation of the signal: fine and coarse correlated noise, mixed per tissue."""
    fine, coarse = (
        _correlated(scene.shape, scale_mm / np.array(spacing_mm[::-1]), rng)
        for scale_mm in (0.7, 2.2)
    )
    surrounding = 1 - sum(scene.memberships.values())
    out = 0.06 * surrounding * coarse
    for name, membership in scene.memberships.items():
        amplitude, share = anatomy.texture[name]
        out += amplitude * membership * (share * fine + np.sqrt(1 - share**2) * coarse)
    return out


def _correlated(shape: tuple[int, int, int], sigma: np.ndarray, rng: np.random.Generator) -> Values:
    field = gaussian_filter(rng.standard_normal(shape, np.float32), sigma)
    return (field / field.std()).ravel()


def _t2(
    anatomy: Anatomy, scene: Scene, spacing_mm: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    texture = _texture(anatomy, scene, spacing_mm, rng)
    clean = scene.signal[0] * np.maximum(1 + texture, 0.05) * _bias(scene.points, rng)
    gain = np.exp(rng.normal(0, 0.25))
    return (gain * _rician(clean, rng.uniform(10, 22), rng)).reshape(scene.shape)


def _diffusion(
    anatomy: Anatomy, scene: Scene, spacing_mm: Sequence[float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The high-b image, and ADC as fitted to it and a low-b image, with the noise of both."""
    texture = _texture(anatomy, scene, spacing_mm, rng)
    adc = scene.signal[1] * np.maximum(1 + 0.8 * texture, 0.1)
    b0 = scene.signal[2] * _bias(scene.points, rng)
    noise = rng.uniform(3, 6)
    low = _rician(b0 * np.exp(-B_LOW * adc * 1e-6), noise, rng)
    high = _rician(b0 * np.exp(-B_HIGH * adc * 1e-6), noise / 2, rng)
    fitted = 1e6 * np.log(np.maximum(low, 1e-3) / np.maximum(high, 1e-3)) / (B_HIGH - B_LOW)
    gain = 3 * np.exp(rng.normal(0, 0.25))
    return (gain * high).reshape(scene.shape), np.clip(fitted, 0, 4000).reshape(scene.shape)


def _bias(points: Points, rng: np.random.Generator) -> Values:
    """Smooth receive sensitivity, within about a fifth of 1 over the gland."""
    scaled = points / np.float32(40)
    slope, curve = rng.normal(0, 0.1, 3), rng.normal(0, 0.06, 3)
    return np.exp(slope.astype(np.float32) @ scaled + curve.astype(np.float32) @ scaled**2)


def _rician(signal: Values, sigma: float, rng: np.random.Generator) -> Values:
    real, imaginary = np.float32(sigma) * rng.standard_normal((2, len(signal)), np.float32)
    return np.hypot(signal + real, imaginary)


def _grid(
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    tilt_degrees: float,
    place: np.ndarray,
    rng: np.random.Generator,
) -> sitk.Image:
    """An empty image about the gland, tilted about x as axial prostate series are."""
    cos, sin = np.cos(np.radians(tilt_degrees)), np.sin(np.radians(tilt_degrees))
    direction = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    half = (np.array(size) - 1) * np.array(spacing_mm) / 2
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing(spacing_mm)
    grid.SetDirection(direction.ravel().tolist())
    grid.SetOrigin((place + rng.uniform(-2, 2, 3) - direction @ half).tolist())
    return grid


def _points(grid: sitk.Image, place: np.ndarray) -> Points:
    """Voxel centres in mm from the centre of the gland, x running fastest."""
    to_mm = np.array(grid.GetDirection()).reshape(3, 3) * np.array(grid.GetSpacing())
    start = np.array(grid.GetOrigin()) - place
    x, y, z = (np.arange(n) * to_mm[:, [k]] for k, n in enumerate(grid.GetSize()))
    volume = z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]
    return (volume.reshape(3, -1) + start[:, None]).astype(np.float32)


def _image(array: np.ndarray, grid: sitk.Image) -> sitk.Image:
    whole = array if array.dtype == np.uint8 else np.rint(array).astype(np.int16)
    image = sitk.GetImageFromArray(whole.reshape(grid.GetSize()[::-1]))
    image.CopyInformation(grid)
    return image
