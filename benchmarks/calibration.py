"""Are the verdicts right? Planted changes whose truth is known, and how often the lens says so.

``python -m benchmarks.calibration`` prints the acceptance table and the power table of
docs/benchmarks.md and writes ``benchmarks/results/calibration.json``. `experiments` lists what is
planted and `benchmarks.cohorts` makes it; here it is counted. Judged cohorts are kept (`--kept`)
and not judged again, unless the code behind them, a library or their settings changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from scipy import stats

from benchmarks import cohorts, harness
from benchmarks.cohorts import CLUSTERED, FAMILIES, LATENTS, SMALL, Size
from lens.settings import DEFAULT_RULES, SweepConfig

LEVEL, EQUIVALENCE = DEFAULT_RULES.level, DEFAULT_RULES.equivalence
COVERED = (0.93, 0.98)
"""Where the coverage of a 95% interval must be."""

BEFORE = {
    "exp(2.5 g) features": "calls in 26%, p in 91%",
    "3% outlying patients": "calls in 38%",
    "lognormal features, n = 60, d = 256": "calls in 20%",
    "signal-free directions x 5": "called in 40 of 40 cohorts",
    "near copies of a feature that lost a part": (
        "untouched called in 30 of 30 cohorts, 26 of 60 medoids against their own interval"
    ),
    "rotation where the frozen MLP reads well": "0 of 10 recoded",
    "intervals: exp(2.5 g) features": "0.83",
    "intervals: 3% outlying patients": "0.88",
}
"""What was found with verdicts of medoids, raw values and in-sample residuals, by row."""


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
class Line:
    """A line of the acceptance table.

    Attributes:
        planted: what was done to the embeddings.
        must: hold.
        found: figures.
        holds: whether it does.
        cohorts: behind the figures.
    """

    planted: str
    must: str
    found: str
    holds: bool
    cohorts: int = 0


@dataclass(frozen=True)
class Experiment:
    """Cohorts of one kind.

    Attributes:
        name: for tables and files.
        cohorts: number of them, seeds from 0.
        judge: function of `benchmarks.cohorts` that draws a cohort by its seed and judges it.
        settings: its other arguments.
        lines: lines of the acceptance table, from the name and the verdicts of all cohorts.
    """

    name: str
    cohorts: int
    judge: Callable[..., pd.DataFrame]
    settings: Mapping[str, Any]
    lines: Callable[[str, pd.DataFrame], Sequence[Line]]


def main(config: Config) -> None:
    """Judges what is not there yet, prints both tables and writes them."""
    lines, power, judged = [], [], {}
    for experiment in experiments(config):
        if config.only in experiment.name:
            table = judged_cohorts(experiment, config.kept, judge=config.judge)
            count = table["cohort"].nunique()
            found = experiment.lines(experiment.name, table)
            lines += [replace(line, cohorts=count) for line in found]
            if experiment.judge is cohorts.judge_power:
                power.append(power_rows(table, **experiment.settings))
            judged[experiment.name] = against_interval(table)
    lines.append(_consistent(judged))
    print(acceptance_text(lines), power_text(power), sep="\n\n", flush=True)
    if not config.only:
        rows = [vars(line) | {"before": BEFORE.get(line.planted, "")} for line in lines]
        tables = {"acceptance": rows, "power": [row for each in power for row in each]}
        harness.record(config.out, tables | harness.facts(config, "numpy", "scipy", "jax"))


def experiments(config: Config) -> Iterator[Experiment]:
    """Everything that is planted, in the order of the table."""
    small, large = Size(), Size(n=720, d=768, k=240)
    mlp = SweepConfig(hidden=64, l1=(0.0, 1e-6, 1e-5), l2=(0.0, 1e-4), epochs=100)
    gaussian, planted = {"family": "Gaussian"}, config.planted
    for name, size in (("harmless changes", large), ("harmless changes, n = 200, d = 128", small)):
        yield Experiment(name, planted, cohorts.judge_harmless, {"size": size}, harmless_lines)
    for family in (*FAMILIES, *SMALL):
        clustered = family in CLUSTERED
        size = Size(n=60, d=256) if family in SMALL else replace(small, n=100 if clustered else 200)
        yield Experiment(
            family.name, config.nulls, cohorts.judge_family,
            {"family": family.name, "size": size}, clustered_lines if clustered else null_lines,
        )  # fmt: skip
    for name, size in (
        ("Gaussian, folds twice", replace(small, repeats=2)),
        ("Gaussian, as many fitted patients as channels", replace(small, n=160)),
    ):
        yield Experiment(
            name, config.nulls, cohorts.judge_family, gaussian | {"size": size}, null_lines
        )
    yield Experiment(
        "near copies of a feature that lost a part", 30, cohorts.judge_clusters,
        {"size": Size(n=400, d=128, k=80)}, cluster_lines,
    )  # fmt: skip
    for name, left in (("3 of 12 factors erased", (0, 0, 0)),
                       ("3 of 12 factors fading to 0, 0.4 and 0.7", (0, 0.4, 0.7))):  # fmt: skip
        yield Experiment(
            name, planted, cohorts.judge_family,
            gaussian | {"size": large, "kept": _kept(left)}, erased_lines,
        )  # fmt: skip
    yield Experiment(
        "rotation where the frozen MLP reads well", planted, cohorts.judge_recoding,
        {"size": large, "noise": 8.0, "mlp": mlp}, recoded_lines,
    )  # fmt: skip
    yield Experiment(
        "fresh noise alone, with the MLP", 2 * planted, cohorts.judge_recoding,
        {"size": Size(n=200, d=128, k=60), "noise": 3.0, "mlp": replace(mlp, hidden=16)},
        fresh_noise_lines,
    )  # fmt: skip
    for n in (200, 400):
        yield Experiment(
            f"same embeddings on both sides, n = {n}", planted, cohorts.judge_family,
            gaussian | {"size": replace(small, n=n), "other": "same embeddings"}, same_lines,
        )  # fmt: skip
    yield Experiment(
        "patients of R permuted", planted, cohorts.judge_family,
        gaussian | {"size": replace(small, n=400), "other": "patients permuted"}, permuted_lines,
    )  # fmt: skip
    few = Size(n=120, k=60)
    for name, family, size in (
        *((family.name, family.name, few) for family in FAMILIES),
        ("Gaussian, as many fitted patients as channels", "Gaussian", replace(few, d=96)),
    ):
        yield Experiment(
            f"intervals: {name}", config.covered, cohorts.judge_family,
            {"family": family, "size": size, "kept": _kept((0, 0.4, 0.7)), "flips": 199},
            interval_lines,
        )  # fmt: skip
    for way in ("erased", "fading"):
        for n in (100, 200, 400, 850):
            yield Experiment(
                f"power, {way}, n = {n}", config.power, cohorts.judge_power,
                {"size": Size(n=n, k=120), "way": way}, power_lines,
            )  # fmt: skip


def judged_cohorts(experiment: Experiment, kept: Path, *, judge: bool = True) -> pd.DataFrame:
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
    folder = kept / f"{name}-{key(['benchmarks.cohorts'], facts)[:16]}"
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


def alarms(table: pd.DataFrame) -> dict[str, int]:
    """Cohorts in which the lens says that something changed, in one way or another."""
    by_cohort = table.assign(
        calls=table["verdict"].isin(["lost", "gained"]),
        p=table["p_maxt"] <= LEVEL,
        q=table["q_bh"] <= LEVEL,
        task=table["p_task"] <= LEVEL,
        groups=table["group_verdict"].isin(["lost", "gained"]),
    ).groupby("cohort")
    return {name: int(by_cohort[name].any().sum()) for name in ALARMS}


ALARMS = {
    "calls": "a feature called lost or gained", "p": "a p_maxt", "q": "a q_bh",
    "task": "the task's p", "groups": "a group called lost or gained",
}  # fmt: skip
"""Ways to raise an alarm; p and q at most `LEVEL`."""


def coverage(table: pd.DataFrame) -> pd.Series:
    """Coverage of the intervals by feature; the truth is the mean of the estimate."""
    truth = table.groupby("feature")["delta_r2"].transform("mean")
    inside = (table["delta_r2_low"] <= truth) & (truth <= table["delta_r2_high"])
    return inside.groupby(table["feature"]).mean()


def against_interval(table: pd.DataFrame) -> tuple[int, int]:
    """Verdicts against the feature's own interval of the change, and all verdicts."""
    low, high, verdict = table["delta_r2_low"], table["delta_r2_high"], table["verdict"]
    wrong = (verdict == "lost") & ~(high < 0)
    wrong |= (verdict == "gained") & ~(low > 0)
    wrong |= (verdict == "unchanged") & ~((low > -EQUIVALENCE) & (high < EQUIVALENCE))
    return int(wrong.sum()), len(table)


