"""Samples along the first axis, wherever they lie."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Rows(Protocol):
    """Samples along the first axis: an array, a memory map, or files read when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...
