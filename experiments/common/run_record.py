"""The run record: what was asked, on what input, which stages are done and which files are theirs.

``run.json`` in the run folder. It is true at any time while a run lasts: it names finished stages
only, each with its key and the sizes and hashes of its outputs (see `lens.cache`).
"""

from __future__ import annotations

import logging
import os
import platform
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

import lens
from lens import cache
from lens.allocator import give_back_memory
from lens.anonymise import OPEN, Names
from lens.files import file_hash, write_json, write_table

log = logging.getLogger(__name__)

Version = tuple[int, int, int]
"""Inode, time of the last change in nanoseconds and size in bytes of a file."""

Recorded = dict[str, dict[str, Any]]
"""Size and hash of files, by path below the run folder (`lens.cache.recorded`)."""


class CompileTimer:
    """Adds up the seconds that JAX spends on compiling, or on reading programs compiled before."""

    def __init__(self) -> None:
        from jax import monitoring

        self.seconds = 0.0
        monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            self.seconds += duration_secs


class RunRecord:
    """Keeps ``run.json`` true while stages run, and skips stages that are done.

    Attributes:
        folder: where the run lives.
        record: content of ``run.json``.
        dry: whether this is a rehearsal, which neither runs nor writes anything.
    """

    dry = False

    def __init__(self, folder: Path, config: Mapping[str, Any], names: Names = OPEN) -> None:
        """Starts the record of a run.

        Args:
            folder: where the run lives.
            config: its flags.
            names: under which patients and files may be written.
        """
        self.folder = folder
        self._file = folder / "run.json"
        previous = cache.read_record(self._file)
        stages = previous.get("stages")
        self._done: dict[str, Any] = dict(stages) if isinstance(stages, dict) else {}
        self._earlier = _files(previous)
        self._written: Recorded = {}
        self._compiling = CompileTimer()
        self.record: dict[str, Any] = {
            "config": {flag: names.setting(value) for flag, value in config.items()},
            "versions": {"python": platform.python_version(), "radiomic-lens": lens.__version__}
            | cache.libraries(),
            "machine": platform.system() if names.hides else platform.platform(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S%z"),
            "stages": {},
        }

    def stage(
        self,
        name: str,
        code: Sequence[str],
        depends: Any,
        outputs: Sequence[Path],
        work: Callable[[], object],
        *,
        lasting: bool = False,
    ) -> None:
        """Runs `work`, unless an earlier run did from the same key and its outputs are intact.

        Args:
            name: of the stage, for people.
            code: modules whose functions do the work (`lens.cache.key`).
            depends: everything else that determines the outputs (`lens.cache.fingerprint`).
            outputs: files or folders that the stage may write, in the run folder; those that it
                leaves are recorded.
            work: the stage.
            lasting: the outputs are dear (embeddings, encoders): no later run clears them away.
        """
        key = cache.key(code, depends)
        if self.reusable(name, key):
            log.info("%s: done before, reused", name)
            self.note(name, self._done[name] | {"reused": True})
            return
        log.info("%s ...", name)
        start, compiled = time.perf_counter(), self._compiling.seconds
        found = _versions(outputs)
        work()
        give_back_memory()
        self.note(
            name,
            {
                "key": key,
                "seconds": round(time.perf_counter() - start, 2),
                "compile_seconds": round(self._compiling.seconds - compiled, 2),
                "reused": False,
                "lasting": lasting,
                "outputs": self._written_since(found, outputs),
            },
        )

    def reusable(self, name: str, key: str) -> bool:
        """Whether an earlier run did this stage from the same key and its outputs are intact."""
        done = self._done.get(name)
        return (
            isinstance(done, dict)
            and done.get("key") == key
            and cache.intact(done.get("outputs"), self.folder)
        )

    def content(self, path: Path, hashed: Callable[[Path], str] = file_hash) -> str:
        """Hash of a file or folder that an earlier stage may have written, as part of a key."""
        return hashed(path)

    def seconds_before(self, name: str) -> float | None:
        """Seconds that a stage took in the last run that did it; None where none is recorded."""
        done = self._done.get(name)
        seconds = done.get("seconds") if isinstance(done, dict) else None
        return float(seconds) if isinstance(seconds, int | float) else None

    def write_table(self, table: pd.DataFrame, path: Path) -> None:
        """Writes a table that is written anew in each run."""
        with self.writing(path):
            write_table(table, path)

    @contextmanager
    def writing(self, *outputs: Path) -> Iterator[None]:
        """Around what is written anew in each run; the files that it changes are the run's own.

        Args:
            outputs: files or folders, of which none need be there.
        """
        found = _versions(outputs)
        yield
        self._written |= self._written_since(found, outputs)

    def note(self, stage: str, content: Mapping[str, Any]) -> None:
        """Records a stage; what is on disk speaks of finished stages only."""
        self.record["stages"][stage] = dict(content)
        self._done[stage] = dict(content)
        write_json(self._file, self.record | {"stages": self._done})

    def finish(self, **content: Any) -> None:
        """Adds the closing facts."""
        self.record |= content
        write_json(self._file, self.record)

    def clear(self, inputs: Iterable[Path] = ()) -> None:
        """Clears away what earlier runs left and this one does not own; the last thing of a run.

        A file that a stage of an earlier run left, and that nobody changed since, is deleted,
        unless it is dear or an input of this run. What else lies in the folders of this run and of
        earlier ones is named under ``not_of_this_run`` and stays as it is.

        Args:
            inputs: files that this run read.
        """
        self.record["files"] = self._written
        ours, read = _files(self.record), {path.resolve() for path in inputs}
        for name, facts in self._earlier.items():
            path = self.folder / name
            if name in ours or facts.get("lasting") or path.resolve() in read:
                continue
            if not path.is_symlink() and cache.intact({name: facts}, self.folder):
                path.unlink()
                self._remove_empty(path.parent)
        self.record["not_of_this_run"] = self._others(ours)
        write_json(self._file, self.record)

    def _written_since(self, found: Mapping[Path, Version], outputs: Iterable[Path]) -> Recorded:
        """Size and hash of those files of the outputs that are not as they were found."""
        now = _versions(outputs).items()
        return cache.recorded(
            sorted(file for file, version in now if found.get(file) != version), self.folder
        )

    def _remove_empty(self, folder: Path) -> None:
        """Removes a folder that has become empty, and what that leaves empty, up to the run's."""
        while folder != self.folder and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    def _others(self, ours: Mapping[str, Any]) -> list[str]:
        """Files that are not of this run, in its own folders and in those of earlier runs."""
        places = {(self.folder / name).parent for name in (*ours, *self._earlier)}
        places |= {path.parent for path in self.folder.glob("*/features.parquet")}
        places |= {path.parent for path in self.folder.glob("scopes/*/sweep.parquet")}
        found = (
            str(path.relative_to(self.folder))
            for place in sorted(places - {self.folder})
            if place.is_dir()
            for path in sorted(place.iterdir())
            if path.is_file()
        )
        return [name for name in found if name not in ours]


def _versions(outputs: Iterable[Path]) -> dict[Path, Version]:
    """Every file of the outputs, with what tells it from another that is written in its place.

    No moment is compared: a user's file may be written just before a run begins, and the clock of a
    file system is another than the machine's. Another process may add and remove files meanwhile.
    """
    found: dict[Path, Version] = {}
    for output in outputs:
        below = (Path(folder, name) for folder, _, names in os.walk(output) for name in names)
        for file in (output, *below):
            with suppress(OSError):
                facts = file.stat()
                if stat.S_ISREG(facts.st_mode):
                    found[file] = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
    return found


def _files(record: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded files of all stages and of the run itself; those of a dear stage say so."""
    found: dict[str, Any] = {}
    stages = record.get("stages")
    for facts in (record, *(stages.values() if isinstance(stages, dict) else ())):
        if not isinstance(facts, dict):
            continue
        for entry in ("files", "outputs"):
            files = facts.get(entry)
            for name, each in files.items() if isinstance(files, dict) else ():
                if isinstance(each, dict):
                    found[name] = each | {"lasting": bool(facts.get("lasting"))}
    return found