def null_lines(name: str, table: pd.DataFrame) -> list[Line]:
    """Every kind of alarm within the binomial limit."""
    count, found = table["cohort"].nunique(), alarms(table)
    limit = int(stats.binom.ppf(0.95, count, LEVEL))
    text = ", ".join(f"{name} {value}" for name, value in found.items())
    must = f"each alarm in at most {limit}"
    return [Line(name, must, text, max(found.values()) <= limit)]


def clustered_lines(name: str, table: pd.DataFrame) -> list[Line]:
    """The same, and intervals that cover no change."""
    inside = (table["delta_r2_low"] <= 0) & (table["delta_r2_high"] >= 0)
    share = float(inside.mean())
    return [*null_lines(name, table), _covered(f"{name}: intervals", share, f"{share:.3f}")]


def harmless_lines(name: str, table: pd.DataFrame) -> list[Line]:
    """No calls, beside the R2 of the population and that of held-out patients."""
    lines = []
    for side, rows in table.groupby("side", sort=False):
        r2 = [f"{rows[column].mean():.3f}" for column in
              ("population_pre", "population_ft", "r2_ridge_pre", "r2_ridge_ft")]  # fmt: skip
        found = alarms(rows)
        text = f"calls {found['calls']}, groups {found['groups']}, task {found['task']}; R2 of the "
        text += f"population {r2[0]} -> {r2[1]}, held out {r2[2]} -> {r2[3]}"
        limit = _few(rows)
        holds = max(found["calls"], found["groups"], found["task"]) <= limit
        must = f"features, groups, the task called in at most {limit}"
        lines.append(Line(f"{side}{name.removeprefix('harmless changes')}", must, text, holds))
    return lines


