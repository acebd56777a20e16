"""Image and mask files as volumes: read and checked, or refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from lens.cohort.dicom_frames import Segmentation
from lens.cohort.dicom_structures import is_structures, on_grid, read_structures
from lens.cohort.reading import LOSSY_SUFFIXES, Loaded, fault, is_flat, read, told
from lens.settings import NiftiForm

MAX_LABELS = 20
"""More values than this in a mask: it is rather an image, named in the wrong column."""

NEAR_WHOLE = 1e-3
"""Largest distance of a mask value from a whole number that counts as rounding."""


class Mask(NamedTuple):
    """A mask as read.

    Attributes:
        image: uint8 0/1.
        labels: non-zero value -> its voxel count.
        scaled: the values are whole numbers only after a scale factor of the header was undone.
        notes: as in `Loaded`.
        placed: as in `Loaded`.
    """

    image: sitk.Image
    labels: dict[int, int]
    scaled: bool
    notes: tuple[str, ...] = ()
    placed: bool = True


def read_image(
    path: Path,
    patient_id: str,
    *,
    nifti_form: NiftiForm | None = None,
    flat: bool = False,
    pixel_mm: float | None = None,
) -> sitk.Image:
    """Reads a scalar image: a volume, or a single slice.

    Args:
        path: NIfTI-1 (alone or .hdr and .img), MHA/MHD, NRRD or multi-frame DICOM file, or a folder
            holding one DICOM series; a single slice also as PNG, JPEG or a DICOM file.
        patient_id: for the error message.
        nifti_form: which placement of a NIfTI header to use; by default a header with two that
            disagree is refused.
        flat: a single slice is wanted, given as a volume of one; otherwise a volume is.
        pixel_mm: edge of a pixel, for a picture, whose header does not say; 1 by default.

    Returns:
        The image as float32, in its own geometry (mm, LPS).

    Raises:
        CaseError: no file that can be read to an end, unreadable or truncated, without spacing,
            sheared, not 3D, colour, non-finite or constant, or DICOM that is not one complete,
            evenly spaced volume.
    """
    return load_image(path, patient_id, nifti_form=nifti_form, flat=flat, pixel_mm=pixel_mm).image


def load_image(
    path: Path,
    patient_id: str,
    *,
    nifti_form: NiftiForm | None = None,
    flat: bool = False,
    pixel_mm: float | None = None,
) -> Loaded:
    """As `read_image`, with what the user must know about the image."""
    found = read(path, patient_id, nifti_form, flat=flat, pixel_mm=pixel_mm)
    if isinstance(found, Segmentation):
        raise fault(
            path,
            patient_id,
            f"a segmentation ({found.listed}), no image",
            "Check which file the column names.",
        )
    image = found.image
    if image.GetPixelID() != sitk.sitkFloat32:
        with told(path, patient_id):
            image = sitk.Cast(image, sitk.sitkFloat32)
    voxels = sitk.GetArrayViewFromImage(image)
    low, high = float(voxels.min()), float(voxels.max())
    # Either is NaN where any voxel is, so that they tell of all voxels.
    if not np.isfinite([low, high]).all():
        _check_finite(voxels, path, patient_id)
    if low == high:
        raise fault(
            path,
            patient_id,
            f"constant image: every voxel is {low:g}",
            "Export the image again, or leave out this patient.",
        )
    return found._replace(image=image)


def read_mask(
    path: Path,
    patient_id: str,
    *,
    labels: Sequence[int] | None = None,
    nifti_form: NiftiForm | None = None,
    flat: bool = False,
    pixel_mm: float | None = None,
) -> tuple[sitk.Image, dict[int, int]]:
    """Reads a mask: the region is every voxel above zero, or of the labels asked for.

    Args:
        path: as in `read_image`, or a DICOM SEG file, whose labels are the segment numbers.
        patient_id: for the error message.
        labels: the values that make the region; every value above zero by default.
        nifti_form, flat, pixel_mm: as in `read_image`.

    Returns:
        The mask as uint8 0/1 in its own geometry, and the voxel count of each non-zero value found.
        Values within 1e-3 of whole numbers count as those; whole numbers that a scale factor in the
        header made fractions (a single value of 1/255) count as 1.

    Raises:
        CaseError: as in `read_image`, or values that are not whole numbers, or so many of them
            that it cannot be a mask, or values below zero or several segments of which none is
            asked for. An empty mask is returned as it is.
    """
    mask = load_mask(
        path, patient_id, labels=labels, nifti_form=nifti_form, flat=flat, pixel_mm=pixel_mm
    )
    return mask.image, mask.labels


def load_mask(
    path: Path,
    patient_id: str,
    *,
    labels: Sequence[int] | None = None,
    nifti_form: NiftiForm | None = None,
    flat: bool = False,
    pixel_mm: float | None = None,
    drawn_on: Mapping[str, sitk.Image] | None = None,
) -> Mask:
    """As `read_mask`, which says whether a scale factor was undone too, and has notes.

    With `drawn_on`, images by name, structures of a DICOM RTSTRUCT file are a mask on the grid of
    the first whose slices hold them; their labels are the ROI numbers.
    """
    if drawn_on and is_structures(path):
        with told(path, patient_id):
            return _of_structures(path, patient_id, labels, drawn_on)
    found = read(path, patient_id, nifti_form, flat=flat, pixel_mm=pixel_mm)
    with told(path, patient_id):
        if isinstance(found, Segmentation):
            return _of_segments(found, path, patient_id, labels)
        return _of_values(found, path, patient_id, labels)


def _of_values(read: Loaded, path: Path, patient_id: str, labels: Sequence[int] | None) -> Mask:
    """The voxels of the values asked for; of every value above zero where none is."""
    voxels, rounded = _whole(sitk.GetArrayFromImage(read.image), path, patient_id)
    # Most voxels are zero, and sorting them takes the longest.
    values, counts = np.unique(voxels[voxels != 0], return_counts=True)
    scaled = _is_scaled(values)
    if scaled:
        voxels, values = voxels * 255, values * 255
    whole = np.rint(values)
    # Single precision holds a scaled whole number only nearly.
    if np.any(np.abs(values - whole) > 1e-4):
        example = values[np.abs(values - whole) > 1e-4][0]
        raise fault(
            path,
            patient_id,
            f"a mask with fractional values, such as {example:g}",
            "Give a binary or label mask; a probability map must be thresholded first.",
        )
    found = {int(v): int(n) for v, n in zip(whole, counts, strict=True)}
    if labels is None and (negative := {v: n for v, n in found.items() if v < 0}):
        raise fault(
            path,
            patient_id,
            f"a mask with values below zero: {listed(dict(list(negative.items())[:5]))}",
            "Say which values make the region (--label lesion=1), or write the mask with 0 and "
            "above: 255 in a signed byte becomes -1.",
        )
    if len(values) >= MAX_LABELS:
        raise fault(
            path,
            patient_id,
            f"{len(values) + 1} different values, which is an image rather than a mask",
            "Check which file the column names. JPEG and smooth scaling blur a mask: save it as "
            "PNG, threshold it, or scale it by nearest neighbour.",
        )
    if len(values) > 1 and path.suffix.lower() in LOSSY_SUFFIXES:
        raise fault(
            path,
            patient_id,
            f"a mask of {len(values) + 1} different values, as JPEG changes them",
            "Save it as PNG from its source, or threshold it at half of its largest value.",
        )
    region = voxels > 0.5 if labels is None else np.isin(np.rint(voxels), list(labels))
    mask = sitk.GetImageFromArray(region.astype(np.uint8))
    mask.CopyInformation(read.image)
    return Mask(mask, found, scaled, (*read.notes, *rounded), read.placed)


def looks_like_mask(path: Path) -> bool:
    """Whether the voxels of a file are the few whole numbers of a mask rather than an image's.

    Raises:
        CaseError: it cannot be read.
    """
    if is_structures(path):
        return True
    found = read(path, "", "qform", flat=is_flat(path) or False)
    if isinstance(found, Segmentation):
        return True
    values = np.unique(sitk.GetArrayViewFromImage(found.image))
    nonzero = values[values != 0]
    whole = np.all(np.abs(nonzero - np.rint(nonzero)) < NEAR_WHOLE) or _is_scaled(nonzero)
    return bool(whole and len(nonzero) < MAX_LABELS and np.all(nonzero > 0))


def listed(labels: dict[int, int]) -> str:
    """Label values and counts in words: ``1 (300 voxels), 3 (42 voxels)``."""
    return ", ".join(f"{value} ({count} voxels)" for value, count in labels.items())


def _is_scaled(values: np.ndarray) -> bool:
    """Whether the values of a mask are 0 and 1/255: ones under a scale factor of the header.

    Image tools store a slope that maps 0 to 255 onto 0 to 1, and write the mask's ones under it. A
    probability map has more values than one; 0.5 alone may mean anything.
    """
    nonzero = values[values != 0]
    return len(nonzero) == 1 and abs(float(nonzero[0]) * 255 - 1) < 1e-3


def _whole(voxels: np.ndarray, path: Path, patient_id: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Voxels of a mask without the residue of resampling or of a scale factor, and a note on it."""
    _check_finite(voxels, path, patient_id)
    if voxels.dtype.kind != "f":
        return voxels, ()
    whole = np.rint(voxels)
    residue = float(np.abs(voxels - whole).max())
    # A mask whose values are all this small is not empty: a scale factor made it so.
    vanished = residue > 1e-5 and not whole.any()
    if residue == 0 or residue > NEAR_WHOLE or vanished:
        return voxels, ()
    return whole, (f"mask values up to {residue:.2g} off whole numbers; rounded",)


