"""Refuses a comparison of embeddings with themselves, which is a wrong file more often than not."""

from __future__ import annotations

import numpy as np

from lens.errors import InputError
from lens.study.study import Study


def check_different(study: Study) -> None:
    """Refuses embeddings after fine-tuning that are those before it, and copies among seeds.

    Args:
        study: the joined tables.

    Raises:
        InputError: names the task, and what to do.
    """
    for task, x in study.x_ft.items():
        if np.array_equal(x, study.x_pre):
            raise InputError(
                f"the embeddings before fine-tuning and after it on {task} are the same numbers; "
                "check the files, or allow it (--identical, in Python identical=True)"
            )
        seeds = [x, *study.retrained.get(task, ())]
        for number, other in enumerate(seeds):
            if any(np.array_equal(other, one) for one in seeds[:number]):
                raise InputError(
                    f"two encoders fine-tuned on {task} gave the same numbers, so that they are no "
                    "two seeds; check --retrained, or allow it (--identical, in Python "
                    "identical=True)"
                )
