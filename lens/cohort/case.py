"""One patient on one grid: the images and masks that radiomics and encoders see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import SimpleITK as sitk

import lens.cohort.geometry as geometry
from lens.cohort.images import load_image
from lens.cohort.manifest import CaseFiles
from lens.cohort.placement import Placement, verdict
from lens.cohort.regions import Region, check_labels, check_lesion, read_region
from lens.cohort.units import adc_unit, in_standard_unit, look_swapped
from lens.errors import CaseError, InputError


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
        geometry: the same in numbers, a record per image and mask.
    """

    patient_id: str
    study_id: str | None
    images: dict[str, sitk.Image]
    masks: dict[str, sitk.Image]
    notes: tuple[str, ...]
    geometry: tuple[Placement, ...] = ()


def read_case(
    files: CaseFiles,
    *,
    spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0),
    labels: Mapping[str, Sequence[int]] | None = None,
) -> Case:
    """Reads the images and masks of a case and puts them on one grid.

    The first image (T2 where there is one) is the reference: its axes, put in LPS order, and its
    extent at `spacing_mm` are the grid. Every image is interpolated once, straight onto it.
    Interpolation is trilinear. A B-spline is a little sharper, but it overshoots at edges:
    negative ADC, and a background of exact zeros that stops being zero, whereas encoders
    standardise over the non-zero voxels. Masks take the nearest neighbour.

    A mask lies on the grid of the reference. Axes stored flipped or permuted are put in order and
    rounding of the headers (a displacement under a quarter voxel) is snapped. A mask on a grid of
    its own is resampled onto that of the reference, provided that it can be of this study (the grid
    of another image of the case, or a crop, a margin or another spacing of the same slab) and that
    the reference shows all of it; any other mask is refused. All of it is noted.

    An ADC map in mm2/s or 1e-3 mm2/s, judged by its median in the gland, is put into 1e-6 mm2/s.

    Args:
        files: from the manifest.
        spacing_mm: (x, y, z) of the grid.
        labels: region -> the mask values that make it; every value above zero by default.

    Returns:
        The case. An empty lesion mask means that there is no lesion, and is left out with a note.

    Raises:
        CaseError: a file is unreadable or unusable, a mask cannot be put on the grid, an image
            does not cover a region, a region is empty, tiny or of one value in an image, the
            lesion lies outside the gland, or adc and dwi look swapped.
        InputError: `spacing_mm` is not positive, `labels` names no region, or the case names no
            image.
    """
    _check(files, spacing_mm, labels or {})
    loaded = {
        name: load_image(path, files.patient_id, nifti_form=files.nifti_form)
        for name, path in files.images.items()
    }
    images = {name: read.image for name, read in loaded.items()}
    first = next(iter(images))
    reference = sitk.DICOMOrient(images[first], "LPS")
    notes = [f"{name}: {note}" for name, read in loaded.items() for note in read.notes]
    notes += _orientation_notes(first, images[first], reference)
    placements = [_placement(name, images, files) for name in images]
    images[first] = reference
    grid = geometry.target_grid(reference, spacing_mm)
    regions = _read_regions(files, images, grid, labels or {})
    masks = {roi: region.mask for roi, region in regions.items() if region.mask is not None}
    notes += [note for region in regions.values() for note in region.notes]
    placements += [region.placement for region in regions.values()]
    if masks.keys() >= {"gland", "lesion"}:
        notes += check_lesion(masks, files.masks["lesion"], files.patient_id)
    sampled: dict[str, sitk.Image] = {}
    for name, image in images.items():
        _check_cover(image, name, masks, files)
        sampled[name] = geometry.sample(image, grid)
        _check_contrast(sampled[name], name, masks, files)
        notes += _sampling_notes(name, image, grid)
    notes += _standardise_adc(sampled, masks, files)
    return Case(files.patient_id, files.study_id, sampled, masks, tuple(notes), tuple(placements))


def _check(
    files: CaseFiles, spacing_mm: tuple[float, float, float], labels: Mapping[str, Sequence[int]]
) -> None:
    if min(spacing_mm) <= 0:
        raise InputError(f"spacing_mm {spacing_mm}: every spacing must be positive")
    if not files.images:
        raise InputError(f"patient {files.patient_id}: no image is named")
    check_labels(labels)
    _check_names(files)


def _read_regions(
    files: CaseFiles,
    images: Mapping[str, sitk.Image],
    grid: sitk.Image,
    labels: Mapping[str, Sequence[int]],
) -> dict[str, Region]:
    """The region of each mask on the grid of the case."""
    return {
        roi: read_region(
            roi,
            path,
            files.patient_id,
            images,
            grid,
            labels=labels.get(roi),
            nifti_form=files.nifti_form,
        )
        for roi, path in files.masks.items()
    }


def _check_names(files: CaseFiles) -> None:
    for one, other in combinations(files.images, 2):
        if files.images[one] == files.images[other]:
            raise CaseError(
                files.patient_id,
                files.images[one],
                stage="read",
                reason=f"{one} and {other} name the same file",
                remedy="Correct the manifest.",
            )


def _placement(name: str, images: Mapping[str, sitk.Image], files: CaseFiles) -> Placement:
    """How an image relates to the grid of the first one."""
    path = str(files.images[name])
    reference = sitk.DICOMOrient(next(iter(images.values())), "LPS")
    aligned = geometry.align(images[name], reference)
    if aligned is None:
        differs = geometry.mismatch(images[name], reference)
        return Placement(name, path, "resampled", reason=f"against {next(iter(images))}: {differs}")
    return Placement(
        name,
        path,
        verdict(aligned.displacement, aligned.reordered),
        aligned.displacement,
        aligned.displacement_mm,
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


def _standardise_adc(
    images: dict[str, sitk.Image], masks: dict[str, sitk.Image], files: CaseFiles
) -> list[str]:
    """Puts the ADC map into 1e-6 mm2/s, in place; gives notes."""
    if "adc" not in images or "gland" not in masks:
        return []
    found = adc_unit(images["adc"], masks["gland"])
    if "dwi" in images:
        other = adc_unit(images["dwi"], masks["gland"])
        if look_swapped(found, other):
            raise CaseError(
                files.patient_id,
                files.images["adc"],
                stage="read",
                reason=f"adc and dwi look swapped: in the gland adc has a median of "
                f"{found.median:.4g}, which fits no unit of ADC, and dwi has {other.median:.4g}, "
                f"which fits {other.unit}",
                remedy="Exchange the two in the manifest, or convert the ADC map to 1e-6 mm2/s.",
            )
    images["adc"], notes = in_standard_unit(images["adc"], found)
    return notes


def _orientation_notes(name: str, stored: sitk.Image, oriented: sitk.Image) -> Iterator[str]:
    if not np.allclose(stored.GetDirection(), oriented.GetDirection()):
        code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(stored.GetDirection())
        yield f"{name}: axes stored as {code}, put in LPS order (exact)"


def _sampling_notes(name: str, image: sitk.Image, grid: sitk.Image) -> Iterator[str]:
    aligned = geometry.align(image, grid)
    if aligned is None or aligned.displacement > geometry.MENTION:
        yield (
            f"{name}: {geometry.voxels(image)} voxels of {geometry.spacing(image)} interpolated "
            f"to {geometry.voxels(grid)} of {geometry.spacing(grid)}"
        )
        if min(np.divide(image.GetSpacing(), grid.GetSpacing())) < 0.75:
            yield f"{name}: finer than the grid and not smoothed before sampling, so detail is lost"
