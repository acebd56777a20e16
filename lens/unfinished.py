"""Files and folders that are being written, under names by which the abandoned ones are found.

``.unfinished-<host>-<process>-<random><suffix>`` beside what it will become. A process that is
killed leaves such names; who next works in the folder removes those whose process is gone.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = re.compile(r"\.unfinished-(?P<host>.+)-(?P<process>\d+)-[0-9a-f]{12}")

FOREIGN_SECONDS = 24 * 3600
"""Age from which an unfinished file of another host counts as abandoned."""

_ours: set[Path] = set()
_gate = threading.RLock()


@contextmanager
def unfinished(final: Path, *, folder: bool = False) -> Iterator[Path]:
    """A new file (or folder) beside `final`, to be moved there; what is left of it is removed.

    Args:
        final: what it will become; folders above it are made.
        folder: make a folder.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    path = final.with_name(f"{_stem()}{'' if folder else final.suffix}")
    with _gate:
        _ours.add(path)
        if folder:
            path.mkdir()
        else:
            path.touch(exist_ok=False)
    try:
        yield path
    finally:
        remove(path)
        _ours.discard(path)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A few steps that a stop of the program waits for, such as making a file and noting it."""
    with _gate:
        yield


def remove(path: Path) -> None:
    """Removes a file or a folder with all it holds; one that is gone is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_abandoned(folder: Path, *, deep: bool, dead: Collection[int] = ()) -> list[Path]:
    """Removes what processes that are gone left unfinished.

    Args:
        folder: where to look; one that is not there holds nothing.
        deep: look into the folders in it, too (not through links).
        dead: processes of this host that count as gone, whether they are yet or not.

    Returns:
        What was removed.
    """
    found = []
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if _abandoned(path := Path(place) / name, dead):
                remove(path)
                found.append(path)
        folders[:] = [name for name in folders if deep and not name.startswith(".unfinished-")]
    return found


def stop_writing(seconds: float = 5.0) -> None:
    """Removes what this process has unfinished and lets it begin nothing more: it is about to end.

    Args:
        seconds: to wait at most for a step that is under way.
    """
    _gate.acquire(timeout=seconds)
    for path in list(_ours):
        remove(path)


def is_gone(process: int) -> bool:
    """Whether no process of this number runs on this host; one that awaits burial is gone, too."""
    import psutil

    if not psutil.pid_exists(process):
        return True
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:  # it is there, though what it does is hidden from us
        return False


def host() -> str:
    """The name of this host."""
    return socket.gethostname() or "unknown"


def _stem() -> str:
    name = re.sub(r"\W", "_", host())[:40]
    return f".unfinished-{name}-{os.getpid()}-{secrets.token_hex(6)}"


def _abandoned(path: Path, dead: Collection[int]) -> bool:
    made = _NAME.match(path.name)
    if made is None or path in _ours:
        return False
    process = int(made["process"])
    if made["host"] == re.sub(r"\W", "_", host())[:40]:
        return process in dead or is_gone(process)
    try:
        return time.time() - path.lstat().st_mtime > FOREIGN_SECONDS
    except OSError:
        return False
