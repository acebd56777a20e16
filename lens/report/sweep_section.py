"""Section: validation loss over the grid of penalties, and the pair that was chosen."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lens.probes.grid_warnings import grid_warnings
from lens.report.figures import STYLE
from lens.report.results import Scope
from lens.report.section import Need, Report, Section


def render(report: Report) -> Markup:
    """A figure per scope."""
    return report.fill(
        "sweep_section.html",
        scopes=[_scope(report, name, scope) for name, scope in report.results.scopes.items()],
    )


SECTION = Section("penalty sweep", (Need("sweep"),), render)


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
        # White beside black stands out on every shade.
        for colour, width in (("white", 5.0), ("black", 2.5)):
            axes.add_patch(
                Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, lw=width, ec=colour)
            )
        axes.set_xticks(range(grid.shape[1]), [f"{v:g}" for v in grid.columns])
        axes.set_yticks(range(grid.shape[0]), [f"{v:g}" for v in grid.index])
        axes.set_xlabel("L1 penalty")
        axes.set_ylabel("squared L2 penalty")
        axes.set_title("Validation loss (mean absolute error, min-max units)")
        axes.spines[:].set_visible(False)
    return figure


def _scope(report: Report, name: str, scope: Scope) -> dict[str, Any]:
    """The facts of a scope with the chosen penalties and the figure."""
    chosen = scope.sweep[scope.sweep["selected"]].iloc[0]
    drawing = "sweep" if scope.facts["folder"] == "." else f"sweep-{name}"
    return scope.facts | {
        "name": name,
        "selected": chosen.to_dict(),
        "warnings": grid_warnings(scope.sweep),
        "figure": report.draw(sweep_heatmap(scope.sweep), drawing),
    }
