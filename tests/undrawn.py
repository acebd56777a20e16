"""Pages without their figures, for tests of the words: drawing takes longer than all else."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Collection
from typing import Any

import pytest
from matplotlib.figure import Figure

import lens.report
from lens.report.section import Report

NOTHING = "data:image/svg+xml,"


def undraw(monkeypatch: pytest.MonkeyPatch, *, but: Collection[str] = ()) -> list[str]:
    """Has the pages of a test leave their figures undrawn, and unmade where nothing asks for them.

    That drawing works, and gives the same bytes twice, is the law of `tests.report.test_sections`
    and of the tests of single figures.

    Args:
        monkeypatch: of the test.
        but: names of the figures that are drawn all the same.

    Returns:
        The names of all figures of the pages, as they come.
    """
    names: list[str] = []
    draw = Report.draw

    def drawn(report: Report, figure: Figure | Callable[[], Figure], name: str) -> str:
        names.append(name)
        if name not in but:
            return NOTHING
        return draw(report, figure() if callable(figure) else figure, name)

    monkeypatch.setattr(Report, "draw", drawn)
    for each in pkgutil.iter_modules(lens.report.__path__, "lens.report."):
        if each.name.endswith("_section"):
            module = importlib.import_module(each.name)
            for name, value in list(vars(module).items()):
                if _makes_a_figure(value):
                    monkeypatch.setattr(module, name, functools.partial(functools.partial, value))
    return names


def _makes_a_figure(value: Any) -> bool:
    """Whether this is the function of a whole figure; those share the parts of one module."""
    given = getattr(value, "__annotations__", {}).get("return")
    return given == "Figure" and value.__module__ != "lens.report.figures"
