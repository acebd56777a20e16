"""Section: R2 and MSE by feature group, the paper's Table 1."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lens.report.figures import stage_panels
from lens.report.rows import by_stage, cross_validated
from lens.report.section import Need, Report, Section


def render(report: Report) -> Markup:
    """A figure and a table of the groups of one task."""
    (task,) = report.tasks
    return report.fill(
        "groups_section.html",
        task=task,
        figure=report.draw(group_dumbbells(task.tables.groups), f"{task.name}-groups"),
        groups=by_stage(task.tables.groups, ["roi", "group"]),
        paper=report.config["mode"] == "paper",
        cv=cross_validated(task.tables.groups),
    )


SECTION = Section("feature groups", (Need("groups"),), render)


def group_dumbbells(groups: pd.DataFrame) -> Figure:
    """Median R2 by feature group before and after, one panel per ROI; no row without features."""
    return stage_panels(groups, "group", "roi", "Median test R2 by feature group")
