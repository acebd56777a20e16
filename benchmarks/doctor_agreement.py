"""Is the doctor right? Its predictions from one cohort, and what fresh cohorts of the kind show.

``python -m benchmarks.doctor_agreement`` prints the table of docs/doctor.md and writes
``benchmarks/results/doctor_agreement.json``. The doctor sees a cohort before and after a planted
"fine-tuning" that takes some factors in part; what it predicts, the smallest loss of R2 with 80%
power and how often nothing is called something, is held against verdicts on cohorts that it did not
see, drawn in the same way. A feature's true loss is its mean loss over these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from benchmarks import harness
from benchmarks.cohorts import GAUSSIAN, LATENTS, OUTLYING, SKEWED, Cohort, Family, Size, draw
from benchmarks.judged_cohorts import examine as judge_cohort

KEPT = (0.0, 0.3, 0.45, 0.6, 0.75, 0.85) + (1.0,) * (LATENTS - 6)
"""Share of each factor that the planted fine-tuning leaves."""

FRESH, UNCHANGED = 1000, 2000
"""Seeds of the first fresh cohort with losses, and without."""


def _dominated(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """One direction, the same on both sides, is 30 times as large."""
    direction = np.random.default_rng(7).normal(size=x.shape[2])
    direction /= np.linalg.norm(direction)
    return x + 29 * np.einsum("snd,d,e->sne", x, direction, direction)


FAMILIES = (GAUSSIAN, OUTLYING, SKEWED, Family("one direction x 30", embeddings=_dominated))


@dataclass(frozen=True)
class Config:
    """How much is drawn."""

    size: Size = field(default_factory=Size)
    """Of every cohort."""
    doctors: int = 3
    """Cohorts that the doctor sees, each by itself."""
    cohorts: int = 30
    """Fresh cohorts with losses, and as many in which nothing changed."""
    only: str = ""
    """Part of the names of the families to run; the record is then not written."""
    out: Path = harness.RESULTS / "doctor_agreement.json"
    """Where the figures go."""


def diagnose(cohort: Cohort, size: Size, seed: int) -> dict[str, Any]:
    """The full doctor's answer on a cohort, and the smallest loss by its short form."""
    from lens.settings import Rules
    from lens.verdicts.doctor import Settings, examine
    from lens.verdicts.doctor_summary import short_summary, summary
    from lens.verdicts.folds import make_folds

    names = [f"f{number}" for number in range(size.k)]
    folds = make_folds(cohort.groups, size.folds, size.repeats, seed)
    findings = examine(
        cohort.pre, {"ft": cohort.ft}, cohort.r, names, cohort.groups, folds, Settings(seed=seed)
    )
    content = summary(findings)
    table = judge_cohort(cohort, size=size, seed=seed)
    short = short_summary({"ft": table}, len(set(cohort.groups)), Rules(), "normal")
    found = content["nothing_changed"]
    return {
        "answer": content["answer"],
        "short": short["answer"],
        "median_r2": content["median_r2"],
        "planted": content["detectable"],
        "task": content["tasks"][0]["detectable"],
        "from the verdicts": short["tasks"][0]["detectable"],
        "alarms": found["alarms"],
        "draws": found["draws"],
        "harmless": [row for row in content["false_alarms"] if row["alarms"]],
    }


