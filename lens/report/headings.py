"""Headings above the sections of one task."""

from __future__ import annotations

from markupsafe import Markup

from lens.report.section import Report


def task(report: Report) -> Markup:
    """The task, and which features and patients it is read against."""
    (task,) = report.tasks
    return report.fill("task.html", task=task)


def beyond_verdicts(report: Report) -> Markup:
    """What is looked at besides the verdicts."""
    (task,) = report.tasks
    return report.fill("beyond_verdicts.html", task=task)
