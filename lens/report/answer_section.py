"""Section: the first screen. The answer in sentences, with a badge for every task."""

from __future__ import annotations

from markupsafe import Markup

from lens.report.answer import answer
from lens.report.palette import MEANINGS
from lens.report.section import Need, Report, Section
from lens.report.statements import BADGES
from lens.verdicts.rules import VERDICTS

MARKS = {"pass": "\u2713", "look": "!", "cannot tell": "?"}
"""A sign in every badge, so that neither colour nor the word alone tells them apart."""

OVERVIEW = 3
"""Tasks from which an overview stands above their answers."""


def render(report: Report) -> Markup:
    """The answer of every task, an overview of many, and the notes of the run."""
    found = answer(report.results)
    return report.fill(
        "answer_section.html",
        answer=found,
        overview=len(found.tasks) >= OVERVIEW,
        badges=BADGES,
        marks=MARKS,
        signs={verdict: MEANINGS[verdict].glyph for verdict in VERDICTS},
        meanings=VERDICTS
        | {
            "unchanged": "a change of R2 of "
            f"{report.config['equivalence']:g} or more is ruled out, on average or of a feature"
        },
        notes_on_tables=[note for note in found.notes if note.kind == "note"],
        left_out=[note for note in found.notes if note.kind != "note"],
    )


SECTION = Section("answer", (Need("levels", ("verdict",)),), render)
