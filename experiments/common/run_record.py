"""A run folder's diary: what was asked, on what input, and which stages are done."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lens.files import write_json

log = logging.getLogger(__name__)

PACKAGES = ("radiomic-lens", "jax", "flax", "numpy", "pandas", "SimpleITK", "pyradiomics-bhklab")


class CompileTimer:
    """Adds up the seconds that JAX spends on compiling, or on reading programs compiled before."""

    def __init__(self) -> None:
        from jax import monitoring

        self.seconds = 0.0
        monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            self.seconds += duration_secs


class RunRecord:
    """Keeps ``run.json`` true while stages run, and skips stages whose input has not changed.

    Attributes:
        folder: where the run lives.
        record: content of ``run.json``.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        self._file = folder / "run.json"
        previous = (
            json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}
        )
        self._done: dict[str, Any] = previous.get("stages", {})
        self._compiling = CompileTimer()
        self.record: dict[str, Any] = {
            "config": dict(config),
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in PACKAGES},
            "machine": platform.platform(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S%z"),
            "stages": {},
        }

    def stage(
        self, name: str, depends: Any, outputs: Sequence[Path], work: Callable[[], object]
    ) -> None:
        """Runs `work` unless an earlier run did, on the same `depends`, and its outputs exist.

        Args:
            name: of the stage, for people.
            depends: anything JSON can write that determines the outputs (settings, file hashes).
            outputs: files or folders that the stage writes.
            work: the stage.
        """
        key = hashlib.sha256(json.dumps([depends, self.record["versions"]], default=str).encode())
        done = self._done.get(name)
        if done and done["key"] == key.hexdigest() and all(path.exists() for path in outputs):
            log.info("%s: done before, reused", name)
            self.note(name, done | {"reused": True})
            return
        log.info("%s ...", name)
        start, compiled = time.perf_counter(), self._compiling.seconds
        work()
        seconds = round(time.perf_counter() - start, 2)
        compiled = round(self._compiling.seconds - compiled, 2)
        facts = {"seconds": seconds, "compile_seconds": compiled, "reused": False}
        self.note(name, {"key": key.hexdigest(), **facts})

    def note(self, stage: str, content: Mapping[str, Any]) -> None:
        """Records a stage; what is on disk speaks of finished stages only."""
        self.record["stages"][stage] = dict(content)
        self._done[stage] = dict(content)
        write_json(self._file, self.record | {"stages": self._done})

    def finish(self, **content: Any) -> None:
        """Adds the closing facts."""
        self.record |= content
        write_json(self._file, self.record)
