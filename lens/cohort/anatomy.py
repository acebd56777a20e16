"""Phantoms on real anatomy: the shapes are masks from disk, the tissue in them is simulated."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy.special import expit
from tqdm import tqdm

from lens.cohort import geometry
from lens.cohort.contents import image_hash
from lens.cohort.images import load_mask
from lens.cohort.manifest import CaseFiles, Cohort
from lens.cohort.painting import (
    CAPSULE,
    PERIPHERAL,
    TRANSITION,
    Ellipsoid,
    Points,
    Scene,
    Texture,
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
from lens.errors import CaseError, InputError
from lens.files import atomic, write_json, write_table

GENERATOR = 1
"""Raised whenever the same masks and seed would give other images."""

CONTRAST = {2: 0.35, 3: 0.55, 4: 0.8, 5: 1.0}
"""Grade -> contrast of a lesion to the tissue around it (0 to 1)."""

OF_ISUP = {0: 2, 1: 3, 2: 4, 3: 4, 4: 5, 5: 5}
"""ISUP grade group -> PIRADS-like grade, where there is no PIRADS."""

MARGIN_MM = (20.0, 20.0, 9.0)
"""Tissue around the gland on the T2 grid, along its axes."""

COARSE_MM = (2.0, 2.0, 3.0)
"""Voxel size of the diffusion images."""

FAR_MM = 99.0
"""Distance where none was computed."""


class Shapes(NamedTuple):
    """Masks as uint8 0/1 on one grid, with the T2 grid's axes; an absent one is None."""

    gland: sitk.Image
    transition: sitk.Image | None
    lesion: sitk.Image | None


class Tissues(NamedTuple):
    """What fills the shapes, as drawn for one patient.

    Attributes:
        peripheral, transition: tissue of the two zones.
        nodules: in the transition zone.
        contrast: of the lesion to the tissue around it (0 to 1).
        texture: by tissue.
    """

    peripheral: Tissue
    transition: Tissue
    nodules: tuple[Ellipsoid, ...]
    contrast: float
    texture: Texture


def write_phantoms_on(
    cohort: Cohort, folder: Path, seed: int, *, spacing_mm: float | int = 0.5, progress: bool = True
) -> tuple[Path, tuple[CaseError, ...]]:
    """Writes T2, DWI and ADC for the masks of every case, and the manifest ``cohort.csv``.

    Labels, splits and ids are kept. A case that an earlier run finished from the same masks is left
    as it is.

    Args:
        cohort: from ``read_manifest(path, images=False)``.
        folder: created where needed.
        seed: of the tissue; each case draws from it and its own id, whatever the order of rows.
        spacing_mm: finest voxel edge of the T2 grid; masks that are finer are sampled to it.
        progress: show a progress bar.

    Returns:
        The path of the manifest, and the cases that could not be used.

    Raises:
        InputError: `spacing_mm` is not positive, the folder holds a foreign manifest, or no case
            is left.
    """
    if spacing_mm <= 0:
        raise InputError(f"spacing {spacing_mm} mm: it must be positive")
    manifest, record = folder / "cohort.csv", folder / "phantoms.json"
    if manifest.exists() and not record.exists():
        raise InputError(f"{manifest}: a manifest that was not written here. Choose another folder")
    write_json(record, {"generator": GENERATOR, "anatomy": cohort.path.name, "seed": seed})
    # The manifest only ever describes files that exist.
    manifest.unlink(missing_ok=True)
    rows, errors = [], list(cohort.set_aside)
    for files in tqdm(cohort.cases, desc="phantoms", unit="case", disable=not progress):
        try:
            rows.append(_write(files, folder, seed, spacing_mm))
        except CaseError as error:
            errors.append(error)
    if not rows:
        raise InputError(f"{cohort.path}: no phantom could be made; the first: {errors[0]}")
    write_table(pd.DataFrame(rows), manifest)
    return manifest, tuple(errors)


