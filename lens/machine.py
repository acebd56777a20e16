"""What this process may use of the machine, and what it gives back."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

from joblib import cpu_count as joblib_count


def cpu_count() -> int:
    """Cores that this process may use: its affinity and the container's limit count, at least 1.

    ``LOKY_MAX_CPU_COUNT`` in the environment lowers it further (see `joblib.cpu_count`).
    """
    return joblib_count()


def give_back_memory() -> None:
    """Hands free memory back to the system, where the allocators can (glibc, Arrow).

    They keep it for what comes next. After a compilation, the reading of a table or a stage of many
    arrays that is hundreds of megabytes, in pieces into which what comes next may not fit. No
    object is touched. It takes milliseconds, a tenth of a second after very many small objects.
    """
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Any:
    """glibc's `malloc_trim`; None with another C library."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
