"""Regions of interest: a mask file as a region on the grid of the reference image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

import lens.cohort.geometry as geometry
from lens.cohort.flat import lay_on
from lens.cohort.images import Mask, listed, load_mask
from lens.cohort.placement import Placement, verdict
from lens.cohort.prostate import REQUIRED
from lens.errors import CaseError, InputError
from lens.settings import NiftiForm

MIN_EDGE = 2
"""Fewest voxels of a region along each axis of the final grid, whose block is the fewest in all:
less than 2 x 2 x 2, or 2 x 2 in a single slice, has no texture."""

MIN_DICE = 0.7
"""Least overlap of a region with itself before and after sampling it on the case's grid. Two
readers of a lesion agree about so far; less is another region."""

MENTION_FILLED = 0.5
"""Share of the image's voxels above which a region that reaches all borders is mentioned: it is
rather what lies around a region."""


class Region(NamedTuple):
    """A region: uint8 0/1 on the final grid (None for an empty mask), how it came there, and
    what to tell the user."""

    mask: sitk.Image | None
    placement: Placement
    notes: list[str]


class Place(NamedTuple):
    """A mask on the grid of the reference."""

    image: sitk.Image
    placement: Placement
    notes: list[str]


def read_region(
    roi: str,
    path: Path,
    patient_id: str,
    images: Mapping[str, sitk.Image],
    grid: sitk.Image,
    *,
    labels: Sequence[int] | None = None,
    nifti_form: NiftiForm | None = None,
    flat: bool = False,
    pixel_mm: float | None = None,
    placed: bool = True,
) -> Region:
    """Reads a mask and puts it on the grid of the case.

    Args:
        roi: its name.
        path: the mask.
        patient_id: for messages.
        images: of the case in their own geometry; the first is the reference.
        grid: the final grid, with the axes of the reference.
        labels: the values that make the region; every value above zero by default.
        nifti_form, flat, pixel_mm: as in `read_image`.
        placed: the reference has a place in space, as pictures do not. Without one, or where the
            mask has none, the mask is laid on the reference pixel by pixel.

    Returns:
        The region.

    Raises:
        CaseError: unreadable, on a grid that cannot be matched, empty where the region is one that
            every case needs, tiny, or changed too much by the sampling.
    """
    mask = load_mask(
        path,
        patient_id,
        labels=labels,
        nifti_form=nifti_form,
        flat=flat,
        pixel_mm=pixel_mm,
        drawn_on=images,
    )
    if not (placed and mask.placed):
        name, reference = next(iter(images.items()))
        laid, laying = lay_on(
            mask.image,
            reference,
            name=f"the {roi} mask",
            onto=name,
            path=path,
            patient_id=patient_id,
        )
        mask = mask._replace(image=laid, notes=(*mask.notes, *laying))
    place = _place(roi, path, patient_id, mask.image, images)
    taken = tuple(v for v in mask.labels if (v > 0 if labels is None else v in labels))
    placement = replace(place.placement, labels=tuple(mask.labels.items()), taken=taken)
    if not taken:
        nothing = _nothing(mask, labels)
        if roi not in REQUIRED:
            return Region(None, placement, [f"{roi}: the mask {nothing}, taken as no {roi}"])
        raise CaseError(
            patient_id,
            path,
            stage="read",
            reason=f"the {roi} mask {nothing}",
            remedy="Segment the region, or leave out this patient.",
        )
    final = geometry.sample_mask(place.image, grid)
    _check_size(final, roi, path, patient_id)
    stored = geometry.in_order(mask.image)
    placement = _compared(final, stored, placement, patient_id)
    notes = [*place.notes, *_label_notes(roi, mask, labels)]
    if placement.verdict == "resampled":
        notes += _resampling_notes(stored, placement)
    if inverted := _looks_inverted(final):
        notes.append(f"{roi}: {inverted}")
        placement = replace(placement, reason="; ".join(filter(None, [placement.reason, inverted])))
    return Region(final, placement, notes)


def parse_labels(arguments: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``("gland=1,2", "lesion=3")`` as ``{"gland": (1, 2), "lesion": (3,)}``.

    Raises:
        InputError: an argument of another form, no region's name, or a region named twice.
    """
    labels: dict[str, tuple[int, ...]] = {}
    for argument in arguments:
        match = re.fullmatch(r"(\w+)=(\d+(?:,\d+)*)", argument)
        if match is None:
            raise InputError(f"label {argument!r}: write region=value, such as gland=1,2")
        if match[1] in labels:
            raise InputError(f"labels of {match[1]} are given twice. Write {match[1]}=1,2")
        labels[match[1]] = tuple(int(value) for value in match[2].split(","))
    check_labels(labels)
    return labels


def check_labels(labels: Mapping[str, Sequence[int]]) -> None:
    """Refuses values that make no region.

    Raises:
        InputError: as said.
    """
    for roi, values in labels.items():
        if not values or min(values) < 1:
            raise InputError(f"labels of {roi}, {tuple(values)}: name one or more values above 0")


