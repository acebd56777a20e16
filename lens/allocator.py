"""What becomes of memory that this process has freed: kept for the next array, or given back.

The options of glibc's allocator are those of mallopt(3). With another C library both functions do
nothing that matters.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8

_KEEP = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}

# The defaults; of thresholds what glibc raises them to by itself for who frees large arrays.
_RETURN = {_ARENA_MAX: 0, _MMAP_MAX: 65_536, _MMAP_THRESHOLD: 1 << 25, _TRIM_THRESHOLD: 1 << 26}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keeps freed memory for the next array instead of giving it back to the system.

    An array of more than 32 MiB is otherwise asked of the system anew each time, which clears it
    page by page: up to a quarter of what an encoder takes for volumes of clinical size. Peak memory
    hardly changes where the same sizes come again and again; what is free at the end goes back.

    Begin before any other thread has asked for memory, and so before NumPy is imported: a thread
    stays with the part of memory it has first.
    """
    glibc = _glibc()
    if glibc is None:
        yield
        return
    for option, value in _KEEP.items():
        glibc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _RETURN.items():
            glibc.mallopt(option, value)
        glibc.malloc_trim(0)


def give_back_memory() -> None:
    """Hands free memory back to the system, where the allocators can (glibc, Arrow).

    They keep it for what comes next. After a compilation, the reading of a table or a stage of many
    arrays that is hundreds of megabytes, in pieces into which what comes next may not fit. No
    object is touched. It takes milliseconds, a tenth of a second after very many small objects.
    """
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    if glibc := _glibc():
        glibc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
