"""Section: what a paper takes from the run, methods text and citation folded."""

from __future__ import annotations

from markupsafe import Markup

from lens.cards.card import too_few
from lens.citation import MESSAGE, bibtex
from lens.report.methods import methods
from lens.report.section import Report, Section


def render(report: Report) -> Markup:
    """The methods text, how to cite, and the files that are there."""
    results = report.results
    # `literal` shows a new line as an escape; here it ends a line.
    text, cited = (
        Markup("{}").format(text)
        for text in (methods(results), bibtex(str(results.run["versions"]["radiomic-lens"])))
    )
    return report.fill(
        "papers_section.html", methods=text, message=MESSAGE, bibtex=cited,
        refusal=too_few(results),
    )  # fmt: skip


SECTION = Section("for a paper", (), render)
