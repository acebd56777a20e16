"""Section: what the cohort can show, from its verdicts or from changes planted in it."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from lens.report.power_figure import power_figure
from lens.report.results import Scope
from lens.report.section import Report, Section
from lens.verdicts.doctor_summary import table


def render(report: Report) -> Markup:
    """An answer and a table per scope, and of planted changes a figure; nothing without any."""
    scopes = report.results.scopes
    if not any(scope.doctor for scope in scopes.values()):
        return Markup("")
    return report.fill(
        "doctor_section.html",
        scopes=[_scope(report, name, scope) for name, scope in scopes.items() if scope.doctor],
        several=len(scopes) > 1,
    )


SECTION = Section("doctor", (), render)


def _scope(report: Report, name: str, scope: Scope) -> dict[str, Any]:
    return {
        "name": name,
        "folds": scope.facts["folds"],
        "doctor": scope.doctor,
        "rows": table(scope.doctor).to_dict("records"),
        "figure": _figure(report, name, scope) if len(scope.planted) else "",
    }


def _figure(report: Report, name: str, scope: Scope) -> str:
    drawing = "doctor" if scope.facts["folder"] == "." else f"doctor-{name}"
    return report.draw(power_figure(scope.planted, scope.doctor["detectable"]), drawing)
