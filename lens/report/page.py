"""The page of a run folder: one self-contained HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from lens.anonymise import OPEN, Names
from lens.cards.card import write_card
from lens.files import write_text
from lens.report.album import HIDDEN, Album
from lens.report.assets import inline, united
from lens.report.contents import contents
from lens.report.local_paths import without_local_paths
from lens.report.methods import write_methods
from lens.report.paper_tables import write_tables
from lens.report.results import read_results
from lens.report.section import Report, Section, met, render_sections
from lens.report.sections import SECTIONS
from lens.report.words import moment


def write_report(
    folder: Path,
    sections: Sequence[Section] = SECTIONS,
    *,
    names: Names = OPEN,
    album: Album | None = None,
) -> Path:
    """Draws the figures of a finished run and writes ``report.html``, which names no local path.

    What a paper takes from the run is written with it: the lens card (`lens.cards.card`), Table 1
    (`lens.report.paper_tables`) and the methods (`lens.report.methods`).

    Args:
        folder: of the run.
        sections: in the order of the page; those whose tables the run lacks are left out.
        names: how the page calls patients; where it hides them, there are no pictures.
        album: pictures of the patients; none without one.

    Returns:
        The path of the page.

    Raises:
        InputError: the folder is not that of a finished run, or a table is missing or damaged.
    """
    results = read_results(folder)
    write_card(folder, results)
    album = Album(HIDDEN) if names.hides else album or Album()
    report = Report(without_local_paths(results, names), folder / "figures", album)
    write_tables(folder, report.results)
    write_methods(folder, report.results)
    shown = met(sections, report)
    body, entries = contents(Markup("\n").join(render_sections(shown, report)))
    page = report.fill(
        "page.html",
        computed=moment(report.results.run["started"]),
        body=body,
        contents=entries,
        page=inline(united(section.assets for section in shown)),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"
