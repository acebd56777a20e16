"""Packed NIfTI files in one pass: unpacked, measured and checked while ITK would only read them."""

from __future__ import annotations

import math
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from lens.cohort.headers import Header

try:
    unpacker: Any = import_module("isal.isal_zlib")
except ImportError:
    unpacker = zlib
"""What unpacks: isal, which not every machine has, in a half to two thirds of zlib's time."""

BLOCK = 1 << 20
"""Bytes that are read, and at most unpacked, at a time."""

RESERVED = 0b1110_0000
"""Bits of a gzip file's fourth byte that are zero: zlib refuses others, isal passes them over."""

MOST_PACKED = 1032
"""Bytes that one byte of gzip can stand for: more are announced by damaged headers alone."""

PIXELS = {
    "u1": sitk.sitkUInt8, "i1": sitk.sitkInt8, "u2": sitk.sitkUInt16, "i2": sitk.sitkInt16,
    "u4": sitk.sitkUInt32, "i4": sitk.sitkInt32, "u8": sitk.sitkUInt64, "i8": sitk.sitkInt64,
    "f4": sitk.sitkFloat32, "f8": sitk.sitkFloat64,
}  # fmt: skip
"""Type of a number in the file -> SimpleITK's name of it."""


def read_packed(path: Path, header: Header) -> sitk.Image | None:
    """A volume as ITK reads it from one gzip file of exactly what its header announces.

    ITK unpacks without a word about a checksum that does not fit or about what is missing, so that
    a file had to be unpacked before it too.

    Returns:
        The image; None where anything is out of the ordinary, which is then for `check_content` to
        explain and for ITK to read: other formats, a scale factor, more axes than three, another
        length, damage, or numbers that are not finite (ITK makes zeros of them).
    """
    kind = header.stored
    if kind is None or header.packing != "gzip" or header.data != (path,) or len(header.size) != 3:
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    found = reader.GetSize(), reader.GetPixelID(), reader.GetNumberOfComponents()
    if found != (header.size, PIXELS[kind.str[1:]], 1):
        return None
    count = math.prod(header.size)
    content = unpacked(path, header.lead + count * kind.itemsize)
    if content is None:
        return None
    voxels = np.frombuffer(content, kind, count, header.lead).reshape(header.size[::-1])
    if kind.kind == "f" and not (np.isfinite(voxels.min()) and np.isfinite(voxels.max())):
        return None
    image = sitk.GetImageFromArray(voxels.astype(kind.newbyteorder("="), copy=False))
    image.SetOrigin(reader.GetOrigin())
    image.SetSpacing(reader.GetSpacing())
    image.SetDirection(reader.GetDirection())
    return image


def unpacked(file: Path, length: int) -> np.ndarray | None:
    """The content of a gzip file as bytes, checked by its own checksum.

    Args:
        file: compressed.
        length: of the content in bytes.

    Returns:
        uint8 (length,); None for a file of another length, of several parts, or damaged.
    """
    if length > MOST_PACKED * file.stat().st_size:
        return None
    try:
        content = np.empty(length, np.uint8)
    except MemoryError:
        return None
    at, inflater = 0, unpacker.decompressobj(wbits=31)
    with file.open("rb") as stream:
        if any(flags & RESERVED for flags in stream.peek(4)[3:4]):
            return None
        while not inflater.eof:
            packed = inflater.unconsumed_tail or stream.read(BLOCK)
            try:
                block = inflater.decompress(packed, BLOCK) if packed else b""
            except unpacker.error:
                return None
            if not packed or at + len(block) > length:
                return None
            content[at : at + len(block)] = np.frombuffer(block, np.uint8)
            at += len(block)
        rest = inflater.unused_data or stream.read(1)
    return content if at == length and not rest else None
