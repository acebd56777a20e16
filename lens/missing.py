"""How people write that a value is missing."""

from __future__ import annotations

MISSING = frozenset(
    ["", "nan", "NaN", "NAN", "Nan", "-nan", "-NaN", "NA", "na", "N/A", "n/a", "N/a", "n.a.",
     "N.A.", "<NA>", "#N/A", "#N/A N/A", "#NA", "null", "NULL", "Null", "None", "1.#IND",
     "-1.#IND", "1.#QNAN", "-1.#QNAN"]
)  # fmt: skip
"""Cells that hold no value, in any column but those of ids, where ``NA`` may be a patient."""


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value, with or without blanks around it."""
    return cell.strip() in MISSING
