"""How long a page takes to draw again, and how large it is.

``python -m benchmarks.page`` makes finished runs of several sizes from planted tables, draws the
page of each anew with ``python -m experiments.report``, as a user would, first without any figure
and then beside those there are, and writes ``benchmarks/results/page.json``. The runs themselves
are as short as they can be: the page is the same.
"""

from __future__ import annotations

import json
import shutil
import tempfile
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
    first = _job("report", run)
    turns = harness.Turns()
    for _ in range(config.turns):
        turns.add("again", _job("report", run))
    return {
        **dict(zip(("patients", "columns", "tasks"), size, strict=True)),
        **turns.row("again", "again"),
        "seconds_without_figures": first.seconds,
        "processor_seconds_without_figures": first.processor,
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


def _job(name: str, *words: object) -> harness.Cost:
    """What a job of ours costs in a process of its own."""
    return harness.run_process("-m", f"experiments.{name}", *words).cost


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
