"""Names of tasks, which become folders of a run and are stricter than other names (`lens.names`).

None leaves the run folder, is too long for a file system, or is one of the run's own.
"""

from __future__ import annotations

import re

from lens.names import name_problem

RESERVED = (
    "pre", "figures", "tables", "scopes", "doctor", "encoders", "embeddings", "cohort", "volumes",
    "training", "radiomics-cache", "embeddings-cache", "edits",
)  # fmt: skip
"""Names that a run folder has for things of its own."""

SUFFIXES = (
    ".json", ".html", ".csv", ".npz", ".parquet", ".lock", ".log", ".png", ".svg", ".pdf", ".md",
    ".tex",
)  # fmt: skip
"""Of the files next to the tasks' folders."""

PLAIN = re.compile(r"[^\W_][\w .+-]*")

LONGEST_BYTES = 200
"""Of a name; a file system takes 255, and some files add to it."""


def task_problem(name: object) -> str:
    """What is wrong with a task's name; an empty text where nothing is."""
    if not isinstance(name, str):
        return f"task {name!r}: a name is text"
    if problem := name_problem(name):
        return f"task {problem}"
    if not PLAIN.fullmatch(name) or len(name.encode()) > LONGEST_BYTES:
        return (
            f"task {name!r}: a name is a letter or digit, then letters, digits, spaces, "
            f"., _, + or -, {LONGEST_BYTES} bytes at most"
        )
    low = name.casefold()
    if low in RESERVED or low.endswith(SUFFIXES):
        return f"task {name!r}: the name is taken by the run folder; choose another"
    return ""
