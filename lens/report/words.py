"""Words and numbers as people read them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories of what is not drawn: controls, format marks, surrogates, unassigned."""

WORDS = ("firstorder", "shape", "shape2D")
"""Feature classes that are no acronyms."""

ACRONYM = 4
"""Characters of the longest modality that is written in capitals, but for `EXCEPTIONS`."""

EXCEPTIONS = ("flair", "xray", "all")
"""An acronym that is longer, and words that are not one."""

LONGEST = 60
"""Characters of a name that a figure has room for."""


def literal(text: str) -> str:
    """Text with what cannot be seen made visible: ``a\\nb`` for a new line in a name.

    Control characters, marks that turn the direction of writing, and halves of characters become
    escapes, so that a name neither breaks the page nor reorders what stands beside it.
    """
    if text.isprintable():  # none of `UNSEEN` in it
        return text
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in UNSEEN else char
        for char in text
    )


def short(text: object) -> str:
    """A name for a figure: `literal`, its middle left out beyond `LONGEST` characters."""
    shown = literal(str(text))
    half = LONGEST // 2
    return shown if len(shown) <= LONGEST else f"{shown[: half - 1]}…{shown[-half:]}"


def modality_name(name: str) -> str:
    """A modality as it is written in the clinic, ``T2`` for t2; other names as they stand."""
    return name.upper() if (len(name) <= ACRONYM) != (name in EXCEPTIONS) else name


def label(row: Mapping[Hashable, Any]) -> str:
    """A feature's name as a radiologist reads it: ``T2 gland, wavelet-LLH GLCM Idmn``."""
    feature_class = row["feature_class"]
    pretty = feature_class if feature_class in WORDS else feature_class.upper()
    where = f"{modality_name(row['modality'])} {row['roi']}"
    return f"{where}, {row['image']} {pretty} {row['feature']}"


def number(value: float | None, digits: int = 2) -> str:
    """A number of fixed digits with a true minus sign; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    # Adding zero turns a rounded minus zero into zero.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def p_value(p: float | None) -> str:
    """A p or q value to four digits; none is shown as zero."""
    return "< 0.0001" if p is not None and p < 0.5e-4 else number(p, 4)


def p_told(p: float) -> str:
    """``p = 0.0123``, or ``p < 0.0001``."""
    shown = p_value(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def interval(row: Mapping[str, Any], name: str, digits: int = 2) -> Markup:
    """``value [low, high]`` of a column that has ``<name>_low`` and ``<name>_high`` with it."""
    low, high = number(row[f"{name}_low"], digits), number(row[f"{name}_high"], digits)
    return Markup("{} <small>[{}, {}]</small>").format(number(row[name], digits), low, high)


def moment(started: str) -> str:
    """A time of ``run.json`` as ``2026-11-27 01:34 UTC``; another text as it stands."""
    try:
        time = datetime.strptime(started, "%Y-%m-%d %H:%M:%S%z")
    except ValueError:
        return started
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
