"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr) headers: lines of text before the voxels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

from lens.cohort.headers import HEADER_BYTES, Header, HeaderFault

REMEDY = "Correct the header, or convert the image again."

META_BYTES = {
    "CHAR": 1, "UCHAR": 1, "ASCII_CHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4,
    "LONG": 4, "ULONG": 4, "LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip
"""Bytes of a voxel of each MetaImage type, without its MET_."""

NRRD_BYTES = {
    1: ("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"),
    2: ("short", "short int", "signed short", "signed short int", "int16", "int16_t", "ushort",
        "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    4: ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t",
        "float"),
    8: ("longlong", "long long", "long long int", "signed long long", "signed long long int",
        "int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int", "uint64",
        "uint64_t", "double"),
}  # fmt: skip
"""Bytes of a voxel -> the names of NRRD types."""

NRRD_PACKING: dict[str, Literal["", "gzip", "bzip2"]] = {
    "raw": "", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2",
}  # fmt: skip

META_SPACINGS = ("ElementSpacing", "ElementSize")
"""MetaImage fields with the edges of a voxel; the second counts where the first is absent."""

NO_ORIENTATION = "no orientation in the header"


def meta_header(path: Path) -> Header:
    """The header of a MetaImage file.

    Raises:
        HeaderFault: a field is missing or no number.
    """
    fields, length, listed = _meta_fields(path)
    size = _integers(fields, "DimSize")
    kind = fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
    channels = _integers(fields, "ElementNumberOfChannels", (1,))[0]
    each = META_BYTES.get(kind)
    text = fields.get("BinaryData", "True").lower().startswith("f")
    local = fields["ElementDataFile"].lower() == "local"
    declared = _integers(fields, "HeaderSize", (0,))[0]
    matrix = next((fields[n] for n in ("TransformMatrix", "Orientation", "Rotation")
                   if n in fields), None)  # fmt: skip
    named = next((name for name in META_SPACINGS if name in fields), None)
    scale = _meta_scale(fields)
    notes = () if matrix is not None else (NO_ORIENTATION,)
    if named not in (META_SPACINGS[0], None):
        notes += (f"no {META_SPACINGS[0]} in the header; {named} is taken in its place",)
    if scale != (1, 0):
        notes += (f"stored values times {scale[0]:g} plus {scale[1]:g}, as its header says",)
    return Header(
        form="MetaImage",
        size=size,
        voxel_bytes=None if each is None or text else float(each * channels),
        spacing=None if named is None else _numbers(fields[named], named, len(size)),
        unit=fields.get("DistanceUnits", ""),
        axes=_meta_axes(matrix, len(size)),
        data=(path,) if local else _named(path, fields["ElementDataFile"], listed),
        start=length if local else max(declared, 0),
        packing="zlib" if fields.get("CompressedData", "").lower().startswith("t") else "",
        scale=scale,
        notes=notes,
    )


def nrrd_header(path: Path) -> Header:
    """The header of a NRRD file.

    Raises:
        HeaderFault: a field is missing or no number, an unknown type, or a segmentation of
            several layers.
    """
    fields, keys, length, listed = _nrrd_fields(path)
    size = _integers(fields, "sizes")
    kinds = fields.get("kinds", "").split()
    _check_layers(size, kinds, keys)
    each = next((n for n, names in NRRD_BYTES.items() if fields.get("type") in names), None)
    if each is None:
        raise HeaderFault(f"a voxel type {fields.get('type')!r} that is no number", REMEDY)
    vectors = _vectors(fields.get("spacedirections", ""))
    encoding = fields.get("encoding", "raw").lower()
    named = fields.get("datafile")
    skip = max(_integers(fields, "byteskip", (0,))[0], 0)
    packing = NRRD_PACKING.get(encoding, "")
    counted = encoding in NRRD_PACKING and _integers(fields, "lineskip", (0,))[0] == 0
    stored = length if named is None else 0
    return Header(
        form="NRRD",
        size=size,
        voxel_bytes=float(each) if counted else None,
        spacing=_nrrd_spacing(fields, vectors, size, kinds),
        unit=_nrrd_unit(fields),
        axes=_nrrd_axes(vectors),
        data=(path,) if named is None else _named(path, named, listed),
        start=stored if packing else stored + skip,
        lead=skip if packing else 0,
        packing=packing,
        notes=() if vectors else (NO_ORIENTATION,),
    )


def _meta_fields(path: Path) -> tuple[dict[str, str], int, list[str]]:
    """Fields by name in ITK's spelling, the bytes up to the voxels, and the lines after them."""
    fields: dict[str, str] = {}
    content = _beginning(path)
    place = 0
    while "ElementDataFile" not in fields:
        end = content.find(b"\n", place)
        line = content[place : end if end >= 0 else len(content)]
        name, equals, value = line.decode("latin-1").partition("=")
        if equals:
            fields[name.strip()] = value.strip()
        if end < 0:
            break
        place = end + 1
    if "ElementDataFile" not in fields:
        raise HeaderFault("unreadable image (no ElementDataFile in its header)", REMEDY)
    rest = content[place:].decode("latin-1").split("\n") if fields["ElementDataFile"][:4] == (
        "LIST") else []  # fmt: skip
    return fields, place, [line.strip() for line in rest if line.strip()]


def _nrrd_fields(path: Path) -> tuple[dict[str, str], dict[str, str], int, list[str]]:
    """Fields and keys by name, the bytes up to the voxels, and the lines after ``data file``."""
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    listed: list[str] = []
    content, place = _beginning(path), 0
    while place < len(content):
        end = content.find(b"\n", place)
        end = len(content) if end < 0 else end
        line = content[place:end].decode("latin-1").strip("\r")
        place = end + 1
        if not line:
            break
        if match := re.match(r"([^:#=]+):=(.*)", line):
            keys[match[1]] = match[2]
        elif match := re.match(r"([^:#]+): *(.*)", line):
            fields[match[1].lower().replace(" ", "")] = match[2].strip()
        elif fields.get("datafile", "").startswith("LIST"):
            listed.append(line.strip())
    else:
        if "datafile" not in fields:
            raise HeaderFault("unreadable image (its header does not end)", REMEDY)
    return fields, keys, place, listed


def _beginning(path: Path) -> bytes:
    """As much of a file as a header can be."""
    with path.open("rb") as stream:
        return stream.read(HEADER_BYTES)


def _integers(
    fields: dict[str, str], name: str, default: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    text = fields.get(name)
    if text is None and default is not None:
        return default
    try:
        return tuple(int(word) for word in (text or "").split()) or (default or (int(""),))
    except ValueError:
        raise HeaderFault(f"{name} of {text!r} in the header", REMEDY) from None


def _numbers(text: str, name: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.split())
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise HeaderFault(f"{name} of {text!r} in the header, for {count} axes", REMEDY)
    return numbers


def _meta_scale(fields: dict[str, str]) -> tuple[float, float]:
    """Slope and intercept that take stored values to values."""
    slope, intercept = (
        _numbers(fields[name], name, 1)[0] if name in fields else default
        for name, default in (
            ("ElementToIntensityFunctionSlope", 1.0),
            ("ElementToIntensityFunctionOffset", 0.0),
        )
    )
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise HeaderFault(
            f"a slope of {slope:g} and an offset of {intercept:g} for its values in the header",
            REMEDY,
        )
    return slope, intercept


def _meta_axes(matrix: str | None, count: int) -> np.ndarray | None:
    if matrix is None:
        return None
    numbers = np.array(_numbers(matrix, "TransformMatrix", count * count))
    # Axis by axis in the file.
    return numbers.reshape(count, count)[:3, :3].T if count >= 3 else None


def _named(path: Path, name: str, listed: list[str]) -> tuple[Path, ...]:
    """The files that a header names: one, a list below it, or a pattern with numbers."""
    if not name:
        raise HeaderFault("unreadable image (its header names no file with voxels)", REMEDY)
    if name.split()[0].upper() == "LIST":
        return tuple(path.parent / line for line in listed)
    pattern = re.fullmatch(r"(\S*%\S*)\s+(-?\d+)\s+(-?\d+)(?:\s+(-?\d+))?(?:\s+\d+)?", name)
    if pattern is None:
        return (path.parent / name,)
    first, last, step = int(pattern[2]), int(pattern[3]), int(pattern[4] or 1)
    numbers = range(first, last + 1, step or 1)
    try:
        return tuple(path.parent / (pattern[1] % number) for number in numbers[:100_000])
    except (ValueError, TypeError):
        raise HeaderFault(f"unreadable image (its voxels are in {name!r})", REMEDY) from None


def _vectors(text: str) -> list[np.ndarray | None]:
    """The vector of each axis in ``space directions``; None for an axis that is not in space."""
    found = re.findall(r"none|\(([^)]*)\)", text, flags=re.IGNORECASE)
    try:
        return [np.array([float(n) for n in v.split(",")]) if v else None for v in found]
    except ValueError:
        raise HeaderFault(f"space directions of {text!r} in the header", REMEDY) from None


def _nrrd_spacing(
    fields: dict[str, str], vectors: list[np.ndarray | None], size: tuple[int, ...],
    kinds: list[str],
) -> tuple[float, ...] | None:  # fmt: skip
    """Along each axis; 1 along one that is not in space."""
    if vectors:
        if len(vectors) != len(size):
            raise HeaderFault(f"{len(vectors)} space directions for {len(size)} axes", REMEDY)
        return tuple(1.0 if v is None else float(np.linalg.norm(v)) for v in vectors)
    if "spacings" not in fields:
        return None
    spacing = _numbers(fields["spacings"], "spacings", len(size))
    within = [kind in ("domain", "space", "???", "none") for kind in kinds] or [True] * len(size)
    return tuple(mm if inside else 1.0 for mm, inside in zip(spacing, within, strict=False))


def _nrrd_axes(vectors: list[np.ndarray | None]) -> np.ndarray | None:
    inside = [vector for vector in vectors if vector is not None]
    if len(inside) != 3 or any(len(vector) != 3 for vector in inside):
        return None
    return np.column_stack(inside)


def _nrrd_unit(fields: dict[str, str]) -> str:
    """The first unit of ``space units`` or ``units`` that is not mm; empty where all are."""
    words = re.findall(r'"([^"]*)"', fields.get("spaceunits", "") or fields.get("units", ""))
    return next((w for w in words if w.lower() not in ("", "mm", "???", "s", "ms")), "")


def _check_layers(size: tuple[int, ...], kinds: list[str], keys: dict[str, str]) -> None:
    names = {key.removesuffix("_Name"): value for key, value in keys.items()
             if re.fullmatch(r"Segment\d+_Name", key)}  # fmt: skip
    if not names or not kinds or kinds[0] != "list" or size[0] < 2:
        return
    listed = ", ".join(
        f"{name} (layer {keys.get(f'{segment}_Layer', '?')}, value "
        f"{keys.get(f'{segment}_LabelValue', '?')})"
        for segment, name in names.items()
    )
    raise HeaderFault(
        f"a segmentation of {size[0]} layers, in which segments overlap: {listed}",
        "Export the segment that is meant as a binary labelmap of its own, as 3D Slicer does under "
        "Segmentations, Export to files or labelmap.",
    )
