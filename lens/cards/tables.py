"""The tables of a comparison, for files and for the page."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from lens.cards.agreement import pair_table
from lens.cards.entries import KEYS, Comparable, Entry
from lens.cards.pooling import pool, standard_error

NAMES = ("column", "modality", "roi", "image", "feature_class", "feature")
OF_FEATURE = (
    "n", "r2_ridge_pre", "r2_ridge_ft", "delta_r2", "delta_r2_low", "delta_r2_high", "p_maxt",
    "q_bh", "verdict", "withheld",
)  # fmt: skip
OF_GROUP = (
    "n_features", "delta_r2_cv", "delta_r2_cv_low", "delta_r2_cv_high", "p_group", "verdict",
)  # fmt: skip
POOLED = {
    "mean": "delta_r2", "low": "delta_r2_low", "high": "delta_r2_high", "p_mean": "p_change",
    "random": "delta_r2_random", "random_low": "delta_r2_random_low",
    "random_high": "delta_r2_random_high", "q": "cochran_q", "p": "p_differ", "i2": "i2",
    "tau2": "tau2", "next_low": "next_low", "next_high": "next_high",
}  # fmt: skip


class Tables(NamedTuple):
    """Of one comparison.

    Attributes:
        features: a row per run and common feature: ``run, task``, `NAMES`, `OF_FEATURE` and
            ``delta_r2_error``, the standard error.
        groups: a row per run and common level: ``run, task``, `KEYS`, `OF_GROUP`,
            ``delta_r2_cv_error``.
        pooled: a row per level, then per feature, over independent runs: ``kind`` (task, group,
            modality, feature), `NAMES` and ``group, runs``, the fields of
            `lens.cards.pooling.Pooled` under the names of `POOLED`, and ``q_change`` and
            ``q_differ``, the false discovery rates of ``p_change`` and ``p_differ`` over the rows
            of a kind. No rows where runs share patients.
        pairs: of `lens.cards.agreement.pair_table`.
    """

    features: pd.DataFrame
    groups: pd.DataFrame
    pooled: pd.DataFrame
    pairs: pd.DataFrame


def tables_of(comparable: Comparable) -> Tables:
    """All tables of a comparison."""
    entries = comparable.entries
    features = [_named(e, e.features[[*NAMES, *OF_FEATURE]], "delta_r2") for e in entries]
    groups = [_named(e, e.levels[[*KEYS, *OF_GROUP]], "delta_r2_cv") for e in entries]
    pooled = pd.DataFrame()
    if comparable.independent:
        of_levels = _pooled(groups, "delta_r2_cv", [*KEYS, "n_features"])
        of_levels = of_levels.rename(columns={"level": "kind"})
        of_features = _pooled(features, "delta_r2", [*NAMES]).assign(kind="feature")
        pooled = pd.concat([of_levels, of_features], ignore_index=True)
        for name in ("change", "differ"):
            pooled[f"q_{name}"] = pooled.groupby("kind")[f"p_{name}"].transform(_discovery)
        first = ["kind", "group", "n_features", *NAMES]
        pooled = pooled[[*first, *(name for name in pooled if name not in first)]]
    return Tables(
        pd.concat(features, ignore_index=True),
        pd.concat(groups, ignore_index=True),
        pooled,
        pair_table(comparable),
    )


def _named(entry: Entry, table: pd.DataFrame, change: str) -> pd.DataFrame:
    low, high = (table[f"{change}_{end}"].to_numpy() for end in ("low", "high"))
    error = standard_error(low, high, entry.patients)
    found = table.assign(run=entry.label, task=entry.task, **{f"{change}_error": error})
    return found[["run", "task", *(name for name in found if name not in ("run", "task"))]]


def _pooled(tables: list[pd.DataFrame], change: str, names: list[str]) -> pd.DataFrame:
    values, errors = (
        np.array([table[name].to_numpy() for table in tables])
        for name in (change, f"{change}_error")
    )
    found = {POOLED[name]: values for name, values in pool(values, errors)._asdict().items()}
    return tables[0][names].reset_index(drop=True).assign(runs=len(tables), **found)


def _discovery(p: pd.Series) -> pd.Series:
    """False discovery rate (Benjamini and Hochberg) of the p values that there are."""
    known = p.notna()
    rate = pd.Series(np.nan, index=p.index)
    if known.any():
        rate[known] = false_discovery_control(p[known].to_numpy())
    return rate
