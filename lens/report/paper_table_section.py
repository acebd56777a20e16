"""Section: the paper's analysis in one table, R2 of all features by task, ROI and modality."""

from __future__ import annotations

from markupsafe import Markup

from lens.report.rows import by_stage, cross_validated
from lens.report.section import Need, Report, Section


def render(report: Report) -> Markup:
    """A table over all tasks."""
    rows = []
    for task in report.tasks:
        modalities = task.tables.modalities
        overall = by_stage(modalities[modalities["group"] == "all"], ["roi", "modality"])
        rows += [row | {"task": task} for row in overall]
    return report.fill(
        "paper_table_section.html",
        rows=rows,
        paper=report.config["mode"] == "paper",
        cv=all(cross_validated(task.tables.modalities) for task in report.tasks),
    )


SECTION = Section("the paper's analysis", (Need("modalities"),), render)
