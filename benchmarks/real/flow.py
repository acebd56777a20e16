"""The parts of a study, one after another: prepare, measure, train, judge, report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks import harness

Part = Literal["all", "prepare", "measure", "train", "judge", "report"]


@dataclass(frozen=True)
class Plan:
    """A study, and what is its own.

    Attributes:
        study: a `benchmarks.real.judge.Study`.
        prepare: writes the manifest and the pack into a folder.
        steps: words of `benchmarks.real.train`, but for pack and folder.
        out, figure: results and picture.
    """

    study: Any
    prepare: Callable[[Path], None]
    steps: Sequence[tuple[str, ...]]
    out: Path
    figure: Path


def carry_out(plan: Plan, config: Any, part: Part) -> None:
    """Carries out a part, or all of them; what is finished is not made again."""
    from benchmarks.real import judge

    folder = plan.study.folder
    folder.mkdir(parents=True, exist_ok=True)
    if part == "prepare" or (part == "all" and not (folder / "pack.npz").is_file()):
        plan.prepare(folder)
    if part in ("measure", "all"):
        judge.measure(plan.study)
    if part in ("train", "all"):
        _train(plan, folder)
    if part in ("judge", "all"):
        judge.judge(plan.study, folder / "trained")
    if part in ("report", "all"):
        _report(plan, config)


def _train(plan: Plan, folder: Path) -> None:
    """The steps of the training, each in a process of its own, and their results together."""
    runs = folder / plan.study.name
    pack = ("--pack", str(folder / "pack.npz"))
    steps = [(name, *pack, *words) for name, *words in plan.steps]
    for step in (*steps, ("collect", "--to", str(folder / "trained"))):
        command = [sys.executable, "-m", "benchmarks.real.train", *step, "--out", str(runs)]
        subprocess.run(command, check=True)


def _report(plan: Plan, config: Any) -> None:
    """Results, the small tables of the paper, and the figure."""
    from benchmarks.real.figure import draw
    from benchmarks.real.results import findings, write_tables

    trained = plan.study.folder / "trained" / f"{plan.study.name}-scores.json"
    scores = json.loads(trained.read_text(encoding="utf-8"))
    found = findings(plan.study, scores)
    about = harness.facts(config, "jax", "flax", "scikit-learn", "pyradiomics-bhklab")
    harness.record(plan.out, {**about, **found})
    write_tables(plan.study, plan.out)
    draw(found, plan.figure)
    print(plan.figure)


def cached(
    folder: Path,
    *,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    label: Sequence[str] = (),
) -> Any:
    """The volumes of the manifest in a folder, read as the jobs read them.

    Raises:
        ValueError: a case cannot be read.
    """
    from encoders.volumes import cache_cohort
    from lens.cohort import parse_labels, read_manifest
    from lens.cohort.columns import Declared

    labels = parse_labels(label)
    cohort = read_manifest(folder / "cohort.csv", declared=Declared(labels=labels))
    grid = {"shape": shape, "spacing_mm": spacing_mm, "labels": labels or None}
    made, errors = cache_cohort(cohort, folder / "volumes", **grid)
    if errors:
        raise ValueError(f"{len(errors)} cases cannot be read; the first: {errors[0]}")
    return made
