"""How long a page takes to draw again, and how large it is.

``python -m benchmarks.page`` makes finished runs of several sizes from planted tables, draws the
page of each anew with ``python -m experiments.report``, as a user would, first without any figure
and then beside those there are, and writes ``benchmarks/results/page.json``. The runs themselves
are as short as they can be: the page is the same.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import harness
from benchmarks.analysis import plant

SHORT = "--folds 2 --repeats 1 --epochs 3 --l1 0 --l2 0 --bootstraps 50 --flips 200 --doctor short"
"""Flags of the runs; their tasks share an embedding, which has to be allowed."""


@dataclass(frozen=True)
class Config:
    """What is drawn."""

    sizes: tuple[tuple[int, int, int], ...] = (
        (24, 54, 1),
        (850, 2511, 1),
        (850, 2511, 6),
        (200, 10044, 6),
    )
    """Patients, radiomic columns (a multiple of 27) and tasks."""
    turns: int = 3
    """How often each page is drawn beside its figures."""
    width: int = 64
    """Dimensions of the embeddings."""
    folder: Path | None = None
    """Where the runs stay; a temporary folder by default. Finished ones are kept there."""
    out: Path = harness.RESULTS / "page.json"
    """Where the figures go."""


def finished(config: Config, patients: int, columns: int, tasks: int, root: Path) -> Path:
    """The folder of a finished run of this size."""
    folder = root / f"{patients}x{columns}x{tasks}"
    if not (folder / "radiomics.parquet").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        plant(folder, patients, columns, config.width)
    words = ["--pre", folder / "pre.npz", "--radiomics", folder / "radiomics.parquet"]
    for number in range(tasks):
        words += ["--ft", f"task-{number}={folder / 'ft.npz'}"]
    _job("sweep", *words, *SHORT.split(), "--identical", "--out", folder / "run")
    return folder / "run"


def measure(config: Config, size: tuple[int, int, int], root: Path) -> dict[str, Any]:
    """Seconds of each redraw, on the clock and of the processor, with the size of the page."""
    run = finished(config, *size, root)
    shutil.rmtree(run / "figures")
    first, *again = [_drawn(run) for _ in range(1 + config.turns)]
    return {
        **dict(zip(("patients", "columns", "tasks"), size, strict=True)),
        **harness.timing([seconds for seconds, _ in again]),
        "processor_seconds_min": min(used for _, used in again),
        "seconds_without_figures": first[0],
        "processor_seconds_without_figures": first[1],
        "page_mb": (run / "report.html").stat().st_size / 1e6,
    }


def main(config: Config) -> None:
    """Measures every size and prints as it goes."""
    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        for size in config.sizes:
            rows.append(measure(config, size, config.folder or Path(temporary)))
            print(json.dumps(rows[-1]), flush=True)
            about = harness.facts(config, "matplotlib", "vl-convert-python", "pandas")
            harness.record(config.out, {**about, "pages": rows})


def _drawn(run: Path) -> tuple[float, float]:
    """Seconds of one redraw, on the clock and of the processor."""
    before, began = _children(), time.perf_counter()
    _job("report", run)
    return time.perf_counter() - began, _children() - before


def _job(name: str, *words: object) -> None:
    """A job of ours in a process of its own."""
    command = [sys.executable, "-m", f"experiments.{name}", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)


def _children() -> float:
    """Processor seconds of all ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
