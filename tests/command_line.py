"""A job as a user starts it, in the process of the tests."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import pytest

import experiments.common.cli


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
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.INFO)
    try:
        with pytest.raises(SystemExit) as ended:
            experiments.common.cli.run(module.Config, module.job)
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger().setLevel(before)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def leave_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signals and the compiled programs of the tests' process are not the job's."""
    monkeypatch.setattr(experiments.common.cli, "stop_tidily", lambda: None)
    monkeypatch.setattr(experiments.common.cli, "_keep_compiled_programs", lambda: None)
