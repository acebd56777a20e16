"""Freed memory: kept for the next array, or given back."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

from lens import allocator

_PAGES = """
import resource, threading
from contextlib import nullcontext
from pathlib import Path
import SimpleITK as sitk
from lens.allocator import freed_memory_kept

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
    script = "import sys, experiments.embed, lens.allocator; print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.split() == ["False"], found.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_free_memory_goes_back() -> None:
    """200 MB in pieces that the allocator keeps, with one in use behind them."""
    script = """
from pathlib import Path
from lens.allocator import give_back_memory

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
    assert allocator._glibc.__wrapped__() is None
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    allocator.give_back_memory()
    with allocator.freed_memory_kept():
        pass
