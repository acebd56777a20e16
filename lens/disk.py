"""Files on disk, written whole or not at all, and what tells their content apart.

Tables are in `lens.files`; worker processes do without them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lens.errors import InputError
from lens.unfinished import unfinished


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and moves it there when the block succeeds.

    A reader sees the old file or the whole new one, never a part; a failed block leaves no trace.

    Raises:
        IsADirectoryError: `path` is a folder; told before the block runs.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with unfinished(path) as temporary:
        yield temporary
        temporary.replace(path)


def check_folder(path: Path) -> None:
    """Refuses a folder to write to that is something else, or lies in something else.

    Raises:
        InputError: the path, or a part of it, is a file.
    """
    for part in (path, *path.parents):
        if part.exists():
            if not part.is_dir():
                raise InputError(f"{part}: is a file, not a folder to write to; name another")
            return


def existing(path: Path) -> Path:
    """The path, or the innermost folder above it that exists."""
    return next(part for part in (path, *path.absolute().parents) if part.exists())


def check_writable(folder: Path) -> None:
    """Refuses a folder that takes no file: what is to go there would be lost.

    A file without a name is written to it, or to the innermost folder above it that exists.

    Raises:
        InputError: it is a file, or cannot be made or written to.
    """
    check_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=existing(folder)) as stream:
            stream.write(b"\0")
    except OSError as error:
        error.filename = str(folder)  # not that of the file without a name
        raise InputError(
            f"{folder}: cannot be written to ({error.strerror}). Name a folder that takes files"
        ) from error


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes named arrays as an uncompressed ``.npz``."""
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON that people can read: indented, keys in the order given."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder with their names, as 64 hex digits."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def array_hash(*arrays: np.ndarray) -> str:
    """SHA-256 over types, shapes and contents of arrays, as 64 hex digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