def phantom_on(
    shapes: Shapes, grade: int, rng: np.random.Generator
) -> tuple[dict[str, sitk.Image], dict[str, sitk.Image]]:
    """Simulates the images of one patient.

    Args:
        shapes: from `read_shapes`.
        grade: 2 to 5, PIRADS-like; sets the contrast and texture of the lesion.
        rng: of the tissue, noise and the position of the diffusion grid.

    Returns:
        t2 on the grid of the shapes, dwi and adc at 2 x 2 x 3 mm, as int16; and the masks gland
        and, where it shows anything, lesion on the grid of t2, as uint8 0/1.
    """
    place, radii = _extent(shapes.gland)
    distances = {name: _distance(mask) for name, mask in _named(shapes).items()}
    tissues = _tissues(shapes, grade, place, radii, rng)
    fine, coarse = shapes.gland, _coarse_grid(shapes.gland, rng)
    scene = _paint(distances, tissues, fine, place, radii)
    t2 = t2_image(tissues.texture, scene, fine.GetSpacing(), rng)
    scene = _paint(distances, tissues, coarse, place, radii)
    dwi, adc = diffusion_images(tissues.texture, scene, coarse.GetSpacing(), rng)
    images = {"t2": on_grid(t2, fine), "dwi": on_grid(dwi, coarse), "adc": on_grid(adc, coarse)}
    masks = {"gland": shapes.gland}
    if shapes.lesion is not None:
        masks["lesion"] = shapes.lesion
    return images, masks


def read_shapes(files: CaseFiles, spacing_mm: float | int) -> Shapes:
    """Reads the masks of a case onto one grid about the gland.

    The grid has the axes and the voxels of the gland mask, in LPS order; edges below `spacing_mm`
    are coarsened to it. The other masks may lie on grids of their own over the same space.

    Raises:
        CaseError: unreadable, an empty gland, or masks that do not belong together.
    """
    patient, path = files.patient_id, files.masks["gland"]
    stored = sitk.DICOMOrient(load_mask(path, patient, nifti_form=files.nifti_form).image, "LPS")
    if not np.any(_voxels(stored)):
        raise CaseError(
            patient,
            path,
            stage="read",
            reason="the gland mask is empty",
            remedy="Segment the region, or leave out this patient.",
        )
    found = {"gland": stored}
    if files.zones is not None:
        found["transition"] = _onto("zones", files.zones, files, stored, labels=(2,))
    if "lesion" in files.masks:
        found["lesion"] = _onto("lesion", files.masks["lesion"], files, stored)
    shown = {name: mask for name, mask in found.items() if np.any(_voxels(mask))}
    grid = _fine_grid(list(shown.values()), spacing_mm)
    onto = {name: geometry.nearest(mask, grid) for name, mask in shown.items()}
    return Shapes(onto["gland"], onto.get("transition"), onto.get("lesion"))


def grade_of(labels: Mapping[str, str | float]) -> int | None:
    """The PIRADS-like grade (2 to 5) of a case: its ``pirads``, else by its ``isup``, else None."""
    pirads, isup = (str(labels.get(name, "")).removesuffix(".0") for name in ("pirads", "isup"))
    if pirads in ("1", "2", "3", "4", "5"):
        return max(2, int(pirads))
    return OF_ISUP.get(int(isup)) if isup.isdecimal() else None


def _write(
    files: CaseFiles, folder: Path, seed: int, spacing_mm: float | int
) -> dict[str, str | float | int]:
    """Writes one case, where that is not done yet, and gives its row of the manifest."""
    name = files.patient_id + (f"_{files.study_id}" if files.study_id else "")
    # An id may hold what a file name may not.
    place = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    record = folder / place / "phantom.json"
    grade = grade_of(files.labels)
    sources = files.masks | ({"zones": files.zones} if files.zones else {})
    made_from = {
        "case": name,
        "generator": GENERATOR,
        "seed": seed,
        "spacing_mm": spacing_mm,
        "grade": grade,
        "masks": {mask: image_hash(path) for mask, path in sources.items()},
    }
    written = _written(record, made_from)
    if not written:
        shapes = read_shapes(files, spacing_mm)
        # A lesion without a grade is a plain one.
        grade = grade or (2 if shapes.lesion is None else 4)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        images, masks = phantom_on(shapes, grade, rng)
        written = list(images | masks)
        for image in written:
            with atomic(folder / place / f"{image}.mha") as temporary:
                sitk.WriteImage((images | masks)[image], str(temporary), image in masks)
        write_json(record, made_from | {"files": written})
    row: dict[str, str | float | int] = {"patient_id": files.patient_id}
    if files.study_id:
        row["study_id"] = files.study_id
    for image in ("t2", "dwi", "adc", "gland", "lesion"):
        row[image] = f"{place}/{image}.mha" if image in written else ""
    return row | files.labels | ({"split": files.split} if files.split else {})


