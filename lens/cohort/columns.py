"""Columns of a manifest that nothing reads though they look as if something should."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from lens.errors import InputError
from lens.names import closest, same_word

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm", ".img", ".hdr")
"""Ends of names that images and masks have, in small letters."""

LOOKED_AT = 20
"""Filled cells of a column that are looked at."""


def check_unread(
    path: Path, rows: Sequence[Mapping[str, str]], known: Sequence[str], files: Sequence[str]
) -> None:
    """Refuses a column that is a known one misspelt, and names others that hold paths.

    A misspelt column would count as a label: its images, or the split it gives, would be left out
    without a word.

    Args:
        path: the manifest.
        rows: column -> cell, a mapping per row.
        known: columns that are read, other than labels.
        files: those of them that hold paths.

    Raises:
        InputError: a column is like a known one that is absent.
    """
    header = list(rows[0])
    absent = [name for name in known if name not in header]
    others = [name for name in header if name not in known]
    holding = [name for name in others if _holds_paths(path, [row[name] for row in rows])]
    for name in others:
        if name in holding:
            meant = closest(name, [each for each in files if each in absent])
            found = "holds paths that nothing reads"
        else:
            words = {same_word(each): each for each in absent if each not in files}
            meant, found = words.get(same_word(name)), "would count as a label"
        if meant:
            raise InputError(
                f"{path}: column {name!r} {found}; did you mean {meant}? Rename it, or give it a "
                f"name that is less like one of {', '.join(known)}"
            )
    if holding:
        log.warning(
            "%s: column(s) %s hold paths that nothing reads; images and masks are %s",
            path, ", ".join(map(repr, holding)), ", ".join(files),
        )  # fmt: skip


def _holds_paths(path: Path, cells: Sequence[str]) -> bool:
    """Whether every filled cell that is looked at ends as images do, or is there."""
    filled = [cell for cell in cells if cell][:LOOKED_AT]
    return bool(filled) and all(_is_path(path.parent, cell) for cell in filled)


def _is_path(folder: Path, cell: str) -> bool:
    if cell.lower().endswith(IMAGE_SUFFIXES):
        return True
    try:
        return "/" in cell and (folder / cell).exists()
    except (OSError, ValueError):
        return False
