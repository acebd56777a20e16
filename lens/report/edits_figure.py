"""Figure of radiomic edits: slope of the task score before and after, with the controls."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lens.report.figures import COLOURS, STAGE_NAMES, STAGES, STYLE, empty_figure
from lens.report.palette import line_mark
from lens.report.words import modality_name, short

MOST = 40
"""Edits that are drawn, those with the largest slope after fine-tuning."""

CONTROL = "#858585"


def edits_figure(edits: pd.DataFrame) -> Figure:
    """A row per edit: its slope with interval before and after, and gray marks for its controls.

    Args:
        edits: rows of ``edits.csv`` of one task.
    """
    shown = edits[edits["stage"] != "change"].dropna(subset=["slope"])
    if shown.empty:
        return empty_figure("No edit was measured")
    keys = ["edit", "roi", "modality"]
    after = shown[shown["stage"] == "ft"].assign(size=lambda t: t["slope"].abs())
    kept = after.nlargest(MOST, "size")[keys].drop_duplicates()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.3 + 0.36 * len(kept)))
        axes = figure.subplots()
        for at, key in enumerate(kept.itertuples(index=False)):
            for stage, offset in (("pre", -0.15), ("ft", 0.15)):
                own = shown[(shown[keys] == list(key)).all(axis=1) & (shown["stage"] == stage)]
                if len(own):
                    _row(axes, own.iloc[0], stage, at + offset)
        names = [
            short(f"{key.edit}, {modality_name(str(key.modality))} {key.roi}")
            for key in kept.itertuples(index=False)
        ]
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.6)
        axes.axvline(0, color="#bbbbbb", lw=0.8, zorder=0)
        axes.set_xlabel(
            "Change of the task score per unit of dose (standard deviations of the label)"
        )
        handles = [
            Line2D([], [], lw=2, label=STAGE_NAMES[stage], **line_mark(meaning))
            for stage, meaning in STAGES.items()
        ]
        for marker, text in (("x", "outside"), ("+", "noise")):
            handles.append(Line2D([], [], ls="", marker=marker, color=CONTROL, label=text))
        axes.legend(
            handles=handles, ncols=4, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0)
        )
    return figure


def _row(axes: Axes, row: pd.Series, stage: str, y: float) -> None:
    ends = row[["slope_low", "slope_high"]].to_numpy(float)
    if np.isfinite(ends).all():
        axes.plot(ends, [y, y], color=COLOURS[stage], lw=2, alpha=0.6)
    axes.plot([row["slope"]], [y], ls="", ms=5, **line_mark(STAGES[stage]))
    for name, marker in (("slope_outside", "x"), ("slope_noise", "+")):
        if np.isfinite(row[name]):
            axes.plot([row[name]], [y], ls="", ms=5, marker=marker, color=CONTROL)
