"""The sections of the report in the order of the page."""

from __future__ import annotations

from lens.report import (
    confounds,
    doctor,
    encoding,
    groups,
    headings,
    largest_changes,
    left_out,
    modalities,
    paper_table,
    run_facts,
    similarity,
    sweep,
    verdicts,
)
from lens.report.section import Section, by_task

SECTIONS: tuple[Section, ...] = (
    verdicts.SECTION,
    doctor.SECTION,
    by_task(
        "beyond the verdicts",
        headings.beyond_verdicts,
        (confounds.SECTION, encoding.SECTION),
    ),
    paper_table.SECTION,
    by_task(
        "the paper's analysis by task",
        headings.task,
        (groups.SECTION, modalities.SECTION, largest_changes.SECTION, similarity.SECTION),
    ),
    sweep.SECTION,
    left_out.SECTION,
    run_facts.SECTION,
)
