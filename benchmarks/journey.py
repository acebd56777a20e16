"""From images to the page: seconds of every stage, the limit of each, and what a cluster changes.

``python -m benchmarks.journey [--t2 FILE --dwi FILE --adc FILE --gland FILE]``

Jobs that go case by case run as a user runs them, on samples of two sizes; the line through both
gives the seconds of all cases, which is no measurement of all of them. The analysis runs whole, on
planted tables (`benchmarks.analysis`). Limits are simple: for each stage what a part of its work
that cannot be left out takes at the rates of this machine, named in the table; where none is known
there is none.

A cluster can share out the radiomics (``--scheduler``) and the embeddings (``embed --share``), and
nothing else. It is larger than this machine, so that tasks of the radiomics sleep
(`benchmarks.journey_cluster`): for the processor time of a case on one core, `shrink` times
shorter. What the job does alone, before and after the cases, is the time of a second run, which
finds all cases finished. Embeddings by shares are arithmetic. Everything else is as on this
machine.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from benchmarks import analysis, encoder, harness, sweep
from benchmarks.journey_cases import bytes_of, write_cases
from benchmarks.journey_cluster import Simulated, predicted, simulate
from benchmarks.journey_jobs import (
    AGAIN,
    ALONE,
    CHECK,
    EMBED_ALONE,
    FT,
    MANIFEST,
    PRE,
    RADIOMICS,
    Sampling,
    measure,
)
from benchmarks.journey_limits import items_of, loops_of, rates_of
from lens.machine import cpu_count
from lens.settings import SweepConfig
from lens.verdicts.fitting_time import count_work

COLUMNS, DRAWS = 2511, 1000
"""Features of three modalities in one region, and bootstraps, of the analysis."""

NAMES: dict[str, str] = {"shift cls": "bootstrap, flips, similarity"}
"""Of stages of the analysis."""

PAGE = "joining, tables and page"


@dataclass(frozen=True)
class Config:
    """Measures the journey of a cohort."""

    t2: Path | None = None
    """T2 image of a real study, which the cases repeat with a little noise; phantoms by default."""
    dwi: Path | None = None
    """Its high-b image."""
    adc: Path | None = None
    """Its ADC map."""
    gland: Path | None = None
    """Its gland mask."""
    cases: int = 850
    """Patients of the cohort that is spoken of."""
    samples: tuple[int, ...] = (4, 12)
    """Cases of the samples; multiples of four, which is a batch of the encoder."""
    samples_alone: tuple[int, ...] = (4, 8)
    """The same for what is measured on one core."""
    shape: tuple[int, int, int] = (64, 224, 224)
    """Input of the encoder (ConvNeXt V2 tiny) in voxels."""
    workers: tuple[int, ...] = (2, 4, 8)
    """Of the simulated clusters."""
    shrink: float = 60.0
    """How many times shorter their tasks are."""
    analysis: Path | None = None
    """Figures of benchmarks.analysis to take instead of running it; the page is then that of six
    tasks, of benchmarks.page."""
    out: Path = harness.RESULTS / "journey.json"
    """Where the figures go."""


class Line(NamedTuple):
    """Seconds of a job: ``fixed + each * cases``."""

    fixed: float
    each: float

    def at(self, cases: int) -> float:
        """Seconds of so many cases."""
        return self.fixed + self.each * cases


def fit(seconds: Mapping[int, float]) -> Line:
    """The line through the seconds by number of cases, by least squares; two numbers at least."""
    each, fixed = np.polyfit(list(seconds), list(seconds.values()), 1)
    return Line(float(fixed), float(each))


class Row(NamedTuple):
    """A stage of all cases: seconds, and those of a limit where there is one, with its name."""

    stage: str
    seconds: float
    limit: float | None = None
    of: str = ""


def gain(rows: Sequence[Row], stages: Sequence[str], to: float) -> float:
    """How many times as fast the whole would be, if these stages took `to` seconds together."""
    total = sum(row.seconds for row in rows)
    return total / (total - sum(row.seconds for row in rows if row.stage in stages) + to)


def main(config: Config) -> None:
    """Measures, prints and writes."""
    given = {"t2": config.t2, "dwi": config.dwi, "adc": config.adc, "gland": config.gland}
    if len(study := {name: path for name, path in given.items() if path}) not in (0, 4):
        raise SystemExit("a real study needs --t2, --dwi, --adc and --gland")
    sampling = Sampling(config.samples, config.samples_alone, config.shape)
    about = harness.facts(config, "jax", "numpy", "SimpleITK", "distributed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        most = max(*sampling.samples, *sampling.alone)
        about["case"] = write_cases(folder / "cases", most, study)
        rates = rates_of(folder, bytes_of(folder / "cases", most))
        costs = measure(sampling, folder)
        spent = {s: {n: cost._asdict() for n, cost in of.items()} for s, of in costs.items()}
        harness.record(config.out, about | {"rates": rates, "costs": spent})
        manifest = folder / str(min(sampling.samples)) / "cohort.csv"
        rates |= loops_of(manifest)
        lines = {stage: fit({n: c.seconds for n, c in of.items()}) for stage, of in costs.items()}
        used = {stage: fit({n: c.processor for n, c in of.items()}) for stage, of in costs.items()}
        duration = used[ALONE].each - used[AGAIN].each
        items = items_of(manifest, config.cases)
        runs = [simulate(items, duration / config.shrink, n) for n in config.workers]
        told = analysed(config, folder)
    rows = table(config, lines, rates, told)
    clusters = [
        cluster(config.cases, rows, lines[AGAIN], duration, used[EMBED_ALONE], run) for run in runs
    ]
    show(rows, clusters)
    found = {
        "rates": rates,
        "costs": spent,
        "lines": {stage: line._asdict() for stage, line in lines.items()},
        "lines_of_processor": {stage: line._asdict() for stage, line in used.items()},
        "rows": [row._asdict() for row in rows],
        "task_seconds": duration,
        "simulated": [asdict(run) for run in runs],
        "clusters": clusters,
    }
    harness.record(config.out, about | found)


def table(
    config: Config,
    lines: Mapping[str, Line],
    rates: Mapping[str, float],
    told: Mapping[str, float],
) -> list[Row]:
    """The stages in order, on this machine."""
    n, read = config.cases, config.cases * rates["bytes_a_case"] / rates["disk"]
    work = encoder.operations(encoder.Config(shape=config.shape))
    forward = n * work / rates["float32"]
    loops = n * rates["loops_a_case"] / cpu_count()
    mlp = SweepConfig()
    sizes = sweep.Config(hidden=mlp.width(int(0.8 * n)), patients=int(0.7 * n))
    step = sum(sweep.step_seconds(sizes, rates["float32"], rates["copy"]))
    epoch = -(-sizes.patients // sizes.batch) * step
    grid = len(mlp.l1_grid) * len(mlp.l2) * mlp.epochs * epoch
    training = "arithmetic and traffic of its MLPs"
    limits: dict[str, tuple[float, str]] = {
        CHECK: (read, "reading the files from disk"),
        RADIOMICS: (loops, "compiled loops alone, on all cores"),
        PRE: (forward, "arithmetic of the encoder"),
        FT: (forward, "arithmetic of the encoder"),
    }
    if config.analysis is None:  # the rates of another day are no limit of it
        limits["sweep"] = (grid, training)
        limits["cross-validation"] = (count_work(10, 2, mlp).epochs * epoch, training)
    stages = {stage: lines[stage].at(n) for stage in (MANIFEST, CHECK, RADIOMICS, PRE, FT)}
    stages.update(told)
    none = (None, "")
    return [Row(stage, value, *limits.get(stage, none)) for stage, value in stages.items()]


def cluster(
    cases: int,
    rows: Sequence[Row],
    again: Line,
    duration: float,
    embedding: Line,
    run: Simulated,
) -> dict[str, float]:
    """Seconds of the radiomics and of the whole journey with the workers of `run`.

    Args:
        cases: of the cohort.
        rows: the stages on this machine.
        again: of radiomics that finds all cases finished: the job's own part.
        duration: of a case's radiomics on one core.
        embedding: of an encoder on one core. Each worker's core embeds a share (``--share``). That
            is arithmetic, no run, and without the run that writes the table of finished cases.
        run: the sleeping tasks.
    """
    seconds, serial = {row.stage: row.seconds for row in rows}, again.at(cases)
    extraction = predicted(cases, duration, serial, run)
    whole = sum(seconds.values()) - seconds[RADIOMICS] + extraction
    largest_share = 2 * embedding.at(-(-cases // run.workers))
    return {
        "workers": run.workers,
        "lost_ms_a_task": 1e3 * run.lost / run.tasks,
        "radiomics": extraction,
        "serial_of_radiomics": serial,
        "journey": whole,
        "journey_of_workers_without_end": whole - extraction + serial,
        "journey_embedded_by_shares": whole - seconds[PRE] - seconds[FT] + largest_share,
    }


def show(rows: Sequence[Row], clusters: Sequence[Mapping[str, float]]) -> None:
    """Prints both tables in Markdown."""
    total = sum(row.seconds for row in rows)
    print("| stage | seconds | share | limit | over it | the whole, with this stage at its limit |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        cells = [row.stage, f"{row.seconds:,.1f}", f"{row.seconds / total:.0%}", "", "", ""]
        if row.limit is not None:
            cells[3:] = [f"{row.limit:,.1f}: {row.of}", f"{row.seconds / row.limit:.1f}"]
            cells += [f"{gain(rows, [row.stage], row.limit):.2f} times as fast"]
        print(f"| {' | '.join(cells)} |")
    bound = {row.stage: row.limit for row in rows}
    both = gain(rows, [PRE, FT], (bound[PRE] or 0) + (bound[FT] or 0))
    print(f"| all | {total:,.1f} | 100% | | | {both:.2f} with both embeddings at theirs |")
    print(f"without any embedding: {gain(rows, [PRE, FT], 0):.2f} times as fast;", end=" ")
    print(f"without any radiomics: {gain(rows, [RADIOMICS], 0):.2f}")
    for found in clusters:
        print(", ".join(f"{name} {value:,.1f}" for name, value in found.items()))


def analysed(config: Config, folder: Path) -> dict[str, float]:
    """Seconds of the analysis by stage, and of the page."""
    if config.analysis is None:
        size = (config.cases, COLUMNS, DRAWS)
        run = analysis.measure(analysis.Config(), *size, folder / "analysis")
    else:
        runs = json.loads(config.analysis.read_text())["runs"]
        run = next(r for r in runs if (r["columns"], r["bootstraps"]) == (COLUMNS, DRAWS))
    measured: dict[str, float] = run["seconds"]
    seconds = {NAMES.get(stage, stage): value for stage, value in measured.items()}
    total = seconds.pop("total")
    if "job_seconds" in run:
        return seconds | {PAGE: run["job_seconds"] - total}
    pages = json.loads((harness.RESULTS / "page.json").read_text())["pages"]
    return seconds | {PAGE: next(p["seconds_min"] for p in pages if p["columns"] == COLUMNS)}


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
