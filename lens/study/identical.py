"""Refuses a comparison of embeddings with themselves, which is a wrong file more often than not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lens.errors import InputError
from lens.study.study import Study


def check_different(
    study: Study, pre: str = "pre", after: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Refuses embeddings after fine-tuning that are those before it, and copies among seeds.

    Args:
        study: the joined tables.
        pre: what messages call the embeddings before fine-tuning, such as their file.
        after: task -> the same of those after it, then of those from other seeds; by default as
            `lens.load_study` calls tables in memory.

    Raises:
        InputError: names both tables, and what to do.
    """
    for task, x in study.x_ft.items():
        seeds = [x, *study.retrained.get(task, ())]
        names = (after or {}).get(task) or _names(task, len(seeds) - 1)
        if np.array_equal(x, study.x_pre):
            raise InputError(
                f"{pre} before fine-tuning and {names[0]} after it on {task} are the same numbers; "
                "check the files, or allow it (--identical, in Python identical=True)"
            )
        for number, other in enumerate(seeds):
            for name, one in zip(names, seeds[:number], strict=False):
                if np.array_equal(other, one):
                    raise InputError(
                        f"two encoders fine-tuned on {task} gave the same numbers, {name} and "
                        f"{names[number]}, so that they are no two seeds; check --retrained, or "
                        "allow it (--identical, in Python identical=True)"
                    )


def _names(task: str, again: int) -> list[str]:
    """What tables in memory are called: after fine-tuning, then `again` from other seeds."""
    return [f"ft[{task!r}]", *(f"retrained[{task!r}][{number}]" for number in range(again))]