def _written(record: Path, made_from: dict[str, object]) -> list[str]:
    """The files of a finished case that was made from the same; empty where it must be made."""
    if not record.is_file():
        return []
    content = json.loads(record.read_text(encoding="utf-8"))
    files = content.pop("files", [])
    there = all((record.parent / f"{name}.mha").is_file() for name in files)
    return files if content == made_from and there else []


def _onto(
    name: str,
    path: Path,
    files: CaseFiles,
    gland: sitk.Image,
    labels: Sequence[int] | None = None,
) -> sitk.Image:
    """A mask on the grid of the gland mask."""
    patient = files.patient_id
    read = load_mask(path, patient, labels=labels, nifti_form=files.nifti_form)
    mask = sitk.DICOMOrient(read.image, "LPS")
    order = geometry.order_of(mask, gland)
    if order is not None:
        return geometry.align(mask, gland, order)
    against = geometry.another_space(mask, gland)
    if against is not None:
        raise CaseError(
            patient,
            path,
            stage="geometry",
            reason=f"the {name} mask does not belong to the gland mask: {against}",
            remedy="Check that both belong to the same study.",
        )
    return geometry.nearest(mask, gland)


def _voxels(mask: sitk.Image) -> np.ndarray:
    return sitk.GetArrayViewFromImage(mask) > 0


def _named(shapes: Shapes) -> dict[str, sitk.Image]:
    return {name: mask for name, mask in shapes._asdict().items() if mask is not None}


def _fine_grid(masks: Sequence[sitk.Image], spacing_mm: float | int) -> sitk.Image:
    """The T2 grid: the voxels about the masks, or coarser ones where they are finer than asked."""
    gland = masks[0]
    where = np.concatenate([np.argwhere(_voxels(mask))[:, ::-1] for mask in masks])
    spacing = np.array(gland.GetSpacing())
    margin = np.ceil(np.array(MARGIN_MM) / spacing)
    first, last = where.min(axis=0) - margin, where.max(axis=0) + margin
    # Rounded, so that 0.4999 in a header is no other grid than 0.5.
    edge = np.where(spacing < spacing_mm * (1 - 1e-3), spacing_mm, spacing)
    size = np.rint((last - first + 1) * spacing / edge).astype(int)
    grid = sitk.Image(size.tolist(), sitk.sitkUInt8)
    direction = np.array(gland.GetDirection()).reshape(3, 3)
    corner = np.array(gland.GetOrigin()) + direction @ (first * spacing + (edge - spacing) / 2)
    grid.SetOrigin(corner.tolist())
    grid.SetSpacing(edge.tolist())
    grid.SetDirection(gland.GetDirection())
    return grid


def _coarse_grid(fine: sitk.Image, rng: np.random.Generator) -> sitk.Image:
    """The diffusion grid: the same field of view less a margin, and never quite in line with T2."""
    size = np.array(fine.GetSize()) * fine.GetSpacing()
    count = np.ceil((size - 10) / COARSE_MM).astype(int)
    grid = sitk.Image(count.tolist(), sitk.sitkUInt8)
    direction = np.array(fine.GetDirection()).reshape(3, 3)
    start = (size - count * COARSE_MM) / 2 + (np.array(COARSE_MM) - fine.GetSpacing()) / 2
    offset = direction @ (start + rng.uniform(-2, 2, 3))
    grid.SetOrigin((np.array(fine.GetOrigin()) + offset).tolist())
    grid.SetSpacing(COARSE_MM)
    grid.SetDirection(fine.GetDirection())
    return grid


