"""What the header of an image file announces, and whether it can be held to it.

Every format's header becomes one `Header`; one list of checks goes over it, before any voxel is
read and before memory is taken for it.
"""

from __future__ import annotations

import bz2
import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from lens.openable import special

MAX_VOXELS = 2**30
"""Most voxels of one image (4 GiB as float32): more than any clinical volume."""

HEADER_BYTES = 1 << 20
"""Most bytes of a text header, and of what may follow compressed voxels."""

SHEAR = 1e-3
"""Largest cosine between two axes that counts as rounding of the header: 0.06 degrees."""

COPY = "Copy or export the file again."


class HeaderFault(Exception):
    """Why a file cannot be used, and what to do; the reader adds patient and file."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy

    def __reduce__(self):
        return HeaderFault, (self.reason, self.remedy)


@dataclass(frozen=True)
class Header:
    """What a header says, whatever the format.

    Attributes:
        form: the format by name.
        size: voxels along each axis.
        voxel_bytes: bytes of a voxel, a fraction where bits are packed; None for voxels written
            as text, which cannot be counted.
        spacing: edge along each axis; None where the header names none.
        unit: of the spacing as the header spells it; empty where it does not say.
        axes: (3, 3), the step in mm along each voxel axis as columns; None without an orientation.
        data: the files with the voxels, of which each is plain and there.
        start: bytes at the start of each of those files that are neither voxels nor compressed.
        lead: bytes of content before the voxels, compressed with them where they are.
        packing: how the content is compressed.
        scale: slope and intercept that take stored values to values, where ITK does not know them.
        stored: type of the numbers in the file, where each is the value of a voxel as it stands.
        notes: what the user must know.
    """

    form: str
    size: tuple[int, ...]
    voxel_bytes: float | None
    spacing: tuple[float, ...] | None
    unit: str
    axes: np.ndarray | None
    data: tuple[Path, ...]
    start: int = 0
    lead: int = 0
    packing: Literal["", "gzip", "zlib", "bzip2"] = ""
    scale: tuple[float, float] = (1.0, 0.0)
    stored: np.dtype[Any] | None = None
    notes: tuple[str, ...] = ()


def check_header(header: Header) -> None:
    """Holds a header to what it announces.

    Raises:
        HeaderFault: an impossible or huge size, no spacing or one that is not positive and finite
            or not in mm, sheared axes, voxels in what is no file, or fewer bytes than announced.
    """
    check_announced(header)
    check_content(header)


def check_announced(header: Header) -> None:
    """`check_header` but for the voxels themselves, of which no byte is read.

    Raises:
        HeaderFault: as said there.
    """
    check_voxels(header.size)
    _check_spacing(header)
    check_axes(header.axes)
    check_data(header.data)


def check_content(header: Header) -> None:
    """Refuses voxels of fewer bytes than announced; compressed ones are unpacked to count them.

    Raises:
        HeaderFault: as said, or damaged compression.
    """
    if header.voxel_bytes is not None:
        _check_bytes(header, math.ceil(math.prod(header.size) * header.voxel_bytes))


def check_axes(axes: np.ndarray | None) -> None:
    """Refuses axes that are not at right angles.

    Args:
        axes: (3, 3), a column per axis, of any length; None is passed over.

    Raises:
        HeaderFault: sheared, zero or not finite.
    """
    if axes is None:
        return
    lengths = np.linalg.norm(axes, axis=0)
    if not np.all(np.isfinite(axes)) or lengths.min() == 0:
        raise HeaderFault(
            "the header gives an axis no direction (zero, NaN or infinite)",
            "Correct the orientation in the header, or convert the image again.",
        )
    cosines = (axes / lengths).T @ (axes / lengths)
    shear = float(np.abs(cosines - np.eye(3)).max())
    if shear > SHEAR:
        raise HeaderFault(
            f"sheared axes: two of them lie {np.degrees(np.arccos(min(shear, 1))):.2f} degrees "
            "apart, where 90 is needed",
            "Resample the image onto axes at right angles, or correct the orientation in the "
            "header.",
        )


def check_data(files: tuple[Path, ...]) -> None:
    """Refuses voxels that lie in files that are absent, or are no files.

    Raises:
        HeaderFault: as said.
    """
    for file in files:
        if not file.exists():
            raise HeaderFault(
                f"unreadable image (its voxels are in {file.name}, which is not there)",
                "Copy both files, the header and the one it names.",
            )
        if kind := special(file):
            raise HeaderFault(
                f"unreadable image (its voxels are in {file}, which is {kind})",
                "Name a file with the voxels in the header.",
            )
        if file.is_dir():
            raise HeaderFault(
                f"unreadable image (its voxels are in {file.name}, which is a folder)",
                "Name a file with the voxels in the header.",
            )


def check_length(found: int, announced: int) -> None:
    """Refuses a file that is cut off.

    Raises:
        HeaderFault: fewer bytes than the header announces.
    """
    if found < announced:
        raise HeaderFault(
            f"unreadable image ({found} bytes of content where its header announces {announced})",
            COPY,
        )


def check_voxels(size: tuple[int, ...]) -> None:
    """Refuses sizes that no image has, before memory is taken for them.

    Raises:
        HeaderFault: an axis without voxels, or more than `MAX_VOXELS` in all.
    """
    text = " x ".join(map(str, size))
    if not size or min(size) < 1:
        raise HeaderFault(f"the header announces {text or 'no'} voxels", COPY)
    if math.prod(size) > MAX_VOXELS:
        raise HeaderFault(
            f"the header announces {text} voxels, more than the {MAX_VOXELS:.2g} of the largest "
            "image that is read",
            "Correct the size in the header, or crop or resample the image.",
        )


def _check_spacing(header: Header) -> None:
    if header.spacing is None:
        raise HeaderFault(
            "no spacing in the header, so that the size of a voxel is not known",
            "Write the voxel size into the header, or convert the image again from its source.",
        )
    spacing = [mm for mm, n in zip(header.spacing, header.size, strict=True) if n > 1]
    if not all(mm > 0 and np.isfinite(mm) for mm in spacing):
        raise HeaderFault(
            f"a spacing that is not positive: {' x '.join(f'{mm:g}' for mm in spacing)}",
            "Correct the spacing in the header, or convert the image again.",
        )
    if header.unit.lower() not in ("", "?", "mm", "millimeter", "millimetre"):
        raise HeaderFault(
            f"a spacing in {header.unit!r}, where mm is needed",
            "Give the spacing in mm in the header.",
        )


def _check_bytes(header: Header, announced: int) -> None:
    announced += header.lead
    if not header.packing:
        check_length(sum(max(f.stat().st_size - header.start, 0) for f in header.data), announced)
        return
    # Unpacked block by block, so that a small file that unpacks to a huge one takes no memory.
    # The checksum at the end is compared too.
    length = 0
    try:
        for block in _unpacked(header):
            length += len(block)
            if length > announced + HEADER_BYTES:
                raise HeaderFault(
                    f"unreadable image (more content than the {announced} bytes that its header "
                    "announces)",
                    COPY,
                )
    except (EOFError, OSError, zlib.error) as error:
        raise damaged(error) from error
    check_length(length, announced)


def damaged(error: Exception) -> HeaderFault:
    """The fault of compressed content that cannot be unpacked."""
    return HeaderFault(f"unreadable image (damaged or cut-off compression: {error})", COPY)


def _unpacked(header: Header) -> Iterator[bytes]:
    for file in header.data:
        with file.open("rb") as stream:
            stream.seek(header.start)
            if header.packing == "zlib":
                yield from _inflated(stream)
                continue
            opened = gzip.open if header.packing == "gzip" else bz2.open
            with opened(stream) as unpacked:
                while block := unpacked.read(1 << 20):
                    yield block


def _inflated(stream: BinaryIO) -> Iterator[bytes]:
    """zlib content in blocks; what follows it is passed over."""
    inflater = zlib.decompressobj()
    while not inflater.eof:
        packed = inflater.unconsumed_tail or stream.read(1 << 16)
        if not packed:
            raise EOFError("it ends before its end marker")
        yield inflater.decompress(packed, 1 << 20)
