"""Section: what the task loses where a cluster of features is erased from the embedding."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lens.report.amnesic_text import SCORES, cluster_name, sentences
from lens.report.figures import COLOURS, STYLE, stage_marks
from lens.report.off_scale import Scale, scale
from lens.report.section import Need, Report, Section
from lens.report.words import short

SHOWN = 12
"""Clusters of a label in the figure and in the table, the largest losses."""


def render(report: Report) -> Markup:
    """Sentences, a figure and a table of one task."""
    (task,) = report.tasks
    table = task.tables.amnesic
    return report.fill(
        "amnesic_section.html",
        task=task,
        sentences=sentences(table),
        figure=report.draw(amnesic_figure(table), f"{task.name}-amnesic"),
        labels=[_label(str(name), rows) for name, rows in table.groupby("label", sort=False)],
        shown=SHOWN,
    )


SECTION = Section("amnesic", (Need("amnesic"),), render)


def largest(rows: pd.DataFrame) -> list[str]:
    """Clusters of a label by their larger loss of the two stages, `SHOWN` at most."""
    losses = rows[rows["stage"] != "delta"].groupby("cluster", sort=False)["loss"].max()
    return list(losses.sort_values(ascending=False, kind="stable").index[:SHOWN])


def amnesic_figure(table: pd.DataFrame) -> Figure:
    """Losses before and after fine-tuning on those of random subspaces, a panel per label."""
    labels = {str(name): rows for name, rows in table.groupby("label", sort=False)}
    names = {label: largest(rows) for label, rows in labels.items()}
    sizes = [len(each) for each in names.values()]
    ends = table.loc[table["stage"] != "delta", ["loss_low", "loss_high", "null_q95"]]
    bounds = scale(ends.to_numpy(float).ravel(), Scale(-0.02, 0.1), Scale(-0.5, 1.0))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.2 + 0.42 * sum(sizes)), layout="constrained")
        panels = figure.subplots(len(labels), 1, squeeze=False, height_ratios=sizes)[:, 0]
        for axes, (label, rows) in zip(panels, labels.items(), strict=True):
            for shift, stage in ((-0.17, "pre"), (0.17, "ft")):
                part = rows[rows["stage"] == stage].set_index("cluster").loc[names[label]]
                height = np.arange(len(part)) + shift
                null = bounds.shown(part[["null_q05", "null_q95"]].to_numpy(float))
                axes.hlines(
                    height, null[:, 0], null[:, 1], color=COLOURS["stable"], lw=6, alpha=0.4
                )
                stage_marks(axes, part, "loss", height, stage, bounds)
            axes.axvline(0, color="black", lw=0.8)
            axes.set_yticks(range(len(names[label])), [cluster_name(n) for n in names[label]])
            axes.set_ylim(len(names[label]) - 0.5, -0.5)
            axes.set_xlim(*bounds.padded())
            score = SCORES[str(rows["score"].iloc[0])]
            axes.set_title(short(label))
            axes.set_xlabel(f"Loss of {score} when erased, with 95% interval")
            axes.grid(axis="x", color="#dddddd", lw=0.6)
            axes.set_axisbelow(True)
        handles, texts = panels[0].get_legend_handles_labels()
        handles.append(Patch(color=COLOURS["stable"], alpha=0.4, lw=0))
        texts.append("random parts of the embedding, as large")
        figure.legend(handles, texts, frameon=False, loc="outside lower center", ncols=3)
    return figure


def _label(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    """A label's rows side by side."""
    sides = {
        stage: {row["cluster"]: row for row in rows[rows["stage"] == stage].to_dict("records")}
        for stage in ("pre", "ft", "delta")
    }
    return {
        "name": name,
        "score": SCORES[str(rows["score"].iloc[0])],
        "patients": int(rows["patients"].iloc[0]),
        "clusters": int(rows["cluster"].nunique()),
        "rows": [
            {"name": cluster_name(cluster), "n_features": int(sides["pre"][cluster]["n_features"])}
            | {stage: side[cluster] for stage, side in sides.items()}
            for cluster in largest(rows)
        ],
    }  # fmt: skip
