"""A job under ``--anonymise``: what it prints and how it fails names no patient and no place.

A job says what it is asked to hide (`Hidden`), and `experiments.common.cli` hides it before all
else: the lock, the job, the line of a failure and the log with its traceback speak through the same
`Names`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from lens.errors import InputError
from lens.user_folders import cache_home

if TYPE_CHECKING:
    from lens.anonymise import Names


@dataclass(frozen=True, kw_only=True)
class PrivacyFlags:
    """What the results say of patients and files."""

    anonymise: bool = False
    """Write salted hashes in place of ids, and no paths, in every table, figure, page and message
    (for patients of your own)."""
    salt: Path | None = None
    """File of the salt (16 characters or more, outside --out), for --anonymise; by default one of
    your own is drawn once and kept in ~/.config/radiomic-lens/salt."""


class Hidden(NamedTuple):
    """What a job is asked to hide, and where that may be found.

    Attributes:
        asked: ``--anonymise``.
        salt: ``--salt``.
        out: folder of the results.
        inputs: what to call a file that a flag names -> the file; its ids, and the files that it
            names where it is a manifest, are looked for as well.
        id_column: ``--id-column``.
    """

    asked: bool
    salt: Path | None
    out: Path
    inputs: Mapping[str, Path]
    id_column: str | None = None


@contextmanager
def anonymously(hidden: Hidden) -> Iterator[Names]:
    """The names that a job writes patients under; where asked, all it prints goes through them.

    Raises:
        InputError: a salt without ``--anonymise``, or none that can be read; whatever the job
            refuses, in words without ids and paths.
    """
    if not hidden.asked:
        if hidden.salt is not None:
            raise InputError("--salt needs --anonymise")
        # pandas is slow to import, and a wrong flag does not need it.
        from lens.anonymise import OPEN

        yield OPEN
        return
    from experiments.common.failures import log_folder
    from lens.anonymise import LOGS, OUT, Anonymiser
    from lens.salt import read_salt

    paths = {path: name for name, path in hidden.inputs.items()}
    names = Anonymiser(read_salt(hidden.salt, hidden.out)).knowing(
        paths | {hidden.out: OUT, log_folder(): LOGS},
        tables=hidden.inputs.values(),
        id_column=hidden.id_column,
    )
    try:
        with _through(names):
            yield names
    except InputError as error:
        raise InputError(names.text(str(error))) from None
    except Exception as error:
        # Not chained: the original's words would be printed with it.
        if isinstance(error, MemoryError):
            raise MemoryError from None
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror) from None
        kind = type(error).__name__
        raise RuntimeError(f"{kind}: {names.text(str(error))}") from None


def check_out(out: Path) -> None:
    """Refuses a run folder in which an earlier run left names.

    Raises:
        InputError: it holds a run without ``--anonymise``.
    """
    from lens.cache import read_record

    record = read_record(out / "run.json")
    before = record.get("config", {}).get("anonymise") if record else None
    if (out / "run.json").exists() and not before:
        raise InputError(
            "--anonymise: --out holds a run that was made without it, whose files have names of "
            "patients; choose another folder, or delete that one"
        )


def private_cache() -> Path:
    """Folder of finished cases, outside all results: what is kept there names files."""
    return cache_home() / "cases"


class _Cleaned:
    """A stream that cleans what is written to it, and is the original in all else."""

    def __init__(self, stream: TextIO, names: Names) -> None:
        self._stream = stream
        self._names = names

    def write(self, text: str) -> int:
        self._stream.write(self._names.text(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _through(names: Names) -> Iterator[None]:
    """Standard output, standard error and the logs that go there, cleaned."""
    before = sys.stdout, sys.stderr
    clean: Any = tuple(_Cleaned(stream, names) for stream in before)
    handlers = [
        (handler, clean[before.index(handler.stream)])
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream in before
    ]
    for handler, stream in handlers:
        handler.setStream(stream)
    sys.stdout, sys.stderr = clean
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for handler, stream in handlers:
            handler.setStream(stream._stream)
