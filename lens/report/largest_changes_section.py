"""Section: the features with the largest gains and losses on one split, and the most stable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lens.report.figures import STYLE
from lens.report.off_scale import arrows, symmetric
from lens.report.palette import MEANINGS, line_mark
from lens.report.section import Need, Report, Section
from lens.report.words import label, short

COUNT = 5
"""Features of each kind."""

MEANING = {"gain": "gained", "loss": "lost", "stable": "unchanged"}
"""What each kind looks like, in `lens.report.palette`."""


def render(report: Report) -> Markup:
    """A figure, if any feature is explained at all, and a table of one task."""
    (task,) = report.tasks
    features = task.tables.features
    paper = report.config["mode"] == "paper"
    ranking = rank(features, paper=paper)
    figure = None
    if any(len(rows) for _, rows in ranking.blocks()):
        figure = report.draw(feature_changes(ranking), f"{task.name}-features")
    return report.fill(
        "largest_changes_section.html",
        task=task,
        figure=figure,
        value_name=ranking.value_name,
        ranking=[
            (kind, [row | {"label": label(row)} for row in rows.to_dict("records")])
            for kind, rows in ranking.blocks()
        ],
        called=int((features["q_bh_split"] < 0.05).sum()),
        paper=paper,
        count=COUNT,
        risen=int((features["delta_importance"] > 0).sum()),
        fallen=int((features["delta_importance"] < 0).sum()),
        medians=median_r2(features),
    )


SECTION = Section("largest changes", (Need("features", ("delta_r2_split",)),), render)


class Ranking(NamedTuple):
    """Rows of ``features.parquet``, best example first.

    Attributes:
        gains, losses, stable: up to five rows each.
        value: column that ranks.
        value_name: its name on the page.
    """

    gains: pd.DataFrame
    losses: pd.DataFrame
    stable: pd.DataFrame
    value: str
    value_name: str

    def blocks(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """The three blocks with their kind."""
        yield from (("gain", self.gains), ("loss", self.losses), ("stable", self.stable))


def rank(features: pd.DataFrame, *, paper: bool) -> Ranking:
    """Ranks by change of R2 on the single split, or by change of importance as the paper does.

    Args:
        features: rows of ``features.parquet``.
        paper: the rule of `by_importance`; else that of `by_r2`.
    """
    return by_importance(features) if paper else by_r2(features)


def by_r2(features: pd.DataFrame) -> Ranking:
    """Ranks by change of R2 the features that are explained at all.

    The interval of R2 lies above zero after fine-tuning (gains), before it (losses), or at both
    ends (stable). Otherwise the largest changes would be those between two useless decoders.
    """
    before, after = features["r2_pre_low"] > 0, features["r2_ft_low"] > 0
    value = "delta_r2_split"
    gains = _first(features[after & (features[value] > 0)], -features[value])
    losses = _first(features[before & (features[value] < 0)], features[value])
    stable = _first(features[before & after], features[value].abs())
    return Ranking(gains, losses, stable, value, "Change of test R2")


def by_importance(features: pd.DataFrame) -> Ranking:
    """Ranks by change of importance alone, the paper's rule: R2 has no say in gains and losses.

    Gains have the largest changes, losses the smallest, whatever their sign. Stable are the changes
    nearest to zero among features whose R2 is at or above the median over all features, both before
    and after (`median_r2`).
    """
    value = "delta_importance"
    pre, ft = median_r2(features)
    explained = features[(features["r2_pre"] >= pre) & (features["r2_ft"] >= ft)]
    gains, losses = _first(features, -features[value]), _first(features, features[value])
    stable = _first(explained, features[value].abs())
    return Ranking(gains, losses, stable, value, "Change of importance (paper's score)")


def median_r2(features: pd.DataFrame) -> tuple[float, float]:
    """Median R2 over all features that have one, before and after fine-tuning."""
    return float(features["r2_pre"].median()), float(features["r2_ft"].median())


def _first(features: pd.DataFrame, order: pd.Series) -> pd.DataFrame:
    """The first few features by the order, those without a value left out."""
    return features.loc[order[features.index].dropna().sort_values(kind="stable").index[:COUNT]]


def feature_changes(ranking: Ranking) -> Figure:
    """The listed features' change with its interval, in three blocks."""
    blocks = [(name, rows) for name, rows in ranking.blocks() if len(rows)]
    total = sum(len(rows) for _, rows in blocks)
    shown = pd.concat([rows for _, rows in blocks])
    ends = shown[[f"{ranking.value}{end}" for end in ("", "_low", "_high")]].to_numpy(float)
    # A change of R2 beyond 1 says that R2 is far below zero at one end; importance has no such end.
    most = 1.0 if ranking.value.startswith("delta_r2") else float("inf")
    bounds = symmetric(ends.ravel(), 0.01, most)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.2 + 0.27 * (total + len(blocks))))
        axes = figure.subplots()
        position = 0.0
        ticks: list[float] = []
        names: list[str] = []
        for kind, rows in blocks:
            meaning = MEANING[kind]
            for row in rows.to_dict("records"):
                value = np.array([row[ranking.value]], float)
                span = [row[f"{ranking.value}{end}"] for end in ("_low", "_high")]
                height, colour = np.array([position]), MEANINGS[meaning].light
                axes.plot(
                    bounds.shown(np.array(span)), [position] * 2, color=colour, lw=2, alpha=0.6
                )
                if bounds.shown(value) == value:
                    axes.plot(value, height, ls="", ms=5, **line_mark(meaning))
                arrows(axes, value, height, bounds, colour)
                ticks.append(position)
                names.append(short(label(row)))
                position += 1
            position += 0.7
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(ticks, names, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(1.05 * bounds.low, 1.05 * bounds.high)
        told = bounds.told(shown[ranking.value].to_numpy(float))
        axes.set_xlabel(f"{ranking.value_name}, with 95% interval{told}")
        axes.set_title("Largest gains, largest losses, most stable")
    return figure
