"""The charts of the map of features, in Vega-Lite; the page gives them their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lens.report.off_scale import Scale, scale, symmetric

Point = tuple[float, float]


class View(NamedTuple):
    """One way to lay out the features.

    Attributes:
        name: for people.
        x, y: columns of ``features.parquet``.
        x_title, y_title: of the axes.
        x_scale, y_scale: what is drawn of them, the same for every task.
        band: half the height of the band of equivalence around no change.
    """

    name: str
    x: str
    y: str
    x_title: str
    y_title: str
    x_scale: Scale
    y_scale: Scale
    band: float

    def lines(self) -> list[tuple[Point, Point]]:
        """No change, and the margin of equivalence on each side of it, from edge to edge."""
        low, high = self.x_scale
        slope = 0.0 if self.y.startswith("delta") else 1.0
        found = []
        for offset in (0.0, -self.band, self.band):
            start, end = low, high
            if slope:  # the part of the diagonal that lies on the chart
                start, end = (
                    max(low, self.y_scale.low - offset),
                    min(high, self.y_scale.high - offset),
                )
            found.append(((start, slope * start + offset), (end, slope * end + offset)))
        return found

    def told(self, x: np.ndarray, y: np.ndarray) -> str:
        """How many features stand at an edge, and how many have no place; empty without any."""
        missing = np.isnan(x) | np.isnan(y)
        beyond = (self.x_scale.shown(x) != x) | (self.y_scale.shown(y) != y)
        parts = [
            f"{count} {text}"
            for count, text in (
                (int((beyond & ~missing).sum()), "beyond the axes: arrows at the edge"),
                (int(missing.sum()), "without a value"),
            )
            if count
        ]
        return "\n".join(parts)


def views(tables: Sequence[pd.DataFrame], equivalence: float) -> tuple[View, ...]:
    """Before against after, and the change against before, on axes that all tasks share.

    Args:
        tables: ``features.parquet`` of each task.
        equivalence: the margin below which a change counts as none.
    """
    both = np.concatenate(
        [table[["r2_ridge_pre", "r2_ridge_ft"]].to_numpy(float).ravel() for table in tables]
    )
    change = np.concatenate([table["delta_r2"].to_numpy(float) for table in tables])
    # Far below zero R2 only says that a feature is not there.
    r2 = scale(both, Scale(0.0, 0.5), Scale(-0.5, 1.0)).rounded()
    least = max(0.1, 1.2 * equivalence)
    changes = symmetric(change, least, max(1.0, least)).rounded()
    before, after = "R2 before fine-tuning", "R2 after fine-tuning"
    return (
        View("Before and after", "r2_ridge_pre", "r2_ridge_ft", before, after, r2, r2, equivalence),
        View(
            "Change", "r2_ridge_pre", "delta_r2", before, "Change of R2, after minus before",
            r2, changes, equivalence,
        ),
    )  # fmt: skip


def charts(found: Sequence[View]) -> list[dict[str, Any]]:
    """A Vega-Lite specification per view, with what the page needs to give it rows.

    Returns:
        For each view its ``name``, the ``x`` and ``y`` columns, their ``limits`` and the ``spec``.
        Rows come as data called ``features``, with ``x``, ``y``, how each is drawn, and its texts.
    """
    return [
        {
            "name": view.name,
            "x": view.x,
            "y": view.y,
            "limits": [[*view.x_scale], [*view.y_scale]],
            "spec": specification(view),
        }
        for view in found
    ]


def specification(view: View) -> dict[str, Any]:
    """The chart of a view: lines of no change, the features, and the one that is pointed at."""

    def axis(name: str, title: str, ends: Scale) -> dict[str, Any]:
        scaled = {"domain": [*ends.padded()], "nice": False, "zero": False}
        return {"field": name, "type": "quantitative", "title": title, "scale": scaled}

    place = {
        "x": axis("x", view.x_title, view.x_scale),
        "y": axis("y", view.y_title, view.y_scale),
    }
    lines = [
        {"line": index, "x": point[0], "y": point[1], "dash": [4, 4] if index else [1, 0]}
        for index, line in enumerate(view.lines())
        for point in line
    ]
    as_given = {
        name: {"field": name, "type": kind, "scale": None, "legend": None}
        for kind, names in (
            ("nominal", ("shape", "fill", "stroke")),
            ("quantitative", ("size", "angle", "fillOpacity")),
        )
        for name in names
    }
    texts = ("feature", "verdict", "before", "after", "change", "cluster")
    titles = ("", "verdict", "R2 before", "R2 after", "change of R2", "cluster")
    features = {
        "data": {"name": "features"},
        # A wheel over the map scrolls the page.
        "params": [{"name": "brush", "select": {"type": "interval", "zoom": False}}],
        "mark": {"type": "point", "filled": False, "strokeWidth": 1.2},
        "encoding": place
        | as_given
        | {
            "opacity": {"condition": {"param": "brush", "value": 0.9}, "value": 0.12},
            "tooltip": [
                {"field": name, "type": "nominal", "title": title or "feature"}
                for name, title in zip(texts, titles, strict=True)
            ],
        },
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": f"{view.name}: {view.y_title} against {view.x_title}, a mark per feature",
        "width": "container",
        "height": 440,
        "autosize": {"type": "fit", "contains": "padding", "resize": True},
        "layer": [
            {
                "data": {"values": lines},
                "mark": {"type": "line", "color": "#8a8f98", "strokeWidth": 1},
                "encoding": place
                | {
                    "detail": {"field": "line"},
                    "strokeDash": {"field": "dash", "scale": None, "legend": None},
                },
            },
            features,
            {
                "data": {"name": "pointed"},
                "mark": {"type": "point", "size": 260, "strokeWidth": 2.5, "color": "#d99a00"},
                "encoding": place,
            },
        ],
    }
