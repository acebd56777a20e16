"""Cores that a process may use, and memory that it gives back."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_free_memory_goes_back() -> None:
    """200 MB in pieces that the allocator keeps, with one in use behind them."""
    script = """
from pathlib import Path
from lens.machine import give_back_memory

def resident():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1000

pieces = [bytearray(20_000) for _ in range(10_000)]
del pieces[:-1]
before = resident()
give_back_memory()
print(before - resident(), pieces[0] == bytearray(20_000))
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    freed, intact = found.stdout.split()
    assert float(freed) > 100, found.stderr
    assert intact == "True"


def test_other_allocators_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert machine._malloc_trim.__wrapped__() is None
    monkeypatch.setattr(machine, "_malloc_trim", lambda: None)
    machine.give_back_memory()
