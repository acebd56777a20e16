"""Are the verdicts right? Planted changes whose truth is known, and how often the lens says so.

``python -m benchmarks.calibration`` prints the acceptance table and the power table of
docs/benchmarks.md and writes ``benchmarks/results/calibration.json``. `experiments` lists what is
planted, `benchmarks.cohorts` makes it, `benchmarks.judged_cohorts` has it judged and
`benchmarks.acceptance` counts. Judged cohorts are kept (`--kept`) and not judged again, unless the
code behind them, a library or their settings changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from benchmarks import acceptance as must
from benchmarks import harness
from benchmarks import judged_cohorts as judged
from benchmarks.cohorts import CLUSTERED, FAMILIES, LATENTS, SMALL, Size
from lens.settings import SweepConfig


@dataclass(frozen=True)
class Config:
    """How many cohorts."""

    nulls: int = 100
    """Cohorts of each family in which nothing changed."""
    covered: int = 200
    """Cohorts of each family that the intervals are judged on."""
    planted: int = 20
    """Cohorts of each planted change."""
    power: int = 20
    """Cohorts of each number of patients in the power table."""
    only: str = ""
    """Part of the names of the experiments to run; the record is then not written."""
    judge: bool = True
    """Judge what is missing; otherwise the tables are about the cohorts that are on file."""
    kept: Path = Path("runs/calibration")
    """Where judged cohorts are kept."""
    out: Path = harness.RESULTS / "calibration.json"
    """Where the tables go."""


@dataclass(frozen=True)
class Experiment:
    """Cohorts of one kind.

    Attributes:
        name: for tables and files.
        cohorts: number of them, seeds from 0.
        judge: function of `benchmarks.judged_cohorts` that draws a cohort by its seed and judges
            it.
        settings: its other arguments.
        lines: lines of the acceptance table, from the name and the verdicts of all cohorts.
    """

    name: str
    cohorts: int
    judge: Callable[..., pd.DataFrame]
    settings: Mapping[str, Any]
    lines: Callable[[str, pd.DataFrame], Sequence[must.Line]]


def main(config: Config) -> None:
    """Judges what is not there yet, prints both tables and writes them."""
    lines, power, tables = [], [], []
    for experiment in experiments(config):
        if config.only in experiment.name:
            table = verdicts_of(experiment, config.kept, judge=config.judge)
            count = table["cohort"].nunique()
            found = experiment.lines(experiment.name, table)
            lines += [replace(line, cohorts=count) for line in found]
            if experiment.judge is judged.judge_power:
                power.append(must.power_rows(table, **experiment.settings))
            tables.append(must.against_interval(table))
    lines.append(must.consistent_line(tables))
    texts = must.acceptance_text(lines), must.power_text(power)
    print(*texts, sep="\n\n", flush=True)
    if not config.only:
        rows = [vars(line) | {"before": must.before(line)} for line in lines]
        content = {"acceptance": rows, "power": [row for each in power for row in each]}
        harness.record(config.out, content | harness.facts(config, "numpy", "scipy", "jax"))


def experiments(config: Config) -> Iterator[Experiment]:
    """Everything that is planted, in the order of the table."""
    small, large = Size(), Size(n=720, d=768, k=240)
    mlp = SweepConfig(hidden=64, l1=(0.0, 1e-6, 1e-5), l2=(0.0, 1e-4), epochs=100)
    gaussian, planted = {"family": "Gaussian"}, config.planted
    for name, size in (("harmless changes", large), ("harmless changes, n = 200, d = 128", small)):
        yield Experiment(name, planted, judged.judge_harmless, {"size": size}, must.harmless_lines)
    for family in (*FAMILIES, *SMALL):
        clustered = family in CLUSTERED
        size = Size(n=60, d=256) if family in SMALL else replace(small, n=100 if clustered else 200)
        yield Experiment(
            family.name, config.nulls, judged.judge_family,
            {"family": family.name, "size": size},
            must.clustered_lines if clustered else must.null_lines,
        )  # fmt: skip
    for name, size in (
        ("Gaussian, folds twice", replace(small, repeats=2)),
        ("Gaussian, as many fitted patients as channels", replace(small, n=160)),
    ):
        yield Experiment(
            name,
            config.nulls,
            judged.judge_family,
            gaussian | {"size": size},
            must.null_lines,
        )
    yield Experiment(
        "near copies of a feature that lost a part", 30, judged.judge_clusters,
        {"size": Size(n=400, d=128, k=80)}, must.cluster_lines,
    )  # fmt: skip
    for name, left in (("3 of 12 factors erased", (0, 0, 0)),
                       ("3 of 12 factors fading to 0, 0.4 and 0.7", (0, 0.4, 0.7))):  # fmt: skip
        yield Experiment(
            name, planted, judged.judge_family,
            gaussian | {"size": large, "kept": _kept(left)}, must.erased_lines,
        )  # fmt: skip
    yield Experiment(
        "rotation where the frozen MLP reads well", planted, judged.judge_recoding,
        {"size": large, "noise": 8.0, "mlp": mlp}, must.recoded_lines,
    )  # fmt: skip
    yield Experiment(
        "fresh noise alone, with the MLP", 2 * planted, judged.judge_recoding,
        {"size": Size(n=200, d=128, k=60), "noise": 3.0, "mlp": replace(mlp, hidden=16)},
        must.fresh_noise_lines,
    )  # fmt: skip
    for n in (200, 400):
        yield Experiment(
            f"same embeddings on both sides, n = {n}", planted, judged.judge_family,
            gaussian | {"size": replace(small, n=n), "other": "same embeddings"}, must.same_lines,
        )  # fmt: skip
    yield Experiment(
        "patients of R permuted", planted, judged.judge_family,
            gaussian | {"size": replace(small, n=400), "other": "patients permuted"},
            must.permuted_lines,
    )  # fmt: skip
    few = Size(n=120, k=60)
    for name, family, size in (
        *((family.name, family.name, few) for family in FAMILIES),
        ("Gaussian, as many fitted patients as channels", "Gaussian", replace(few, d=96)),
    ):
        yield Experiment(
            f"intervals: {name}", config.covered, judged.judge_family,
            {"family": family, "size": size, "kept": _kept((0, 0.4, 0.7)), "flips": 199},
            must.interval_lines,
        )  # fmt: skip
    for way in ("erased", "fading"):
        for n in (100, 200, 400, 850):
            yield Experiment(
                f"power, {way}, n = {n}", config.power, judged.judge_power,
                {"size": Size(n=n, k=120), "way": way}, must.power_lines,
            )  # fmt: skip


def verdicts_of(experiment: Experiment, kept: Path, *, judge: bool = True) -> pd.DataFrame:
    """Verdicts of all cohorts, with a column ``cohort``; those on file are read.

    Args:
        experiment: what to judge.
        kept: folder of the files.
        judge: those that are not on file; otherwise they are left out.
    """
    from tqdm import tqdm

    from lens.cache import key

    facts = (experiment.judge.__name__, dict(experiment.settings))
    name = re.sub(r"[^a-z0-9]+", "-", experiment.name.lower()).strip("-")
    folder = kept / f"{name}-{key(['benchmarks.judged_cohorts'], facts)[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for seed in tqdm(range(experiment.cohorts), desc=experiment.name, unit="cohort", mininterval=5):
        file = folder / f"{seed}.parquet"
        if not judge and not file.is_file():
            continue
        if not file.is_file():
            partial = file.with_suffix(".partial")
            experiment.judge(seed, **experiment.settings).to_parquet(partial)
            partial.replace(file)
        tables.append(pd.read_parquet(file).assign(cohort=seed))
    return pd.concat(tables, ignore_index=True)


def _kept(left: Sequence[float]) -> tuple[float, ...]:
    """Share of each factor that is left, the first as given and all of the others."""
    return (*map(float, left), *[1.0] * (LATENTS - len(left)))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
