"""Compiled code, made once a machine and not once a worker."""

from __future__ import annotations

import gc
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.metadata import version
from typing import Any

from lens.cache import code_version, fingerprint
from lens.radiomics.processes import each_in_processes
from lens.user_folders import cache_home

KERNELS = "lens.radiomics.kernels"
LINEAR_ALGEBRA = "scipy.linalg"


def compile_once() -> None:
    """Compiles what workers run, in a process of its own, where this machine has not done so.

    A mark in the user's cache folder says that it has. Where it is wrong, or the folder cannot be
    written, workers compile for themselves.
    """
    made = fingerprint([code_version(KERNELS), version("numba"), sys.version])
    mark = cache_home() / "compiled" / f"{platform.node()}-{made[:16]}"
    if not mark.exists():
        for _ in each_in_processes(load, [()], workers=1):
            pass
        with suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


def load() -> None:
    """Imports the kernels, which compiles them where no copy of the result is on disk."""
    if not loaded():
        with _no_collection():
            import_module(KERNELS)


def load_alone() -> None:
    """`load` in a process in which nothing else will be compiled, a fifth sooner.

    Numba imports SciPy's linear algebra in case that a function to be compiled asks for it.
    """
    if LINEAR_ALGEBRA in sys.modules:
        load()
        return
    modules: dict[str, Any] = sys.modules
    modules[LINEAR_ALGEBRA] = None  # Python's mark of what cannot be imported
    try:
        load()
    finally:
        del modules[LINEAR_ALGEBRA]


def loaded() -> bool:
    """Whether this process has the kernels."""
    return KERNELS in sys.modules


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the search for garbage: modules make many objects and none, and a fifth of the time
    of importing them would go into it."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