def cluster_lines(name: str, table: pd.DataFrame) -> list[Line]:
    """The touched features are called, the others are not."""
    rest = table[~table["touched"]]
    calls, limit, (wrong, _) = alarms(rest)["calls"], _few(table), against_interval(table)
    lost = (table.loc[table["touched"], "verdict"] == "lost").mean()
    loss = -table.loc[table["touched"], "delta_r2"].mean()
    must = f"untouched called in at most {limit}; no verdict against its interval"
    text = f"untouched {calls}; against the interval {wrong}; "
    text += f"of the touched, mean loss {loss:.3f}, {lost:.0%} lost"
    return [Line(name, must, text, calls <= limit and wrong == 0)]


def erased_lines(name: str, table: pd.DataFrame) -> list[Line]:
    """Power where the true loss is above 0.1, and no call elsewhere."""
    loss = -table.groupby("feature")["delta_r2"].transform("mean")
    large = (loss > 0.1) & (table["factor"] < 3)
    power = float((table.loc[large, "verdict"] == "lost").mean())
    calls, limit = alarms(table[table["factor"] >= 3])["calls"], _few(table)
    held = (table.loc[large, "withheld"] == "learning curve").mean()
    features = table.loc[large, "feature"].nunique()
    text = (
        f"power {power:.3f} over {features} features (withheld by the learning curve: {held:.3f})"
    )
    return [
        Line(name, "power at a true loss above 0.1: at least 0.9", text, power >= 0.9),
        Line(name, f"untouched called in at most {limit}",
             f"{calls}", calls <= limit),
    ]  # fmt: skip


