"""The page of a run folder: one self-contained HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lens.files import write_text
from lens.report.results import read_results
from lens.report.section import Report, Section, render_sections
from lens.report.sections import SECTIONS


def write_report(folder: Path, sections: Sequence[Section] = SECTIONS) -> Path:
    """Draws the figures of a finished run and writes ``report.html``.

    Args:
        folder: of the run.
        sections: in the order of the page; those whose tables the run lacks are left out.

    Returns:
        The path of the page.

    Raises:
        InputError: the folder is not that of a finished run, or a table is missing or damaged.
    """
    report = Report(read_results(folder), folder / "figures")
    page = report.fill(
        "page.html",
        paper=report.config["mode"] == "paper",
        scopes=report.scopes,
        tasks=report.tasks,
        sections=render_sections(sections, report),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"
