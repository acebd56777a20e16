"""Cores that a process may use."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys

import pytest


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


_PAGES = """
import resource, threading
from contextlib import nullcontext
from pathlib import Path
import SimpleITK as sitk
from lens.machine import freed_memory_kept

def ask():  # 96 MiB, more than a thread has for itself
    sitk.Image(256, 256, 384, sitk.sitkFloat32)

def in_thread():
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

with CONTEXT():
    in_thread()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        in_thread()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    held = resident()
print(held - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept_and_given_back() -> None:
    """Counts the pages that the system hands out, and those that go back."""
    array = (96 << 20) / resource.getpagesize()

    def pages(context: str) -> list[int]:
        script = _PAGES.replace("CONTEXT", context)
        found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert not found.stderr, found.stderr
        return [int(line) for line in found.stdout.split()]

    asked, left = pages("nullcontext")
    assert asked > 2.9 * array
    assert left < array / 20
    asked, left = pages("freed_memory_kept")
    assert asked < array / 20
    assert left > 0.9 * array


def test_the_embedding_job_can_begin_to_keep_memory_before_numpy() -> None:
    """NumPy starts threads, which would stay with memory of their own."""
    script = "import sys, experiments.embed, lens.machine; print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.split() == ["False"], found.stderr