def _extent(gland: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Centre in the patient and half extents (left, posterior, head) of the gland, in mm."""
    where = np.argwhere(_voxels(gland))[:, ::-1]
    to_mm = np.array(gland.GetDirection()).reshape(3, 3) * np.array(gland.GetSpacing())
    places = where @ to_mm.T + gland.GetOrigin()
    low, high = places.min(axis=0), places.max(axis=0)
    return (low + high) / 2, (high - low) / 2


def _distance(mask: sitk.Image) -> sitk.Image:
    """Signed distance in mm to the surface of a mask, negative inside."""
    to_centres = sitk.SignedMaurerDistanceMap(
        mask, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    # The surface lies half a voxel beyond the centres of the outermost voxels.
    return sitk.Cast(to_centres - 0.5 * min(mask.GetSpacing()), sitk.sitkFloat32)


def _tissues(
    shapes: Shapes, grade: int, place: np.ndarray, radii: np.ndarray, rng: np.random.Generator
) -> Tissues:
    transition = vary(TRANSITION, rng, 0.1)
    if shapes.transition is not None:
        centre, half = _extent(shapes.transition)
        zone = Ellipsoid(centre - place, np.maximum(half, 3.0), transition)
    else:
        zone = _central_zone(radii, transition)
    nodules = tuple(draw_nodule(zone, rng) for _ in range(rng.integers(3, 9)))
    contrast = CONTRAST[grade] * rng.uniform(0.93, 1.07)
    return Tissues(
        vary(PERIPHERAL, rng, 0.1), transition, nodules, contrast, draw_texture(grade, rng)
    )


def _central_zone(radii: np.ndarray, tissue: Tissue) -> Ellipsoid:
    """A transition zone for a gland without zones."""
    return Ellipsoid(radii * np.array([0.0, -0.2, 0.1]), radii * np.array([0.65, 0.6, 0.7]), tissue)


def _paint(
    distances: Mapping[str, sitk.Image],
    tissues: Tissues,
    grid: sitk.Image,
    place: np.ndarray,
    radii: np.ndarray,
) -> Scene:
    """Evaluates the anatomy on a grid."""
    points = voxel_centres(grid, place)
    to = {name: _at(distance, grid) for name, distance in distances.items()}
    gland = _inside(to["gland"])
    signal = mix(surroundings(radii, points), _inside(to["gland"] - 1.2), CAPSULE)
    signal = mix(signal, gland, tissues.peripheral)
    if "transition" in to:
        transition, rim = gland * _inside(to["transition"]), _inside(to["transition"] - 0.8)
    else:
        zone = _central_zone(radii, tissues.transition)
        depth, size = level_of(zone, points), float(zone.radii.min())
        transition, rim = gland * soft(depth, size), soft(depth / 1.05, size)
    signal = mix(signal, gland * rim, CAPSULE)
    signal = mix(signal, transition, tissues.transition)
    for nodule in tissues.nodules:
        depth, size = level_of(nodule, points), float(nodule.radii.min())
        signal = mix(signal, transition * soft(depth / 1.12, size), CAPSULE)
        signal = mix(signal, transition * soft(depth, size), nodule.tissue)
    lesion = _inside(to["lesion"]) if "lesion" in to else np.zeros_like(gland)
    signal = _mix_lesion(signal, lesion, transition, tissues)
    memberships = {
        "peripheral": gland * (1 - transition) * (1 - lesion),
        "transition": transition * (1 - lesion),
        "lesion": lesion,
    }
    shape = grid.GetSize()[::-1]
    return Scene(points, signal, memberships, gland > 0.5, lesion > 0.5, shape)


def _mix_lesion(signal: Points, lesion: Values, transition: Values, tissues: Tissues) -> Points:
    """A lesion takes its contrast from the zone that holds most of it."""
    total = float(lesion.sum())
    if total == 0:
        return signal
    in_transition = float((lesion * transition).sum()) / total > 0.5
    base = tissues.transition if in_transition else tissues.peripheral
    return mix(signal, lesion, lesion_tissue(base, tissues.contrast))


def _at(distance: sitk.Image, grid: sitk.Image) -> Values:
    sampled = sitk.Resample(
        distance, grid, sitk.Transform(), sitk.sitkLinear, FAR_MM, sitk.sitkFloat32
    )
    return sitk.GetArrayFromImage(sampled).ravel()


def _inside(distance_mm: Values) -> Values:
    """Membership of the inside of a surface, blurred over about a millimetre."""
    return expit(-distance_mm / np.float32(0.5))
