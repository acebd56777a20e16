"""The files that an image consists of, and what tells that one of them changed.

Every cache key rests on this: a header of a few lines says nothing of the voxels beside it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from lens.cohort.dicom_header import is_dicom
from lens.cohort.headers import HeaderFault
from lens.cohort.nifti_header import header_and_voxels
from lens.cohort.text_headers import meta_header, nrrd_header
from lens.disk import file_hash


def image_files(path: Path) -> tuple[Path, ...]:
    """The files of an image: itself, the header or voxels beside it, or all slices of a folder.

    Args:
        path: as a manifest names it: a file of any format, or the folder of a DICOM series.

    Returns:
        The files in an order of their own: of a folder by name, else the file with the header
        first. One that the header names may be absent; reading the image tells so. Of a header
        that is refused whatever its voxels are, or cannot be read, only the named file.

    Raises:
        OSError: the folder cannot be opened.
    """
    if path.is_dir():
        return tuple(sorted(file for file in path.iterdir() if file.is_file()))
    try:
        return tuple(dict.fromkeys(_files(path)))
    except (HeaderFault, OSError):
        return (path,)


def image_hash(path: Path) -> str:
    """SHA-256 of the content of all files of an image, as 64 hex digits; their names do not count.

    A file that cannot be read counts by its path and the reason, which reading the image tells as
    well: once it can be read the hash is another.
    """
    try:
        files = image_files(path)
    except OSError as error:
        return _together([f"{path}: {error.strerror}"])
    hashes = [_hash(file) for file in files]
    return hashes[0] if len(hashes) == 1 and len(hashes[0]) == 64 else _together(hashes)


def image_stamp(path: Path) -> list[object]:
    """Name, size and time of all files of an image: cheap to ask, changed by any rewrite."""
    stamped: list[object] = [str(path)]
    for file in image_files(path):
        facts = file.stat() if file.exists() else None
        stamped.append((file.name, facts and (facts.st_size, facts.st_mtime_ns)))
    return stamped


def _files(path: Path) -> tuple[Path, ...]:
    """The file with the header and those with the voxels; the same one for most formats."""
    # A pipe or a device is never opened.
    if not path.is_file() or is_dicom(path):
        return (path,)
    with path.open("rb") as stream:
        begin = stream.read(4)
    if begin == b"NRRD":
        return (path, *nrrd_header(path).data)
    if path.name.lower().endswith((".mha", ".mhd")):
        return (path, *meta_header(path).data)
    return header_and_voxels(path)


def _hash(file: Path) -> str:
    if not file.is_file():
        return f"{file}: no file"
    try:
        return file_hash(file)
    except OSError as error:
        return f"{file}: {error.strerror}"


def _together(hashes: list[str]) -> str:
    return hashlib.sha256("\0".join(hashes).encode("utf-8", "surrogateescape")).hexdigest()
