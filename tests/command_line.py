"""A job as a user starts it, in the process of the tests.

That saves the imports, and what JAX compiles serves the next job. Tests of the process itself
(signals, memory, what a command imports) start one.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TextIO

import pytest

import experiments.common.cli

PROGRAMS = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
"""Variables by which the tests keep compiled programs."""


def environment_of_a_user() -> dict[str, str]:
    """The environment without what the tests have added to it."""
    return {name: value for name, value in os.environ.items() if name not in PROGRAMS}


def ended(module: str, *words: object) -> subprocess.CompletedProcess[str]:
    """A job's exit code and what it printed, after ``python -m MODULE WORDS``.

    Unlike such a process it takes no signals, and sees the modules that a test has changed.

    Args:
        module: its whole name, such as ``experiments.sweep``.
        words: of the command line.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Other tests may have imported the module, which here is run as the program.
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
        patch.setattr(sys, "argv", [module, *map(str, words)])
        leave_the_process_alone(patch)
        redirected = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with _logged(err), redirected[0], redirected[1], pytest.raises(SystemExit) as left:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert isinstance(left.value.code, int), left.value.code
    return subprocess.CompletedProcess(
        [module, *map(str, words)], left.value.code, out.getvalue(), err.getvalue()
    )


def started(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, *switches: str, **flags: object
) -> int:
    """The exit code of a job that is started from the command line.

    Args:
        module: with ``Config`` and ``job``.
        monkeypatch: of the test.
        switches: as they are written.
        flags: name -> value, or several of them.
    """
    words = [module.__file__ or "", *switches]
    for name, value in flags.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    monkeypatch.setattr(sys, "argv", words)
    leave_the_process_alone(monkeypatch)
    with _logged(sys.stderr), pytest.raises(SystemExit) as left:
        experiments.common.cli.run(module.Config, module.job)
    assert isinstance(left.value.code, int)
    return left.value.code


@contextlib.contextmanager
def _logged(stream: TextIO) -> Iterator[None]:
    """What a job reports while it runs, on a stream."""
    root, handler = logging.getLogger(), logging.StreamHandler(stream)
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def leave_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signals, compiled programs and search for cycles of the tests' process are its own."""
    for name in ("stop_tidily", "_keep_compiled_programs", "_search_cycles_seldom"):
        monkeypatch.setattr(experiments.common.cli, name, lambda: None)
