"""What every job shares: the command line, exit codes and the list of patients set aside."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from lens.errors import CaseError, InputError

DONE, REFUSED, SET_ASIDE = 0, 1, 3
"""Exit codes; wrong usage is 2, from the command-line parser."""

LISTED = 5
"""Findings that the terminal shows; the file has all."""

Config = TypeVar("Config")


def run(config: Callable[..., Config], job: Callable[[Config], int], **options: Any) -> NoReturn:
    """Parses the command line into `config`, runs `job` on it and exits with the job's code.

    A refused input ends with one line on standard error and exit code 1, not with a traceback.
    """
    parsed = tyro.cli(config, **{"prog": _program(), **options})
    if not getattr(parsed, "dry_run", False):
        _keep_compiled_programs()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Orbax and JAX narrate their work at INFO; a user follows ours.
    for library in ("absl", "jax", "orbax", "distributed"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        code = job(parsed)
    except InputError as error:
        print(f"refused: {error}", file=sys.stderr)
        code = REFUSED
    sys.exit(code)


def _program() -> str | None:
    """What the usage line calls the job, as it was started; None leaves that to the parser."""
    started = sys.modules["__main__"]
    named = getattr(started, "PROGRAM", None)  # put there by experiments.common.commands
    module = getattr(started.__spec__, "name", None)
    return named or (f"python -m {module}" if module else None)


def _keep_compiled_programs() -> None:
    """Has JAX keep what it compiles in the user's cache folder, so that the next run starts fast.

    JAX's own environment variables go before (``JAX_ENABLE_COMPILATION_CACHE=false`` for none);
    they must be set before JAX is imported.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    folder = Path(home) / "radiomic-lens" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


def list_set_aside(errors: Sequence[CaseError], path: Path) -> int:
    """Writes `path` (``failures.csv``) and prints the patients set aside; gives the exit code."""
    # pandas is slow to import, and --help does not need it.
    from lens.files import write_failures

    write_failures(errors, path)
    if not errors:
        return DONE
    patients = len({error.patient_id for error in errors})
    print(f"{patients} patient(s) set aside, listed in {path}:", file=sys.stderr)
    for error in errors[:LISTED]:
        print(f"  {error}", file=sys.stderr)
    if len(errors) > LISTED:
        print(f"  and {len(errors) - LISTED} more", file=sys.stderr)
    return SET_ASIDE
