"""What must hold of judged cohorts: each line of the acceptance table, and the power table.

A function ``..._lines`` takes the verdicts of all cohorts of one kind (`benchmarks.judged_cohorts`)
and says what must hold, what was found and whether it holds; the functions ``..._text`` write
tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.cohorts import Size
from lens.settings import DEFAULT_RULES

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

TYPICAL = 3
"""Features of a size that is asked about, below which their share says nothing."""


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
    features = table.loc[near, "feature"].nunique()
    share = float((table.loc[near, "verdict"] == "lost").mean()) if features >= TYPICAL else np.nan
    text = f"{share:.2f} of {int(near.sum())} verdicts on {features} features"
    if features < TYPICAL:
        text = f"{features} such features, too few to say"
    return [
        Line(name, must, f"{calls}", calls <= limit),
        Line(name, "a loss of the size called detectable (to 10%): lost in at least 0.7",
             text, not share < 0.7),
    ]  # fmt: skip


def consistent_line(counts: Sequence[tuple[int, int]]) -> Line:
    """No verdict is against its own interval, by `against_interval` of every kind of cohort."""
    wrong, verdicts = np.sum(counts, axis=0)
    text = f"{wrong} of {verdicts:,} verdicts"
    return Line("all cohorts above", "no verdict against its own interval", text, int(wrong) == 0)


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


def before(line: Line) -> str:
    """What `BEFORE` says of a line; an empty text where it is silent."""
    return BEFORE.get(line.planted, "")


def acceptance_text(lines: Sequence[Line]) -> str:
    """The acceptance table in Markdown."""
    head = "| planted | cohorts | must hold | found | holds | before |"
    rows = [head, "|---|---|---|---|---|---|"]
    for line in lines:
        holds = "yes" if line.holds else "**no**"
        first = f"| {line.planted} | {line.cohorts or ''} | {line.must} "
        rows.append(f"{first}| {line.found} | {holds} | {before(line)} |")
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


def _covered(name: str, share: float, text: str) -> Line:
    low, high = COVERED
    return Line(name, f"coverage of 95% intervals {low} to {high}", text, low <= share <= high)


def _few(table: pd.DataFrame) -> int:
    """How many cohorts are at most 5% of them."""
    return int(LEVEL * table["cohort"].nunique())
