"""The amnesic test: which clusters of features a task rests on, before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.amnesic.clusters import Cluster
from lens.amnesic.labels import Label
from lens.amnesic.losses import Cohort, Erased, Settings, losses
from lens.verdicts.folds import make_folds

LEVEL = 0.05
"""Family-wise level at which a task is said to rest on a cluster."""

INTERVAL = (0.025, 0.975)


def amnesic(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Mapping[str, Float[np.ndarray, "n e"]],
    r: Float[np.ndarray, "n k"],
    label: Label,
    clusters: Sequence[Cluster],
    groups: np.ndarray,
    *,
    folds: int = 5,
    settings: Settings | None = None,
    on_cluster: Callable[[], object] | None = None,
) -> dict[str, pd.DataFrame]:
    """Loss of a label's score by the erasure of each cluster, in every task.

    Args:
        x_pre: embeddings before fine-tuning; erased once for all tasks.
        x_ft: task -> embeddings after it.
        r: features, NaN where missing.
        label: what the head predicts; rows without it have no part.
        clusters: what is erased, one at a time.
        groups: patient of each row.
        folds: parts of the cross-validation by patient.
        settings: of the test.
        on_cluster: called after each cluster of each embedding.

    Returns:
        Task -> `table_of` of its two embeddings.
    """
    settings = settings or Settings()
    rows = label.known
    known = label._replace(values=label.values[rows])
    made = make_folds(groups[rows], folds, 1, settings.seed)
    cohort = Cohort(known, r[rows], groups[rows], made)
    features = cohort.features()
    found = {
        name: losses(
            x[rows], cohort, clusters, settings, stage=stage, features=features,
            on_cluster=on_cluster,
        )
        for stage, (name, x) in enumerate({"pre": x_pre, **x_ft}.items())
    }  # fmt: skip
    patients = len(np.unique(groups[rows]))
    facts = {"label": label.name, "score": label.kind, "patients": patients, "rows": rows.sum()}
    return {task: table_of(clusters, found["pre"], found[task], facts) for task in x_ft}


def table_of(
    clusters: Sequence[Cluster],
    before: Sequence[Erased],
    after: Sequence[Erased],
    facts: Mapping[str, Any],
) -> pd.DataFrame:
    """A row per cluster and stage, ``pre``, ``ft`` and ``delta``.

    Family-wise p values hold for all clusters of both embeddings of one task and label: one family.
    The statistic is the loss, less the mean of its random subspaces, over their standard deviation;
    it is compared with the largest one of a draw from every cluster's subspaces. These are drawn
    apart, so that the largest is what it would be with clusters that have nothing in common, and
    not smaller than with such as overlap.

    Args:
        clusters: of the rows.
        before, after: of each cluster, of the two embeddings.
        facts: columns that are the same in all rows.

    Returns:
        See ``docs/tables.md``. Rows of ``delta`` hold the loss after less the loss before, with an
        interval for each by itself, and no p.
    """
    both = [*before, *after]
    lost = [e.before - e.after for e in both]
    p, p_maxt = p_values(lost, [e.null for e in both])
    p_rank, p_rank_maxt = p_values(lost, [e.null_rank for e in both])
    tables = []
    for stage, part, offset in (("pre", before, 0), ("ft", after, len(before))):
        table = pd.DataFrame([_row(c, e) for c, e in zip(clusters, part, strict=True)])
        own = slice(offset, offset + len(part))
        table = table.assign(p=p[own], p_maxt=p_maxt[own], p_rank=p_rank[own])
        table = table.assign(p_rank_maxt=p_rank_maxt[own], stage=stage)
        table["others_as_much"] = [
            _others(table["loss"].to_numpy(), at) for at in range(len(table))
        ]
        table["finding"] = [finding(row) for row in table.to_dict("records")]
        tables.append(table)
    delta = pd.DataFrame(
        [_change(c, a, b) for c, a, b in zip(clusters, before, after, strict=True)]
    ).assign(stage="delta", finding="")
    table = pd.concat([*tables, delta], ignore_index=True).assign(**facts)
    first = [*facts, "cluster", "stage", "n_features"]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def finding(row: Mapping[Any, Any]) -> str:
    """What a row shows: ``rests``, ``large part`` or ``not shown``.

    ``rests``: the loss has an interval above zero and is beyond that of random subspaces of the
    same rank, and of the same rank and variance, for the whole family. ``large part``: beyond the
    first alone: another part of the embedding as large would cost about as much.

    Args:
        row: of ``loss_low``, ``p_maxt`` and ``p_rank_maxt``.
    """
    if not (row["loss_low"] > 0 and row["p_rank_maxt"] <= LEVEL):
        return "not shown"
    return "rests" if row["p_maxt"] <= LEVEL else "large part"


def p_values(
    values: Sequence[float], null: Sequence[Float[np.ndarray, " _"]]
) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """p of each loss by its own subspaces, and of the whole family by the largest statistic.

    Args:
        values: losses of the family.
        null: of the random subspaces of each; without any, or without a loss, p is 1.
    """
    draws = max((len(each) for each in null), default=0)
    p, p_maxt = np.ones(len(values)), np.ones(len(values))
    statistics, largest = np.full(len(values), np.nan), np.full(draws, -np.inf)
    for at, (value, each) in enumerate(zip(values, null, strict=True)):
        if not len(each) or not np.isfinite([value, *each]).all():
            continue
        centre, spread = each.mean(), max(each.std(), 1e-9)
        statistics[at] = (value - centre) / spread
        largest = np.maximum(largest, (each - centre) / spread)
        p[at] = (1 + (each >= value).sum()) / (1 + draws)
    for at, statistic in enumerate(statistics):
        if np.isfinite(statistic):
            p_maxt[at] = (1 + (largest >= statistic).sum()) / (1 + draws)
    return p, np.maximum(p, p_maxt)


def _row(cluster: Cluster, erased: Erased) -> dict[str, Any]:
    null = erased.null if len(erased.null) else np.array([np.nan])
    drawn = erased.drawn_before - erased.drawn_after
    return {
        "cluster": cluster.name,
        "n_features": len(cluster.columns),
        "rank": erased.rank,
        "covered": erased.covered,
        "variance_removed": erased.variance,
        **_with_interval("score_before", erased.before, erased.drawn_before),
        **_with_interval("score_after", erased.after, erased.drawn_after),
        **_with_interval("loss", erased.before - erased.after, drawn),
        "null_mean": float(null.mean()),
        "null_q05": float(np.quantile(null, 0.05)),
        "null_q95": float(np.quantile(null, 0.95)),
        "null_variance": erased.null_variance,
        "null_rank_mean": float(erased.null_rank.mean()) if len(erased.null_rank) else np.nan,
        "read_linear": erased.read_linear,
        "left_linear": erased.left_linear,
        "read_nonlinear": erased.read_kernel,
        "left_nonlinear": erased.left_kernel,
    }


def _change(cluster: Cluster, before: Erased, after: Erased) -> dict[str, Any]:
    drawn = after.drawn_before - after.drawn_after - before.drawn_before + before.drawn_after
    change = (after.before - after.after) - (before.before - before.after)
    return {
        "cluster": cluster.name,
        "n_features": len(cluster.columns),
        **_with_interval("loss", change, drawn),
    }


def _with_interval(name: str, value: float, drawn: np.ndarray) -> dict[str, float]:
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, INTERVAL) if len(known) else (np.nan, np.nan)
    return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}


def _others(losses: Float[np.ndarray, " c"], at: int) -> float:
    """Share of the other clusters whose erasure costs at least as much."""
    if len(losses) < 2:
        return float("nan")
    return float((np.delete(losses, at) >= losses[at]).mean())
