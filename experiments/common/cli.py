"""What every job shares: the command line, exit codes and the list of patients set aside."""

from __future__ import annotations

import atexit
import functools
import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import tyro

from experiments.common.anonymous import Hidden, anonymously
from experiments.common.command_help import Groups, plain
from experiments.common.failures import REFUSED, explain
from experiments.common.stopping import stop_tidily
from lens.errors import CaseError
from lens.lock import Claim, held
from lens.unfinished import own_temporary_folder, unfinished
from lens.user_folders import cache_home

if TYPE_CHECKING:
    from lens.anonymise import Names

__all__ = ["DONE", "REFUSED", "SET_ASIDE", "alone", "list_set_aside", "run"]

DONE, SET_ASIDE = 0, 3
"""Exit codes, with `REFUSED`; wrong usage is 2, from the command-line parser."""

LISTED = 5
"""Findings that the terminal shows; the file has all."""

Config = TypeVar("Config")
Job = Callable[..., int]

log = logging.getLogger(__name__)


def run(
    config: Callable[..., Config],
    job: Job,
    *,
    groups: Groups | None = None,
    examples: str = "",
    **options: Any,
) -> NoReturn:
    """Parses the command line into `config`, runs `job` on it and exits with the job's code.

    An expected failure ends with one line on standard error and exit code 1, an unexpected one with
    a line that names the file with its traceback; a signal to stop with 128 plus its number. What
    the job is to hide (`alone`) is hidden in all of this.

    Args:
        config: the dataclass of the job's flags.
        job: what to run.
        groups: order and titles of the flags in ``--help``.
        examples: what ``--help`` ends with.
        options: of the parser, such as `description`.
    """
    stop_tidily()
    _search_cycles_seldom()
    parsed = _parsed(config, groups, examples, **options)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Orbax, JAX and the fonts of a PDF narrate their work at INFO; a user follows ours.
    for library in ("absl", "jax", "orbax", "distributed", "fontTools"):
        logging.getLogger(library).setLevel(logging.WARNING)
    hidden, arguments, clean = getattr(job, "hidden", None), [parsed], str
    with ExitStack() as until_the_end:
        try:
            if hidden is not None:
                names = until_the_end.enter_context(anonymously(hidden(parsed)))
                arguments, clean = [parsed, names], names.text
            if not _is_dry(parsed):
                _keep_compiled_programs()
            with own_temporary_folder():
                code = job(*arguments)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            name = (_program() or "job").split()[-1].rpartition(".")[2]
            line, code = explain(error, name, clean)
            print(line, file=sys.stderr)
            if isinstance(error, BrokenPipeError):
                # Python would try to write the rest at its end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _search_cycles_seldom() -> None:
    """Python looks for unreachable cycles after 20,000 new objects instead of 700, and not at its
    end, when the system frees all. Of the 8.5 s of a small sweep the searches took 1.2.
    """
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)


def _parsed(
    config: Callable[..., Config], groups: Groups | None, examples: str, **options: Any
) -> Config:
    """The command line; ``--help`` and wrong usage end the process, the former after examples."""
    registry = plain(groups, config if isinstance(config, type) else None)
    options = {"prog": _program(), **options}
    try:
        return tyro.cli(config, **{"registry": registry, **options})
    except SystemExit as ended:
        if not ended.code and examples:
            print(f"examples:{examples.rstrip().format(program=options['prog'])}")
        raise


def alone(
    claim: Callable[[Any], Claim], hidden: Callable[[Any], Hidden] | None = None
) -> Callable[[Job], Job]:
    """Has a job hold what it writes to: a second run there is refused (`lens.lock`).

    A dry run writes nothing, and holds nothing.

    Args:
        claim: on a folder or a file, from the job's configuration.
        hidden: for a job with ``--anonymise``, what it is to hide, from its configuration; it
            refuses nothing, for its words would not be cleaned. The job is then called with the
            `lens.anonymise.Names` that it writes patients under as well.
    """

    def decorate(job: Job) -> Job:
        if hidden is None:
            return functools.wraps(job)(lambda config: _locked(claim, job, config))
        of_config = hidden

        @functools.wraps(job)
        def under_names(config: Any, names: Names | None = None) -> int:
            if names is not None:
                return _locked(claim, job, config, names)
            with anonymously(of_config(config)) as opened:
                return _locked(claim, job, config, opened)

        under_names.hidden = hidden  # pyright: ignore[reportAttributeAccessIssue]
        return under_names

    return decorate


def _locked(claim: Callable[[Any], Claim], job: Job, config: Any, *names: Names) -> int:
    """The job's code, while it holds what it writes to."""
    if _is_dry(config):
        return job(config, *names)
    with held(claim(config), named=not any(each.hides for each in names)):
        return job(config, *names)


def _is_dry(config: Any) -> bool:
    return getattr(config, "dry_run", False)


def _program() -> str | None:
    """What the usage line calls the job, as it was started; None leaves that to the parser."""
    started = sys.modules["__main__"]
    named = getattr(started, "PROGRAM", None)  # put there by experiments.common.commands
    module = getattr(started.__spec__, "name", None)
    return named or (f"python -m {module}" if module else None)


def _keep_compiled_programs() -> None:
    """Has JAX keep what it compiles in the user's cache folder, so that the next run starts fast.

    JAX's own environment variables go before (``JAX_ENABLE_COMPILATION_CACHE=false`` for none);
    they must be set before JAX is imported. Where the folder cannot be written nothing is kept.
    """
    folder = cache_home() / "jax"
    asked = os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "true").lower()
    own = "JAX_COMPILATION_CACHE_DIR" in os.environ or asked in ("false", "0")
    if not own and (problem := _unwritable(folder)):
        log.warning("%s: not writable (%s); compiled programs are not kept", folder, problem)
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


def _unwritable(folder: Path) -> str:
    """Why nothing can be written to a folder; an empty text where it can."""
    try:
        with unfinished(folder / "probe"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


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
