"""What this process may use of the machine."""

from __future__ import annotations

from joblib import cpu_count as joblib_count


def cpu_count() -> int:
    """Cores that this process may use: its affinity and the container's limit count, at least 1.

    ``LOKY_MAX_CPU_COUNT`` in the environment lowers it further (see `joblib.cpu_count`).
    """
    return joblib_count()
