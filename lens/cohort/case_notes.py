"""What was done to geometry, labels and intensities of a cohort's cases, said to the user."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

log = logging.getLogger(__name__)

NUMBER = re.compile(r"\d[\d.e-]*")


def log_notes(cases: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Logs the notes of cases, one line per kind with the first patient's words.

    Notes are of one kind if they differ in numbers alone: cohorts have a thousand patients.

    Args:
        cases: patient and `lens.cohort.Case.notes` of each, in the order of the cohort.
    """
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for patient_id, notes in cases:
        for note in notes:
            by_kind.setdefault(NUMBER.sub("#", note), []).append((patient_id, note))
    for mentions in by_kind.values():
        patient_id, note = mentions[0]
        others = f" (likewise {len(mentions) - 1} more)" if mentions[1:] else ""
        log.info("patient %s: %s%s", patient_id, note, others)
