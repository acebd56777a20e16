"""The run record: what was asked, on what input, which stages are done and which files are theirs.

``run.json`` in the run folder. It is true at any time while a run lasts: it names finished stages
only, each with its key and the sizes and hashes of its outputs (see `lens.cache`).
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lens
from lens import cache
from lens.files import write_json

log = logging.getLogger(__name__)

WORKPLACES = ("radiomics-cache", "embeddings-cache", "volumes", "training", "cohort")
"""Folders of a run folder with reusable parts that look after themselves."""


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
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        self._file = folder / "run.json"
        previous = cache.read_record(self._file)
        stages = previous.get("stages")
        self._done: dict[str, Any] = dict(stages) if isinstance(stages, dict) else {}
        self._earlier = {**_files(previous), **_files({"stages": self._done})}
        self._written: list[Path] = []
        self._compiling = CompileTimer()
        # A file system's clock may be a few milliseconds late.
        self._began = time.time() - 0.1
        self.record: dict[str, Any] = {
            "config": dict(config),
            "versions": {"python": platform.python_version(), "radiomic-lens": lens.__version__}
            | cache.libraries(),
            "machine": platform.platform(),
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
    ) -> None:
        """Runs `work`, unless an earlier run did from the same key and its outputs are intact.

        Args:
            name: of the stage, for people.
            code: modules whose functions do the work (`lens.cache.key`).
            depends: everything else that determines the outputs (`lens.cache.fingerprint`).
            outputs: files or folders that the stage may write, in the run folder; those that it
                leaves are recorded.
            work: the stage.
        """
        key, done = cache.key(code, depends), self._done.get(name)
        if (
            isinstance(done, dict)
            and done.get("key") == key
            and cache.intact(done.get("outputs"), self.folder)
        ):
            log.info("%s: done before, reused", name)
            self.note(name, done | {"reused": True})
            return
        log.info("%s ...", name)
        start, compiled = time.perf_counter(), self._compiling.seconds
        work()
        self.note(
            name,
            {
                "key": key,
                "seconds": round(time.perf_counter() - start, 2),
                "compile_seconds": round(self._compiling.seconds - compiled, 2),
                "reused": False,
                "outputs": cache.recorded(outputs, self.folder),
            },
        )

    def wrote(self, *paths: Path) -> None:
        """Names files or folders that are written anew in each run.

        Of a folder, the files that were written since the run began are its own.
        """
        self._written += paths

    def note(self, stage: str, content: Mapping[str, Any]) -> None:
        """Records a stage; what is on disk speaks of finished stages only."""
        self.record["stages"][stage] = dict(content)
        self._done[stage] = dict(content)
        write_json(self._file, self.record | {"stages": self._done})

    def finish(self, **content: Any) -> None:
        """Adds the closing facts."""
        self.record |= content
        write_json(self._file, self.record)

    def clear(self) -> None:
        """Clears away what earlier runs left and this one does not own; the last thing of a run.

        A file that an earlier run recorded and nobody changed since is deleted. Every other file
        of the folder that is not of this run is named under ``not_of_this_run``.
        """
        written = cache.recorded(self._written, self.folder)
        self.record["files"] = {
            name: facts
            for name, facts in written.items()
            if (self.folder / name).stat().st_mtime >= self._began
        }
        ours = _files(self.record)
        for name, facts in self._earlier.items():
            if name not in ours and cache.intact({name: facts}, self.folder):
                (self.folder / name).unlink()
        self.record["not_of_this_run"] = self._others(ours)
        write_json(self._file, self.record)

    def _others(self, ours: Mapping[str, Any]) -> list[str]:
        """Files of the folder that are not of this run; folders that became empty are removed."""
        folders = [path for path in self.folder.rglob("*") if path.is_dir()]
        for folder in sorted(folders, reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
        names = (
            path.relative_to(self.folder)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path != self._file
        )
        return [
            str(name) for name in names if str(name) not in ours and name.parts[0] not in WORKPLACES
        ]


def _files(record: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded files of all stages and of the run itself."""
    found: dict[str, Any] = {}
    stages = record.get("stages")
    for facts in (record, *(stages.values() if isinstance(stages, dict) else ())):
        if isinstance(facts, dict):
            for entry in ("files", "outputs"):
                found |= facts[entry] if isinstance(facts.get(entry), dict) else {}
    return found
