"""What may be the name of a modality or region, wherever one is given."""

from __future__ import annotations

LONGEST = 64
"""Most letters of the name of a modality or region; names of folders have 255 bytes at most."""


def name_problem(name: str) -> str:
    """What is wrong with the name of a modality or region; an empty text where nothing is.

    Names are shown in figures and pages and become parts of paths. They may hold letters of any
    language, digits and marks, but nothing that leads out of a folder, that does not print, or
    that figures would set as a formula.
    """
    shown = name if len(name) <= LONGEST else name[:20] + "..."
    if not name or name in (".", ".."):
        return f"{shown!r}: is no name"
    if len(name) > LONGEST:
        return f"{shown!r} ({len(name)} letters): {LONGEST} at most; choose a shorter name"
    bad = next((c for c in name if c in "/\\$" or not c.isprintable()), None)
    if bad is not None:
        return f"{shown!r}: {bad!r} may not be part of a name; use letters, digits, _ and -"
    return ""
