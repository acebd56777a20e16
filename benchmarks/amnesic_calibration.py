"""False alarms, power and coverage of the amnesic test, where the truth is planted.

``python -m benchmarks.amnesic_calibration`` draws cohorts in which a label depends on one latent
factor of an embedding, and clusters of features measure others, or that one. It writes
``benchmarks/results/amnesic_calibration.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tyro
from scipy.stats import beta

from benchmarks import harness
from lens.amnesic.clusters import Cluster
from lens.amnesic.labels import label_of
from lens.amnesic.losses import Settings
from lens.amnesic.table import amnesic

LATENTS, CLUSTERS, PER_CLUSTER, WIDTH = 8, 6, 5, 48
"""Latent factors of an embedding; those that a cluster measures; its features; channels."""

UNMEASURED = LATENTS - 1
"""A factor of the embedding that no cluster measures."""

ROUND = 5
"""Cohorts of each setting between two records."""

NOISE = 0.6
"""Deviation of a feature's own noise, of a factor with unit variance."""


class Setting(NamedTuple):
    """What a cohort is like.

    Attributes:
        name: for people.
        n: studies.
        source: factor that the label depends on; None for a label of chance.
        strength: of the label on it (log odds per standard deviation).
        skew: features are exponentials of themselves.
        outliers: share of the studies whose embedding, or features, are 20 times as far out.
        studies: of each patient, with nearly the same factors.
        correlation: between the factors of the first two clusters.
    """

    name: str
    n: int
    source: int | None
    strength: float = 3.0
    skew: bool = False
    outliers: float = 0.0
    studies: int = 1
    correlation: float = 0.0


SETTINGS = (
    Setting("label of chance", 120, None),
    Setting("label of something unmeasured", 60, UNMEASURED),
    Setting("label of something unmeasured", 400, UNMEASURED),
    Setting("the same, skewed, outliers, 2 studies", 120, UNMEASURED, 3.0, True, 0.02, 2),
    Setting("the same, skewed, outliers, 2 studies", 400, UNMEASURED, 3.0, True, 0.02, 2),
    Setting("label of a cluster", 60, 0),
    Setting("label of a cluster", 120, 0),
    Setting("label of a cluster", 240, 0),
    Setting("the same, weak", 240, 0, 1.0),
    Setting("the same, skewed, outliers, 2 studies", 240, 0, 3.0, True, 0.02, 2),
    Setting("the same, correlated clusters (0.6)", 240, 0, 3.0, False, 0.0, 1, 0.6),
)


@dataclass(frozen=True)
class Config:
    """How much is drawn."""

    cohorts: int = 60
    """Cohorts of each setting."""
    draws: int = 99
    """Random subspaces of each kind."""
    seed: int = 0
    """Of the cohorts."""
    out: Path = harness.RESULTS / "amnesic_calibration.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Draws, tests and counts; the record grows with every round over all settings."""
    tables: list[list[pd.DataFrame]] = [[] for _ in SETTINGS]
    for first in range(0, config.cohorts, ROUND):
        for number, setting in enumerate(SETTINGS):
            for cohort in range(first, min(first + ROUND, config.cohorts)):
                rng = np.random.default_rng([config.seed, number, cohort])
                tables[number].append(tested(setting, config, rng))
        rows = [
            setting._asdict() | counts(setting, found)
            for setting, found in zip(SETTINGS, tables, strict=True)
        ]
        harness.record(config.out, {**harness.facts(config, "numpy", "scipy"), "rows": rows})
        print(markdown(rows), flush=True)


def tested(setting: Setting, config: Config, rng: np.random.Generator) -> pd.DataFrame:
    """The table of one cohort; after fine-tuning the label's factor is three times as large."""
    patients = setting.n // setting.studies
    z = rng.standard_normal((patients, LATENTS))
    c = setting.correlation
    z[:, 1] = c * z[:, 0] + np.sqrt(1 - c**2) * z[:, 1]
    z = np.repeat(z, setting.studies, axis=0)
    z = z + 0.2 * rng.standard_normal(z.shape)
    groups = np.repeat(np.arange(patients), setting.studies).astype(str)
    odds = np.zeros(len(z)) if setting.source is None else setting.strength * z[:, setting.source]
    label = (rng.uniform(size=len(z)) < 1 / (1 + np.exp(-odds))).astype(int)
    maps = rng.standard_normal((LATENTS, WIDTH)) * np.linspace(1.5, 0.5, WIDTH)
    embeddings = {}
    for name, gain in (("pre", 1.0), ("ft", 3.0)):
        size = np.ones(LATENTS)
        size[LATENTS - 1 if setting.source is None else setting.source] = gain
        x = (z * size) @ maps + rng.standard_normal((len(z), WIDTH))
        embeddings[name] = _with_outliers(x, setting.outliers, rng)
    r = np.repeat(z[:, :CLUSTERS], PER_CLUSTER, axis=1)
    r = r + NOISE * rng.standard_normal(r.shape)
    r = _with_outliers(np.exp(2 * r) if setting.skew else r, setting.outliers, rng)
    clusters = [
        Cluster(str(at), np.arange(PER_CLUSTER * at, PER_CLUSTER * (at + 1)))
        for at in range(CLUSTERS)
    ]
    found = amnesic(
        embeddings["pre"], {"ft": embeddings["ft"]}, r,
        label_of(pd.Series(label), "label", patients=groups, folds=5), clusters, groups,
        settings=Settings(config.draws, 200, leftovers=False),
    )  # fmt: skip
    return found["ft"]


