"""One patient on one grid: the images and masks that radiomics and encoders see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lens.cohort import geometry
from lens.cohort.images import read_image, read_mask
from lens.cohort.manifest import CaseFiles
from lens.errors import CaseError, InputError

MIN_ROI_VOXELS = 8
"""Fewest voxels of a region on the final grid, beside at least two along each of the three axes:
less than a block of 2 x 2 x 2 has no texture in three dimensions."""

MENTION = 1e-3
"""Displacement in voxels from which a snapped geometry is mentioned in the notes."""


@dataclass(frozen=True)
class Case:
    """One study of a patient, ready for radiomics and encoders.

    Attributes:
        patient_id: as in the manifest.
        study_id: as in the manifest, or None.
        images: modality -> float32, all on one grid, x, y and z nearest to the patient's left,
            posterior and head (LPS).
        masks: ``gland`` and, where there is one, ``lesion`` -> uint8 0/1 on exactly that grid.
        notes: what was done to geometry and labels, a sentence each.
    """

    patient_id: str
    study_id: str | None
    images: dict[str, sitk.Image]
    masks: dict[str, sitk.Image]
    notes: tuple[str, ...]


def read_case(
    files: CaseFiles, *, spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0)
) -> Case:
    """Reads the images and masks of a case and puts them on one grid.

    The first image (T2 where there is one) is the reference: its axes, put in LPS order, and its
    extent at `spacing_mm` are the grid. Every image is interpolated once, straight onto it.
    Interpolation is trilinear. A B-spline is a little sharper, but it overshoots at edges:
    negative ADC, and a background of exact zeros that stops being zero, whereas encoders
    standardise over the non-zero voxels. Masks take the nearest neighbour.

    A mask must lie on the grid of the reference. Axes stored flipped or permuted are put in order
    and rounding of the headers (a displacement under a quarter voxel) is snapped, both with a note;
    any other difference is refused, never resampled away.

    Args:
        files: from the manifest.
        spacing_mm: (x, y, z) of the grid.

    Returns:
        The case. An empty lesion mask means that there is no lesion, and is left out with a note.

    Raises:
        CaseError: a file is unreadable or unusable, a mask is on another grid, an image does not
            cover a region, or a region is empty, tiny or of one value in an image.
        InputError: `spacing_mm` is not positive, or the case names no image.
    """
    if min(spacing_mm) <= 0:
        raise InputError(f"spacing_mm {spacing_mm}: every spacing must be positive")
    if not files.images:
        raise InputError(f"patient {files.patient_id}: no image is named")
    images = {name: read_image(path, files.patient_id) for name, path in files.images.items()}
    first = next(iter(images))
    reference = sitk.DICOMOrient(images[first], "LPS")
    notes = list(_orientation_notes(first, images[first], reference))
    images[first] = reference
    grid = geometry.target_grid(reference, spacing_mm)
    masks: dict[str, sitk.Image] = {}
    for roi, path in files.masks.items():
        mask, said = _read_roi(roi, path, files.patient_id, reference, first)
        notes += said
        if mask is not None:
            masks[roi] = geometry.sample_mask(mask, grid)
            _check_size(masks[roi], roi, path, files.patient_id)
    sampled: dict[str, sitk.Image] = {}
    for name, image in images.items():
        _check_cover(image, name, masks, files)
        sampled[name] = geometry.sample(image, grid)
        _check_contrast(sampled[name], name, masks, files)
        notes += _sampling_notes(name, image, grid)
    return Case(files.patient_id, files.study_id, sampled, masks, tuple(notes))


def _read_roi(
    roi: str, path: Path, patient_id: str, reference: sitk.Image, reference_name: str
) -> tuple[sitk.Image | None, list[str]]:
    """The mask on the reference grid, or None for an empty lesion mask; and what was done to it."""
    mask, labels = read_mask(path, patient_id)
    aligned = geometry.align(mask, reference)
    if aligned is None:
        raise CaseError(
            patient_id,
            path,
            stage="geometry",
            reason=f"the {roi} mask is not on the grid of {reference_name}: "
            + geometry.mismatch(mask, reference),
            remedy="Check that both belong to the same study, and draw or resample the mask on "
            f"the grid of {reference_name}.",
        )
    if not any(value > 0 for value in labels):
        if roi == "lesion":
            return None, ["lesion: the mask is empty, taken as no lesion"]
        raise CaseError(
            patient_id,
            path,
            stage="read",
            reason=f"the {roi} mask is empty",
            remedy="Segment the region, or leave out this patient.",
        )
    notes = []
    if aligned.reordered:
        notes.append(f"{roi}: stored with flipped or permuted axes, put in order (exact)")
    if aligned.displacement > MENTION:
        notes.append(
            f"{roi}: geometry snapped to {reference_name}, which it left by up to "
            f"{aligned.displacement_mm:.3g} mm ({aligned.displacement:.2g} voxel)"
        )
    if set(labels) != {1}:
        listed = ", ".join(f"{value} ({count} voxels)" for value, count in labels.items())
        notes.append(f"{roi}: mask values {listed}; every value above 0 is taken as {roi}")
    return aligned.image, notes


def _check_size(mask: sitk.Image, roi: str, path: Path, patient_id: str) -> None:
    where = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0)[:, ::-1]
    extent = np.ptp(where, axis=0) + 1 if len(where) else np.zeros(3, int)
    if len(where) < MIN_ROI_VOXELS or extent.min() < 2:
        raise CaseError(
            patient_id,
            path,
            stage="read",
            reason=f"the {roi} mask is too small: {len(where)} voxel(s), "
            f"{' x '.join(map(str, extent))} (x, y, z), at {geometry.spacing(mask)}",
            remedy=f"Texture in 3D needs at least {MIN_ROI_VOXELS} voxels and two along each "
            "axis: correct the mask, or choose a finer spacing.",
        )


def _check_cover(
    image: sitk.Image, name: str, masks: dict[str, sitk.Image], files: CaseFiles
) -> None:
    for roi, mask in masks.items():
        missed = geometry.outside(image, mask)
        if missed:
            total = np.count_nonzero(sitk.GetArrayViewFromImage(mask))
            raise CaseError(
                files.patient_id,
                files.images[name],
                stage="geometry",
                reason=f"{name} does not cover the {roi}: {missed} of its {total} voxels "
                f"({100 * missed / total:.1f}%) lie outside the field of view",
                remedy="Check that the image belongs to this study, or restrict the mask to what "
                "all images show.",
            )


def _check_contrast(
    image: sitk.Image, name: str, masks: dict[str, sitk.Image], files: CaseFiles
) -> None:
    voxels = sitk.GetArrayViewFromImage(image)
    for roi, mask in masks.items():
        values = voxels[sitk.GetArrayViewFromImage(mask) > 0]
        if values.min() == values.max():
            raise CaseError(
                files.patient_id,
                files.images[name],
                stage="read",
                reason=f"constant image: every {name} voxel of the {roi} is {values[0]:g}",
                remedy="Export the image again, or leave out this patient.",
            )


def _orientation_notes(name: str, stored: sitk.Image, oriented: sitk.Image) -> Iterator[str]:
    if not np.allclose(stored.GetDirection(), oriented.GetDirection()):
        code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(stored.GetDirection())
        yield f"{name}: axes stored as {code}, put in LPS order (exact)"


def _sampling_notes(name: str, image: sitk.Image, grid: sitk.Image) -> Iterator[str]:
    aligned = geometry.align(image, grid)
    if aligned is None or aligned.displacement > MENTION:
        yield (
            f"{name}: {geometry.voxels(image)} voxels of {geometry.spacing(image)} interpolated "
            f"to {geometry.voxels(grid)} of {geometry.spacing(grid)}"
        )
        if min(np.divide(image.GetSpacing(), grid.GetSpacing())) < 0.75:
            yield f"{name}: finer than the grid and not smoothed before sampling, so detail is lost"
