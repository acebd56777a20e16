"""The bar over cases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def progress_bar(iterable: Iterable[Any], total: int, name: str, show: bool) -> Iterable[Any]:
    """`iterable` with a bar of `total` cases, or as it is."""
    from tqdm import tqdm

    return tqdm(iterable, total=total, desc=name, unit="case", disable=not show)
