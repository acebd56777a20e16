"""The share of a change that features tell, where what changed is planted.

``python -m benchmarks.rest_calibration`` draws cohorts whose embeddings gained and lost factors
that the features measure, factors that they do not, or nothing. It writes
``benchmarks/results/rest_calibration.json``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tyro
from scipy.stats import beta, ortho_group

from benchmarks import harness
from lens.rest.table import Cohort, Rest, rest
from lens.verdicts.folds import make_folds

SHARED, CHANGED, COPIES = 6, 4, 4
"""Factors that both embeddings hold; that are new, and as many that are gone; features of each
measured factor."""

NOISE = 0.4
"""Deviation of a feature's own noise, of a factor with unit variance."""

CLASSES = ("firstorder", "glcm", "glrlm")

ROUND = 5


class Setting(NamedTuple):
    """What a cohort is like.

    Attributes:
        name: for people.
        n: studies.
        measured: factors that are new, and gone, that features measure; None where nothing changed.
        d: channels.
        noise: deviation of what is new in every channel alike, without any factor.
        skew: features are exponentials of themselves.
        outliers: share of the rows whose embeddings, or features, are 20 times as far out.
        studies: of each patient, with nearly the same factors.
        curved: features measure the squares of the factors.
        held: features measure a new factor and one that was there before, in equal parts.
    """

    name: str
    n: int
    measured: int | None
    d: int = 32
    noise: float = 0.1
    skew: bool = False
    outliers: float = 0.0
    studies: int = 1
    curved: bool = False
    held: bool = False

    @property
    def truth(self) -> float | None:
        """Share of what is new in factors that are measured, as far as their copies tell it."""
        if self.measured is None:
            return None
        told = 1 / (1 + NOISE**2 / COPIES)
        return 0.0 if self.curved else self.measured / CHANGED * told


SETTINGS = (
    Setting("nothing changed (turned)", 200, None, noise=0.0),
    Setting("nothing changed, more channels than patients", 100, None, 160, noise=0.0),
    Setting("noise alone is new", 200, None, noise=0.3),
    Setting("what changed is not measured", 60, 0),
    Setting("what changed is not measured", 200, 0),
    Setting("the same, more channels than patients", 100, 0, 160),
    Setting("the same, skewed, outliers, 2 studies", 200, 0, 32, 0.1, True, 0.02, 2),
    Setting("measured by its square alone", 200, 4, curved=True),
    Setting("half of what changed is measured", 60, 2),
    Setting("half of what changed is measured", 200, 2),
    Setting("the same, skewed, outliers, 2 studies", 200, 2, 32, 0.1, True, 0.02, 2),
    Setting("all of what changed is measured", 60, 4),
    Setting("all of what changed is measured", 200, 4),
    Setting("the same, with what was there before", 200, 4, held=True),
)


class Drawn(NamedTuple):
    """A cohort."""

    pre: np.ndarray
    ft: np.ndarray
    again: np.ndarray
    r: np.ndarray
    features: pd.DataFrame
    ids: pd.DataFrame


@dataclass(frozen=True)
class Config:
    """How much is drawn."""

    cohorts: int = 40
    """Cohorts of each setting."""
    minutes: float = 5.0
    """Of the processor, after which no further round is begun."""
    seed: int = 0
    """Of the cohorts."""
    out: Path = harness.RESULTS / "rest_calibration.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Draws, looks and counts; the record grows with every round over all settings."""
    tables: list[list[pd.DataFrame]] = [[] for _ in SETTINGS]
    for first in range(0, config.cohorts, ROUND):
        if time.process_time() > 60 * config.minutes:
            break
        for number, setting in enumerate(SETTINGS):
            for at in range(first, min(first + ROUND, config.cohorts)):
                rng = np.random.default_rng([config.seed, number, at])
                tables[number].append(looked_at(draw(setting, rng)).table)
        rows = [
            setting._asdict() | counts(setting, found)
            for setting, found in zip(SETTINGS, tables, strict=True)
        ]
        cpu = round(time.process_time(), 1)
        content = {**harness.facts(config, "numpy", "scipy"), "cpu_seconds": cpu, "rows": rows}
        harness.record(config.out, content)
        print(markdown(rows), flush=True)


