"""Section: similarity of the embeddings before and after fine-tuning as a whole."""

from __future__ import annotations

from markupsafe import Markup

from lens.report.section import Need, Report, Section


def render(report: Report) -> Markup:
    """A table of one task."""
    (task,) = report.tasks
    return report.fill(
        "similarity_section.html", statistics=task.tables.similarity.to_dict("records")
    )


SECTION = Section("similarity", (Need("similarity"),), render)
