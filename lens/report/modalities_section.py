"""Section: R2 by modality, the paper's Figure 2."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lens.report.figures import stage_panels
from lens.report.section import Need, Report, Section


def render(report: Report) -> Markup:
    """A figure of the modalities of one task."""
    (task,) = report.tasks
    figure = report.draw(modality_dumbbells(task.tables.modalities), f"{task.name}-modalities")
    return report.fill("modalities_section.html", task=task, figure=figure)


SECTION = Section("modalities", (Need("modalities"),), render)


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
    return stage_panels(pd.concat(panels), "modality", "panel", "Median test R2 by modality")
