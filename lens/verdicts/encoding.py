"""Encoding: the share of an embedding's variance that each group of radiomic features explains.

The verdicts predict the features from the embedding; a feature that is unchanged may still be a
vanishing part of the embedding. Here the embedding is predicted from the features by ridge
regression, and scored on held-out patients; its dimensions count by their variance. What all groups
together leave unexplained is not radiomics, as far as a linear model can show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.verdicts.folds import Fold
from lens.verdicts.variance_partition import (
    MAX_GROUPS,
    Part,
    SubsetGains,
    alone,
    change,
    fit_subsets,
    shapley,
    shapley_values,
    total,
    unique,
)

MAX_ROWS = 1500
"""Rows that are used. Up to 64 subsets are fitted in each fold, at a cost that grows with the
cube of the rows; more of them would only narrow the intervals."""


def encoding(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Mapping[str, Float[np.ndarray, "n e"]],
    r: Float[np.ndarray, "n k"],
    features: pd.DataFrame,
    groups: np.ndarray,
    folds: Sequence[Fold],
    *,
    on_fit: Callable[[], object] | None = None,
) -> dict[str, pd.DataFrame]:
    """Variance partition of both embeddings, by three groupings of the features.

    Invariant to rotation and to one scale factor of an embedding, and to the units of the features.
    The fits of the embedding before fine-tuning serve all tasks. Of a cohort with more than
    `MAX_ROWS` rows, patients drawn at random up to that number are used.

    Args:
        x_pre: embeddings before fine-tuning.
        x_ft: task -> embeddings after it.
        r: radiomic features, finite.
        features: their parts, as in `lens.study.study.Study`.
        groups: patient of each row.
        folds: from `lens.verdicts.folds`.
        on_fit: called after each fold of each grouping with at least two groups (`count_fits`).

    Returns:
        Task -> table with a row per grouping, group and stage (``pre, ft, delta``): ``grouping,
        group, stage, n_features, shapley, shapley_low, shapley_high, unique, alone``; group ``all``
        is the R2 of all features together, ``none`` what they leave. Intervals are over the
        patients, held out and fitted (`lens.verdicts.variance_partition`); the principal components
        of the embeddings are taken as given.
    """
    rows: dict[str, list[pd.DataFrame]] = {task: [] for task in x_ft}
    drawn = draw_rows(groups)
    targets = {name: x[drawn] for name, x in {"pre": x_pre, **x_ft}.items()}
    folds = [fold.among(drawn) for fold in folds]
    r, groups = r[drawn], groups[drawn]
    for grouping, members in feature_groups(features).items():
        blocks = [r[:, columns] for columns in members.values()]
        subset_gains = fit_subsets(blocks, targets, groups, folds, whole=True, on_fit=on_fit)
        for task, tables in rows.items():
            tables.append(
                _table(grouping, members, subset_gains["pre"], subset_gains[task], groups)
            )
    return {task: pd.concat(tables, ignore_index=True) for task, tables in rows.items()}


def draw_rows(groups: np.ndarray) -> Bool[np.ndarray, " n"]:
    """All rows, or those of random patients as long as they are at most `MAX_ROWS`."""
    patients, patient, count = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(0).permutation(len(patients))
    return np.isin(patient, order[np.cumsum(count[order]) <= MAX_ROWS])


def count_fits(features: pd.DataFrame, folds: Sequence[Fold]) -> int:
    """Calls of `on_fit` by `encoding`, for a progress bar."""
    return len(folds) * len(feature_groups(features))


def feature_groups(features: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """Grouping -> group -> columns.

    Modality (with the ROI where there are several), feature class, and image filter (``wavelet``
    for all its bands). Where there are more than nine groups, the smallest are joined as
    ``others``. A grouping with a single group is left out, unless all are: there has to be one.
    """
    several = features["roi"].nunique() > 1
    names = {
        "modality": features["modality"] + (" " + features["roi"] if several else ""),
        "class": features["feature_class"],
        "filter": features["image"].str.split("-").str[0],
    }
    found = {grouping: _members(values) for grouping, values in names.items()}
    split = {grouping: members for grouping, members in found.items() if len(members) > 1}
    return split or {"class": found["class"]}


def _members(values: pd.Series) -> dict[str, np.ndarray]:
    counts = values.value_counts(sort=False)
    if len(counts) > MAX_GROUPS:
        largest = counts.sort_values(ascending=False, kind="stable").index[: MAX_GROUPS - 1]
        values = values.where(values.isin(largest), "others")
    return {str(name): np.flatnonzero(values == name) for name in dict.fromkeys(values)}


def _table(
    grouping: str,
    members: Mapping[str, np.ndarray],
    before: SubsetGains,
    after: SubsetGains,
    groups: np.ndarray,
) -> pd.DataFrame:
    sizes = [len(columns) for columns in members.values()]
    tables = []
    for stage, subsets in (("pre", before), ("ft", after)):
        rows = _rows([*members], sizes, shapley(subsets, groups), total(subsets, groups))
        for name, part in (("unique", unique), ("alone", alone)):
            rows[name] = [*part(subsets, groups).value[:, 0], np.nan, np.nan]
        tables.append(rows.assign(stage=stage))
    shares = change(shapley_values, before, after, groups)
    delta = _rows([*members], sizes, shares, change(lambda g: g[-1:], before, after, groups))
    # What is unexplained falls by as much as all groups together gain.
    delta.loc[delta["group"] == "none", "shapley":"shapley_high"] -= 1.0
    for name in ("unique", "alone"):
        delta[name] = tables[1][name] - tables[0][name]
    table = pd.concat([*tables, delta.assign(stage="delta")], ignore_index=True)
    table.insert(0, "grouping", grouping)
    order = ["grouping", "group", "stage", "n_features", "shapley", "shapley_low", "shapley_high"]
    return table[[*order, "unique", "alone"]]


def _rows(names: list[str], sizes: list[int], parts: Part, whole: Part) -> pd.DataFrame:
    columns = {}
    names_of_ends = ("shapley", "shapley_low", "shapley_high")
    for name, part, everything in zip(names_of_ends, parts, whole, strict=True):
        columns[name] = [*part[:, 0], everything[0, 0], np.nan]
    table = pd.DataFrame({"group": [*names, "all", "none"], "n_features": [*sizes, sum(sizes), 0]})
    table = table.assign(**columns)
    ends = table.iloc[-2][["shapley", "shapley_high", "shapley_low"]].to_numpy(float)
    table.loc[table.index[-1], ["shapley", "shapley_low", "shapley_high"]] = 1.0 - ends
    return table
