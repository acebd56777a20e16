"""Section: what of the change is radiomic, and what is not."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lens.report.figures import COLOURS, STYLE, stage_marks
from lens.report.off_scale import Scale, scale
from lens.report.rest_text import group_name, percent, sentences
from lens.report.section import Need, Report, Section
from lens.verdicts.encoding import MAX_ROWS

STAGES = {"new": "ft", "gone": "pre"}
"""The embedding that a side is a part of; its colour is that of the side."""

NAMES = {"new": "new after fine-tuning", "gone": "gone of what was before"}

ALL = "all features"


def render(report: Report) -> Markup:
    """Sentences, a figure and a table of one task."""
    (task,) = report.tasks
    table = task.tables.rest
    shown = table[table["grouping"].isin(["all", "modality", "class", "seed"])]
    wholes = table[table["grouping"] == "all"].set_index("side")
    return report.fill(
        "rest_section.html",
        task=task,
        sentences=sentences(table),
        figure=report.draw(rest_figure(table), f"{task.name}-rest"),
        sides=[
            {"name": str(side), "whole": wholes.loc[str(side)].to_dict(), "rows": [
                row | {"shown": _name(row)} for row in rows.to_dict("records")
            ]}
            for side, rows in shown.groupby("side", sort=False)
        ],
        percent=percent,
        limit=MAX_ROWS,
    )  # fmt: skip


SECTION = Section("rest", (Need("rest"),), render)


def _name(row: dict) -> str:
    return ALL if row["grouping"] == "all" else group_name(row)


def rest_figure(table: pd.DataFrame) -> Figure:
    """Shares of what is new and what is gone: by all features, each group alone, another seed.

    Sides where no change is shown are drawn no marks of; where both are so, the figure says it.
    """
    parts = {
        side: rows.assign(name=[_name(row) for row in rows.to_dict("records")])
        for side, rows in table.groupby("side", sort=False)
        if side in STAGES
    }
    shown = {
        side: rows for side, rows in parts.items() if rows["finding"].iloc[0] != "no change shown"
    }
    first = next(iter(parts.values()))
    groupings = list(dict.fromkeys(first["grouping"]))
    sizes = [int((first["grouping"] == name).sum()) for name in groupings]
    ends = pd.concat(parts.values())[["share", "share_low", "share_high"]].to_numpy(float)
    bounds = scale(ends.ravel(), Scale(0.0, 1.0), Scale(-0.25, 1.0))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.3 + 0.4 * sum(sizes)), layout="constrained")
        panels = figure.subplots(
            len(groupings), 1, sharex=True, squeeze=False, height_ratios=sizes
        )[:, 0]  # fmt: skip
        for axes, grouping in zip(panels, groupings, strict=True):
            names = first.loc[first["grouping"] == grouping, "name"].tolist()
            for shift, side in ((-0.15, "gone"), (0.15, "new")):
                if side in shown:
                    rows = shown[side][shown[side]["grouping"] == grouping]
                    stage_marks(
                        axes, rows, "share", np.arange(len(rows)) + shift, STAGES[side], bounds
                    )
                    if grouping == "all":
                        null = max(float(rows["null_high"].iloc[0]), 0.0)
                        axes.hlines(
                            [shift], 0, null, color=COLOURS["stable"], lw=6, alpha=0.4, zorder=0
                        )
            axes.axvline(0, color="black", lw=0.8)
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_title(TITLES.get(grouping, ""))
            axes.grid(axis="x", color="#dddddd", lw=0.6)
            axes.set_axisbelow(True)
            axes.set_xlim(*bounds.padded())
        if not shown:
            panels[0].text(
                0.5, 0, "no change is shown, and no share drawn", ha="center", va="center",
                style="italic", fontsize=8,
            )  # fmt: skip
        panels[-1].set_xlabel("Share of what is new (gone) that is told, with 95% interval")
        handles, _ = panels[0].get_legend_handles_labels()
        texts = [NAMES[side] for side in ("gone", "new") if side in shown]
        handles.append(Patch(color=COLOURS["stable"], alpha=0.4, lw=0))
        texts.append("features of other patients, at most")
        figure.legend(handles, texts, frameon=False, loc="outside lower center", ncols=3)
    return figure


TITLES = {
    "modality": "By modality, alone",
    "class": "By class, alone",
    "seed": "An encoder of another seed",
}