def measure(family: Family, config: Config) -> dict[str, Any]:
    """Loss and share of cohorts with the verdict lost, by feature, and cohorts with a false call.

    Untouched features of the cohorts with losses count as well: for them every call is false.
    """

    def verdicts(first: int, kept: tuple[float, ...] | None) -> list[pd.DataFrame]:
        seeds = range(first, first + config.cohorts)
        cohorts = (draw(family, config.size, seed, kept=kept) for seed in seeds)
        return [judge_cohort(cohort, size=config.size) for cohort in cohorts]

    changed, unchanged = verdicts(FRESH, KEPT), verdicts(UNCHANGED, None)
    touched = (np.array(KEPT) < 1)[changed[0]["factor"]]
    loss = -np.mean([table["delta_r2"] for table in changed], axis=0)
    lost = np.mean([table["verdict"] == "lost" for table in changed], axis=0)
    called = [table["verdict"].isin(["lost", "gained"]).to_numpy() for table in changed]
    return {
        "loss": loss[touched].round(4).tolist(),
        "lost": lost[touched].round(4).tolist(),
        "called where nothing changed": sum(
            bool(table["verdict"].isin(["lost", "gained"]).any()) for table in unchanged
        ),
        "untouched called": sum(bool(each[~touched].any()) for each in called),
        "cohorts": config.cohorts,
    }


def power_at(loss: np.ndarray, lost: np.ndarray) -> Callable[[float], float]:
    """Power by true loss of R2: monotone regression through the features, straight between them.

    NaN beyond the largest loss.
    """
    from sklearn.isotonic import IsotonicRegression

    order = np.argsort(loss)
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(loss[order], lost[order])
    return lambda at: float(np.interp(at, loss[order], fitted, right=np.nan))


def _loss(told: float | None) -> float:
    """Infinite where the doctor names no loss that would show."""
    return np.inf if told is None else told


def row_of(family: Family, told: list[dict[str, Any]], found: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: what the doctor told of its cohorts, and what the fresh ones showed."""
    loss, lost = np.array(found["loss"]), np.array(found["lost"])
    power = power_at(loss, lost)
    predicted = [max(_loss(d["planted"]), _loss(d["task"])) for d in told]
    short = [_loss(d["from the verdicts"]) for d in told]
    grid = np.linspace(0, loss.max(), 1001)
    reached = grid[[power(at) >= 0.8 for at in grid]]
    alarms, draws = (sum(d[name] for d in told) for name in ("alarms", "draws"))
    return {
        "family": family.name,
        "answers": [d["answer"] for d in told],
        "short answers": [d["short"] for d in told],
        "predicted": predicted,
        "power there": [power(each) for each in predicted],
        "short predicted": short,
        "short power there": [power(each) for each in short],
        "measured": float(reached[0]) if len(reached) else None,
        "doctor's false alarms": f"{alarms} of {draws}",
        "false alarms": f"{found['called where nothing changed']} of {found['cohorts']}",
        "untouched called": f"{found['untouched called']} of {found['cohorts']}",
        "called at most": float(lost.max()),
    }


def main(config: Config) -> None:
    """Runs all families, prints the table and writes the record."""
    rows, details = [], {}
    for family in FAMILIES:
        if config.only not in family.name:
            continue
        told = [
            diagnose(draw(family, config.size, seed, kept=KEPT), config.size, seed)
            for seed in range(config.doctors)
        ]
        found = measure(family, config)
        rows.append(row_of(family, told, found))
        details[family.name] = {"doctor": told, "fresh": found}
        print(line(rows[-1]), flush=True)
    if not config.only:
        facts = harness.facts(config, "numpy", "scipy")
        rows = [{name: _finite(value) for name, value in row.items()} for row in rows]
        harness.record(config.out, {**facts, "rows": rows, "details": details})


def _finite(value: Any) -> Any:
    """Without the numbers that JSON has not: None for what is infinite or NaN."""
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def line(row: dict[str, Any]) -> str:
    """A row as Markdown."""

    def span(values: list[float]) -> str:
        if not np.isfinite(values).all():
            return ", ".join(f"{v:.2f}" if np.isfinite(v) else "none" for v in values)
        return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    measured = "not reached" if row["measured"] is None else f"{row['measured']:.2f}"
    cells = (
        row["family"], ", ".join(row["answers"]), span(row["predicted"]), measured,
        span(row["power there"]), span(row["short predicted"]), span(row["short power there"]),
        row["doctor's false alarms"], row["false alarms"],
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
