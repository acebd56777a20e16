"""Flags of the form ``TASK=VALUE``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lens.errors import InputError
from lens.study.tasks import task_problem


def entries(arguments: Sequence[str], flag: str, form: str = "TASK=FILE") -> dict[str, str]:
    """``TASK=VALUE`` arguments; a task is also a folder's name, so it must be a plain one.

    Raises:
        InputError: another form, a task that is no folder's name, or one that is given twice.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        task, equals, value = argument.partition("=")
        if not equals or not task or not value:
            raise InputError(f"{flag} {argument}: expected {form}")
        if problem := task_problem(task):
            raise InputError(f"{flag} {argument}: {problem}")
        if task.casefold() in map(str.casefold, found):
            raise InputError(
                f"{flag} {argument}: task {task!r} is taken; give each its own name, "
                "not by upper and lower case alone"
            )
        found[task] = value
    return found


def as_flag(problem: str, flag_of: Mapping[str, str] | None = None) -> str:
    """A setting's problem, led by the name of its flag in place of the setting's.

    Args:
        problem: as `lens.ranges.first_problem` words it.
        flag_of: setting -> flag, where the names differ.
    """
    name, blank, rest = problem.partition(" ")
    flag = (flag_of or {}).get(name, name)
    return f"--{flag.replace('_', '-')}{blank}{rest}"


def pairs(arguments: Sequence[str], flag: str) -> dict[str, Path]:
    """``TASK=FILE`` arguments as paths."""
    return {task: Path(file) for task, file in entries(arguments, flag).items()}


def common_and_own(
    arguments: Sequence[str], tasks: Sequence[str], flag: str
) -> tuple[Path | None, dict[str, Path]]:
    """``FILE`` for all tasks, and ``TASK=FILE`` for one of them.

    Raises:
        InputError: more than one file for all.
    """
    own = [entry for entry in arguments if entry.partition("=")[0] in tasks]
    common = [entry for entry in arguments if entry not in own]
    if len(common) > 1:
        raise InputError(f"{flag} {common[1]}: {common[0]} is given; TASK=FILE is for one task")
    return (Path(common[0]) if common else None), pairs(own, flag)
