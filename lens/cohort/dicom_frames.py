"""Multi-frame DICOM: enhanced images and segmentations, every frame where its header puts it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from lens.cohort.dicom_header import (
    SEGMENTATIONS,
    Plane,
    frame_count,
    plane,
    scale,
    value,
    without_padding,
)
from lens.cohort.dicom_series import check_planes
from lens.cohort.headers import HeaderFault, check_voxels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


OFF_GRID = 0.1
"""Largest distance of a frame from its place on an even grid, in slices."""


@dataclass(frozen=True)
class Segmentation:
    """The segments of a DICOM SEG file, each a mask of its own, for they may overlap.

    Attributes:
        grid: an image with the geometry of all of them (mm, LPS).
        voxels: segment number -> (z, y, x) bool.
        names: segment number -> label.
    """

    grid: sitk.Image
    voxels: dict[int, np.ndarray]
    names: dict[int, str]

    @property
    def listed(self) -> str:
        """The segments in words: ``1 prostate, 2 lesion``."""
        return ", ".join(f"{number} {name}".strip() for number, name in self.names.items())


def is_segmentation(header: Dataset) -> bool:
    """Whether a file holds segments."""
    return header.get("SOPClassUID") in SEGMENTATIONS or header.get("Modality") == "SEG"


def read_frames(path: Path, header: Dataset) -> tuple[sitk.Image, tuple[str, ...]]:
    """The volume of an enhanced multi-frame image, and notes.

    Args:
        path: the file.
        header: of it, from `read_header`.

    Returns:
        Float32 voxels, each frame with its own slope and intercept, in order of the positions.

    Raises:
        HeaderFault: frames without positions, several at one position, uneven ones, or pixels
            that cannot be decoded.
    """
    order, ordered = ordered_planes(header)
    scales = [scale(header, int(frame)) for frame in order]
    stored = _pixels(path)[order]
    slopes = np.array([s.slope for s in scales]).reshape(-1, 1, 1)
    intercepts = np.array([s.intercept for s in scales]).reshape(-1, 1, 1)
    voxels, notes = without_padding((stored * slopes + intercepts).astype(np.float32), scales)
    step = (ordered[-1].position - ordered[0].position) @ ordered[0].normal / (len(ordered) - 1)
    image = sitk.GetImageFromArray(voxels)
    _place(image, ordered[0], float(step))
    return image, notes


def ordered_planes(header: Dataset) -> tuple[np.ndarray, list[Plane]]:
    """The frames in order of their positions, and where each of those lies.

    Args:
        header: of an enhanced multi-frame image.

    Returns:
        (n,) the number of each frame, from 0, and the planes in that order.

    Raises:
        HeaderFault: a single frame, frames without positions, several at one position (names the
            b-values), or uneven ones.
    """
    count = frame_count(header)
    _check_groups(header, count)
    if count < 2:
        raise HeaderFault(
            "an enhanced DICOM file of a single frame, where a volume is needed",
            "Convert the series from its source, with a classic file per slice or as NIfTI.",
        )
    planes = [plane(header, frame) for frame in range(count)]
    order = np.argsort([p.position @ planes[0].normal for p in planes], kind="stable")
    ordered = [planes[frame] for frame in order]
    _check_single(header, ordered)
    check_planes(ordered)
    return order, ordered


def read_segmentation(path: Path, header: Dataset) -> Segmentation:
    """The segments of a DICOM SEG file, with the frames that were left out as empty.

    Args:
        path: the file.
        header: of it, from `read_header`.

    Raises:
        HeaderFault: frames without positions or off an even grid, fractions, or pixels that cannot
            be decoded.
    """
    count = int(header.get("NumberOfFrames") or 1)
    _check_groups(header, count)
    planes = [plane(header, frame) for frame in range(count)]
    if max(np.abs(p.axes - planes[0].axes).max() for p in planes) > 1e-3:
        raise HeaderFault(
            "a segmentation with frames of different orientations",
            "Export the segment that is meant as NIfTI on the grid of its image.",
        )
    places, first, step = _slices(header, planes)
    depth = max(2, int(places.max()) + 1)
    columns, rows = planes[0].size
    names = {
        int(item.SegmentNumber): str(item.get("SegmentLabel", ""))
        for item in header.get("SegmentSequence") or []
        if not (_is_label_map(header) and int(item.SegmentNumber) == 0)  # the background
    }
    check_voxels((columns, rows, depth * max(1, len(names))))
    stored = _segment_pixels(path, header)
    voxels: dict[int, np.ndarray] = {}
    for frame, place in enumerate(places):
        for number, region in _segments(header, frame, stored[frame]):
            mask = voxels.setdefault(number, np.zeros((depth, rows, columns), bool))
            mask[place] |= region
    grid = sitk.Image([columns, rows, depth], sitk.sitkUInt8)
    _place(grid, planes[first], step)
    return Segmentation(grid, voxels, names or dict.fromkeys(sorted(voxels), ""))


def _check_groups(header: Dataset, count: int) -> None:
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if not groups or len(groups) != count:
        raise HeaderFault(
            f"multi-frame DICOM of {count} frames, whose header does not say where each frame lies",
            "Convert it from its source, as a DICOM series with a file per slice or as NIfTI.",
        )


def _check_single(header: Dataset, ordered: Sequence[Plane]) -> None:
    """Refuses frames that share their positions, with what tells them apart."""
    along = np.array([p.position @ ordered[0].normal for p in ordered])
    same = np.abs(along[:, None] - along[None, :]) < 1e-3
    most = int(same.sum(axis=1).max())
    if most == 1:
        return
    frames = range(len(ordered))
    found = {value(header, "DiffusionBValue", frame, default=None) for frame in frames}
    b_values = sorted(float(b) for b in found if b is not None)
    at = f"at each of {len(np.unique(np.round(along, 2)))} positions"
    if len(b_values) > 1:
        listed = ", ".join(f"{b:g}" for b in b_values)
        raise HeaderFault(
            f"multi-frame DICOM with {len(b_values)} b-values ({listed}) {at}",
            "Export the b-value that is meant as a series of its own or as NIfTI, and name that.",
        )
    raise HeaderFault(
        f"multi-frame DICOM with {most} frames {at} (echoes, directions or time points)",
        "Export the one that is meant as a series of its own or as NIfTI, and name that.",
    )


def _slices(header: Dataset, planes: Sequence[Plane]) -> tuple[np.ndarray, int, float]:
    """(n,) slice of each frame, the frame that lies first, and the distance between slices in mm.

    Frames without a voxel of the segment are often left out, so that gaps say nothing.
    """
    along = np.array([p.position @ planes[0].normal for p in planes])
    gaps = np.diff(np.unique(np.round(along, 3)))
    stated = [value(header, name, 0, default=None)
              for name in ("SpacingBetweenSlices", "SliceThickness")]  # fmt: skip
    candidates = [abs(float(mm)) for mm in stated if mm is not None]
    nearest = [float(gaps.min())] if gaps.size else []
    # Of two sizes that are stated, copied from the image's slices, the one that frames keep holds.
    kept = [mm for mm in candidates if nearest and abs(mm - nearest[0]) <= OFF_GRID * nearest[0]]
    candidates = [*kept, *candidates, *nearest]
    first = int(along.argmin())
    for step in candidates:
        if step <= 0 or not np.isfinite(step):
            continue
        places = (along - along[first]) / step
        if np.abs(places - np.rint(places)).max() <= OFF_GRID:
            return np.rint(places).astype(int), first, step
    raise HeaderFault(
        "a segmentation whose frames do not lie on evenly spaced slices",
        "Export it as NIfTI on the grid of its image.",
    )


def _is_label_map(header: Dataset) -> bool:
    return header.get("SegmentationType") == "LABELMAP"


def _segments(header: Dataset, frame: int, pixels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The segment that a frame shows, or every value of a frame of a label map."""
    if _is_label_map(header):
        return [(int(v), pixels == v) for v in np.unique(pixels) if v != 0]
    number = value(header, "ReferencedSegmentNumber", frame, default=None)
    if number is None:
        raise HeaderFault(
            f"frame {frame + 1} of the segmentation names no segment", "Export it again."
        )
    return [(int(number), pixels > 0)]


