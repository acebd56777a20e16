"""Names that a user writes: modalities, regions, columns. What is not known is refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from lens.errors import InputError

LONGEST = 64
"""Most letters of the name of a modality or region; names of folders have 255 bytes at most."""

DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows has for devices, so that no folder can have them."""

PACKAGES = ("lens", "encoders", "experiments")
"""Names of the packages of this program, which no module of a user's can have."""

PART = re.compile(r"[^.\s=]+\.[^.\s=]+")
"""``<modality>.<roi>``, what a radiomics table whose columns do not say it is about."""

ALIKE = 0.6
"""Similarity from which a name is suggested, by `difflib.SequenceMatcher.ratio`."""


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
    if name.strip(" .") != name:
        return f"{shown!r}: neither a space nor a dot may be at an end of a name"
    if DEVICES.fullmatch(name.casefold()):
        return f"{shown!r}: the name is taken by some systems for a device; choose another"
    bad = next((c for c in name if c in "/\\$" or not c.isprintable()), None)
    if bad is not None:
        return f"{shown!r}: {bad!r} may not be part of a name; use letters, digits, _ and -"
    return ""


def same_word(name: str) -> str:
    """What is left of a name without case, blanks and marks: ``Patient-ID`` is ``patientid``."""
    return re.sub(r"[\W_]+", "", name).lower()


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is most likely meant to be, or holds as a word; or None."""
    words = {same_word(each): each for each in known}
    for part in re.split(r"[\W_]+", name.lower()):
        if part in words:
            return words[part]
    found = get_close_matches(same_word(name), words, n=1, cutoff=ALIKE)
    return words[found[0]] if found else None


def either(names: Sequence[str]) -> str:
    """``t2, dwi or adc``."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def check_names(names: Iterable[str], known: Iterable[str], what: str, where: str) -> None:
    """Refuses the first name that is not known, with the one that it resembles and all there are.

    Args:
        names: as the user wrote them.
        known: those that there are, in the order in which they are shown.
        what: the names are, in the singular: ``modality``.
        where: they were written, a flag or a file: ``--roi``.

    Raises:
        InputError: a name is unknown.
    """
    known = list(dict.fromkeys(known))
    for name in names:
        if name not in known:
            alike = closest(name, known)
            meant = f"; did you mean {alike}?" if alike else ";"
            there = f"there are {', '.join(known)}" if known else "there are none"
            raise InputError(f"{where}: no {what} {name!r}{meant} {there}")
