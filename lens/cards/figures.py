"""The figures of a comparison: changes of one run against another, and a forest of groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lens.cards.entries import Comparable, Entry
from lens.cards.tables import Tables
from lens.report.figures import STYLE
from lens.report.verdicts_section import SHAPES, VERDICT_COLOURS
from lens.report.words import modality_name, short

PAIRS = 6
"""Pairs of runs that are drawn; the tables have all."""

ROWS = 60
"""Rows of the forest, over which groups are left out."""

INK, PALE = "#333333", "#c8c8c8"


def change_figure(comparable: Comparable) -> Figure:
    """Change of R2 of each feature in one run against another, a panel per pair of runs."""
    pairs = list(comparable.relations)[:PAIRS]
    wide = min(len(pairs), 3)
    tall = -(-len(pairs) // wide)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(4.6, 3.5 * wide), 3.4 * tall + 0.5), layout="constrained")
        panels = figure.subplots(tall, wide, squeeze=False).ravel()
        beyond = [
            _panel(axes, comparable.entries[a], comparable.entries[b])
            for axes, (a, b) in zip(panels, pairs, strict=False)
        ]
        for axes in panels[len(pairs) :]:
            axes.set_visible(False)
        handles = [_mark(SHAPES[v], VERDICT_COLOURS[v], f"{v} in both") for v in ("lost", "gained")]
        handles += [
            _mark("x", "black", "lost in one, gained in the other"),
            _mark("o", INK, "lost or gained in one", hollow=True),
            _mark("o", PALE, "in neither"),
        ]
        if any(beyond):
            handles.append(_mark("s", "white", "at the edge: beyond the scale", edge="black"))
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _panel(axes: Axes, a: Entry, b: Entry) -> bool:
    """One pair; gives whether any feature lies beyond the scale."""
    x, y = a.features["delta_r2"].to_numpy(), b.features["delta_r2"].to_numpy()
    one, other = a.features["verdict"].to_numpy(str), b.features["verdict"].to_numpy(str)
    called = np.isin(one, ("lost", "gained")), np.isin(other, ("lost", "gained"))
    finite = np.isfinite(x) & np.isfinite(y)
    sizes = np.abs(np.concatenate([x[finite], y[finite]]))
    # A few wild values, of features that nobody explains, would squeeze all others.
    wide = float(np.quantile(sizes, 0.95, method="higher")) if len(sizes) else 0.0
    edge = max(0.1, 1.3 * wide)
    kinds = [
        (~called[0] & ~called[1], "o", PALE, False, 10),
        (called[0] != called[1], "o", INK, True, 14),
        *(
            ((one == v) & (other == v), SHAPES[v], VERDICT_COLOURS[v], False, 22)
            for v in ("lost", "gained")
        ),
        (called[0] & called[1] & (one != other), "x", "black", False, 30),
    ]
    out = finite & ((np.abs(x) > edge) | (np.abs(y) > edge))
    for mask, marker, colour, hollow, size in kinds:
        for at, line in ((mask & finite & ~out, None), (mask & out, "black")):
            style: dict[str, Any] = {"color": colour}
            if marker != "x":
                face = "none" if hollow else colour
                style = {"facecolors": face, "edgecolors": line or colour}
            axes.scatter(
                np.clip(x[at], -edge, edge), np.clip(y[at], -edge, edge), s=size, marker=marker,
                linewidths=0.8, rasterized=len(x) > 500, clip_on=False, **style,
            )  # fmt: skip
    for low in (-edge, 0):
        axes.axline((low, low), slope=1, color=PALE, lw=0.8, zorder=0)
    axes.axhline(0, color="black", lw=0.6, zorder=0)
    axes.axvline(0, color="black", lw=0.6, zorder=0)
    axes.set_xlim(-edge, edge)
    axes.set_ylim(-edge, edge)
    axes.set_aspect("equal")
    axes.set_xlabel(f"Change of R2, {short(a.label)}")
    axes.set_ylabel(f"Change of R2, {short(b.label)}")
    return bool(out.any())


def forest_figure(comparable: Comparable, tables: Tables) -> Figure | None:
    """Mean change of R2 of all features, and by modality and region: a row per run, then pooled.

    None where the runs have no group in common.
    """
    entries = comparable.entries
    first = entries[0].levels
    shown = first[(first["level"] == "task") | (first["group"] == "all")].index
    shown = shown[: max(1, ROWS // (len(entries) + 2))]
    if not len(shown):
        return None
    pooled = tables.pooled[tables.pooled["kind"] != "feature"] if len(tables.pooled) else None
    rows = [row for at in shown for row in _forest_rows(entries, pooled, int(at))]
    ends = np.array([row[2:4] for row in rows if np.isfinite(row[2:4]).all()], float)
    edge = min(1.0, 1.1 * float(np.abs(ends).max(initial=0.05)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.24 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for y, (_, value, low, high, kind) in enumerate(rows):
            if kind != "title" and np.isfinite(value):
                _whisker(axes, float(y), (value, low, high), kind, edge)
        axes.axvline(0, color="black", lw=0.8, zorder=0)
        axes.set_xlim(-1.02 * edge, 1.02 * edge)
        axes.set_ylim(len(rows) - 0.4, -0.8)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8)
        for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_fontweight("bold" if row[4] == "title" else "normal")
        axes.tick_params(axis="y", length=0)
        cut = "; arrows: beyond the scale" if np.abs(ends).max(initial=0) > edge else ""
        axes.set_xlabel(f"Mean change of held-out R2, with 95% interval{cut}")
        axes.grid(axis="x", color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
    return figure


Row = tuple[str, float, float, float, str]


def _forest_rows(entries: Sequence[Entry], pooled: pd.DataFrame | None, at: int) -> list[Row]:
    """A title, a row per run and the pooled ones: label, change, its interval, kind."""
    row = entries[0].levels.iloc[at]
    whole = row["level"] == "task"
    name = "All features" if whole else f"{modality_name(row['modality'])} {row['roi']}".strip()
    rows: list[Row] = [
        (f"{short(name)} ({row['n_features']:.0f})", np.nan, np.nan, np.nan, "title")
    ]
    for entry in entries:
        own = entry.levels.iloc[at]
        rows.append(_row(f"{short(entry.label)}, n = {entry.patients}", own, "delta_r2_cv", "run"))
    if pooled is not None:
        own = pooled.iloc[at]
        for text, kind in (("these cohorts", ""), ("cohorts of their kind", "_random")):
            if not kind and np.isfinite(own["i2"]):
                text = f"{text}, I2 {own['i2']:.0%}"
            rows.append(_row(text, own, f"delta_r2{kind}", f"pooled{kind}"))
    return rows


def _row(label: str, values: pd.Series, name: str, kind: str) -> Row:
    value, low, high = (float(values[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return label, value, low, high, kind


def _whisker(
    axes: Axes, y: float, change: tuple[float, float, float], kind: str, edge: float
) -> None:
    """A square of a run, a full or hollow diamond of a mean; arrows where an end is beyond."""
    value, low, high = np.clip(change, -edge, edge)
    axes.plot([low, high], [y, y], color=INK, lw=1.4 if kind == "run" else 1.0)
    for end, marker in ((-edge, "<"), (edge, ">")):
        if (change[1] < end) if marker == "<" else (change[2] > end):
            axes.plot(end, y, marker, color=INK, ms=4, clip_on=False)
    marker = "s" if kind == "run" else "D"
    face = "white" if kind == "pooled_random" else INK
    if abs(change[0]) <= edge:
        axes.plot(value, y, marker, color=INK, markerfacecolor=face, ms=5 if kind == "run" else 6)


def _mark(marker: str, colour: str, text: str, *, hollow: bool = False, edge: str = "") -> Line2D:
    return Line2D(
        [], [], ls="", marker=marker, ms=5, color=colour, label=text,
        markerfacecolor="none" if hollow else colour, markeredgecolor=edge or colour,
    )  # fmt: skip
