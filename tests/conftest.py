"""Shared test set-up: checked shapes, kept programs, the tiers of the tests and their time."""

from __future__ import annotations

import atexit
import gc
import os
import platform
from importlib.metadata import version
from pathlib import Path

import pytest
from _pytest.unraisableexception import gc_collect_iterations_key

from tests import checked_shapes
from tests.tiers import is_slow

pytest_plugins = ["tests.processor_time"]

# Before any module of ours is imported, so that every annotated shape is checked while testing.
checked_shapes.install(["lens", "encoders"])

# Keras reads it once, whichever test imports it first; its default, TensorFlow, is not needed here.
os.environ.setdefault("KERAS_BACKEND", "jax")

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

# JAX reads these when it is imported. Processes of a run, and later runs, share what one compiled;
# XLA's programs are of the machine. Most cost more to compile than to run, so that LLVM's
# optimisations are left out; traces, XLA's own passes and the order of additions are a user's.
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 has all as users do.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / f"programs-{platform.node()}")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
quickly = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"

# XLA's older way to machine code, and a program in one piece: two fifths less of the time that
# compiling takes. A version of XLA that does not know a flag ends the process, so that these are
# for the tested one alone.
TESTED = f"jaxlib=={version('jaxlib')}" in (ROOT / "constraints.txt").read_text("utf-8").split()
if quickly and TESTED:
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", flags)


YOUNG = 20_000
"""New objects after which Python looks for cycles, instead of 700."""

# From before the imports, and not at the end of the process, when the system frees all.
gc.set_threshold(YOUNG)
atexit.register(gc.freeze)


def pytest_configure(config: pytest.Config) -> None:
    """At their end the tests search twice for what could not be freed, instead of five times."""
    config.stash[gc_collect_iterations_key] = 2


def pytest_collection_finish() -> None:
    """Leaves what was imported and collected out of the search for cycles.

    That and the seldom searches save a fifteenth of the time of the tests.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what ``make test-fast`` leaves out."""
    for item in items:
        if item.get_closest_marker("calibration") or is_slow(item.path.relative_to(ROOT)):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real cases; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real cases are not part of the repository and are not on this machine")
    return SHARED_DATA
