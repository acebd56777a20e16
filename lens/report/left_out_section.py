"""Section: patients set aside and radiomic columns dropped, with the reasons."""

from __future__ import annotations

from markupsafe import Markup

from lens.report.answer_caveats import left_out
from lens.report.section import Report, Section


def render(report: Report) -> Markup:
    """Two lists, each with a sentence where nothing was left out."""
    results = report.results
    return report.fill(
        "left_out_section.html",
        told=" ".join(each.text for each in left_out(results)),
        failures=results.failures.to_dict("records"),
        dropped={name: scope.dropped.to_dict("records") for name, scope in results.scopes.items()},
    )


SECTION = Section("left out", (), render)
