"""Figures for tests that read what is on a page, not how its pictures look."""

from __future__ import annotations

import pytest


def svg_alone(patch: pytest.MonkeyPatch) -> None:
    """Has figures drawn in full as the SVG that a page holds; the PNG coarse, the PDF empty."""
    patch.setattr("lens.report.figures.DPI", 20)
    patch.setattr("lens.report.figures._as_pdf", lambda svg: b"")
