"""A seeded cohort of prostate MRI phantoms, whose truth is known.

Tissues are painted in order as soft memberships of implicit shapes, so that the same anatomy is
evaluated on the grid of each image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy.special import expit
from tqdm import tqdm

from lens.cache import read_record
from lens.cohort.painting import (
    CAPSULE,
    PERIPHERAL,
    TRANSITION,
    Anatomy,
    Ellipsoid,
    Points,
    Scene,
    Tissue,
    Values,
    diffusion_images,
    draw_nodule,
    draw_texture,
    lesion_tissue,
    level_of,
    mix,
    on_grid,
    soft,
    surroundings,
    t2_image,
    vary,
    voxel_centres,
)
from lens.errors import InputError
from lens.files import atomic, write_json, write_table
from lens.formulas import read_csv

GENERATOR = 1
"""Raised whenever the same seed would give other images, so that old folders are not reused."""

GRADES = (2, 2, 2, 2, 3, 3, 4, 4, 5, 5)
"""PIRADS-like grades of every ten consecutive phantoms, in an order drawn from the seed."""

LESIONS = {3: ((8.0, 10.0), 0.55), 4: ((10.5, 14.0), 0.8), 5: ((16.0, 23.0), 1.0)}
"""Grade -> range of the diameter in mm, contrast to the surrounding tissue (0 to 1)."""


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
    t2 = t2_image(anatomy.texture, scene, fine.GetSpacing(), rng)
    dwi, adc = diffusion_images(
        anatomy.texture, _paint(anatomy, coarse, place), coarse.GetSpacing(), rng
    )
    masks = {"gland": scene.gland} | ({"lesion": scene.lesion} if anatomy.lesions else {})
    return Phantom(
        patient_id=f"phantom-{index:04d}",
        images={"t2": on_grid(t2, fine), "dwi": on_grid(dwi, coarse), "adc": on_grid(adc, coarse)},
        masks={roi: on_grid(mask.astype(np.uint8), fine) for roi, mask in masks.items()},
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
        if is_written(folder, n, seed):
            return manifest
        manifest.unlink()
    rows = []
    for index in tqdm(range(n), desc="phantoms", unit="patient", disable=not progress):
        rows.append(_write(phantom(index, seed), folder))
    write_json(record, made_as)
    write_table(pd.DataFrame(rows), manifest)
    return manifest


def is_written(folder: Path, n: int, seed: int) -> bool:
    """Whether a folder holds this very cohort, complete, as `write_phantoms` leaves it."""
    manifest, record = folder / "cohort.csv", folder / "phantoms.json"
    made_as = {"generator": GENERATOR, "n": n, "seed": seed}
    if not manifest.exists() or read_record(record) != made_as:
        return False
    table = read_csv(manifest, dtype=str, keep_default_na=False)
    named = table[["t2", "dwi", "adc", "gland", "lesion"]].to_numpy().ravel()
    return all((folder / name).is_file() for name in named if name)


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
        vary(TRANSITION, rng, 0.1),
    )
    peripheral = vary(PERIPHERAL, rng, 0.1)
    nodules = tuple(
        draw_nodule(transition, rng) for _ in range(rng.integers(2, 5) + int(growth * 5))
    )
    lesions = [_lesion(grade, radii, transition, peripheral, rng)] if grade > 2 else []
    if grade > 3 and rng.random() < 0.25:
        lesions.append(_lesion(3, radii, transition, peripheral, rng))
    texture = draw_texture(grade, rng)
    return Anatomy(
        radii, rng.normal(0, 1, (3, 4)), transition, peripheral, nodules, tuple(lesions), texture
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
        lesion_tissue(base, contrast),
    )


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


def _paint(anatomy: Anatomy, grid: sitk.Image, place: np.ndarray) -> Scene:
    """Evaluates the anatomy on a grid; `place` is the gland's centre in the patient, in mm."""
    points = voxel_centres(grid, place)
    level = _level(anatomy, points)
    signal = surroundings(anatomy.radii, points)
    signal = mix(signal, soft(level / 1.06, float(anatomy.radii[1])), CAPSULE)
    # The gland is a fifth of the image and holds most shapes: those are painted only there.
    near = np.flatnonzero(level < 1.3)
    signal[:, near], inner = _gland(anatomy, points[:, near], level[near], signal[:, near])
    memberships = {name: np.zeros_like(level) for name in inner}
    for name, values in inner.items():
        memberships[name][near] = values
    gland = level < 1
    within = np.zeros_like(gland)
    for shape in anatomy.lesions:
        within[near] |= level_of(shape, points[:, near]) < 1
    return Scene(points, signal, memberships, gland, gland & within, grid.GetSize()[::-1])


def _gland(
    anatomy: Anatomy, points: Points, level: Values, signal: Points
) -> tuple[Points, dict[str, Values]]:
    """The zones, nodules and lesions over `signal`, and the memberships that carry texture."""
    gland = soft(level, float(anatomy.radii[1]))
    signal = mix(signal, gland, anatomy.peripheral)
    rim = float(anatomy.transition.radii.min())
    inner = np.maximum(level_of(anatomy.transition, points), level / 0.94)
    signal = mix(signal, soft(inner / 1.05, rim), CAPSULE)
    transition = soft(inner, rim)
    signal = mix(signal, transition, anatomy.transition.tissue)
    for nodule in anatomy.nodules:
        depth, size = level_of(nodule, points), float(nodule.radii.min())
        signal = mix(signal, transition * soft(depth / 1.12, size), CAPSULE)
        signal = mix(signal, transition * soft(depth, size), nodule.tissue)
    lesion = np.zeros_like(level)
    for shape in anatomy.lesions:
        inside = gland * soft(level_of(shape, points), float(shape.radii.min()))
        signal = mix(signal, inside, shape.tissue)
        lesion = np.maximum(lesion, inside)
    return signal, {
        "peripheral": gland * (1 - transition) * (1 - lesion),
        "transition": transition * (1 - lesion),
        "lesion": lesion,
    }


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
