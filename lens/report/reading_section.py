"""Section: how to read the page, and its words; folded."""

from __future__ import annotations

from markupsafe import Markup

from lens.report.section import Need, Report, Section
from lens.verdicts.rules import VERDICTS


def render(report: Report) -> Markup:
    """Steps and a glossary."""
    return report.fill(
        "reading_section.html",
        verdicts=VERDICTS,
        doctor=any(scope.doctor for scope in report.results.scopes.values()),
    )


SECTION = Section("how to read", (Need("features", ("verdict",)),), render)
