"""How the cross-validation grows with the features: processor seconds of its parts, and its peak.

``python -m benchmarks.growth`` plants one cohort, takes more and more of its features, each number
in a process of its own, prints a table and writes ``benchmarks/results/growth.json``. The last
column is the power of the number of features that a part grows by, from the first row to the last:
1 is as fast as they.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.analysis import plant_arrays

PARTS = ("shared MLPs", "ridge probes", "unique parts", "clusters", "verdicts")


@dataclass(frozen=True)
class Config:
    """How many of what."""

    columns: tuple[int, ...] = (2511, 5022, 10044)
    """Features, each a multiple of 27."""
    patients: int = 850
    """Rows of the tables."""
    width: int = 768
    """Dimensions of the embeddings."""
    epochs: int = 10
    """Of the shared MLPs."""
    out: Path = harness.RESULTS / "growth.json"
    """Where the figures go."""
    alone: int | None = None
    """Only measure this number of features, and print the figures."""


def parts(config: Config, columns: int) -> dict[str, float]:
    """Processor seconds of each part of the cross-validation, one repeat of its folds, by name."""
    from lens import stages
    from lens.settings import Settings, SweepConfig
    from lens.verdicts.clusters import cluster_features
    from lens.verdicts.evidence import task_estimates
    from lens.verdicts.fold_features import FeatureBlocks
    from lens.verdicts.fold_fits import FoldFits
    from lens.verdicts.held_out import train_mlps
    from lens.verdicts.judge import judge_estimates
    from lens.verdicts.variance_partition import partition_by_embedding

    ids, embeddings, table = plant_arrays(config.patients, columns, config.width)
    r = np.column_stack([*table.values()])
    before, after = embeddings["pre"], embeddings["ft"]
    settings = Settings(mlp=SweepConfig(epochs=config.epochs), repeats=1)
    settings = settings.fitted_to(config.patients)
    folds, scratch = stages.folds_of(ids, settings), stages.scratch_of(settings)
    blocks = FeatureBlocks(before, {"t": after}, ids, folds, None, scratch=scratch)
    found: dict[str, Any] = {}

    def train() -> None:
        train_mlps(FoldFits(), before, {"t": after}, r, folds, settings.mlp)

    def probe() -> None:
        found["task"] = blocks.estimate(r)["t"]

    def split() -> None:
        partition_by_embedding(before, after, r, ids, folds)

    def cluster() -> None:
        found["clusters"] = cluster_features(r)

    def judge() -> None:
        task = found.pop("task")
        estimates = task_estimates(task.estimates, task.retrained)
        judge_estimates(estimates, found["clusters"], settings.rules)

    calls: Sequence[Callable[[], None]] = (train, probe, split, cluster, judge)
    return {name: harness.cost_of(call).processor for name, call in zip(PARTS, calls, strict=True)}


def measure(config: Config, columns: int) -> dict[str, Any]:
    """A row: features, processor seconds of each part, and the peak in MiB of their process."""
    words = ["--patients", config.patients, "--width", config.width, "--epochs", config.epochs]
    run = harness.run_process("-m", "benchmarks.growth", *words, "--alone", columns)
    seconds = json.loads(run.output.splitlines()[-1])
    return {"columns": columns, "processor_seconds": seconds, "peak_mib": run.peak_mib}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown: a line per part, a column per number of features, then the power."""
    columns = [row["columns"] for row in rows]
    head = ["processor seconds", *(f"{number:,} features" for number in columns), "power"]
    lines = [head, ["---"] * len(head)]
    for name in PARTS:
        values = [row["processor_seconds"][name] for row in rows]
        lines.append([name, *(f"{v:.1f}" for v in values), _power(columns, values)])
    totals = [sum(row["processor_seconds"].values()) for row in rows]
    lines.append(["all", *(f"{total:.1f}" for total in totals), _power(columns, totals)])
    lines.append(["peak memory, MiB", *(f"{row['peak_mib']:.0f}" for row in rows), ""])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _power(columns: Sequence[int], values: Sequence[float]) -> str:
    """Growth from the first to the last; a dash where there is one, or next to no time."""
    if len(columns) < 2 or min(values[0], values[-1]) <= 0:
        return "-"
    return f"{np.log(values[-1] / values[0]) / np.log(columns[-1] / columns[0]):.2f}"


def main(config: Config) -> None:
    """Measures every number of features, prints and writes."""
    if config.alone is not None:
        print(json.dumps(parts(config, config.alone)))
        return
    about, rows = harness.facts(config, "jax", "numpy", "scipy"), []
    for columns in config.columns:
        rows.append(measure(config, columns))
        print(f"{table(rows)}\n", flush=True)
    harness.record(config.out, {**about, "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
