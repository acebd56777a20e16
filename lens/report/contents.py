"""The table of contents: a line and an anchor for every heading of the page."""

from __future__ import annotations

import re
from typing import NamedTuple

from markupsafe import Markup

HEADING = re.compile(r"<h([23])((?:\s[^<>]*)?)>(.*?)</h\1>", re.DOTALL)
"""A heading of a section; a name in it holds no ``<``, which the templates escape."""

LONGEST = 48
"""Characters of an anchor."""


class Entry(NamedTuple):
    """A heading.

    Attributes:
        level: 2 or 3.
        anchor: id of the heading.
        text: its HTML without elements.
    """

    level: int
    anchor: str
    text: Markup


def contents(body: str) -> tuple[Markup, list[Entry]]:
    """Puts an anchor before every heading of level 2 and 3 that has no id, and lists them.

    Args:
        body: HTML of the sections.

    Returns:
        The HTML with anchors, its headings as they were, and the headings in order.
    """
    entries: list[Entry] = []
    taken: set[str] = set(re.findall(r'\sid="([^"]*)"', body))

    def named(found: re.Match[str]) -> str:
        level, attributes, inner = found.groups()
        text = re.sub(r"<[^>]*>", "", inner).strip()
        known = re.search(r'\sid="([^"]*)"', attributes)
        anchor = known[1] if known else _anchor(text, taken)
        taken.add(anchor)
        entries.append(Entry(int(level), anchor, Markup(text)))
        return found[0] if known else f'<span id="{anchor}"></span>{found[0]}'

    return Markup(HEADING.sub(named, body)), entries


def _anchor(text: str, taken: set[str]) -> str:
    """Small letters and digits of a heading, with a number where there is one like it."""
    plain = re.sub(r"&[#\w]+;", " ", text).lower()
    base = "-".join(re.findall(r"[a-z0-9]+", plain))[:LONGEST].strip("-") or "section"
    anchor, number = base, 2
    while anchor in taken:
        anchor, number = f"{base}-{number}", number + 1
    return anchor
