"""The command ``radiomic-lens``: every job under one name, as ``radiomic-lens sweep ...``.

A job runs exactly as ``python -m experiments.<job>`` does, with its exit code, but for one thing:
the folder it is started in is not searched for modules.
"""

from __future__ import annotations

import ast
import runpy
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

JOBS = (
    "sweep", "prepare", "radiomics", "repeatability", "convert", "pretrain", "finetune", "embed",
    "doctor", "amnesic", "edit", "report", "compare",
)  # fmt: skip
"""The modules of ``experiments`` that are jobs, in the order of the list that ``--help`` prints."""

COMMAND, WRONG_USAGE = "radiomic-lens", 2


def main() -> NoReturn:
    """Runs the job that the first argument names; the others are the job's.

    Exits with the job's code, with 0 after ``--help`` and ``--version``, and with 2 and the list of
    jobs on standard error where no job is named.
    """
    name, arguments = (sys.argv[1] if sys.argv[1:] else ""), sys.argv[2:]
    if name in JOBS:
        sys.argv[1:] = arguments
        # PROGRAM is what the job's usage line calls itself.
        runpy.run_module(
            f"experiments.{name}", {"PROGRAM": f"{COMMAND} {name}"}, "__main__", alter_sys=True
        )
        sys.exit(0)
    if name == "--version":
        print(COMMAND, version(COMMAND))
        sys.exit(0)
    if name in ("-h", "--help"):
        print(overview())
        sys.exit(0)
    problem = f"{name!r} is no job" if name else "no job is named"
    print(f"{COMMAND}: {problem}\n\n{overview()}", file=sys.stderr)
    sys.exit(WRONG_USAGE)


def overview() -> str:
    """How to use the command, with a line per job: the first of its module's docstring."""
    width = max(map(len, JOBS))
    lines = [f"  {name:{width}}  {_summary(name)}" for name in JOBS]
    usage = f"usage: {COMMAND} JOB ...   ({COMMAND} JOB --help: the flags of a job)"
    return "\n".join([usage, f"       {COMMAND} --version", "", "jobs:", *lines])


def _summary(name: str) -> str:
    """Read from the source: an import would wait for what the job imports."""
    spec = find_spec(f"experiments.{name}")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"experiments.{name} is not installed")
    source = Path(spec.origin).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
