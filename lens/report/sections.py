"""The sections of the report in the order of the page."""

from __future__ import annotations

from lens.report import (
    amnesic_section,
    answer_section,
    confounds_section,
    doctor_section,
    edits_section,
    encoding_section,
    groups_section,
    headings,
    largest_changes_section,
    layers_section,
    left_out_section,
    map_section,
    modalities_section,
    paper_table_section,
    papers_section,
    patients_section,
    reading_section,
    rest_section,
    run_facts_section,
    similarity_section,
    sweep_section,
    verdicts_section,
)
from lens.report.section import Section, by_task

SECTIONS: tuple[Section, ...] = (
    answer_section.SECTION,
    map_section.SECTION,
    reading_section.SECTION,
    verdicts_section.SECTION,
    doctor_section.SECTION,
    patients_section.SECTION,
    by_task(
        "beyond the verdicts",
        headings.beyond_verdicts,
        (
            confounds_section.SECTION,
            encoding_section.SECTION,
            rest_section.SECTION,
            layers_section.SECTION,
            amnesic_section.SECTION,
        ),
    ),
    paper_table_section.SECTION,
    by_task(
        "the paper's analysis by task",
        headings.task,
        (
            groups_section.SECTION,
            modalities_section.SECTION,
            largest_changes_section.SECTION,
            similarity_section.SECTION,
        ),
    ),
    edits_section.SECTION,
    sweep_section.SECTION,
    left_out_section.SECTION,
    papers_section.SECTION,
    run_facts_section.SECTION,
)
