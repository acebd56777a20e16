"""Section: settings, device, versions, times and input files of the run."""

from __future__ import annotations

from markupsafe import Markup

from lens.report.section import Report, Section


def render(report: Report) -> Markup:
    """A list of facts."""
    return report.fill("run_facts_section.html", scopes=report.scopes)


SECTION = Section("run facts", (), render)