def _of_segments(
    found: Segmentation, path: Path, patient_id: str, labels: Sequence[int] | None
) -> Mask:
    """The union of the segments asked for; of the only one where none is."""
    if labels is None and len(found.names) > 1:
        raise fault(
            path,
            patient_id,
            f"a DICOM segmentation of {len(found.names)} segments: {found.listed}",
            "Say by number which make the region, such as --label gland=1 or --label gland=1,2.",
        )
    counts = {number: int(voxels.sum()) for number, voxels in sorted(found.voxels.items())}
    counts = {number: count for number, count in counts.items() if count}
    region = np.zeros(found.grid.GetSize()[::-1], bool)
    for number in counts if labels is None else set(labels) & counts.keys():
        region |= found.voxels[number]
    mask = sitk.GetImageFromArray(region.astype(np.uint8))
    mask.CopyInformation(found.grid)
    return Mask(mask, counts, False)


def _of_structures(
    path: Path,
    patient_id: str,
    labels: Sequence[int] | None,
    drawn_on: Mapping[str, sitk.Image],
) -> Mask:
    """The union of the structures asked for; of the only one where none is."""
    structures = read_structures(path)
    some = structures.names if labels is None or len(structures.names) < 2 else labels
    segments, notes = on_grid(structures, some, drawn_on)
    return _of_segments(segments, path, patient_id, labels)._replace(notes=notes)


def _check_finite(voxels: np.ndarray, path: Path, patient_id: str) -> None:
    bad = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
    if bad:
        raise fault(
            path,
            patient_id,
            f"{bad} voxel(s) are NaN or infinite",
            "Export the image again, or replace these voxels knowingly.",
        )
