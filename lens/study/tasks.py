"""Names that become folders and files of a run: of tasks, and of the regions and modalities asked.

One place decides what such a name may be, so that none leaves the run folder, is too long for a
file system, or means two things on a disk that does not tell upper from lower case.
"""

from __future__ import annotations

import re

RESERVED = (
    "pre", "figures", "scopes", "doctor", "encoders", "embeddings", "cohort", "volumes",
    "training", "radiomics-cache", "embeddings-cache",
)  # fmt: skip
"""Names that a run folder has for things of its own."""

SUFFIXES = (".json", ".html", ".csv", ".npz", ".parquet", ".lock", ".log", ".png", ".svg")
"""Of the files next to the tasks' folders."""

DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows has for devices, so that no folder can have them."""

LONGEST = 200
"""Bytes of a name; a file system takes 255, and some files add to it."""


def task_problem(name: object) -> str:
    """What is wrong with a task's name; an empty text where nothing is."""
    if problem := name_problem(name, "task"):
        return problem
    low = str(name).casefold()
    if low in RESERVED or low.endswith(SUFFIXES):
        return f"task {name!r}: the name is taken by the run folder; choose another"
    return ""


def name_problem(name: object, kind: str) -> str:
    """What is wrong with a name that becomes part of a path; an empty text where nothing is.

    Args:
        name: as the user gave it.
        kind: what it names, for the message.
    """
    shown = repr(name) if len(repr(name)) <= 80 else f"{repr(name)[:60]}... ({len(str(name))} long)"
    plain = isinstance(name, str) and re.fullmatch(r"[^\W_][\w .+-]{0,63}", name)
    if not plain or len(str(name).encode()) > LONGEST or str(name)[-1] in " .":
        return (
            f"{kind} {shown}: a name is a letter or digit, then letters, digits, spaces, "
            "., _, + or -, 64 at most, without a space or dot at its end"
        )
    if DEVICES.fullmatch(str(name).casefold()):
        return f"{kind} {shown}: the name is taken by some systems for a device; choose another"
    return ""
