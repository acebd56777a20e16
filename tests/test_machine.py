"""Cores that a process may use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from distributed.system import memory_limit as of_dask

from lens import machine


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_counts() -> None:
    script = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from lens.machine import cpu_count
print(cpu_count())
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.split() == ["1"], found.stderr


def test_memory_is_what_dask_finds() -> None:
    assert machine.memory_limit() == of_dask()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux containers")
def test_a_container_counts(tmp_path, monkeypatch) -> None:
    files = [tmp_path / name for name in ("absent", "max", "limit")]
    files[1].write_text("max\n")
    files[2].write_text("123456789\n")
    monkeypatch.setattr(machine, "CONTAINER_LIMITS", tuple(map(str, files)))
    assert machine.memory_limit() == 123456789
