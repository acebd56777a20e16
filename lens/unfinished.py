"""Files and folders that are being written, under names by which the abandoned ones are found.

``.unfinished-<host>-<process>-<random><suffix>`` beside what it will become. A process that is
killed leaves such names; who next works in the folder removes those whose process is gone.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"\.unfinished-(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{12}")

ORBAX = ".orbax-checkpoint-tmp"
"""End of what Orbax has unfinished, which tells no process: it goes with the process that holds the
folder, and what a killed one left is removed by Orbax itself."""

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
def own_temporary_folder() -> Iterator[Path]:
    """All temporary files of this process and its children go to a folder that goes at the end.

    What processes that are gone left in the system's temporary folder is removed, too.
    """
    base, before = Path(tempfile.gettempdir()), (tempfile.tempdir, os.environ.get("TMPDIR"))
    remove_abandoned(base, deep=False)
    try:
        with unfinished(base / "temporary", folder=True) as own:
            tempfile.tempdir = os.environ["TMPDIR"] = str(own)
            yield own
    finally:
        tempfile.tempdir = before[0]
        os.environ.pop("TMPDIR", None)
        if before[1] is not None:
            os.environ["TMPDIR"] = before[1]


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
                with suppress(OSError):  # another user's, in a folder that all share
                    remove(path)
                    found.append(path)
        folders[:] = [name for name in folders if deep and not name.startswith(".unfinished-")]
    return found


def begin_nothing_more(seconds: float = 5.0) -> None:
    """Lets this process begin no file and no step of `undisturbed`: it is about to end.

    Args:
        seconds: to wait at most for a step that is under way.
    """
    _gate.acquire(timeout=seconds)


def remove_own() -> None:
    """Removes what this process has unfinished."""
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
    return f".unfinished-{_host_mark()}-{os.getpid()}-{secrets.token_hex(6)}"


def _host_mark() -> str:
    """Short, so that a socket in such a folder may have a path."""
    return hashlib.sha256(host().encode()).hexdigest()[:8]


def _abandoned(path: Path, dead: Collection[int]) -> bool:
    if path.name.endswith(ORBAX):
        return os.getpid() in dead
    made = _NAME.match(path.name)
    if made is None or path in _ours:
        return False
    process = int(made["process"])
    if made["host"] == _host_mark():
        return process in dead or is_gone(process)
    try:
        return time.time() - path.lstat().st_mtime > FOREIGN_SECONDS
    except OSError:
        return False
