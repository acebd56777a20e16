"""Words and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from markupsafe import Markup


def label(row: Mapping[Hashable, Any]) -> str:
    """A feature's name as a radiologist reads it: ``T2 gland, wavelet-LLH GLCM Idmn``."""
    feature_class = row["feature_class"]
    pretty = feature_class if feature_class in ("firstorder", "shape") else feature_class.upper()
    return f"{row['modality'].upper()} {row['roi']}, {row['image']} {pretty} {row['feature']}"


def number(value: float | None, digits: int = 2) -> str:
    """A number of fixed digits with a true minus sign; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    # Adding zero turns a rounded minus zero into zero.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def interval(row: Mapping[str, Any], name: str, digits: int = 2) -> Markup:
    """``value [low, high]`` of a column that has ``<name>_low`` and ``<name>_high`` with it."""
    low, high = number(row[f"{name}_low"], digits), number(row[f"{name}_high"], digits)
    return Markup("{} <small>[{}, {}]</small>").format(number(row[name], digits), low, high)