def _segment_pixels(path: Path, header: Dataset) -> np.ndarray:
    """(frames, y, x) stored values, refused where they are fractions."""
    stored = _pixels(path)
    if header.get("SegmentationType") == "FRACTIONAL":
        most = int(header.get("MaximumFractionalValue") or 255)
        if np.any((stored != 0) & (stored != most)):
            raise HeaderFault(
                "a fractional segmentation (probabilities or partial volumes)",
                "Give a binary segmentation; fractions must be thresholded first.",
            )
    return stored


def _pixels(path: Path) -> np.ndarray:
    """(frames, y, x) stored values."""
    import pydicom  # late: other formats do without

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = pydicom.dcmread(path, force=True).pixel_array
        except Exception as error:  # decoders raise anything
            raise HeaderFault(
                f"unreadable image (its pixels cannot be decoded: {error})",
                "Decompress it (gdcmconv --raw, dcmdjpeg), or convert it to NIfTI.",
            ) from error
    return pixels if pixels.ndim == 3 else pixels[None]


def _place(image: sitk.Image, first: Plane, step: float) -> None:
    axes = np.column_stack([first.axes, first.normal])
    image.SetSpacing((*first.spacing, step))
    image.SetDirection(axes.ravel().tolist())
    image.SetOrigin(first.position.tolist())
