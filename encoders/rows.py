"""Samples along the first axis, wherever they lie."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from lens.disk import array_hash


@runtime_checkable
class Rows(Protocol):
    """Samples along the first axis: an array, a memory map, or files read when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def rows_hash(values: Rows, rows: Int[np.ndarray, " m"]) -> str:
    """SHA-256 of some samples, one after another, as 64 hex digits.

    Args:
        values: the samples. Those in files may have a method ``row_key`` that tells the content of
            one without reading it.
        rows: which of them.
    """
    key = getattr(values, "row_key", lambda row: array_hash(np.asarray(values[row : row + 1])))
    return hashlib.sha256("".join(key(int(row)) for row in rows).encode()).hexdigest()
