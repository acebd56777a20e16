"""Names of the files of a folder of edits, which the report looks for."""

from __future__ import annotations

FILES = {
    "edits.csv": "response of the task score to every edit, with its tests",
    "edits-doses.csv": "the score at each dose",
    "edits-patients.csv": "slopes of single patients",
    "edits-features.csv": "change of every radiomic feature by every edit",
    "edits.json": "settings of the edits",
}
"""Files, with what they hold; that of features is absent where none were measured."""

SHEET = "edits-sheet.json"
"""Pictures of edited images of one patient, without a name; absent with ``--anonymise``."""

IN_RUN = "edits"
"""Folder in that of a run."""
