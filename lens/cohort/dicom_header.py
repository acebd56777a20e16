"""DICOM headers: pixel type, byte count, planes in space and rescaling, for every kind of file."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from lens.cohort.headers import COPY, HeaderFault, check_axes, check_length, check_voxels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of segmentations, by frames per segment and as a label map."""

UNDEFINED = 0xFFFFFFFF
"""Length of compressed pixel data, which end with a delimiter instead."""

SAMPLES = {"YBR_FULL_422": 2.0, "YBR_PARTIAL_422": 2.0, "YBR_PARTIAL_420": 1.5}
"""Samples per pixel of colours that are stored less often than brightness."""

GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "FrameType": "MRImageFrameTypeSequence",
    "ReferencedSegmentNumber": "SegmentIdentificationSequence",
}
"""Attribute -> the sequence of a functional group that holds it in multi-frame files."""


@dataclass(frozen=True)
class Plane:
    """Where one slice or frame lies.

    Attributes:
        position: (3,) mm, centre of the first voxel.
        axes: (3, 2) unit vectors along a row and along a column.
        spacing: mm along a row and along a column.
        size: voxels along a row and along a column.
    """

    position: np.ndarray
    axes: np.ndarray
    spacing: tuple[float, float]
    size: tuple[int, int]

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector across the plane."""
        return np.cross(self.axes[:, 0], self.axes[:, 1])


class Scale(NamedTuple):
    """What takes stored values to values, and the stored values (first, last) that stand for no
    value; None where every one does."""

    slope: float
    intercept: float
    padding: tuple[int, int] | None


def read_header(path: Path, *, colour: bool = False) -> Dataset:
    """Everything of a DICOM file but its pixels, which are held to the length that it announces.

    Args:
        path: the file.
        colour: pixels of several components, or of a palette, pass: they may all be gray.

    Raises:
        HeaderFault: unreadable, no image of gray levels, inverted, huge, or cut off.
    """
    import pydicom  # late: other formats do without

    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
        except Exception as error:  # a damaged file raises anything
            raise HeaderFault(f"unreadable DICOM header ({error})", COPY) from error
        check_kind(header, colour=colour)
        check_length_of_pixels(header, stream, path.stat().st_size)
    return header


def is_dicom(path: Path) -> bool:
    """Whether the name or the first bytes of a file say DICOM."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".ima")


def is_companion(path: Path) -> bool:
    """Whether a file is no DICOM, and by its name what macOS keeps beside one on other disks (the
    attributes of ``1.dcm`` in ``._1.dcm``)."""
    with path.open("rb") as stream:
        return path.name.startswith("._") and stream.read(132)[128:] != b"DICM"


def frame_count(header: Dataset) -> int:
    """The number of frames; 1 where the header does not say."""
    return int(header.get("NumberOfFrames") or 1)


def check_kind(header: Dataset, *, colour: bool = False) -> None:
    """Refuses what is no image of gray levels; with `colour`, not what may be gray saved in colour.

    Raises:
        HeaderFault: contours, a report or another object without pixels, a display-inverted or a
            colour image, or a size that no image has.
    """
    modality = str(header.get("Modality", "") or "unknown")
    if modality == "RTSTRUCT":
        names = [str(roi.get("ROIName", "?")) for roi in header.get("StructureSetROISequence", [])]
        listed = f" of {', '.join(names)}" if names else ""
        raise HeaderFault(
            f"an RTSTRUCT: contours{listed}, no voxels",
            "Convert the structure that is meant to a mask on the grid of its image (3D Slicer, "
            "plastimatch convert), and name that file.",
        )
    rows, columns = header.get("Rows"), header.get("Columns")
    if not rows or not columns:
        raise HeaderFault(
            f"a DICOM file without pixels (modality {modality})",
            "Name the file or folder with the image.",
        )
    photometric = _photometric(header)
    if photometric == "MONOCHROME1":
        raise HeaderFault(
            "MONOCHROME1: stored inverted, small values are bright",
            "Export it as MONOCHROME2, so that large values are bright as in other images.",
        )
    if in_colour(header) and not colour:
        raise HeaderFault(f"a colour image ({photometric})", "Give a grayscale image.")
    check_voxels((int(columns), int(rows), frame_count(header)))


def in_colour(header: Dataset) -> bool:
    """Whether pixels are of several components or of a palette, gray or not."""
    several = int(header.get("SamplesPerPixel") or 1) > 1
    return several or _photometric(header).startswith("PALETTE")


def _photometric(header: Dataset) -> str:
    return str(header.get("PhotometricInterpretation", ""))


def check_length_of_pixels(header: Dataset, stream: BinaryIO, size: int) -> None:
    """Refuses pixel data that are absent or shorter than the header announces.

    Args:
        header: of the file.
        stream: at the element with the pixels.
        size: of the file in bytes.

    Raises:
        HeaderFault: as said.
    """
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    meta = header.get("file_meta") or {}
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return
    implicit, little = header.original_encoding
    order = "<" if little is not False else ">"
    begin = stream.read(12)
    if len(begin) < 8:
        raise HeaderFault("unreadable image (it ends before its pixels)", COPY)
    # A long length follows two bytes of type and two reserved ones, but in the implicit encoding.
    place = 4 if implicit else 8
    (length,) = struct.unpack_from(f"{order}I", begin.ljust(12, b"\0"), place)
    stream.seek(place + 4 - len(begin), 1)
    if length == UNDEFINED:
        _check_fragments(stream, size)
        return
    bits = int(header.get("BitsAllocated") or 16)
    voxels = int(header.Rows) * int(header.Columns) * frame_count(header)
    samples = SAMPLES.get(_photometric(header), int(header.get("SamplesPerPixel") or 1))
    announced = int(voxels * samples * bits + 7) // 8
    check_length(min(length, size - stream.tell()), announced)


