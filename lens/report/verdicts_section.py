"""Section: a verdict per feature, with counts, the largest changes and a figure."""

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
from lens.report.words import label
from lens.verdicts.rules import NO_CHANGE, VERDICTS

BAND = "delta_r2_retrained"

SHOWN = 8
"""Clusters listed of each verdict."""

# Okabe and Ito's palette: distinct with any colour vision.
VERDICT_COLOURS = {
    "lost": "#d55e00",
    "gained": "#009e73",
    "recoded": "#0072b2",
    "unchanged": "#777777",
    "undecided": "#b8b8b8",
    "absent": "#e3e3e3",
}


def render(report: Report) -> Markup:
    """A figure and tables per task, and how a verdict is reached."""
    level, margin = report.config["level"], report.config["margin"]
    tasks = []
    for task in report.tasks:
        features = task.tables.features
        figure = report.draw(verdict_figure(features), f"{task.name}-verdicts")
        content = evidence(features, level, margin)
        tasks.append({"name": task.name, "scope": task.scope, "figure": figure, **content})
    return report.fill("verdicts_section.html", tasks=tasks, verdicts=[*VERDICTS])


SECTION = Section("verdicts", (Need("features", ("verdict",)),), render)


def evidence(features: pd.DataFrame, level: float, margin: float) -> dict[str, Any]:
    """Counts and listed features of one task.

    Args:
        features: rows of ``features.parquet``.
        level: family-wise, of the verdicts.
        margin: smallest change of R2 that counts.
    """
    return {
        "counts": _counts(features),
        "changed": [
            (verdict, _listed(features, verdict), int((features["verdict"] == verdict).sum()))
            for verdict in VERDICTS
            if verdict not in NO_CHANGE
        ],
        "clusters": int(features["cluster"].nunique()),
        "ceiling": bool(features["r2_ceiling"].notna().any()),
        "retrained": int(features["retrained"].iloc[0]) if BAND in features else 0,
        "within_seeds": _within_seeds(features, level, margin),
        "disagreement": _disagreement(features, margin),
    }


def verdict_figure(features: pd.DataFrame) -> Figure:
    """Change of held-out R2 of every feature, by modality, ROI and class, coloured by verdict."""
    names = _rows(features)
    order = list(dict.fromkeys(names.sort_values(kind="stable")))
    position = names.map({name: at for at, name in enumerate(order)}).to_numpy(float)
    # A fixed spread over the row's height: neighbours in the table, not chance, decide.
    offset = 0.3 * (np.arange(len(features)) * 0.618 % 1 * 2 - 1)
    change = features["delta_r2"].to_numpy()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.4 + 0.32 * len(order)))
        axes = figure.subplots()
        # The rare verdicts, of a change, are drawn last, on top.
        for verdict in reversed([*VERDICTS]):
            mask = (features["verdict"] == verdict).to_numpy()
            axes.scatter(
                change[mask],
                (position + offset)[mask],
                s=9,
                color=VERDICT_COLOURS[verdict],
                alpha=0.8,
                linewidths=0,
                rasterized=len(features) > 500,
            )
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(range(len(order)), order, fontsize=8)
        axes.set_ylim(len(order) - 0.5, -0.5)
        finite = change[np.isfinite(change)]
        # A few wild values, of features that nobody explains, would squeeze the rest of the axis.
        edge = max(0.1, float(np.quantile(np.abs(finite), 0.995, method="higher")))
        axes.set_xlim(-1.05 * edge, 1.05 * edge)
        axes.set_xlabel("Change of held-out R2 (ridge probe), after minus before fine-tuning")
        axes.grid(axis="x", color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
        count = features["verdict"].value_counts()
        handles = [
            Line2D([], [], ls="", marker="o", color=VERDICT_COLOURS[verdict],
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
    return figure


def _rows(features: pd.DataFrame) -> pd.Series:
    several = features["roi"].nunique() > 1
    where = features["modality"].str.upper() + (" " + features["roi"] if several else "")
    return where + " " + features["feature_class"]


def _counts(features: pd.DataFrame) -> list[dict[str, Any]]:
    """Features of each verdict: all, by modality and ROI, by class."""
    blocks = [("all features", np.ones(len(features), bool))]
    where = features["modality"].str.upper() + " " + features["roi"]
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
    """The medoids of a verdict with the largest change, with the number of their near copies."""
    found = features[(features["verdict"] == verdict) & features["medoid"]]
    size = found["r2_pre_ft"] - found["r2_pre_pre"] if verdict == "recoded" else found["delta_r2"]
    found = found.loc[size.abs().sort_values(ascending=False, kind="stable").index].head(SHOWN)
    copies = features["cluster"].value_counts()
    return [
        {**row, "label": label(row), "copies": int(copies[row["cluster"]]) - 1}
        for row in found.to_dict("records")
    ]


def _within_seeds(features: pd.DataFrame, level: float, margin: float) -> int:
    """Features that changed in this encoder, but no further than other seeds of it differ."""
    if BAND not in features:
        return 0
    changed = (features["p_maxt"] <= level) & (features["delta_r2"].abs() >= margin)
    crosses = features["delta_r2_retrained_low"] * features["delta_r2_retrained_high"] <= 0
    return int((changed & crosses & ~features["verdict"].isin(["lost", "gained"])).sum())


def _disagreement(features: pd.DataFrame, margin: float) -> dict[str, Any]:
    """Features whose importance, the paper's score, changed in the other direction than R2.

    Only features whose R2 changed beyond its interval, and by the margin, count: below that the
    sign of a change is chance.
    """
    sure = (features["delta_r2_low"] > 0) | (features["delta_r2_high"] < 0)
    sure &= features["delta_r2"].abs() >= margin
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
