"""One colour per meaning, told apart with any colour vision, and in gray by the mark."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lens.report.figures import COLOURS
from lens.report.palette import MEANINGS, PAPER, style_sheet
from lens.verdicts.rules import NO_CHANGE, VERDICTS

# Machado, Oliveira and Fernandes 2009, severity 1: on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    white = XYZ @ np.ones(3)
    scaled = XYZ @ np.clip(rgb, 0, 1) / white
    x, y, z = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """As the Web Content Accessibility Guidelines define it."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_what_stands_side_by_side_differs_in_colour(theme: str, vision: str) -> None:
    """Differences in CIELAB; 2 can just be seen, 10 at a glance."""
    seen = {
        name: lab(np.array(VISION[vision]) @ linear(getattr(look, theme)))
        for name, look in MEANINGS.items()
    }
    changes = [name for name in VERDICTS if name not in NO_CHANGE]
    pairs = [("before", "after"), *itertools.combinations(changes, 2)]
    pairs += [(change, "undecided") for change in changes]
    for one, other in pairs:
        assert np.linalg.norm(seen[one] - seen[other]) > 10, (one, other)


def test_every_meaning_has_one_colour_and_verdicts_one_mark_each() -> None:
    assert {*VERDICTS, "before", "after"} == {*MEANINGS}
    for theme in ("light", "dark"):
        assert len({getattr(look, theme) for look in MEANINGS.values()}) == len(MEANINGS)
    marks = {(MEANINGS[name].marker, MEANINGS[name].hollow) for name in VERDICTS}
    assert len(marks) == len(VERDICTS), "in gray the mark tells"
    assert MEANINGS["before"].hollow is not MEANINGS["after"].hollow
    assert {*COLOURS.values()} <= {look.light for look in MEANINGS.values()}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_and_marks_stand_out_from_the_paper(theme: str) -> None:
    for name, look in MEANINGS.items():
        least = 4.5 if name in ("before", "after", "lost", "gained", "recoded") else 1.9
        assert contrast(getattr(look, theme), PAPER[theme]) >= least, name


def test_the_style_sheet_has_them_all() -> None:
    sheet = style_sheet()
    light, dark = sheet.split("@media screen and (prefers-color-scheme: dark)")
    for name, look in MEANINGS.items():
        assert f"--{name}:{look.light};" in light
        assert f"--{name}:{look.dark};" in dark
        assert f'.verdict.{name}::before{{content:"{look.glyph}"' in sheet
