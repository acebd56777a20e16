"""What the figures of a report share: colours, style, panels; each is saved as PNG, SVG and PDF."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lens import cache
from lens.files import atomic
from lens.report.off_scale import Scale, arrows, no_value, scale
from lens.report.palette import MEANINGS, line_mark
from lens.report.words import short

COLOURS = {
    name: MEANINGS[meaning].light
    for name, meaning in {
        "pre": "before", "ft": "after", "gain": "gained", "loss": "lost", "stable": "unchanged",
    }.items()
}  # fmt: skip
"""Colours of the figures by the names that the tables use; of `lens.report.palette`."""

STAGES = {"pre": "before", "ft": "after"}
"""The meaning of each stage, in `lens.report.palette`."""

STAGE_NAMES = {"pre": "before", "ft": "after fine-tuning"}

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    # Nothing stands above the axes that a title would have to make way for.
    "axes.titley": 1.0,
    # Letters keep their outline and width at every resolution, and are drawn sooner.
    "text.hinting": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "radiomic-lens",
    # Names are the user's: a dollar sign in one is no formula, and TeX would run commands.
    "text.parse_math": False,
    "text.usetex": False,
}

DPI = 160
"""Pixels per inch of a PNG, and of what is drawn as pixels in the other formats."""


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Writes ``name.png``, ``name.svg`` and ``name.pdf``; gives the path of the SVG.

    None holds a date. The same figure gives the same bytes, but for the order of the fonts in the
    PDF, which is the SVG converted: drawing it once more would take ten times as long. PNG and PDF
    are left as they are, but for their time, where they were made with the same SVG.
    """
    path = folder / f"{name}.svg"
    with mpl.rc_context(STYLE):
        # Laid out and measured once for all: that takes as long as to draw.
        if figure.get_layout_engine():
            figure.draw_without_rendering()
            figure.set_layout_engine(None)
        box = figure.get_tightbbox().padded(mpl.rcParams["savefig.pad_inches"])
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=DPI, bbox_inches=box, metadata={"Date": None})
        svg = path.read_text("utf-8")
        png, pdf = path.with_suffix(".png"), path.with_suffix(".pdf")
        key = cache.fingerprint(svg, _converters())
        if cache.finished(png, key):
            # Of this run, too: what a run does not write, it clears away.
            png.touch()
            pdf.touch()
        else:
            with atomic(png) as temporary:
                figure.savefig(temporary, dpi=DPI, bbox_inches=box)
            with atomic(pdf) as temporary:
                temporary.write_bytes(_as_pdf(svg))
        cache.finish(png, key, pdf)
    return path


@functools.cache
def _converters() -> dict[str, str]:
    """What the other formats of a figure depend on besides its SVG."""
    made_by = {name: version(name) for name in ("matplotlib", "pillow", "vl-convert-python")}
    return {"code": cache.code_version(__name__), **made_by}


def _as_pdf(svg: str) -> bytes:
    """A figure as a vector PDF of the same size, its fonts embedded as TrueType."""
    import vl_convert

    _register_fonts()
    # A PDF's unit is the point: of sizes given in points, these would make pixels, 4/3 as many.
    return vl_convert.svg_to_pdf(re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', svg, count=2))


@functools.cache
def _register_fonts() -> None:
    """Tells the converter of the fonts that figures are drawn with."""
    import vl_convert

    vl_convert.register_font_directory(str(Path(mpl.get_data_path(), "fonts", "ttf")))


def stage_panels(table: pd.DataFrame, rows: str, panels: str, title: str) -> Figure:
    """Median R2 before and after fine-tuning with intervals, a row per group with features.

    Args:
        table: a row per group and stage, of `lens.paper.groups`.
        rows: column that names a row of a panel.
        panels: column that names a panel.
        title: of the axis.
    """
    table = table[table["n_features"] > 0]
    if table.empty:
        return empty_figure("No group has features")
    names = list(dict.fromkeys(table[panels]))
    heights = [table.loc[table[panels] == name, rows].nunique() for name in names]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.0 + 0.34 * sum(heights) + 0.5 * len(names)))
        all_axes = figure.subplots(
            len(names), 1, sharex=True, squeeze=False, height_ratios=heights
        )[:, 0]
        shown = table[table["stage"] != "delta"]
        ends = shown[["r2_median", "r2_median_low", "r2_median_high"]].to_numpy(float)
        # Scores far below zero mean "absent" and would squeeze the rest of the axis.
        bounds = scale(ends.ravel(), Scale(0.0, 0.1), Scale(-0.5, 1.0))
        for axes, name in zip(all_axes, names, strict=True):
            _dumbbells(axes, table[table[panels] == name], rows, bounds)
            axes.set_title(short(name))
        told = bounds.told(shown["r2_median"].to_numpy(float))
        all_axes[-1].set_xlabel(f"{title}, with 95% interval{told}")
        all_axes[-1].set_xlim(bounds.low - 0.02, bounds.high + 0.02)
        handles = [
            Line2D([], [], lw=2, label=text, **line_mark(STAGES[stage]))
            for stage, text in STAGE_NAMES.items()
        ]
        all_axes[0].legend(
            handles=handles, ncols=2, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0)
        )
        figure.subplots_adjust(hspace=0.5)
    return figure


def stage_marks(
    axes: Axes, rows: pd.DataFrame, column: str, heights: np.ndarray, stage: str, bounds: Scale
) -> None:
    """A mark with its interval for each row, in the looks of a stage.

    Args:
        axes: to draw on.
        rows: n rows with `column` and its ends, ``<column>_low`` and ``<column>_high``.
        column: what is drawn; beyond `bounds` an arrow, without a value the words.
        heights: of the rows, (n,).
        stage: ``pre`` or ``ft``.
        bounds: the part of the axis that is drawn.
    """
    value = rows[column].to_numpy(float)
    span = bounds.shown(rows[[f"{column}_low", f"{column}_high"]].to_numpy(float))
    axes.hlines(heights, span[:, 0], span[:, 1], color=COLOURS[stage], lw=1.4)
    inside = bounds.shown(value) == value
    axes.plot(
        value[inside], heights[inside], ls="", ms=4.5, label=STAGE_NAMES[stage],
        **line_mark(STAGES[stage]),
    )  # fmt: skip
    arrows(axes, value, heights, bounds, COLOURS[stage])
    no_value(axes, heights[np.isnan(value)], (bounds.low + bounds.high) / 2)


def empty_figure(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.6))
        figure.text(0.5, 0.5, text, ha="center", va="center", style="italic")
    return figure


def _dumbbells(axes: Axes, table: pd.DataFrame, rows: str, bounds: Scale) -> None:
    """A row per name; a median beyond the axis is an arrow at its edge, none at all says so."""
    names: Sequence[str] = list(dict.fromkeys(table[rows]))
    for position, name in enumerate(names):
        for stage, offset in (("pre", -0.14), ("ft", 0.14)):
            row = table[(table[rows] == name) & (table["stage"] == stage)].iloc[0]
            y, colour = np.array([position + offset]), COLOURS[stage]
            median = np.array([row["r2_median"]], float)
            if np.isnan(median[0]):
                no_value(axes, y, (bounds.low + bounds.high) / 2)
                continue
            span = bounds.shown(row[["r2_median_low", "r2_median_high"]].to_numpy(float))
            axes.plot(span, [y[0], y[0]], color=colour, lw=2, alpha=0.6)
            if bounds.shown(median) == median:
                axes.plot(median, y, ls="", ms=5, **line_mark(STAGES[stage]))
            arrows(axes, median, y, bounds, colour)
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
