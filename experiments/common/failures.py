"""What a job says when it fails: a line with what, where and what to do, or a log file.

Expected are refused inputs, and everything that a disk, a network drive, permissions, limits and
memory can do. Anything else is a fault of the program and is called so; its traceback goes to a
file.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from lens.errors import InputError
from lens.names import PACKAGES
from lens.user_folders import cache_home

REFUSED, INTERRUPTED = 1, 130

_PROGRAM = Path(__file__).resolve().parents[2]
"""Where the packages of this program lie."""

_AGAIN = "then start the same command again: what is finished is kept"
_ELSEWHERE = "name another place (--out, --cache)"

REMEDIES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", f"make room or {_ELSEWHERE}, {_AGAIN}"),
    errno.EDQUOT: ("your quota on this disk is used up", f"make room or {_ELSEWHERE}, {_AGAIN}"),
    errno.EFBIG: (
        "the file would be larger than allowed",
        f"raise the limit (ulimit -f) or {_ELSEWHERE}, {_AGAIN}",
    ),
    errno.EROFS: ("lies on a disk that is read-only", _ELSEWHERE),
    errno.EACCES: ("no permission", f"ask its owner, change the permissions, or {_ELSEWHERE}"),
    errno.EPERM: ("not permitted", f"ask its owner, change the permissions, or {_ELSEWHERE}"),
    errno.ENAMETOOLONG: ("the name is too long for this disk", "name a shorter path"),
    errno.ENOTDIR: ("a file lies where a folder is needed", "move that file or name another path"),
    errno.EISDIR: ("a folder, where a file is needed", "name a file"),
    errno.EEXIST: ("is there already, as something else", "move it or name another path"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.ELOOP: ("its links lead in a circle", "check the path"),
    errno.EMFILE: ("too many files are open", f"raise the limit (ulimit -n), {_AGAIN}"),
    errno.ENFILE: ("too many files are open on this machine", _AGAIN),
    errno.EIO: ("the disk does not answer as it should", f"check the disk, {_AGAIN}"),
    errno.ESTALE: ("the network drive has lost the file", f"check the drive, {_AGAIN}"),
    errno.ETIMEDOUT: ("the network drive does not answer", f"check the drive, {_AGAIN}"),
    errno.EAGAIN: ("no further process or thread may be started", f"see ulimit -u, {_AGAIN}"),
    errno.EPIPE: ("what read the output has ended", _AGAIN),
}
"""What was found and what to do, by the system's number of the error."""

_MEMORY_WORDS = (
    "out of memory", "bad allocation", "bad_alloc", "cannot allocate memory",
    "can't allocate memory", "can't start new thread", "unable to allocate",
)  # fmt: skip
_MEMORY = (
    "not enough memory: end other programs, allow more (ulimit -v, the job's --mem), or ask for "
    f"less (--workers, --batch, --shape, --memory), {_AGAIN}"
)

# Libraries in C++ give the system's error as text alone.
_BY_TEXT = {
    code: (os.strerror(code), f"Errno {code}]", f"OS error {code}:")
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ESTALE)
}


Clean = Callable[[str], str]


