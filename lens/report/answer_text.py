"""The answer as plain text: the lines that end a run, and the summary of a comparison."""

from __future__ import annotations

from collections.abc import Iterator

from lens.report.answer import answer
from lens.report.results import Results
from lens.report.statements import Answer, Group, TaskAnswer
from lens.report.words import literal


def in_lines(results: Results) -> str:
    """A block of lines per task, then what is about all of them.

    Args:
        results: of a finished run.

    Returns:
        The same statements as on the first screen of the page; an empty text where no task has
        verdicts.
    """
    found = answer(results)
    return "\n".join(_all(found)) if found.tasks else ""


def _all(found: Answer) -> Iterator[str]:
    for task in found.tasks:
        yield from _task(task)
    for note in found.notes:
        yield literal(note.text)


def _task(task: TaskAnswer) -> Iterator[str]:
    yield f"{task.task}: did anything change? {task.whole.text}"
    width = max((len(group.name) for group in task.groups), default=0)
    for group in task.groups:
        yield from _group(group, width)
    for statement in task.more:
        yield f"  {statement.text}"
    yield f"  [{task.badge.name}] {task.headline.text} {task.badge.why}"


def _group(group: Group, width: int) -> Iterator[str]:
    """The verdict, its size with the numbers of all groups below each other, and the counts."""
    value, _, interval = group.size.partition(" ")
    yield f"  {group.verdict:9}  {group.name:{width}}  R2 {value:>5} {interval}, {group.counts}"
    if group.classes:
        yield f"  {'':9}  {'':{width}}  {group.classes}"
