"""Section: R2 by modality, the paper's Figure 2."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lens.report.figures import stage_panels
from lens.report.section import Need, Report, Section
from lens.report.words import modality_name


def render(report: Report) -> Markup:
    """A figure of the modalities of one task."""
    (task,) = report.tasks
    figure = report.draw(modality_dumbbells(task.tables.modalities), f"{task.name}-modalities")
    return report.fill("modalities_section.html", task=task, figure=figure)


SECTION = Section("modalities", (Need("modalities"),), render)


def modality_dumbbells(modalities: pd.DataFrame) -> Figure:
    """Median R2 by modality before and after: all features, and `best_class` of each ROI."""
    modalities = modalities.assign(modality=modalities["modality"].map(modality_name))
    panels = []
    for roi, rows in modalities.groupby("roi", sort=False):
        panels.append(rows[rows["group"] == "all"].assign(panel=f"{roi}: all features"))
        if best := best_class(rows):
            panels.append(rows[rows["group"] == best].assign(panel=f"{roi}: best class, {best}"))
    return stage_panels(pd.concat(panels), "modality", "panel", "Median test R2 by modality")


def best_class(modalities: pd.DataFrame) -> str:
    """The class with the highest median R2 after fine-tuning, as in the paper's Figure 2.

    Args:
        modalities: rows of one ROI; the medians of a class are averaged over the modalities.

    Returns:
        Its name; an empty text where no class has an R2.
    """
    after = (modalities["stage"] == "ft") & (modalities["group"] != "all")
    scores = modalities[after].groupby("group")["r2_median"].mean().dropna()
    return str(scores.idxmax()) if len(scores) else ""