def explain(error: BaseException, job: str, clean: Clean = str) -> tuple[str, int]:
    """The line to print for an error, with the notes of a refusal below it, and the exit code.

    Args:
        error: what ended the job.
        job: its name, for the log file.
        clean: a text as it may be written; it is given whole texts, for half an id is not found.
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted: what is finished is kept; the same command goes on from there", 130
    expected = _system(error, clean) or _out_of_memory(error)
    if expected:
        return f"failed: {_one_line(expected)}", REFUSED
    if isinstance(error, InputError):
        notes = map(clean, getattr(error, "__notes__", []))
        return "\n".join([f"refused: {_one_line(clean(str(error)))}", *notes]), REFUSED
    if taken := _taken_name(error):
        return f"refused: {_one_line(clean(taken))}", REFUSED
    log = _write_log(error, job, clean)
    where = f"the details are in {clean(str(log))}" if log else "no log file could be written"
    what = _one_line(clean(f"{type(error).__name__}: {error}"))[:300]
    return (
        f"unexpected failure ({what}). This is a fault of the program, not of your input: "
        f"{where}; please report it with that file",
        REFUSED,
    )


def _system(error: BaseException, clean: Clean) -> str:
    """What the operating system refused, in words; an empty text where it is not to blame.

    A refusal speaks for itself, unless a full or failing disk is behind it.
    """
    for each in _chain(error):
        number = _number(each)
        if number is None or (isinstance(error, InputError) and number not in _BY_TEXT):
            continue
        if number == errno.ENOMEM:
            return _MEMORY
        name = getattr(each, "filename", None)
        if number not in REMEDIES and name is None:
            continue
        what, remedy = REMEDIES.get(number, (os.strerror(number), f"check it, {_AGAIN}"))
        named = isinstance(name, str | bytes)
        where = f"{_shortened(clean(os.fsdecode(name)))}: " if named else ""
        if number in (errno.ENOSPC, errno.EDQUOT):
            remedy = _room(name) + remedy
        return f"{where}{what}; {remedy}"
    return ""


def _taken_name(error: BaseException) -> str:
    """Which folder of the user's was found in place of a package of this program; else empty."""
    for each in _chain(error):
        name = (getattr(each, "name", None) or "").partition(".")[0]
        if not isinstance(each, ImportError) or name not in PACKAGES:
            continue
        found = getattr(sys.modules.get(name), "__path__", None) or [
            getattr(sys.modules.get(name), "__file__", None) or ""
        ]
        place = Path(next(iter(found), ""))
        if _PROGRAM not in place.resolve().parents:
            return (
                f"{place}: has the name of a package of this program, {name}, and was found first; "
                "start the command in another folder or rename that one, or start it as "
                "radiomic-lens JOB, which does not search the current folder"
            )
    return ""


def _number(error: BaseException) -> int | None:
    """The system's number of an error; None where it has none."""
    if isinstance(error, InputError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    return next((code for code, words in _BY_TEXT.items() if any(w in text for w in words)), None)


def _out_of_memory(error: BaseException) -> str:
    for each in _chain(error):
        text = str(each).lower()
        if isinstance(each, MemoryError) or (
            isinstance(each, RuntimeError | OSError) and any(w in text for w in _MEMORY_WORDS)
        ):
            return _MEMORY
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: a library wraps the system's own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _room(name: str | bytes | None) -> str:
    """How much room there is on a file's disk."""
    folder = Path(os.fsdecode(name)).parent if isinstance(name, str | bytes) else Path()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return f"{shutil.disk_usage(folder).free / 1e9:.3g} GB are left; "
    except OSError:
        return ""


def _shortened(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:120]}...{path[-60:]} ({len(path)} characters)"


def _one_line(text: str) -> str:
    return re.sub(r"\s*[\r\n]+\s*", " ", text.strip())


def _write_log(error: BaseException, job: str, clean: Clean) -> Path | None:
    """Writes traceback and versions; gives the file, or None where no place takes it."""
    name = re.sub(r"\W+", "-", job).strip("-") or "job"
    name = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    details = _details(error, clean)
    for folder in (log_folder(), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(details, encoding="utf-8", errors="replace")
        except OSError:
            continue
        return folder / name
    print(details, file=sys.stderr)
    return None


def _details(error: BaseException, clean: Clean) -> str:
    from lens.cache import libraries

    try:
        versions = {"python": platform.python_version(), **libraries()}
    except Exception as problem:  # the log of a broken installation must not fail for that
        versions = {"python": platform.python_version(), "libraries": f"unknown ({problem})"}
    lines = [
        time.strftime("%Y-%m-%d %H:%M:%S%z"),
        f"command: {shlex.join(map(clean, sys.argv))}",
        f"platform: {platform.platform()}",
        *(f"{name}: {version or 'absent'}" for name, version in versions.items()),
        "",
        _SOURCE.sub(_as_module, "".join(traceback.format_exception(error))),
    ]
    return clean("\n".join(lines))


_SOURCE = re.compile(r'(?<=^  File ")[^"\n]+\.py(?=", line \d)', re.MULTILINE)


def _as_module(found: re.Match[str]) -> str:
    """A file of the program as its modules are searched, not by the place of the installation."""
    folders = [f"{folder}{os.sep}" for folder in sys.path if folder]
    fitting = [folder for folder in folders if found[0].startswith(folder)]
    return found[0][len(max(fitting, key=len, default="")) :]


def log_folder() -> Path:
    """Where the details of unexpected failures go, if it can be written."""
    return cache_home() / "logs"
