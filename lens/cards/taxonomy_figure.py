"""The figure of a taxonomy: correlations of the runs' profiles in the order of their tree."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.cluster.hierarchy import dendrogram

from lens.cards.taxonomy import Taxonomy
from lens.report.figures import STYLE
from lens.report.words import number, short

INK = "#333333"

WRITTEN = 14
"""Most runs whose correlations are written."""


def taxonomy_figure(found: Taxonomy) -> Figure:
    """Tree and heat map; frames about runs of one kind, the ceiling as a line on the scale."""
    count, order = len(found.labels), found.order
    values = found.correlations[np.ix_(order, order)]
    side = max(3.0, 0.34 * count)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(side + 3.2, side + 1.4), layout="constrained")
        tree, axes = figure.subplots(1, 2, width_ratios=[1, 5])
        _tree(tree, found)
        drawn = axes.imshow(values, cmap="BrBG", vmin=-1, vmax=1, aspect="auto")
        bar = figure.colorbar(drawn, ax=axes, label="Correlation of the changes (ranks)")
        for value in found.ceiling.values():
            bar.ax.axhline(value, color=INK, lw=1.6)
        names = [short(found.labels[at]) for at in order]
        axes.set_xticks(range(count), names, rotation=50, ha="right", fontsize=8)
        axes.set_yticks(range(count), names, fontsize=8)
        axes.yaxis.tick_right()
        if count <= WRITTEN:
            for row, column in np.ndindex(count, count):
                value = float(values[row, column])
                axes.text(column, row, number(value), ha="center", va="center", fontsize=7,
                          color="white" if abs(value) > 0.7 else "black")  # fmt: skip
        _frames(axes, [found.kinds[at] for at in order])
    return figure


def _tree(axes: Axes, found: Taxonomy) -> None:
    dendrogram(
        found.tree, ax=axes, orientation="left", no_labels=True, color_threshold=0,
        above_threshold_color=INK,
    )  # fmt: skip
    axes.invert_yaxis()
    if found.ceiling:
        axes.axvline(1 - min(found.ceiling.values()), color=INK, lw=0.8, ls="--")
    axes.set_xlabel("1 − correlation", fontsize=8)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])


def _frames(axes: Axes, kinds: list[str]) -> None:
    """A frame about each two runs of one kind."""
    for a, b in np.ndindex(len(kinds), len(kinds)):
        if kinds[a] and kinds[a] == kinds[b] and a != b:
            axes.add_patch(Rectangle((b - 0.47, a - 0.47), 0.94, 0.94, fill=False, ec=INK, lw=1.2))
