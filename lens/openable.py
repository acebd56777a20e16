"""Whether a path can be opened and read to an end: a plain file, or a folder of plain files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_FILES = 20_000
"""Most files of one folder of a DICOM series: a series has a few hundred, thousands at most."""

_KINDS = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def special(path: Path) -> str | None:
    """What a path is that can never be read to an end, in words; None for anything else.

    Links are followed. Nothing is opened: opening a pipe would wait for its writer.
    """
    return _kind_of(path.stat())


def not_a_file(path: Path) -> str | None:
    """What stands where a file is to be read or written, in words; None for a file or nothing.

    Nothing is opened, and another process may remove it meanwhile.
    """
    if not path.exists():
        return None
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return "a folder" if stat.S_ISDIR(found.st_mode) else _kind_of(found)


def folder_fault(folder: Path) -> str | None:
    """Says why the files of a folder cannot all be opened; None where they can.

    Subfolders are passed over, as readers of a DICOM series do.
    """
    plain = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                plain += 1
            elif not entry.is_dir() and (kind := _kind(Path(entry.path))):
                return f"the folder holds {kind}, {entry.name}"
            if plain > MAX_FILES:
                return f"the folder holds more than {MAX_FILES} files, which no image series has"
    return None


def plain_files(folder: Path) -> int:
    """The number of plain files directly in a folder."""
    with os.scandir(folder) as entries:
        return sum(entry.is_file() for entry in entries)


def _kind(path: Path) -> str | None:
    """As `special`; None for a link that leads nowhere."""
    return special(path) if path.exists() else None


def _kind_of(found: os.stat_result) -> str | None:
    return _KINDS.get(stat.S_IFMT(found.st_mode))
