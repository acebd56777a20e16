"""Jobs that are killed, told to stop or interrupted at random instants end as undisturbed ones.

``python -m benchmarks.faults [--jobs sweep radiomics ...] [--each 20] [--seed 0]``

Each job runs once undisturbed on a small input. Then, `each` times with SIGKILL, SIGTERM and Ctrl-C
(to the whole group, as a terminal sends it) in turn, it is started in a new folder, hit at a random
instant of its usual time, and started again. The second run must succeed, its tables must equal the
undisturbed ones byte by byte, and no process, lock or unfinished file may be left: after SIGKILL
once the second run has ended, otherwise at once. Prints a row per fault, writes
``benchmarks/results/faults.json`` and exits with 1 if anything is wrong.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from experiments.common.cli import DONE, SET_ASIDE
from lens.files import file_hash

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TABLES = (".csv", ".parquet", ".npz")
PAGES = ("report",)
"""Jobs whose page is compared, too; that of a sweep tells how long its stages took."""
CACHES = ("radiomics-cache", "E.npz.parts", "volumes")
GRID = ("--shape", "16", "24", "24", "--spacing", "2", "2", "3")
PATIENCE = 60.0
"""Seconds that a job may take to end after a signal, on a machine that may be busy."""


@dataclass(frozen=True)
class Config:
    """Kills jobs at random instants and compares what they leave after a second run."""

    jobs: tuple[str, ...] = ("sweep", "radiomics", "embed", "finetune", "pretrain", "report")
    """Jobs to disturb."""

    each: int = 20
    """Faults per job."""

    cases: int = 12
    """Phantoms in the cohort."""

    seed: int = 0
    """Of the instants."""

    folder: Path | None = None
    """Where the runs are kept; a temporary folder by default."""

    out: Path = harness.RESULTS / "faults.json"
    """Where the findings go."""


def main(config: Config) -> int:
    """Runs all and prints a row per fault; gives the exit code."""
    with tempfile.TemporaryDirectory() as name:
        found = faults(config, config.folder or Path(name))
    harness.record(config.out, {"seed": config.seed, "faults": found})
    wrong = [row for row in found if row["problems"]]
    print(f"{len(found)} faults, {len(wrong)} with a problem")
    return 1 if wrong else 0


def faults(config: Config, folder: Path) -> list[dict[str, Any]]:
    """A row per fault: job, signal, instant, exit code, seconds to the end, and the problems."""
    rng, inputs, rows = np.random.default_rng(config.seed), Inputs(folder, config.cases), []
    for name in config.jobs:
        whole = inputs.begin(name, folder / name / "undisturbed")
        whole.finish()
        expected = whole.tables(name in PAGES)
        # The first run compiles for all the others.
        start = time.perf_counter()
        inputs.begin(name, folder / name / "timed").finish()
        usual = time.perf_counter() - start
        for number in range(config.each):
            sent = SIGNALS[number % len(SIGNALS)]
            place, instant = folder / name / str(number), rng.uniform(0, usual)
            found = _one(inputs, name, place, sent, instant, expected)
            # A job that was through before it was hit shows nothing.
            while found["code"] in (DONE, SET_ASIDE) and not found["problems"] and instant > 0.1:
                instant /= 2
                found = _one(inputs, name, place, sent, instant, expected)
            row = {"job": name, "signal": sent.name, "instant": round(instant, 2)}
            rows.append(row | found)
            print(rows[-1], flush=True)
    return rows


def _one(
    inputs: Inputs,
    name: str,
    place: Path,
    sent: signal.Signals,
    instant: float,
    expected: dict[str, str],
) -> dict[str, Any]:
    """One fault and the run after it."""
    run = inputs.begin(name, place)
    code, seconds = run.hit(sent, instant)
    problems = [f"process left: {each}" for each in run.processes()]
    ended = {-sent, 128 + sent, DONE, SET_ASIDE}
    # Ctrl-C while Python itself starts is Python's to report, with code 1; later it raises nothing.
    ended |= {1} if sent == signal.SIGINT and "KeyboardInterrupt" in run.said() else set()
    problems += [] if code in ended else [f"exit code {code}"]
    if "Traceback" in run.said() and code > 1:
        problems.append(f"traceback: {run.said()}")
    if sent != signal.SIGKILL and code != -sent:
        problems += [f"left at once: {each}" for each in run.left()]
    again = inputs.begin(name, place)
    try:
        again.finish()
    except RuntimeError as error:
        problems.append(str(error))
    problems += [f"left in the end: {each}" for each in again.left()]
    problems += [f"process left in the end: {each}" for each in again.processes()]
    found = again.tables(name in PAGES)
    differ = [file for file in {**expected, **found} if expected.get(file) != found.get(file)]
    problems += [f"{file} differs" for file in differ]
    if not problems:
        shutil.rmtree(place)
    return {"code": code, "seconds_to_end": round(seconds, 2), "problems": problems}


class Run:
    """A job as a user starts it, in a session of its own by which its processes are found."""

    def __init__(self, arguments: Sequence[str], place: Path, cache: Path) -> None:
        self._place, self._temporary = place, place.with_name(f"{place.name}-tmp")
        for folder in (place, self._temporary):
            folder.mkdir(parents=True, exist_ok=True)
        self._log = place.with_name(f"{place.name}.log")
        environment = {"TQDM_DISABLE": "1", "XDG_CACHE_HOME": str(cache)}
        environment |= {"TMPDIR": str(self._temporary), "OMP_NUM_THREADS": "1"}
        # A shell starts what runs in its background with Ctrl-C ignored; a terminal does not.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with self._log.open("w") as log:
                self._job = subprocess.Popen(
                    [sys.executable, "-m", *arguments], stdout=log, stderr=log, cwd=ROOT,
                    start_new_session=True, env=os.environ | environment,
                )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)

    def hit(self, sent: signal.Signals, instant: float) -> tuple[int, float]:
        """Waits for the instant, sends the signal; gives the exit code, and the seconds since."""
        try:
            return self._job.wait(instant), 0.0
        except subprocess.TimeoutExpired:
            start = time.perf_counter()
        if sent == signal.SIGINT:
            os.killpg(self._job.pid, sent)
        else:
            self._job.send_signal(sent)
        try:
            return self._job.wait(PATIENCE), time.perf_counter() - start
        except subprocess.TimeoutExpired:
            os.killpg(self._job.pid, signal.SIGKILL)
            self._job.wait()
            return 1000, PATIENCE

    def finish(self) -> None:
        """Waits for the end, which must be a good one."""
        if self._job.wait() not in (DONE, SET_ASIDE):
            raise RuntimeError(f"the run ended with {self._job.returncode}: {self.said()}")

    def said(self) -> str:
        """The last that the job printed."""
        return self._log.read_text(errors="replace")[-600:]

    def processes(self) -> list[str]:
        """Processes of the session that are still there after a while."""
        import psutil

        deadline = time.perf_counter() + 20
        while True:
            there = []
            for process in psutil.process_iter(["pid", "status"]):
                try:
                    ours = os.getsid(process.pid) == self._job.pid
                except OSError:
                    continue
                if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                    there.append(str(process.pid))
            if not there or time.perf_counter() > deadline:
                return there
            time.sleep(0.1)

    def left(self) -> list[str]:
        """Locks, and files and folders that are not finished, of the run and of its libraries."""
        names = (".unfinished-*", "*.lock", "*orbax-checkpoint-tmp*")
        found = [path for name in names for path in self._place.rglob(name)]
        found += self._temporary.iterdir()
        return sorted(str(path.relative_to(self._place.parent)) for path in found)

    def tables(self, page: bool) -> dict[str, str]:
        """Hash of every table, and of the page if asked for."""
        kinds = (*TABLES, ".html") if page else TABLES
        return {
            str(path.relative_to(self._place)): file_hash(path)
            for path in sorted(self._place.rglob("*"))
            if path.suffix in kinds and not set(path.parts) & set(CACHES)
        }


class Inputs:
    """Small inputs, each made when a job first asks for it."""

    def __init__(self, folder: Path, cases: int) -> None:
        self._folder, self._cases = folder, cases

    def begin(self, job: str, place: Path) -> Run:
        """Starts a job whose results go to a place."""
        if job == "report" and not place.exists():
            shutil.copytree(self._finished(), place)
        commands: dict[str, Callable[[Path], list[str]]] = {
            "sweep": self._sweep,
            "radiomics": lambda out: [
                *self._cohort("--spacing", "2", "2", "3", "--workers", "2"),
                *("--out", f"{out}/R.parquet"),
            ],
            "embed": lambda out: [
                *self._cohort(*GRID, "--batch-size", "1", "--encoder", self._encoder()),
                *("--out", f"{out}/E.npz"),
            ],
            "finetune": lambda out: [
                *self._training(out), "--task", "regression", "--label", "volume_ml",
            ],
            "pretrain": lambda out: [*self._training(out), "--patch", "8", "--width", "8"],
            "report": lambda out: [str(out)],
        }  # fmt: skip
        return Run([f"experiments.{job}", *commands[job](place)], place, self._folder / "cache")

    def _cohort(self, *flags: str) -> list[str]:
        from lens.cohort import write_phantoms

        manifest = write_phantoms(self._folder / "cohort", self._cases, seed=0, progress=False)
        return ["--cohort", str(manifest), *flags]

    def _training(self, out: Path) -> list[str]:
        flags = ("--init", self._encoder(), "--epochs", "3", "--batch", "2", "--out", str(out))
        return self._cohort(*GRID, *flags, "--checkpoint-steps", "1")

    def _encoder(self) -> str:
        """An encoder small enough to compile in seconds."""
        from flax import nnx

        import encoders

        path = self._folder / "encoder"
        if not path.exists():
            config = encoders.ConvNeXtV2Config(depths=(1,), widths=(8,), strides=())
            encoders.save(path, encoders.ConvNeXtV2(config, rngs=nnx.Rngs(0)))
        return str(path)

    def _sweep(self, out: Path) -> list[str]:
        """Tables of 60 patients, of whose four traits fine-tuning loses the first."""
        import pandas as pd

        from lens.files import write_arrays, write_table

        tables, rng = self._folder / "tables", np.random.default_rng(0)
        ids = np.array([f"P{i:02d}" for i in range(60)])
        traits, mixing = rng.normal(size=(60, 4)), rng.normal(size=(4, 12))
        if not (tables / "R.csv").exists():
            noise = 0.1 * rng.normal(size=(2, 60, 12))
            write_arrays(tables / "A.npz", patient_id=ids, embeddings=traits @ mixing + noise[0])
            after = (traits * [0, 1, 1, 1]) @ mixing + noise[1]
            write_arrays(tables / "B.npz", patient_id=ids, embeddings=after)
            features = [f"t2.gland.original_glcm_{name}" for name in ("Idm", "Id", "Idn", "Imc1")]
            values = traits + 0.3 * rng.normal(size=traits.shape)
            table = pd.DataFrame(values, columns=features)
            table.insert(0, "patient_id", ids)
            write_table(table, tables / "R.csv")
        flags = "--hidden 4 --epochs 3 --l1 0 --l2 1e-5 --folds 2 --repeats 1 --bootstraps 20"
        pair = ["--pre", f"{tables}/A.npz", "--ft", f"cls={tables}/B.npz"]
        return [*pair, "--radiomics", f"{tables}/R.csv", *flags.split(), "--flips", "50",
                "--out", str(out)]  # fmt: skip

    def _finished(self) -> Path:
        """The run folder of a sweep."""
        place = self._folder / "finished"
        if not (place / "report.html").exists():
            self.begin("sweep", place).finish()
        return place


if __name__ == "__main__":
    import tyro

    sys.exit(main(tyro.cli(Config)))
