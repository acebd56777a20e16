"""How often the test of radiomic edits raises a false alarm, and how often it finds a response.

Made-up embeddings of 24 channels, of which one tells of the label, and slopes of the embedding that
are normal, skewed (exponential) or outlying (one patient in ten moves ten times as far). Prints a
table and writes benchmarks/results/edits_alarms.json.

- ``unread``: the embedding tells nothing of the label, and the edit moves all patients alike.
- ``as outside``: the edit moves the score, and so does the same edit outside.
- ``skewed``: both means are the same, and only the edit's slopes are skewed.
- ``response``: the edit moves the score by a quarter of the label's standard deviation, and the
  controls do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from benchmarks.harness import RESULTS
from lens.edits.responses import Moved, Settings, respond
from lens.files import write_json

CASES = ("unread", "as outside", "skewed", "response")
SHAPES = ("normal", "skewed", "outlying")
D = 24
DOSES = np.array([-1.0, 1.0])
EFFECT = 0.25
SPREAD = 0.5
"""Of patients' slopes about their mean, in standard deviations of the label."""


@dataclass(frozen=True)
class Config:
    """How much is simulated."""

    repeats: int = 200
    """Cohorts for each row."""
    edited: tuple[int, ...] = (12, 25, 50, 100)
    """Patients that are edited; four times as many have a label."""
    flips: int = 499
    """Of signs."""
    out: Path = RESULTS / "edits_alarms.json"
    """File of the results."""


def main(config: Config) -> None:
    """Simulates, prints and writes."""
    rows = []
    for case, shape, m in product(CASES, SHAPES, config.edited):
        if case == "skewed" and shape != "skewed":
            continue
        count = sum(one(case, shape, m, seed, config.flips) for seed in range(config.repeats))
        low, high = wilson(count, config.repeats)
        rows.append({"case": case, "slopes": shape, "edited": m, "called": count / config.repeats,
                     "low": low, "high": high})  # fmt: skip
        print(f"{case:10} {shape:9} n={m:3}: {rows[-1]['called']:.3f} [{low:.3f}, {high:.3f}]",
              flush=True)  # fmt: skip
    write_json(config.out, {"repeats": config.repeats, "flips": config.flips, "rows": rows})


def one(case: str, shape: str, m: int, seed: int, flips: int) -> bool:
    """Whether the edit of one simulated cohort is said to move the score after fine-tuning."""
    rng = np.random.default_rng([seed, m, CASES.index(case), SHAPES.index(shape)])
    n = 4 * m
    label = rng.normal(size=n)
    x = rng.normal(size=(n, D))
    if case != "unread":
        x[:, 0] = label + 0.5 * rng.normal(size=n)
    common = rng.normal(size=D)
    common[0] = 0.0 if case != "unread" else common[0]

    def arm(mean: float, kind: str, together: float) -> np.ndarray:
        size = mean + SPREAD * slopes(kind, m, rng)
        steps = size[:, None] * np.eye(D)[0] + together * common
        return DOSES[None, :, None] * (steps + 0.3 * rng.normal(size=(m, D)))[:, None]

    mean = EFFECT if case in ("as outside", "skewed", "response") else 0.0
    arms = {
        "edit": arm(mean, shape, 1.0),
        "outside": arm(
            mean if case in ("as outside", "skewed") else 0.0,
            "normal" if case == "skewed" else shape, 0.0,
        ),
        "noise": arm(0.0, "normal", 0.0),
    }  # fmt: skip
    moved = Moved(DOSES, rng.permutation(n)[:m], {"pre": arms, "ft": arms})
    table = respond({"pre": x, "ft": x}, label, [moved], Settings(flips=flips, seed=seed))[0]
    return bool(pd.Series(table.set_index("stage")["p"])["ft"] < 0.05)


def slopes(kind: str, m: int, rng: np.random.Generator) -> np.ndarray:
    """Slopes with mean 0 and, but for the outlying, standard deviation 1."""
    if kind == "skewed":
        return rng.exponential(size=m) - 1
    values = rng.normal(size=m)
    return values * np.where(rng.random(m) < 0.1, 10.0, 1.0) if kind == "outlying" else values


def wilson(count: int, total: int) -> tuple[float, float]:
    """95% interval of a share (Wilson 1927)."""
    z, p = 1.959963984540054, count / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * np.sqrt(p * (1 - p) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
