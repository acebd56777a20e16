"""Where a table lies: a file with others beside it, a folder, or a named part of a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PARTED = re.compile(r"(?P<path>.+\.(?:xlsx|xlsm|h5|hdf5|h5ad)):(?P<part>[^:]+)", re.IGNORECASE)
"""``FILE:PART``: a sheet of a workbook, a dataset of HDF5, an ``obsm`` of AnnData. ``FOLDER:PART``
is a dataset of every HDF5 in a folder."""

IDS = ("_ids.csv", "_ids.txt")
"""Ends of the names of files of ids, beside the arrays that they belong to."""


class Located(NamedTuple):
    """A file or folder, and which part of it is meant where that is said."""

    path: Path
    part: str | None = None


def located(source: str | Path) -> Located:
    """What ``FILE:PART`` means; a file that is called so itself is one."""
    if Path(source).exists():
        return Located(Path(source))
    if match := PARTED.fullmatch(str(source)):
        return Located(Path(match["path"]), match["part"])
    folder, colon, part = str(source).rpartition(":")
    if colon and part and Path(folder).is_dir():
        return Located(Path(folder), part)
    return Located(Path(source))


def ids_beside(path: Path) -> list[Path]:
    """Files of ids beside a file of arrays: ``X_ids.csv`` or ``X_ids.txt`` beside ``X.npy``."""
    return [file for end in IDS if (file := path.with_name(path.stem + end)).is_file()]


def stored_files(source: str | Path) -> list[Path]:
    """Files and folders that a table is read from, whether or not they exist."""
    path = located(source).path
    arrays = path.suffix.lower() in (".npy", ".pt", ".pth")
    return [path, *(ids_beside(path) if arrays else [])]
