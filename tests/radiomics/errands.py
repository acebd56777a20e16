"""What workers of the tests are given to do; importing it costs them next to nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lens.radiomics.processes import ONE_THREAD


def work(folder: Path, name: str) -> tuple[str, int, dict[str, str | None]]:
    """Leaves a trace per attempt; ``deadly`` kills its process, ``unlucky`` only the first time."""
    attempt = len(list(folder.glob(f"{name}-*")))
    (folder / f"{name}-{attempt}").touch()
    if name == "deadly" or (name == "unlucky" and attempt == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    return name, os.getpid(), {key: os.environ.get(key) for key in ONE_THREAD}


def fail() -> None:
    raise ZeroDivisionError("one third of nothing")


def square(number: int) -> int:
    return number**2


def strange() -> object:
    return lambda: None


def exits() -> None:
    os._exit(3)


def prepare() -> None:
    PREPARED.append(os.getpid())


def prepared() -> tuple[int, list[int]]:
    """This process, and how often it was prepared."""
    return os.getpid(), list(PREPARED)


PREPARED: list[int] = []
"""A process for each time that it was prepared."""
