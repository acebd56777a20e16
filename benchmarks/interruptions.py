"""An extraction that is killed twice ends with the table of an undisturbed one, nothing redone.

``python -m benchmarks.interruptions [--cohort cohort.csv] [--cases 240]``

Runs the job ``experiments.radiomics`` with two workers on a cohort (phantoms by default) three
times: undisturbed; with a SIGKILL of one worker at a third and of the whole job at two thirds of
the parts; and again on what that left. Then it holds the two tables against each other, value by
value, the side tables and the list of patients set aside byte by byte, and the modification times
of the parts that were finished before each kill against those at the end. Prints what it found,
writes ``benchmarks/results/interruptions.json`` and exits with 1 if anything differs or was done
again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import harness
from experiments.common.cli import DONE, SET_ASIDE
from lens.cohort.prostate import MODALITIES

WORKERS = 2


@dataclass(frozen=True)
class Config:
    """Kills a worker and the job in the middle of an extraction, and compares the outcome."""

    cohort: Path | None = None
    """Manifest, of which every case is taken; phantoms are made by default."""

    cases: int = 240
    """Number of phantoms that are made where no manifest is given."""

    spacing: tuple[float, float, float] = (1.0, 1.0, 2.0)
    """Voxel size in mm (x y z), coarse so that it ends in minutes."""

    parameters: Path | None = None
    """PyRadiomics parameter file for all modalities; those of the package by default."""

    folder: Path | None = None
    """Where the runs are kept; a temporary folder by default."""

    out: Path = harness.RESULTS / "interruptions.json"
    """Where the findings go."""


def main(config: Config) -> int:
    """Runs all three and compares; gives the exit code."""
    with tempfile.TemporaryDirectory() as name:
        found = interrupted(config, config.folder or Path(name))
    print(json.dumps(found, indent=2))
    harness.record(config.out, found)
    equal = found["tables are equal"] and not found["other files that differ"]
    return 0 if equal and found["parts done again"] == 0 else 1


def interrupted(config: Config, folder: Path) -> dict[str, Any]:
    """What became of the table and the parts."""
    from lens.cohort import write_phantoms

    cohort = config.cohort or write_phantoms(folder / "cohort", config.cases, seed=0)
    total = len(pd.read_csv(cohort))
    start = time.perf_counter()
    whole = Run(config, cohort, folder / "undisturbed")
    whole.finish()
    seconds = {"undisturbed": time.perf_counter() - start}

    start = time.perf_counter()
    run = Run(config, cohort, folder / "killed")
    run.wait_for(total // 3)
    before_worker = run.parts()
    run.kill_worker()
    run.wait_for(2 * total // 3)
    before_job = run.parts()
    run.kill_all()
    seconds["until the job was killed"] = time.perf_counter() - start
    at_rest = run.parts()

    start = time.perf_counter()
    again = Run(config, cohort, folder / "killed")
    again.finish()
    seconds["second run"] = time.perf_counter() - start
    final = again.parts()
    known = before_worker | before_job | at_rest
    first, second = whole.files(), again.files()
    return {
        "cohort": "/".join(config.cohort.parts[-2:]) if config.cohort else "phantoms",
        "cases": total,
        "modalities": [name for name in MODALITIES if name in pd.read_csv(cohort, nrows=0)],
        "spacing in mm": list(config.spacing),
        "workers": WORKERS,
        "patients": len(whole.table()),
        "patients set aside": whole.set_aside(),
        "parts when the worker was killed": len(before_worker),
        "parts when the job was killed": len(at_rest),
        "parts at the end": len(final),
        "parts done again": sum(final.get(part) != when for part, when in known.items()),
        "tables are equal": whole.table().equals(again.table()),
        "columns": whole.table().shape[1],
        "other files": sorted(first),
        "other files that differ": [
            name for name in sorted(first | second) if first.get(name) != second.get(name)
        ],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "load": round(os.getloadavg()[0], 1),
    }


class Run:
    """The job as a user starts it, in a session of its own so that it can be killed whole."""

    def __init__(self, config: Config, cohort: Path, folder: Path) -> None:
        self._out = folder / "R.parquet"
        self._cache = folder / "radiomics-cache"
        command = [sys.executable, "-m", "experiments.radiomics"]
        command += ["--cohort", str(cohort), "--out", str(self._out), "--workers", str(WORKERS)]
        command += ["--spacing", *map(str, config.spacing)]
        command += ["--parameters", str(config.parameters)] if config.parameters else []
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a") as log:
            self._job = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, cwd=Path.cwd()
            )

    def parts(self) -> dict[str, int]:
        """Parts that are recorded as finished, and when they were written, in nanoseconds."""
        return {
            part.name: part.stat().st_mtime_ns
            for part in self._cache.glob("[!.]*.json")
            if part.with_name(f".{part.name}.done.json").is_file()
        }

    def wait_for(self, count: int) -> None:
        """Until so many parts are there."""
        while len(self.parts()) < count:
            if self._job.poll() is not None:
                raise RuntimeError(f"the job ended with {self._job.returncode} too early")
            time.sleep(0.02)

    def kill_worker(self) -> None:
        """SIGKILL to a process that is extracting; the job starts another."""
        workers = [
            process
            for process in self._family()
            if not process.children() and "spawn_main" in " ".join(process.cmdline())
        ]
        workers[0].send_signal(signal.SIGKILL)

    def kill_all(self) -> None:
        """SIGKILL to the job and all its processes at once, as a machine that loses power."""
        family = self._family()
        for process in family:
            process.send_signal(signal.SIGKILL)
        self._job.wait()

    def finish(self) -> None:
        """Waits for the end, which must be a good one, if perhaps with patients set aside."""
        if self._job.wait() not in (DONE, SET_ASIDE):
            raise RuntimeError(f"the job ended with exit code {self._job.returncode}")

    def table(self) -> pd.DataFrame:
        return pd.read_parquet(self._out)

    def files(self) -> dict[str, bytes]:
        """Content of the tables beside the table."""
        return {file.name: file.read_bytes() for file in self._out.parent.glob("*.csv")}

    def set_aside(self) -> int:
        file = self._out.parent / "failures.csv"
        return pd.read_csv(file, dtype=str)["patient_id"].nunique() if file.is_file() else 0

    def _family(self) -> list[Any]:
        import psutil

        process = psutil.Process(self._job.pid)
        return [process, *process.children(recursive=True)]


if __name__ == "__main__":
    import tyro

    sys.exit(main(tyro.cli(Config)))
