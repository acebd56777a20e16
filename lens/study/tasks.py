"""Names of tasks, which are folders of a run as well."""

from __future__ import annotations

import re

RESERVED = (
    "pre", "figures", "scopes", "doctor", "encoders", "embeddings", "cohort", "volumes",
    "training", "radiomics-cache", "embeddings-cache",
)  # fmt: skip
"""Names that a run folder has for things of its own."""

SUFFIXES = (".json", ".html", ".csv", ".npz", ".parquet")
"""Of the files next to the tasks' folders."""


def task_problem(name: object) -> str:
    """What is wrong with a task's name; an empty text where nothing is."""
    if not isinstance(name, str) or not re.fullmatch(r"[^\W_][\w .+-]{0,63}", name):
        return (
            f"task {name!r}: a name is a letter or digit, then letters, digits, spaces, "
            "., _, + or -, 64 at most"
        )
    if name in RESERVED or name.endswith(SUFFIXES):
        return f"task {name!r}: the name is taken by the run folder; choose another"
    return ""
