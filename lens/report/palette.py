"""One colour and one mark per meaning, for the page, the figures and the interactive map.

Before and after fine-tuning are ink and purple; the verdicts of a change are vermilion, blue and
green; those of no change are grays. They follow Okabe and Ito's palette (Color Universal Design,
2008), darker where a word is written in them. The marks tell them apart without any colour.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Look(NamedTuple):
    """How a meaning looks.

    Attributes:
        light, dark: its colour on a light and on a dark page, as ``#rrggbb``.
        marker: its mark in Matplotlib's words.
        symbol: the same mark in Vega's words.
        glyph: the same mark as a letter.
        hollow: whether only the edge of the mark is drawn.
    """

    light: str
    dark: str
    marker: str
    symbol: str
    glyph: str
    hollow: bool = False


MEANINGS: dict[str, Look] = {
    "before": Look("#2f3a4c", "#dde6f5", "o", "circle", "○", hollow=True),
    "after": Look("#b0417f", "#ec7fbb", "o", "circle", "●"),
    "lost": Look("#c85200", "#ff8f47", "v", "triangle-down", "▼"),
    "gained": Look("#0072b2", "#5cb8f2", "^", "triangle-up", "▲"),
    "recoded": Look("#006650", "#6fe0b8", "D", "diamond", "◆"),
    "unchanged": Look("#858585", "#a6a6a6", "s", "square", "■"),
    "undecided": Look("#b8b8b8", "#70757e", "o", "circle", "●"),
    "absent": Look("#9c9c9c", "#838a95", "o", "circle", "○", hollow=True),
}
"""What is shown in a colour of its own, and how."""

PAPER = {"light": "#ffffff", "dark": "#161a20"}
"""What the page is drawn on."""


def style_sheet() -> str:
    """The colours as CSS variables, ``--lost`` and so on, for a light and a dark page."""
    light, dark = (
        "".join(f"--{name}:{getattr(look, theme)};" for name, look in MEANINGS.items())
        + f"--paper:{PAPER[theme]};"
        for theme in ("light", "dark")
    )
    # Paper is white whatever the screen is.
    return (
        f":root{{{light}}}\n"
        f"@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"
        + "".join(
            # The letter is drawing: it is not read aloud where a browser knows how to say so.
            f".{name}{{--mark:var(--{name})}}\n"
            f'.verdict.{name}::before{{content:"{look.glyph}";content:"{look.glyph}" / ""}}\n'
            for name, look in MEANINGS.items()
        )
    )


def scatter_mark(name: str) -> dict[str, Any]:
    """Keywords of Matplotlib's ``scatter`` for the mark of a meaning."""
    look = MEANINGS[name]
    return {
        "marker": look.marker,
        "facecolors": "none" if look.hollow else look.light,
        "edgecolors": look.light if look.hollow else "none",
        "linewidths": 0.9 if look.hollow else 0,
    }


def line_mark(name: str) -> dict[str, Any]:
    """Keywords of Matplotlib's ``plot`` for the mark of a meaning."""
    look = MEANINGS[name]
    return {
        "marker": look.marker,
        "color": look.light,
        "markerfacecolor": PAPER["light"] if look.hollow else look.light,
        "markeredgecolor": look.light,
    }
