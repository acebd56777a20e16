"""The package's own jobs, started as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys

from lens.errors import InputError

SET_ASIDE = 3
"""Exit code of a job that is done with patients set aside, which it lists."""


def job(name: str, *words: object) -> None:
    """Runs ``python -m experiments.<name>`` with these words; prints the command.

    Args:
        name: of the job.
        words: of the command line.

    Raises:
        InputError: the job refused or failed.
    """
    command = [sys.executable, "-m", f"experiments.{name}", *map(str, words)]
    print(" ".join(["python", *command[1:]]), flush=True)
    code = subprocess.run(command, check=False, env=os.environ | {"TQDM_DISABLE": "1"}).returncode
    if code not in (0, SET_ASIDE):
        raise InputError(f"experiments.{name} ended with {code}; its last lines say why")
