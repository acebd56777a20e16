"""Section: the verdicts behind the answer, of every feature and of each group of features."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lens.report.figures import STYLE
from lens.report.section import Need, Report, Section
from lens.report.words import label, modality_name, number, short
from lens.verdicts.power import POWER
from lens.verdicts.retraining import MIN_ENCODERS
from lens.verdicts.rules import NO_CHANGE, VERDICTS

BAND = "delta_r2_retrained"

SHOWN = 8
"""Clusters listed of each verdict."""

# Strong colours of Okabe and Ito's palette for a change, grays for none. The shapes tell them apart
# with any colour vision, and in print.
VERDICT_COLOURS = {
    "lost": "#d55e00",
    "gained": "#0072b2",
    "recoded": "#009e73",
    "unchanged": "#8c8c8c",
    "undecided": "#c9c9c9",
    "absent": "#ffffff",
}
SHAPES = {
    "lost": "v", "gained": "^", "recoded": "D", "unchanged": "o", "undecided": "o", "absent": "o",
}  # fmt: skip
EDGE = "#b0b0b0"
"""Of the hollow mark of an absent feature."""

SCORES = {
    "normal": "normal scores: each feature's rank among the fitted patients, as a quantile of the "
    "normal distribution",
    "raw": "the features' own values, so that skew and single wild values count in full",
}
"""What R2 is about, by the setting of that name."""


def render(report: Report) -> Markup:
    """A figure and tables per task, and how a verdict is reached."""
    config, tasks = report.config, []
    for task in report.tasks:
        features, levels = task.tables.features, task.tables.levels
        figure = verdict_figure(features, config["equivalence"])
        tasks.append(
            {
                "name": task.name,
                "scope": task.scope,
                "figure": report.draw(figure, f"{task.name}-verdicts"),
                "whole": levels.iloc[0].to_dict(),
                "groups": group_verdicts(levels),
                **evidence(features),
            }
        )
    return report.fill(
        "verdicts_section.html",
        tasks=tasks,
        verdicts=VERDICTS,
        colours=VERDICT_COLOURS | {"absent": EDGE},
        scores=SCORES[config["scores"]],
        min_encoders=MIN_ENCODERS,
    )


SECTION = Section("verdicts", (Need("features", ("verdict",)),), render)


def evidence(features: pd.DataFrame) -> dict[str, Any]:
    """Counts, listed features and what they do not show, of one task.

    Args:
        features: rows of ``features.parquet``.
    """
    counts = _counts(features)
    return {
        "total": counts[0],
        "counts": counts[1:],
        "changed": [
            row for verdict in VERDICTS if verdict not in NO_CHANGE
            for row in _listed(features, verdict)
        ],
        "nonlinear": _nonlinear(features),
        "clusters": int(features["cluster"].nunique()),
        "ceiling": bool(features["r2_ceiling"].notna().any()),
        "band": BAND in features,
        "retrained": int(features["retrained"].iloc[0]),
        "detectable": detectable(features),
        "disagreement": _disagreement(features),
    }  # fmt: skip


def detectable(features: pd.DataFrame) -> str:
    """How small a loss of the undecided features would have shown; an empty text without any.

    Args:
        features: rows of ``features.parquet``.
    """
    losses = features.loc[features["verdict"] == "undecided", "smallest_loss"]
    known = losses[np.isfinite(losses)]
    never = len(losses) - len(known)
    parts = []
    if len(known):
        low, high = number(known.min()), number(known.max())
        parts.append(
            f"a loss of R2 of {number(float(known.median()))} would have been shown with "
            f"{POWER:.0%} power (median over them; {low} to {high})"
        )
    if never:
        who = f"{never} of them" if parts else "them"
        parts.append(f"for {who} not even the loss of all that is explained would have been shown")
    return "; ".join(parts)


def group_verdicts(levels: pd.DataFrame) -> dict[str, Any]:
    """Verdicts by modality (rows) and feature class (columns).

    Args:
        levels: rows of ``levels.csv``.

    Returns:
        ``names`` of the columns, and ``rows`` with a ``name`` and ``cells``: rows of the table, or
        None where the modality has no such feature.
    """
    found = levels[levels["level"] == "modality"]
    names = list(dict.fromkeys(found["group"]))
    several = found["roi"].nunique() > 1
    rows = []
    for (modality, roi), part in found.groupby(["modality", "roi"], sort=False):
        cells = {row["group"]: row for row in part.to_dict("records")}
        rows.append(
            {
                "name": modality_name(str(modality)) + (f" {roi}" if several else ""),
                "cells": [cells.get(name) for name in names],
            }
        )
    return {"names": names, "rows": rows}


def verdict_figure(features: pd.DataFrame, equivalence: float) -> Figure:
    """Change of held-out R2 of every feature, by modality, ROI and class, marked by verdict.

    Args:
        features: rows of ``features.parquet``.
        equivalence: margin of equivalence, drawn as a band.
    """
    names = _rows(features)
    order = list(dict.fromkeys(names.sort_values(kind="stable")))
    position = names.map({name: at for at, name in enumerate(order)}).to_numpy(float)
    # A fixed spread over the row's height: neighbours in the table, not chance, decide.
    offset = 0.3 * (np.arange(len(features)) * 0.618 % 1 * 2 - 1)
    change = features["delta_r2"].to_numpy()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.4 + 0.32 * len(order)))
        axes = figure.subplots()
        axes.axvspan(-equivalence, equivalence, color="#f2f2f2", lw=0, zorder=0)
        # The rare verdicts, of a change, are drawn last, on top.
        for verdict in reversed([*VERDICTS]):
            mask = (features["verdict"] == verdict).to_numpy()
            axes.scatter(
                change[mask],
                (position + offset)[mask],
                s=14 if verdict in NO_CHANGE else 26,
                marker=SHAPES[verdict],
                color=VERDICT_COLOURS[verdict],
                edgecolors=EDGE if verdict == "absent" else "none",
                linewidths=0.6 if verdict == "absent" else 0,
                alpha=0.85,
                rasterized=len(features) > 500,
            )
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(range(len(order)), [short(name) for name in order], fontsize=8)
        axes.set_ylim(len(order) - 0.5, -0.5)
        finite = change[np.isfinite(change)]
        # A few wild values, of features that nobody explains, would squeeze the rest of the axis.
        wide = float(np.quantile(np.abs(finite), 0.995, method="higher")) if len(finite) else 0.0
        edge = max(0.1, 1.2 * equivalence, wide)
        axes.set_xlim(-1.05 * edge, 1.05 * edge)
        axes.set_xlabel("Change of held-out R2 (ridge probe), after minus before fine-tuning")
        axes.grid(axis="x", color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
        _legend(axes, features["verdict"].value_counts())
    return figure


def _legend(axes: Any, count: pd.Series) -> None:
    handles = [
        Line2D([], [], ls="", marker=SHAPES[verdict], ms=5, color=VERDICT_COLOURS[verdict],
               markeredgecolor=EDGE if verdict == "absent" else "none",
               label=f"{verdict} ({count[verdict]})")
        for verdict in VERDICTS
        if verdict in count
    ]  # fmt: skip
    axes.legend(
        handles=handles,
        ncols=len(handles),
        frameon=False,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        handletextpad=0.1,
        columnspacing=1.0,
    )


def _rows(features: pd.DataFrame) -> pd.Series:
    several = features["roi"].nunique() > 1
    where = features["modality"].map(modality_name) + (" " + features["roi"] if several else "")
    return where + " " + features["feature_class"]


def _counts(features: pd.DataFrame) -> list[dict[str, Any]]:
    """Features of each verdict: all, by modality and ROI, by class."""
    blocks = [("all features", np.ones(len(features), bool))]
    where = features["modality"].map(modality_name) + " " + features["roi"]
    for values in (where, features["feature_class"]):
        blocks += [(str(name), (values == name).to_numpy()) for name in dict.fromkeys(values)]
    rows = []
    for name, mask in blocks:
        count = features.loc[mask, "verdict"].value_counts()
        rows.append(
            {"name": name, "total": int(mask.sum())}
            | {verdict: int(count.get(verdict, 0)) for verdict in VERDICTS}
        )
    return rows


def _listed(features: pd.DataFrame, verdict: str) -> list[dict[Hashable, Any]]:
    """The features of a verdict with the largest changes, one of each cluster of near copies."""
    found = features[features["verdict"] == verdict]
    recoded = verdict == "recoded"
    size = found["r2_pre_ft"] - found["r2_pre_pre"] if recoded else found["delta_r2"]
    found = found.loc[size.abs().sort_values(ascending=False, kind="stable").index]
    alike, copies = found["cluster"].value_counts(), features["cluster"].value_counts()
    rows = found.drop_duplicates("cluster").head(SHOWN).to_dict("records")
    return [
        row
        | {
            "label": label(row),
            "copies": int(copies[row["cluster"]]) - 1,
            "alike": int(alike[row["cluster"]]) - 1,
            "p": row["p_recoded" if recoded else "p_maxt"],
            "q": float("nan") if recoded else row["q_bh"],
            "reader": "" if recoded else _reader(row),
        }
        for row in rows
    ]


def _reader(row: dict[Hashable, Any]) -> str:
    """What the nonlinear reader makes of a feature that was lost or gained."""
    lost = row["verdict"] == "lost"
    if row["linear_only"]:
        return "still there" if lost else "was there before"
    low, high = row["delta_r2_kernel_low"], row["delta_r2_kernel_high"]
    if high < 0 if lost else low > 0:
        return "lost too" if lost else "gained too"
    return "not clear"


def _nonlinear(features: pd.DataFrame) -> dict[str, int]:
    """Features lost and gained, and how many of these to the linear reader alone."""
    counts = {}
    for verdict in ("lost", "gained"):
        found = features[features["verdict"] == verdict]
        counts |= {verdict: len(found), f"{verdict}_linear": int(found["linear_only"].sum())}
    return counts


def _disagreement(features: pd.DataFrame) -> dict[str, Any]:
    """Features lost or gained whose importance, the paper's score, changed in the other direction.

    Only these count: of a change that is not shown the sign is chance.
    """
    sure = features["verdict"].isin(["lost", "gained"])
    against = sure & (features["delta_r2"] * features["delta_importance"] < 0)
    examples = features[against & features["medoid"]]
    largest = examples["delta_r2"].abs().sort_values(ascending=False, kind="stable").index[:3]
    return {
        "count": int(against.sum()),
        "of": int(sure.sum()),
        "examples": [
            {**row, "label": label(row)} for row in examples.loc[largest].to_dict("records")
        ],
    }
