"""What this process may use of the machine."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

CONTAINER_LIMITS = (
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory/memory.soft_limit_in_bytes",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.high",
)
"""Files in which Linux says what memory a container may use, hard and soft, in either version."""


def cpu_count() -> int:
    """Cores that this process may use: its affinity and the container's limit count, at least 1.

    ``LOKY_MAX_CPU_COUNT`` in the environment lowers it further (see `joblib.cpu_count`).
    """
    from joblib import cpu_count as joblib_count

    return joblib_count()


def memory_limit() -> int:
    """Bytes of memory that this process may use: of the machine, its container, or RLIMIT_RSS.

    What ``distributed.system.memory_limit`` says, without the half second that its package takes to
    be imported.
    """
    import psutil

    limits = [psutil.virtual_memory().total]
    if sys.platform == "linux":
        for file in CONTAINER_LIMITS:
            # No such file, or "max", which is no number.
            with suppress(OSError, ValueError):
                limits.append(int(Path(file).read_text()))
    with suppress(ImportError, OSError):
        import resource

        limits.append(resource.getrlimit(resource.RLIMIT_RSS)[1])
    return min(limit for limit in limits if limit > 0)
