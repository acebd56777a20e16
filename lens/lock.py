"""One run at a time in a folder: who works there is written in it, and a second run is refused."""

from __future__ import annotations

import getpass
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lens.errors import InputError
from lens.openable import not_a_file
from lens.unfinished import host, is_gone, remove_abandoned, undisturbed

log = logging.getLogger(__name__)

LOCK = "run.lock"

STARTED_WITHIN = 60.0
"""Seconds by which two readings of a process's start may differ: clocks are set right meanwhile."""

BEING_WRITTEN = 10.0
"""Seconds after which a lock without an owner in it was left so by a process that is gone."""

_held: dict[Path, tuple[Owner, tuple[Place, ...]]] = {}


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        user, host, process: of the run; `process` is its number on the host.
        started: when the process began, in seconds since 1970: numbers are given anew.
        since: when the lock was taken, for people.
        token: tells one taking from another.
    """

    user: str
    host: str
    process: int
    started: float
    since: str
    token: str

    def words(self, *, named: bool) -> str:
        """Who it is, for people; without its names, what else tells runs apart."""
        who = f"{self.user} on {self.host}, " if named else ""
        return f"{who}process {self.process}, since {self.since}"

    def is_gone(self) -> bool:
        """Whether the process is known to have ended; of another host nothing is known."""
        if self.host != host():
            return False
        if is_gone(self.process):
            return True
        started = _started(self.process)
        return started is not None and abs(started - self.started) > STARTED_WITHIN


@dataclass(frozen=True)
class Place:
    """A folder in which the run writes.

    Attributes:
        folder: the place.
        deep: what lies in its folders is the run's too.
    """

    folder: Path
    deep: bool = True

    def clear(self, dead: Sequence[int] = ()) -> None:
        """Removes what processes that are gone left unfinished there."""
        for path in remove_abandoned(self.folder, deep=self.deep, dead=dead):
            log.debug("%s: left unfinished, removed", path)


@dataclass(frozen=True)
class Claim:
    """What a run wants for itself.

    Attributes:
        lock: file that says so.
        places: where it writes.
    """

    lock: Path
    places: tuple[Place, ...]


def of_folder(folder: Path, *caches: Path | None) -> Claim:
    """The claim on a run folder.

    Args:
        folder: the run's own.
        caches: folders of finished work that it may share with others; None for none.
    """
    return Claim(folder / LOCK, (Place(folder), *map(Place, filter(None, caches))))


def of_file(path: Path, *caches: Path | None) -> Claim:
    """The claim on a single file to be written; its lock lies beside it."""
    places = (Place(path.parent, deep=False), *map(Place, filter(None, caches)))
    return Claim(path.with_name(f"{path.name}.lock"), places)


@contextmanager
def held(claim: Claim, *, named: bool = True) -> Iterator[None]:
    """Holds a lock while the block lasts; at its end the lock and empty new folders are removed.

    A lock whose process is gone from this host is taken over, with a word in the log, and what it
    left unfinished is removed.

    Args:
        claim: what is held.
        named: messages name the user and the host of another run; the lock always does, for it
            must be seen whether its process is gone.

    Raises:
        InputError: another run holds it; names its user, host, process and since when. Or its
            folder takes no files.
    """
    from lens.files import check_writable

    # Every path is made absolute now: the working folder may change while the lock is held.
    lock = claim.lock.absolute()
    places = tuple(Place(place.folder.absolute(), place.deep) for place in claim.places)
    check_writable(lock.parent)
    new = [part for part in (lock.parent, *lock.parent.parents) if not part.exists()]
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        _take(lock, places, named)
        try:
            for place in places:
                place.clear()
            yield
        finally:
            _release(lock)
    finally:
        for folder in new:
            with suppress(OSError):
                folder.rmdir()


def release_all(dead: Sequence[int] = ()) -> None:
    """Gives every lock of this process back, which is about to end.

    Args:
        dead: processes, this one among them, whose unfinished files are removed.
    """
    for lock, (_, places) in list(_held.items()):
        for place in places:
            place.clear(dead)
        _release(lock)


def _take(lock: Path, places: tuple[Place, ...], named: bool) -> None:
    if kind := not_a_file(lock):
        raise InputError(
            f"{lock}: is {kind}, where the run keeps a file; remove it, or choose another place "
            "for the results"
        )
    owner = _this_process()
    while not _create(lock, owner, places):
        found = _read(lock)
        if isinstance(found, Owner) and not found.is_gone():
            raise InputError(_refusal(lock, found, named))
        if not isinstance(found, Owner) and not _old(lock):
            time.sleep(0.1)  # its owner is about to write who it is
            continue
        _remove_stale(lock, found)
        known = isinstance(found, Owner)
        who = f"of {found.words(named=named)}" if known else "without an owner"
        log.warning("%s: a lock %s, whose run is gone; taken over", lock, who)


def _create(lock: Path, owner: Owner, places: tuple[Place, ...]) -> bool:
    """Makes the lock unless there is one: only one of several processes can."""
    with undisturbed():
        try:
            handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except FileNotFoundError:
            # Another run had made the folder, too, and has ended without leaving anything in it.
            lock.parent.mkdir(parents=True, exist_ok=True)
            return False
        _held[lock] = (owner, places)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(asdict(owner), stream, indent=2)
    except OSError:
        _held.pop(lock)
        lock.unlink(missing_ok=True)
        raise
    return True


def _read(lock: Path) -> Owner | None:
    """Who holds a lock; None where that is not in it (yet)."""
    try:
        return Owner(**json.loads(lock.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _remove_stale(lock: Path, found: Owner | None) -> None:
    """Removes a lock, of several processes that find it stale by one alone.

    The others wait for that one (where the file system knows how) and find another file, or none.
    """
    try:
        handle = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        _wait_for_the_file(handle)
        with suppress(FileNotFoundError):
            same = os.fstat(handle).st_ino == lock.stat().st_ino
            if same and _read(lock) == found:
                lock.unlink()
    finally:
        os.close(handle)


def _wait_for_the_file(handle: int) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)


def _release(lock: Path) -> None:
    """Removes the lock if it is still ours."""
    owner, _ = _held.pop(lock, (None, ()))
    if owner is not None and _read(lock) in (owner, None):
        with suppress(OSError):
            lock.unlink(missing_ok=True)


def _old(lock: Path) -> bool:
    try:
        return time.time() - lock.stat().st_mtime > BEING_WRITTEN
    except FileNotFoundError:
        return False


def _refusal(lock: Path, owner: Owner, named: bool) -> str:
    here = owner.host == host()
    remedy = (
        "wait for its end or choose another place for the results"
        if here
        else "whether it still runs can be told on its host alone: wait for its end, choose "
        f"another place for the results, or delete {lock} if it is gone"
    )
    who = owner.words(named=named)
    return f"{lock.parent}: another run is at work there ({who}); {remedy}"


def _this_process() -> Owner:
    process = os.getpid()
    now = time.strftime("%Y-%m-%d %H:%M:%S%z")
    started = _started(process) or time.time()
    return Owner(_user(), host(), process, started, now, secrets.token_hex(8))


def _started(process: int) -> float | None:
    """When a process of this host began; None where that cannot be told."""
    import psutil

    try:
        return psutil.Process(process).create_time()
    except psutil.Error:
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run a number without a name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