def draw(setting: Setting, rng: np.random.Generator) -> Drawn:
    """Embeddings before and after, of another seed, and features.

    The factors that are gone are in the embedding before alone; those that are new after it. What
    both hold is turned.
    """
    patients = setting.n // setting.studies
    z = rng.standard_normal((patients, SHARED + 2 * CHANGED))
    z = np.repeat(z, setting.studies, axis=0)
    z = z + 0.2 * rng.standard_normal(z.shape)
    n = len(z)
    shared, gone, new = np.split(z, [SHARED, SHARED + CHANGED], axis=1)
    maps = [_map(f.shape[1], setting.d, rng) for f in (shared, gone, new)]
    common = shared @ maps[0] + 0.3 * rng.standard_normal((n, setting.d))
    changed = setting.measured is not None
    pre = common + (gone @ maps[1] if changed else 0.0)
    after = [
        common + (new @ maps[2] if changed else 0.0)
        + setting.noise * rng.standard_normal((n, setting.d))
        for _ in range(2)
    ]  # fmt: skip
    turn = ortho_group.rvs(setting.d, random_state=rng)
    measured = setting.measured or 0
    own = np.concatenate([gone[:, :measured], new[:, :measured]], axis=1)
    own = own**2 - 1 if setting.curved else own
    if setting.held:
        own = (own + shared[:, np.arange(own.shape[1]) % SHARED]) / np.sqrt(2)
    r = np.repeat(np.concatenate([shared, own], axis=1), COPIES, axis=1)
    r = r + NOISE * rng.standard_normal(r.shape)
    r = _with_outliers(np.exp(2 * r) if setting.skew else r, setting.outliers, rng)
    pre, *after = (_with_outliers(x, setting.outliers, rng) for x in (pre, *after))
    groups = np.repeat(np.arange(patients), setting.studies).astype(str)
    return Drawn(pre, after[0] @ turn, after[1], r, features_of(r.shape[1]), _ids(groups))


def _map(factors: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """From factors to channels; every factor has as much variance, so that the truth is one."""
    found = rng.standard_normal((factors, d))
    return found * np.sqrt(d) / np.linalg.norm(found, axis=1, keepdims=True)


def features_of(count: int) -> pd.DataFrame:
    """Names of two modalities and three classes."""
    rows = [
        (("t2", "adc")[at % 2], "gland", "original", CLASSES[at % 3], f"F{at}")
        for at in range(count)
    ]
    table = pd.DataFrame(rows, columns=["modality", "roi", "image", "feature_class", "feature"])
    table.insert(0, "column", table.agg(".".join, axis=1))
    return table


def looked_at(drawn: Drawn, again: bool = False) -> Rest:
    """The result of a cohort."""
    groups = drawn.ids["patient_id"].to_numpy(str)
    folds = make_folds(groups, 5, 1, 0)
    cohort = Cohort(drawn.r, drawn.features, drawn.ids, folds, flips=500)
    return rest(drawn.pre, drawn.ft, cohort, again=[drawn.again] if again else [])


def _ids(groups: np.ndarray) -> pd.DataFrame:
    study = pd.Series(groups).groupby(groups).cumcount().astype(str)
    return pd.DataFrame({"patient_id": groups, "study_id": study})


def _with_outliers(values: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    if not share:
        return values
    rows = rng.uniform(size=len(values)) < share
    centre = values.mean(axis=0)
    return np.where(rows[:, None], centre + 20 * (values - centre), values)


def counts(setting: Setting, tables: Sequence[pd.DataFrame]) -> dict[str, Any]:
    """Of new and gone: cohorts in which a share is claimed, and intervals that cover.

    Covered: the planted share, and the mean share over all cohorts of the setting.
    """
    found: dict[str, Any] = {"cohorts": len(tables), "truth": setting.truth}
    for side in ("new", "gone"):
        rows = pd.DataFrame(
            [t[(t["side"] == side) & (t["grouping"] == "all")].iloc[0] for t in tables]
        )
        low, high, share = (rows[name].to_numpy(float) for name in
                            ("share_low", "share_high", "share"))  # fmt: skip
        changed = rows["finding"] != "no change shown"
        found[side] = {
            "size": float(rows["size"].mean()),
            "floor": float(rows["floor"].mean()),
            "changed": _rate(int(changed.sum()), len(rows)),
            "told": _rate(int((rows["finding"] == "told").sum()), len(rows)),
            "share": float(share.mean()),
            "low": float(np.quantile(share, 0.05)),
            "high": float(np.quantile(share, 0.95)),
            "raw": float(rows["share_raw"].mean()),
            "covers_mean": float(((low <= share.mean()) & (share.mean() <= high)).mean()),
            "covers_truth": None
            if setting.truth is None
            else float(((low <= setting.truth) & (setting.truth <= high)).mean()),
        }
    return found


def _rate(hits: int, of: int) -> dict[str, float]:
    """A share with its exact 95% interval (Clopper and Pearson)."""
    low = float(beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0
    return {"share": hits / of, "low": low, "high": high}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the documentation, of what is new."""
    lines = [
        "| cohort | studies | channels | drawn | new, floor | change shown | share told | "
        "planted | share, middle 90% | of features as they are | covers its mean | "
        "covers planted |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        new, truth = row["new"], row["truth"]
        planted = "–" if truth is None else f"{truth:.2f}"
        covers = "–" if truth is None else f"{new['covers_truth']:.2f}"
        lines.append(
            f"| {row['name']} | {row['n']} | {row['d']} | {row['cohorts']} | "
            f"{new['size']:.2f}, {new['floor']:.2f} | {new['changed']['share']:.2f} | "
            f"{_told(new['told'])} | {planted} | {new['share']:.2f} ({new['low']:.2f} to "
            f"{new['high']:.2f}) | {new['raw']:.2f} | {new['covers_mean']:.2f} | {covers} |"
        )
    return "\n".join(lines).replace(" -", " −").replace("(-", "(−")


def _told(rate: Mapping[str, float]) -> str:
    return f"{rate['share']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
