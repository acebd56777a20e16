"""Section: what the cohort can show, from changes planted in its embeddings."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from lens.report.power_figure import power_figure
from lens.report.results import Scope
from lens.report.section import Need, Report, Section
from lens.verdicts.doctor_summary import table


def render(report: Report) -> Markup:
    """An answer, a figure and a table per scope that was examined."""
    scopes = report.results.scopes
    return report.fill(
        "doctor_section.html",
        scopes=[_scope(report, name, scope) for name, scope in scopes.items() if scope.doctor],
        several=len(scopes) > 1,
    )


SECTION = Section("doctor", (Need("planted"),), render)


def _scope(report: Report, name: str, scope: Scope) -> dict[str, Any]:
    drawing = "doctor" if scope.facts["folder"] == "." else f"doctor-{name}"
    figure = power_figure(scope.planted, scope.doctor["detectable"])
    return {
        "name": name,
        "folds": scope.facts["folds"],
        "doctor": scope.doctor,
        "rows": table(scope.doctor).to_dict("records"),
        "figure": report.draw(figure, drawing),
    }