def _place(
    roi: str, path: Path, patient_id: str, mask: sitk.Image, images: Mapping[str, sitk.Image]
) -> Place:
    """The mask on the grid of the reference, or refused with what speaks against it."""
    name, reference = next(iter(images.items()))
    order = geometry.order_of(mask, reference)
    if order is not None:
        placement = Placement(
            roi,
            str(path),
            verdict(order.displacement, order.reordered),
            order.displacement,
            order.displacement_mm,
        )
        notes = []
        if order.reordered:
            notes.append(f"{roi}: stored with flipped or permuted axes, put in order (exact)")
        if order.displacement > geometry.MENTION:
            notes.append(
                f"{roi}: geometry snapped to {name}, which it left by up to "
                f"{order.displacement_mm:.3g} mm ({order.displacement:.2g} voxel)"
            )
        return Place(geometry.align(mask, reference, order), placement, notes)
    differs = geometry.mismatch(mask, reference)
    against = geometry.another_space(mask, reference)
    # On the very grid of another image of the case, a mask is of this study however it is turned.
    if against is not None and not any(geometry.order_of(mask, i) for i in images.values()):
        against = f"it may not be resampled, since {against}"
    elif missed := geometry.outside(reference, mask):
        total = np.count_nonzero(sitk.GetArrayViewFromImage(mask))
        against = f"{missed} of its {total} voxels lie outside the field of view of {name}"
    else:
        # Ties go to the upper neighbour, which must be the same one however axes are stored.
        stored = geometry.in_order(mask)
        placement = Placement(roi, str(path), "resampled", reason=f"against {name}: {differs}")
        return Place(geometry.nearest(stored, reference), placement, [])
    raise CaseError(
        patient_id,
        path,
        stage="geometry",
        reason=f"the {roi} mask is not on the grid of {name}: {differs}; {against}",
        remedy="Check that both belong to the same study, and draw or resample the mask on "
        f"the grid of {name}.",
    )


def _compared(
    final: sitk.Image, stored: sitk.Image, placement: Placement, patient_id: str
) -> Placement:
    """With Dice and change of volume of the region in use against the region as stored."""
    dice = geometry.dice(stored, geometry.nearest(final, stored))
    change = geometry.volume_mm3(final) / geometry.volume_mm3(stored) - 1
    if dice < MIN_DICE:
        raise CaseError(
            patient_id,
            placement.file,
            stage="geometry",
            reason=f"the {placement.name} is not the same region after sampling: Dice {dice:.2f} "
            f"and volume {change:+.0%} at {geometry.spacing(final)}",
            remedy="Choose a spacing nearer to that of the mask, or leave out this region.",
        )
    return replace(placement, dice=dice, volume_change=change)


def _resampling_notes(stored: sitk.Image, placement: Placement) -> list[str]:
    roi = placement.name
    notes = [
        f"{roi}: {geometry.voxels(stored)} voxels of {geometry.spacing(stored)} of its own, "
        f"resampled (nearest neighbour; Dice {placement.dice:.3f}, volume "
        f"{placement.volume_change:+.1%})"
    ]
    if _touches_edge(stored):
        notes.append(f"{roi}: reaches the edge of its own field of view, where it may be cut off")
    return notes


def _label_notes(roi: str, mask: Mask, labels: Sequence[int] | None) -> list[str]:
    notes = [f"{roi}: {note}" for note in mask.notes]
    if mask.scaled:
        notes.append(f"{roi}: mask values of 1/255, a scale factor in the header; taken as 1")
    if labels is not None:
        asked = ", ".join(map(str, labels))
        notes.append(f"{roi}: mask values {listed(mask.labels)}; {asked} taken as {roi}")
    elif set(mask.labels) != {1}:
        notes.append(
            f"{roi}: mask values {listed(mask.labels)}; every value above 0 is taken as {roi}"
        )
    return notes


def _nothing(mask: Mask, labels: Sequence[int] | None) -> str:
    if labels is None or not mask.labels:
        return "is empty"
    asked = ", ".join(map(str, labels))
    return f"has no voxel of label {asked} (it holds {listed(mask.labels)})"


def _check_size(mask: sitk.Image, roi: str, path: Path, patient_id: str) -> None:
    inside = sitk.GetArrayViewFromImage(mask)
    extent, count = np.zeros(3, int), int(np.count_nonzero(inside))
    if count:
        extent = np.array([part.stop - part.start for part in geometry.box_of(inside)[::-1]])
    axes = 2 if mask.GetSize()[2] == 1 else 3
    if count < MIN_EDGE**axes or extent[:axes].min() < MIN_EDGE:
        raise CaseError(
            patient_id,
            path,
            stage="read",
            reason=f"the {roi} mask is too small: {count} voxel(s), "
            f"{' x '.join(map(str, extent))} (x, y, z), at {geometry.spacing(mask)}",
            remedy=f"Texture in {axes}D needs at least {MIN_EDGE**axes} voxels and two along each "
            "axis: correct the mask, choose a finer spacing, or leave the region out (--rois names "
            "the others).",
        )


def _looks_inverted(mask: sitk.Image) -> str:
    """Says so of a region that fills most of the image and reaches all six of its borders."""
    inside = sitk.GetArrayViewFromImage(mask)
    share = np.count_nonzero(inside) / inside.size
    borders = [inside.take(end, axis).any() for axis in range(3) for end in (0, -1)]
    if share <= MENTION_FILLED or not all(borders):
        return ""
    return (
        f"covers {share:.0%} of the image and reaches all its borders, as a mask with inside and "
        "outside exchanged does; check it"
    )


def _touches_edge(mask: sitk.Image) -> bool:
    box = geometry.box_of(sitk.GetArrayViewFromImage(mask))
    return any(
        n > 1 and (part.start == 0 or part.stop == n)
        for part, n in zip(box[::-1], mask.GetSize(), strict=True)
    )
