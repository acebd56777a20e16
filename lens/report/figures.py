"""Figures of a run, drawn from its tables; every figure is saved as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from lens.files import atomic
from lens.report.ranking import Ranking, label

# Okabe and Ito's palette: told apart with any colour vision.
COLOURS = {
    "pre": "#0072b2",
    "ft": "#d55e00",
    "gain": "#009e73",
    "loss": "#cc79a7",
    "stable": "#777777",
}
STAGE_NAMES = {"pre": "before", "ft": "after fine-tuning"}

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "svg.fonttype": "none",
    "svg.hashsalt": "radiomic-lens",
}


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Writes ``name.png`` and ``name.svg``; gives the path of the SVG."""
    for suffix in (".png", ".svg"):
        with atomic(folder / f"{name}{suffix}") as temporary, mpl.rc_context(STYLE):
            metadata = {"Date": None} if suffix == ".svg" else None
            figure.savefig(temporary, dpi=160, bbox_inches="tight", metadata=metadata)
    return folder / f"{name}.svg"


def sweep_heatmap(sweep: pd.DataFrame) -> Figure:
    """Validation loss over the penalty grid (mean over seeds), the selected pair framed."""
    grid = sweep.pivot_table(index="l2", columns="l1", values="val_loss", aggfunc="mean")
    best = sweep.loc[sweep["selected"]].iloc[0]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.3 + 0.85 * grid.shape[1], 1.4 + 0.5 * grid.shape[0]))
        axes = figure.subplots()
        image = axes.imshow(grid.to_numpy(), cmap="viridis_r", aspect="auto")
        for (row, column), value in np.ndenumerate(grid.to_numpy()):
            shade = float(np.ravel(image.norm(value))[0])
            axes.text(
                column,
                row,
                f"{value:.4f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shade > 0.5 else "black",
            )
        column, row = list(grid.columns).index(best["l1"]), list(grid.index).index(best["l2"])
        axes.add_patch(
            Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, fill=False, lw=2.5, ec=COLOURS["ft"])
        )
        axes.set_xticks(range(grid.shape[1]), [f"{v:g}" for v in grid.columns])
        axes.set_yticks(range(grid.shape[0]), [f"{v:g}" for v in grid.index])
        axes.set_xlabel("L1 penalty")
        axes.set_ylabel("squared L2 penalty")
        axes.set_title("Validation loss (mean absolute error, min-max units)")
        axes.spines[:].set_visible(False)
    return figure


def group_dumbbells(groups: pd.DataFrame) -> Figure:
    """Median R2 by feature group before and after, one panel per ROI."""
    return _stage_panels(groups, "group", "roi", "Median test R2 by feature group")


def modality_dumbbells(modalities: pd.DataFrame) -> Figure:
    """Median R2 by modality before and after: all features, and the best class of each ROI."""
    panels = []
    for roi, rows in modalities.groupby("roi", sort=False):
        classes = rows[(rows["group"] != "all") & (rows["stage"] == "pre")]
        chosen = ["all"]
        if len(classes):
            chosen.append(str(classes.groupby("group")["r2_median"].mean().idxmax()))
        for group in chosen:
            title = f"{roi}: all features" if group == "all" else f"{roi}: best class, {group}"
            panels.append(rows[rows["group"] == group].assign(panel=title))
    return _stage_panels(pd.concat(panels), "modality", "panel", "Median test R2 by modality")


def feature_changes(ranking: Ranking) -> Figure:
    """The listed features' change with its interval, in three blocks."""
    blocks = [(name, rows) for name, rows in ranking.blocks() if len(rows)]
    total = sum(len(rows) for _, rows in blocks)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.2 + 0.27 * (total + len(blocks))))
        axes = figure.subplots()
        position = 0.0
        ticks: list[float] = []
        names: list[str] = []
        for kind, rows in blocks:
            for row in rows.to_dict("records"):
                value = row[ranking.value]
                low, high = row[f"{ranking.value}_low"], row[f"{ranking.value}_high"]
                axes.plot([low, high], [position] * 2, color=COLOURS[kind], lw=2, alpha=0.6)
                axes.plot(value, position, "o", color=COLOURS[kind], ms=5)
                ticks.append(position)
                names.append(label(row))
                position += 1
            position += 0.7
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(ticks, names, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(f"{ranking.value_name}, with 95% interval")
        axes.set_title("Largest gains, largest losses, most stable")
    return figure


def _stage_panels(table: pd.DataFrame, rows: str, panels: str, title: str) -> Figure:
    names = list(dict.fromkeys(table[panels]))
    heights = [table.loc[table[panels] == name, rows].nunique() for name in names]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.0 + 0.34 * sum(heights) + 0.5 * len(names)))
        all_axes = figure.subplots(
            len(names), 1, sharex=True, squeeze=False, height_ratios=heights
        )[:, 0]
        for axes, name in zip(all_axes, names, strict=True):
            _dumbbells(axes, table[table[panels] == name], rows)
            axes.set_title(name)
        all_axes[-1].set_xlabel(f"{title}, with 95% interval")
        shown = table[table["stage"] != "delta"]
        # Scores far below zero say "absent" and would squeeze the rest of the axis.
        low = max(float(np.nanmin(shown["r2_median_low"], initial=0.0)), -0.5)
        high = float(np.nanmax(shown["r2_median_high"], initial=0.1))
        all_axes[-1].set_xlim(low - 0.02, high + 0.02)
        handles = [
            Line2D([], [], marker="o", color=COLOURS[stage], lw=2, label=text)
            for stage, text in STAGE_NAMES.items()
        ]
        all_axes[0].legend(
            handles=handles, ncols=2, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0)
        )
        figure.subplots_adjust(hspace=0.5)
    return figure


def _dumbbells(axes: Axes, table: pd.DataFrame, rows: str) -> None:
    names: Sequence[str] = list(dict.fromkeys(table[rows]))
    for position, name in enumerate(names):
        for stage, offset in (("pre", -0.14), ("ft", 0.14)):
            row = table[(table[rows] == name) & (table["stage"] == stage)].iloc[0]
            y = position + offset
            span = [row["r2_median_low"], row["r2_median_high"]]
            axes.plot(span, [y, y], color=COLOURS[stage], lw=2, alpha=0.6)
            axes.plot(row["r2_median"], y, "o", color=COLOURS[stage], ms=5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