def plane(header: Dataset, frame: int | None = None) -> Plane:
    """Where a slice, or a frame of a multi-frame file, lies.

    Raises:
        HeaderFault: the header does not say, or not in numbers, or the axes are sheared.
    """
    spacing = _numbers(header, "PixelSpacing", 2, frame)
    if not all(mm > 0 for mm in spacing):
        raise HeaderFault(
            f"a PixelSpacing that is not positive: {' x '.join(f'{mm:g}' for mm in spacing)}",
            "Export the series again.",
        )
    cosines = np.array(_numbers(header, "ImageOrientationPatient", 6, frame))
    axes = np.column_stack([cosines[:3], cosines[3:]])
    # Here, since readers of DICOM straighten sheared axes in silence.
    check_axes(np.column_stack([axes, np.cross(*axes.T)]))
    return Plane(
        np.array(_numbers(header, "ImagePositionPatient", 3, frame)),
        axes,
        # Rows first: the distance between rows runs along a column.
        (spacing[1], spacing[0]),
        (int(header.Columns), int(header.Rows)),
    )


def scale(header: Dataset, frame: int | None = None) -> Scale:
    """How the stored values of a slice or frame become values.

    Raises:
        HeaderFault: a slope of zero, or a number that is none.
    """
    slope = float(value(header, "RescaleSlope", frame, default=1))
    intercept = float(value(header, "RescaleIntercept", frame, default=0))
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise HeaderFault(
            f"a RescaleSlope of {slope:g} and a RescaleIntercept of {intercept:g}",
            "Export the series again.",
        )
    first = value(header, "PixelPaddingValue", frame, default=None)
    if first is None:
        return Scale(slope, intercept, None)
    last = header.get("PixelPaddingRangeLimit")
    ends = sorted(_signed(header, int(end)) for end in (first, first if last is None else last))
    return Scale(slope, intercept, (ends[0], ends[1]))


def value(header: Dataset, keyword: str, frame: int | None, *, default: Any) -> Any:
    """An attribute of a frame: its own, one shared by all frames, or one of the whole file."""
    places: list[Dataset] = []
    if frame is not None:
        own = header.get("PerFrameFunctionalGroupsSequence") or []
        places += [own[frame]] if frame < len(own) else []
        places += list(header.get("SharedFunctionalGroupsSequence") or [])
    for group in places:
        for item in (group.get(GROUPS.get(keyword, keyword)) or [None])[:1]:
            if item is not None and item.get(keyword) not in (None, ""):
                return item.get(keyword)
    found = header.get(keyword)
    return default if found in (None, "") else found


def _numbers(header: Dataset, keyword: str, count: int, frame: int | None) -> tuple[float, ...]:
    found = value(header, keyword, frame, default=None)
    if found is None:
        raise HeaderFault(
            f"no {keyword} in the header of {_what(frame)}",
            "Export the series again with its geometry, or convert it from its source.",
        )
    try:
        numbers = tuple(float(number) for number in found)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not np.all(np.isfinite(numbers)):
        raise HeaderFault(f"{keyword} of {found!r} in {_what(frame)}", "Export the series again.")
    return numbers


def _what(frame: int | None) -> str:
    return "a slice" if frame is None else f"frame {frame + 1}"


def _signed(header: Dataset, number: int) -> int:
    """The padding value in the type of the pixels, whatever type its own element was given."""
    bits = int(header.get("BitsAllocated") or 16)
    signed = int(header.get("PixelRepresentation") or 0)
    number %= 1 << bits
    return number - (1 << bits) if signed and number >= 1 << (bits - 1) else number


def _check_fragments(stream: BinaryIO, size: int) -> None:
    """Follows compressed fragments to the delimiter that ends them."""
    while stream.tell() + 8 <= size:
        tag, length = struct.unpack("<II", stream.read(8))
        if tag == 0xE0DDFFFE:
            return
        if tag != 0xE000FFFE or stream.tell() + length > size:
            break
        stream.seek(length, 1)
    raise HeaderFault("unreadable image (its compressed pixels are cut off)", COPY)


def without_padding(
    voxels: np.ndarray, scales: Sequence[Scale]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Voxels in which those that stand for no value are background, and what was done.

    Args:
        voxels: (z, y, x) values, a slice per element of `scales`.
        scales: of each slice.

    Returns:
        The voxels: background is zero, or the smallest value where that is below zero. And a note
        where any was changed.
    """
    if all(each.padding is None for each in scales):
        return voxels, ()
    padded = np.zeros(voxels.shape, bool)
    for z, (slope, intercept, padding) in enumerate(scales):
        if padding is not None:
            ends = np.array(sorted(end * slope + intercept for end in padding), np.float32)
            step = np.float32(abs(slope) / 4)
            padded[z] = (voxels[z] >= ends[0] - step) & (voxels[z] <= ends[1] + step)
    count = int(np.count_nonzero(padded))
    rest = voxels[~padded]
    background = min(0.0, float(rest.min())) if rest.size else 0.0
    if not count or np.all(voxels[padded] == background):
        return voxels, ()
    note = f"{count} voxels hold the PixelPaddingValue; set to {background:g}"
    return np.where(padded, np.float32(background), voxels), (note,)
