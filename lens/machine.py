"""What this process may use of the machine."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


def cpu_count() -> int:
    """Cores that this process may use: its affinity and the container's limit count, at least 1.

    ``LOKY_MAX_CPU_COUNT`` in the environment lowers it further (see `joblib.cpu_count`).
    """
    from joblib import cpu_count as joblib_count

    return joblib_count()


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keeps freed memory for the next array instead of giving it back to the system.

    An array of more than 32 MiB is otherwise asked of the system anew each time, which clears it
    page by page: up to a quarter of what an encoder takes for volumes of clinical size. Peak memory
    hardly changes where the same sizes come again and again; what is free at the end goes back.

    Begin before any other thread has asked for memory, and so before NumPy is imported: a thread
    stays with the part of memory it has first. Does nothing where the C library is not glibc.
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


# Options of mallopt(3), from malloc.h of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8

_KEEP = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}

# The defaults; of thresholds what glibc raises them to by itself for who frees large arrays.
_RETURN = {_ARENA_MAX: 0, _MMAP_MAX: 65_536, _MMAP_THRESHOLD: 1 << 25, _TRIM_THRESHOLD: 1 << 26}


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018
    except (AttributeError, OSError, TypeError):
        return None
    return library
