"""Why ids of two tables that should be the same do not meet: the likely cause, in words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

Rule = Callable[[str], str]

ENOUGH = 0.5
"""Share of the unmatched ids of the smaller side that a cause must explain."""

_SHOWN = 3


def _without_zeros(text: str) -> str:
    return re.sub(r"(?<![\d.])0+(?=\d)", "", text)


def _without_decimals(text: str) -> str:
    return re.sub(r"\.0+$", "", text)


def _without_blanks(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _visible(text: str) -> str:
    return "".join(char for char in text if unicodedata.category(char) not in ("Cf", "Cc"))


def _without_file(text: str) -> str:
    return re.sub(r"(\.[A-Za-z]\w*)+$", "", text)


def _without_prefix(text: str) -> str:
    return re.sub(r"^[^\W\d_]+[-_ ]*(?=\d)", "", text)


def _exponent(text: str) -> str:
    return f"{float(text):.0f}" if re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d{1,2}", text) else text


RULES: dict[str, Rule] = {
    "leading zeros": _without_zeros,
    "decimals, as numbers that were read with blanks among them get": _without_decimals,
    "blanks": _without_blanks,
    "characters that do not show": _visible,
    "upper and lower case": str.casefold,
    "a prefix, as in sub-001": _without_prefix,
    "ends of file names": _without_file,
    "numbers written as powers of ten": _exponent,
}
"""What ids are compared without, by the cause that is then named."""


def _all(text: str) -> str:
    for rule in (_visible, _exponent, _without_file, _without_blanks, str.casefold, _without_prefix,
                 _without_decimals, _without_zeros):  # fmt: skip
        text = rule(text)
    return text


def probable_cause(one: Sequence[str], other: Sequence[str], names: tuple[str, str]) -> str:
    """Why ids do not meet, with an example; without a cause, three ids of each side.

    Args:
        one, other: ids that the other side does not have, a patient or ``patient/study`` each.
        names: what messages call the two tables.

    Returns:
        A clause; empty where a side has no ids of its own.
    """
    one, other = list(dict.fromkeys(one)), list(dict.fromkeys(other))
    if not one or not other:
        return ""
    for cause, rule in (RULES | {"several of zeros, decimals, case and prefix": _all}).items():
        pairs = _pairs(one, other, _of_parts(rule))
        if len(pairs) >= ENOUGH * min(len(one), len(other)):
            first, second = pairs[0]
            return f"{names[0]} has {first!r} where {names[1]} has {second!r} ({cause})"
    return f"{names[0]} has {_few(one)}, {names[1]} has {_few(other)}"


def same_but_for_writing(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether most of the ids of the smaller side meet once they are written alike."""
    one, other = list(dict.fromkeys(one)), list(dict.fromkeys(other))
    found = len(_pairs(one, other, _of_parts(_all)))
    return bool(one and other) and found >= ENOUGH * min(len(one), len(other))


def _of_parts(rule: Rule) -> Rule:
    """The rule for patient and study each."""
    return lambda text: "/".join(rule(part) for part in text.split("/"))


def _pairs(one: Iterable[str], other: Iterable[str], rule: Rule) -> list[tuple[str, str]]:
    """Ids of both sides that are one under the rule, where that is so for no third id."""
    sides = [[(rule(each), each) for each in ids] for ids in (one, other)]
    counts = [Counter(key for key, _ in side) for side in sides]
    of_other = dict(sides[1])
    return [
        (each, of_other[key])
        for key, each in sides[0]
        if counts[0][key] == 1 and counts[1][key] == 1
    ]


def _few(ids: Sequence[str]) -> str:
    more = ", ..." if len(ids) > _SHOWN else ""
    return ", ".join(map(repr, ids[:_SHOWN])) + more