def _with_outliers(values: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    if not share:
        return values
    rows = rng.uniform(size=len(values)) < share
    centre = values.mean(axis=0)
    return np.where(rows[:, None], centre + 20 * (values - centre), values)


def counts(setting: Setting, tables: Sequence[pd.DataFrame]) -> dict[str, Any]:
    """Cohorts with a false alarm, with the true cluster found, and intervals that cover.

    A cluster whose factor goes along with the label's is no false alarm; it is counted apart.
    Covered: the mean loss of that cluster over all cohorts of the setting.
    """
    wanted = "0" if setting.source == 0 else ""
    along = "1" if wanted and setting.correlation else ""
    every = pd.concat([t.assign(cohort=i) for i, t in enumerate(tables)], ignore_index=True)
    every = every[every["stage"] != "delta"]
    found: dict[str, Any] = {"cohorts": len(tables)}
    other = every[~every["cluster"].isin([wanted, along])]
    for name, findings in (("rests", ["rests"]), ("costs", ["rests", "large part"])):
        alarms = other.assign(hit=other["finding"].isin(findings)).groupby("cohort")["hit"].any()
        found[f"false_{name}"] = _rate(int(alarms.sum()), len(tables))
        for stage in ("pre", "ft"):
            for who, cluster in (("own", wanted), ("along", along)):
                rows = every[(every["cluster"] == cluster) & (every["stage"] == stage)]
                hits = int(rows["finding"].isin(findings).sum())
                found[f"{who}_{name}_{stage}"] = _rate(hits, len(rows)) if cluster else None
    truth = every.groupby(["stage", "cluster"])["loss"].transform("mean")
    covered = (every["loss_low"] <= truth) & (truth <= every["loss_high"])
    found["coverage"] = float(covered.mean())
    own = every["cluster"] == wanted
    found["coverage_own"] = float(covered[own].mean()) if wanted else None
    scores = every.groupby("stage")["score_before"].mean()
    found["auc_pre"], found["auc_ft"] = float(scores["pre"]), float(scores["ft"])
    return found


def _rate(hits: int, of: int) -> dict[str, float]:
    """A share with its exact 95% interval (Clopper and Pearson)."""
    low = float(beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0
    return {"share": hits / of, "low": low, "high": high}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the documentation."""
    note = ""
    lines = [
        "| cohort | studies | drawn | AUC before, after | false alarm: rests | "
        "false alarm: costs | own cluster rests, before, after | "
        "own cluster costs, before, after | coverage |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own = [
            ", ".join(
                "–" if row[f"own_{name}_{stage}"] is None
                else f"{row[f'own_{name}_{stage}']['share']:.2f}"
                for stage in ("pre", "ft")
            )
            for name in ("rests", "costs")
        ]  # fmt: skip
        lines.append(
            f"| {row['name']} | {row['n']} | {row['cohorts']} | {row['auc_pre']:.2f}, "
            f"{row['auc_ft']:.2f} | {_told(row['false_rests'])} | "
            f"{_told(row['false_costs'])} | {own[0]} | {own[1]} | {row['coverage']:.2f} |"
        )
        if row["along_rests_pre"] is not None:
            told = ", ".join(
                f"{name} {row[f'along_{name}_pre']['share']:.2f} before and "
                f"{row[f'along_{name}_ft']['share']:.2f} after"
                for name in ("rests", "costs")
            )
            note = f"Of correlated clusters, the one that the label does not depend on: {told}."
    return "\n".join([*lines, "", note]) if note else "\n".join(lines)


def _told(rate: Mapping[str, float]) -> str:
    return f"{rate['share']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