def recoded_lines(name: str, table: pd.DataFrame) -> list[Line]:
    """Recoded by a rotation, of the features that the MLP reads; not so by fresh noise."""
    rows = table[(table["side"] == "rotation") & (table["r2_pre_pre"] > 0.3)]
    share = float((rows["verdict"] == "recoded").mean())
    text = f"{share:.0%} of {len(rows)} features in {rows['cohort'].nunique()} cohorts"
    text += (
        f"; R2 of the frozen MLP {rows['r2_pre_pre'].mean():.2f} -> {rows['r2_pre_ft'].mean():.2f}"
    )
    fresh = table[table["side"] == "ft"]
    return [
        Line(name, "recoded: at least half of the features", text, share >= 0.5),
        *fresh_noise_lines("fresh noise alone, same cohorts", fresh),
    ]


def fresh_noise_lines(name: str, table: pd.DataFrame) -> list[Line]:
    """Nothing is recoded, lost or gained."""
    rows = table[table["side"] == "ft"]
    called = rows["verdict"].isin(["recoded", "lost", "gained"]).groupby(rows["cohort"]).any()
    recoded = (rows["verdict"] == "recoded").groupby(rows["cohort"]).any()
    limit = _few(rows)
    must = f"recoded in at most {limit}"
    text = f"{recoded.sum()}; recoded, lost or gained {called.sum()}"
    return [Line(name, must, text, int(recoded.sum()) <= limit)]


def same_lines(name: str, table: pd.DataFrame) -> list[Line]:
    """No change at all."""
    largest = float(table["delta_r2"].abs().max())
    outside = int(((table["delta_r2_low"] > 0) | (table["delta_r2_high"] < 0)).sum())
    shown = table[table["verdict"] != "absent"]
    unchanged = float((shown["verdict"] == "unchanged").mean())
    text = f"{largest:.0e}; {outside} intervals; {unchanged:.0%} of {len(shown)} unchanged"
    must = "delta R2 = 0 to 1e-5, no interval excludes 0, every explained feature unchanged"
    return [Line(name, must, text, largest <= 1e-5 and outside == 0 and unchanged == 1)]


def permuted_lines(name: str, table: pd.DataFrame) -> list[Line]:
    """Nothing is explained."""
    r2 = float(table[["r2_ridge_pre", "r2_ridge_ft"]].to_numpy().mean())
    others = table[table["verdict"] != "absent"]
    limit, present = _few(table), others["cohort"].nunique()
    text = f"{r2:.4f}; {len(others)} of {len(table)} features are not, in {present} cohorts"
    must = f"mean held-out R2 at most 0.02; all absent but in {limit}"
    return [Line(name, must, text, r2 <= 0.02 and present <= limit)]


def interval_lines(name: str, table: pd.DataFrame) -> list[Line]:
    """Coverage where the change is not zero, with the range over features."""
    by_feature, touched = coverage(table), table.groupby("feature")["factor"].first() < 3
    share = float(by_feature[touched].mean())
    low, high = by_feature[touched].min(), by_feature[touched].max()
    text = f"{share:.3f}, by feature {low:.3f} to {high:.3f}; unchanged features "
    return [_covered(name, share, text + f"{by_feature[~touched].mean():.3f}")]


