"""Section: the map of features, to be looked at, filtered and selected on; a figure on paper."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lens.report.assets import Assets, packed
from lens.report.figures import STYLE
from lens.report.map_chart import View, charts, views
from lens.report.map_data import map_data
from lens.report.palette import MEANINGS, scatter_mark
from lens.report.section import Need, Report, Section
from lens.verdicts.rules import VERDICTS


def render(report: Report) -> Markup:
    """The map of all tasks at once, with a figure of each for where no script runs."""
    tasks = report.tasks
    found = views([task.tables.features for task in tasks], report.config["equivalence"])
    return report.fill(
        "map_section.html",
        tasks=[
            {
                "name": task.name,
                "scope": task.scope,
                "count": len(task.tables.features),
                "figure": report.draw(map_figure(task.tables.features, found), f"{task.name}-map"),
            }
            for task in tasks
        ],
        verdicts=VERDICTS,
        data=packed("feature-map-data", map_data(tasks) | {"charts": charts(found)}),
    )


SECTION = Section(
    "map of features",
    (Need("features", ("verdict",)),),
    render,
    Assets(("vega", "datatables"), ("map_section.css",), ("map_section.js",)),
)


def map_figure(features: pd.DataFrame, layouts: tuple[View, ...]) -> Figure:
    """The views of the map side by side, every feature a mark of its verdict.

    Args:
        features: rows of ``features.parquet``.
        layouts: the views.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.1 * len(layouts), 3.9))
        panels = figure.subplots(1, len(layouts), squeeze=False)[0]
        for axes, view in zip(panels, layouts, strict=True):
            _view(axes, features, view)
        figure.subplots_adjust(wspace=0.28)
    return figure


def _view(axes: Axes, features: pd.DataFrame, view: View) -> None:
    x, y = (features[name].to_numpy(float) for name in (view.x, view.y))
    # The rare verdicts, of a change, are drawn last, on top.
    for verdict in reversed([*VERDICTS]):
        mask = (features["verdict"] == verdict).to_numpy()
        inside = mask & (view.x_scale.shown(x) == x) & (view.y_scale.shown(y) == y)
        axes.scatter(
            x[inside], y[inside], s=12, alpha=0.85, rasterized=len(features) > 500,
            **scatter_mark(verdict),
        )  # fmt: skip
        _arrows(axes, x[mask], y[mask], view, MEANINGS[verdict].light)
    for start, end in view.lines():
        axes.plot(*zip(start, end, strict=True), color="#999999", lw=0.8, zorder=0)
    axes.set_xlim(*view.x_scale.padded())
    axes.set_ylim(*view.y_scale.padded())
    axes.set_title(view.name)
    axes.set_xlabel(view.x_title)
    axes.set_ylabel(view.y_title)
    axes.grid(color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    if told := view.told(x, y):
        axes.annotate(
            told, (0.02, 0.98), xycoords="axes fraction", va="top", fontsize=7, style="italic"
        )


def _arrows(axes: Axes, x: np.ndarray, y: np.ndarray, view: View, colour: str) -> None:
    """An arrow at the edge for every feature beyond it; it points to where the feature is."""
    shown_x, shown_y = view.x_scale.shown(x), view.y_scale.shown(y)
    for marker, mask in (
        ("<", x < shown_x),
        (">", x > shown_x),
        ("v", (y < shown_y) & (x == shown_x)),
        ("^", (y > shown_y) & (x == shown_x)),
    ):
        if mask.any():
            axes.plot(
                shown_x[mask],
                shown_y[mask],
                marker=marker,
                ls="",
                ms=5,
                color=colour,
                clip_on=False,
            )
