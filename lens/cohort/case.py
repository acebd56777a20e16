"""One patient on one grid: the images and masks that radiomics and encoders see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import SimpleITK as sitk

import lens.cohort.geometry as geometry
from lens.cohort.flat import lay_on
from lens.cohort.images import load_image
from lens.cohort.intensities import (
    AIR_HU,
    Kind,
    is_standardised,
    kind_of,
    notes_on,
    surroundings,
)
from lens.cohort.manifest import CaseFiles
from lens.cohort.placement import Placement, verdict
from lens.cohort.prostate import check_regions_fit, standardise_maps
from lens.cohort.reading import Loaded
from lens.cohort.regions import Region, check_labels, read_region
from lens.errors import CaseError, InputError


@dataclass(frozen=True)
class Case:
    """One study of a patient, ready for radiomics and encoders.

    Attributes:
        patient_id: as in the manifest.
        study_id: as in the manifest, or None.
        images: modality -> float32, all on one grid, x, y and z nearest to the patient's left,
            posterior and head (LPS); a single slice keeps the axes of its file, and z is 1.
        masks: region -> uint8 0/1 on exactly that grid; without those that the case lacks.
        notes: what was done to geometry and labels, a sentence each.
        geometry: the same in numbers, a record per image and mask.
        kinds: modality -> what its numbers mean, where its name does not say.
    """

    patient_id: str
    study_id: str | None
    images: dict[str, sitk.Image]
    masks: dict[str, sitk.Image]
    notes: tuple[str, ...]
    geometry: tuple[Placement, ...] = ()
    kinds: Mapping[str, Kind] = field(default_factory=dict)


def read_case(
    files: CaseFiles,
    *,
    spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0),
    labels: Mapping[str, Sequence[int]] | None = None,
    about: Sequence[str] | None = None,
    margin: Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
) -> Case:
    """Reads the images and masks of a case and puts them on one grid.

    The first image is the reference: its axes, put in LPS order, and its
    extent at `spacing_mm` are the grid. Every image is interpolated once, straight onto it.
    Interpolation is trilinear. A B-spline is a little sharper, but it overshoots at edges:
    negative values of a map, and a background of exact zeros that stops being zero, whereas
    encoders standardise over the non-zero voxels. On a CT the padding takes no part in an average.
    Masks take the nearest neighbour. A single slice is resampled in its plane.

    A mask lies on the grid of the reference. Axes stored flipped or permuted are put in order and
    rounding of the headers (a displacement under a quarter voxel) is snapped. A mask on a grid of
    its own is resampled onto that of the reference, provided that it can be of this study (the grid
    of another image of the case, or a crop, a margin or another spacing of the same slab) and that
    the reference shows all of it; any other mask is refused. All of it is noted.

    What is special to the prostate is in `lens.cohort.prostate`.

    Args:
        files: from the manifest.
        spacing_mm: (x, y, z) of the grid.
        labels: region -> the mask values that make it; every value above zero by default.
        about: cut the grid to the surroundings of these regions, as pictures need no more (of all
            where the case has none of them), without a look at whether the images cover them. None
            keeps the extent of the reference.
        margin: voxels (x, y, z) of the grid that are kept on every side of the regions, where that
            is all that is looked at: sampling takes the longest. All that is refused or noted is,
            and the values inside are those of the whole. None keeps the extent of the reference.
        crop: shape (D, H, W) of `lens.cohort.stack`, where that and `stack_mask` are all that looks
            at the case: as much is cut on opposite sides as neither the crop nor the surroundings
            of the regions need, so that both give what they give of the whole.

    Returns:
        The case. An empty mask means that there is no such region, and is left out with a note.

    Raises:
        CaseError: a file is unreadable or unusable, a mask cannot be put on the grid, an image
            does not cover a region, a region is tiny or of one value in an image, or values cannot
            be of the kind of their modality.
        InputError: `spacing_mm` is not positive, `labels` names no region, or the case names no
            image.
    """
    _check(files, spacing_mm, labels or {})
    loaded = {
        name: load_image(
            path,
            files.patient_id,
            nifti_form=files.nifti_form,
            flat=files.flat,
            pixel_mm=files.pixel_mm,
        )
        for name, path in files.images.items()
    }
    laid = _laid(loaded, files)
    images = {name: read.image for name, read in laid.items()}
    first = next(iter(images))
    reference = geometry.in_order(images[first])
    notes = [f"{name}: {note}" for name, read in laid.items() for note in read.notes]
    notes += _orientation_notes(first, images[first], reference)
    placements = [_placement(name, images, reference, files) for name in images]
    images[first] = reference
    grid = geometry.target_grid(reference, spacing_mm)
    regions = _read_regions(files, images, grid, labels or {}, placed=laid[first].placed)
    masks = {roi: region.mask for roi, region in regions.items() if region.mask is not None}
    notes += [note for region in regions.values() for note in region.notes]
    placements += [region.placement for region in regions.values()]
    notes += check_regions_fit(masks, files.masks, files.patient_id)
    if about is not None:
        grid, masks = _cut(grid, masks, about)
    kinds: dict[str, Kind] = {name: kind_of(name, files.kinds) for name in images}
    box = geometry.whole(grid)
    if margin is not None:
        box = _near(grid, masks, margin)
    elif crop is not None:
        box = _seen(grid, masks, kinds, crop)
    kept = {roi: geometry.cut(mask, box) for roi, mask in masks.items()}
    sampled: dict[str, sitk.Image] = {}
    for name, image in images.items():
        if about is None:
            _check_cover(image, name, masks, files)
        notes += _kind_notes(image, name, kinds[name], files)
        air = AIR_HU if kinds[name] == "ct" else None
        sampled[name] = geometry.sample(image, grid, padding=air, box=box)
        _check_contrast(sampled[name], name, kept, files)
        notes += _sampling_notes(name, image, grid)
    notes += standardise_maps(sampled, kept, files.images, files.patient_id)
    return Case(
        files.patient_id,
        files.study_id,
        sampled,
        kept,
        tuple(notes),
        tuple(placements),
        files.kinds,
    )


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
    *,
    placed: bool,
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
            flat=files.flat,
            pixel_mm=files.pixel_mm,
            placed=placed,
        )
        for roi, path in files.masks.items()
    }


def _near(grid: sitk.Image, masks: Mapping[str, sitk.Image], margin: Sequence[int]) -> geometry.Box:
    """The box of all regions with a margin in voxels (x, y, z)."""
    inside = map(sitk.GetArrayViewFromImage, masks.values())
    return geometry.box_with_margin(grid.GetSize()[::-1], inside, margin[::-1])


def _seen(
    grid: sitk.Image,
    masks: Mapping[str, sitk.Image],
    kinds: Mapping[str, Kind],
    crop: Sequence[int],
) -> geometry.Box:
    """The box about the centre that holds the crop and the surroundings of the regions."""
    shape = grid.GetSize()[::-1]
    if not masks and any(is_standardised(name, kind) for name, kind in kinds.items()):
        return geometry.whole(grid)
    near = surroundings(grid, masks.values()) if masks else tuple(slice(n, 0) for n in shape)
    spare = [
        min((n - min(n, wanted)) // 2, part.start, n - part.stop)
        for n, wanted, part in zip(shape, crop, near, strict=True)
    ]
    return tuple(slice(cut, n - cut) for cut, n in zip(spare, shape, strict=True))


def _cut(
    grid: sitk.Image, masks: Mapping[str, sitk.Image], about: Sequence[str]
) -> tuple[sitk.Image, dict[str, sitk.Image]]:
    """Grid and masks in the surroundings of some regions; masks without a voxel left out."""
    near = [masks[roi] for roi in about if roi in masks] or [*masks.values()]
    box = surroundings(grid, near)[::-1]
    start, size = [each.start for each in box], [each.stop - each.start for each in box]
    cut = {roi: sitk.RegionOfInterest(mask, size, start) for roi, mask in masks.items()}
    left = {roi: mask for roi, mask in cut.items() if sitk.GetArrayViewFromImage(mask).any()}
    return sitk.RegionOfInterest(grid, size, start), left


def _laid(loaded: Mapping[str, Loaded], files: CaseFiles) -> dict[str, Loaded]:
    """The images as read; where one or the first has no place in space, pixel on pixel."""
    first, reference = next(iter(loaded.items()))
    out = dict(loaded)
    for name, read in loaded.items():
        if name == first or (read.placed and reference.placed):
            continue
        image, notes = lay_on(
            read.image,
            reference.image,
            name=name,
            onto=first,
            path=files.images[name],
            patient_id=files.patient_id,
        )
        out[name] = read._replace(image=image, notes=(*read.notes, *notes))
    return out


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


def _placement(
    name: str, images: Mapping[str, sitk.Image], reference: sitk.Image, files: CaseFiles
) -> Placement:
    """How an image relates to the grid of the first one, the reference."""
    path = str(files.images[name])
    order = geometry.order_of(images[name], reference)
    if order is None:
        differs = geometry.mismatch(images[name], reference)
        return Placement(name, path, "resampled", reason=f"against {next(iter(images))}: {differs}")
    return Placement(
        name,
        path,
        verdict(order.displacement, order.reordered),
        order.displacement,
        order.displacement_mm,
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


def _kind_notes(image: sitk.Image, name: str, kind: Kind, files: CaseFiles) -> list[str]:
    try:
        return notes_on(image, name, kind)
    except ValueError as error:
        raise CaseError(
            files.patient_id,
            files.images[name],
            stage="read",
            reason=str(error),
            remedy=f"Save it as 8-bit gray values by a window of your choice, or say what its "
            f"numbers are: --kind {name}=mr for arbitrary units.",
        ) from error


def _orientation_notes(name: str, stored: sitk.Image, oriented: sitk.Image) -> Iterator[str]:
    if not np.allclose(stored.GetDirection(), oriented.GetDirection()):
        code = geometry.stored_order(stored)
        yield f"{name}: axes stored as {code}, put in LPS order (exact)"


def _sampling_notes(name: str, image: sitk.Image, grid: sitk.Image) -> Iterator[str]:
    order = geometry.order_of(image, grid)
    if order is None or order.displacement > geometry.MENTION:
        yield (
            f"{name}: {geometry.voxels(image)} voxels of {geometry.spacing(image)} interpolated "
            f"to {geometry.voxels(grid)} of {geometry.spacing(grid)}"
        )
        if min(np.divide(image.GetSpacing(), grid.GetSpacing())) < 0.75:
            yield f"{name}: finer than the grid and not smoothed before sampling, so detail is lost"