def power_lines(name: str, table: pd.DataFrame) -> list[Line]:
    """Features without a loss are not called, others as often as ``detectable`` says."""
    rest = table[table["aim_loss"].isna()]
    calls, limit = alarms(rest)["calls"], _few(table)
    must = f"untouched called in at most {limit}"
    means = table.groupby("feature")[["delta_r2", "detectable"]].transform("mean")
    near = np.abs(np.log(np.maximum(-means["delta_r2"], 1e-9) / means["detectable"])) < 0.1
    share = float((table.loc[near, "verdict"] == "lost").mean()) if near.any() else np.nan
    text = f"{share:.2f} of {int(near.sum())} verdicts" if near.any() else "no such loss"
    return [
        Line(name, must, f"{calls}", calls <= limit),
        Line(name, "a loss of the size called detectable (to 10%): lost in 0.7 to 0.9",
             text, not share < 0.7 and not share > 0.9),
    ]  # fmt: skip


def power_rows(table: pd.DataFrame, size: Size, way: str) -> list[dict[str, Any]]:
    """Cells of the power table: how often a loss is called, and what it and R2 came to."""
    return [
        {
            "way": way, "n": size.n, "aim_r2": aim_r2, "aim_loss": aim_loss,
            "cohorts": rows["cohort"].nunique(),
            "r2_before": float(rows["r2_ridge_pre"].mean()),
            "loss": float(-rows["delta_r2"].mean()),
            "lost": float((rows["verdict"] == "lost").mean()),
            "withheld": float((rows["withheld"] != "").mean()),
            "detectable": float(rows["detectable"].mean()), "verdicts": len(rows),
        }
        for (aim_r2, aim_loss), rows in table.groupby(["aim_r2", "aim_loss"])
    ]  # fmt: skip


def acceptance_text(lines: Sequence[Line]) -> str:
    """The acceptance table in Markdown."""
    head = "| planted | cohorts | must hold | found | holds | before |"
    rows = [head, "|---|---|---|---|---|---|"]
    for line in lines:
        before = BEFORE.get(line.planted, "")
        holds = "yes" if line.holds else "**no**"
        first = f"| {line.planted} | {line.cohorts or ''} | {line.must} "
        rows.append(f"{first}| {line.found} | {holds} | {before} |")
    return "\n".join(rows)


def power_text(power: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """The power table in Markdown: a line per way, patients and R2 before, a column per loss."""
    cells = pd.DataFrame([row for each in power for row in each])
    if cells.empty:
        return ""
    losses = sorted(cells["aim_loss"].unique())
    head = " | ".join(f"loss {loss:g}" for loss in losses)
    rows = [f"| loss | patients | cohorts | R2 before | {head} |"]
    rows.append("|---|---|---|---|" + "---|" * len(losses))
    lines = ["way", "n", "cohorts", "aim_r2"]
    for (way, n, count, r2), line in cells.groupby(lines, sort=False):
        texts = [_cell(line[line["aim_loss"] == loss]) for loss in losses]
        rows.append(f"| {way} | {n} | {count} | {r2:g} | {' | '.join(texts)} |")
    return "\n".join(rows)


def _cell(rows: pd.DataFrame) -> str:
    """Share called lost, in brackets the mean loss that it belongs to."""
    return "".join(f"{row.lost:.2f} ({row.loss:.3f})" for row in rows.itertuples())


def _consistent(judged: Mapping[str, tuple[int, int]]) -> Line:
    wrong, verdicts = np.sum(list(judged.values()), axis=0)
    text = f"{wrong} of {verdicts:,} verdicts"
    return Line("all cohorts above", "no verdict against its own interval", text, int(wrong) == 0)


def _covered(name: str, share: float, text: str) -> Line:
    low, high = COVERED
    return Line(name, f"coverage of 95% intervals {low} to {high}", text, low <= share <= high)


def _few(table: pd.DataFrame) -> int:
    """How many cohorts are at most 5% of them."""
    return int(LEVEL * table["cohort"].nunique())


def _kept(left: Sequence[float]) -> tuple[float, ...]:
    """Share of each factor that is left, the first as given and all of the others."""
    return (*map(float, left), *[1.0] * (LATENTS - len(left)))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
