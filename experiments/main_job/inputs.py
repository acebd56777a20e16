"""The tables that the analysis starts from, and those that a user brings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from experiments.common.flags import common_and_own, pairs
from experiments.main_job.config import TableFlags
from experiments.main_job.plan import Plan, retrained_files
from lens.anonymise import OPEN, Names
from lens.errors import CaseError, InputError
from lens.report.results import RUN_FILES, SCOPE_FILES, TASK_FILES
from lens.study.located import stored_files


class Embeddings(NamedTuple):
    """Files of one task's embeddings before and after fine-tuning."""

    pre: Path
    ft: Path


@dataclass(frozen=True)
class Inputs:
    """Tables for the analysis.

    Attributes:
        tasks: task -> its embeddings.
        retrained: task -> embeddings of encoders fine-tuned on it again.
        radiomics, split: files as `lens.load_study` takes them.
        set_aside: patients lost on the way from images to tables.
        notes: what a reader of the report must know about the input.
        names: under which patients are written.
    """

    tasks: dict[str, Embeddings]
    radiomics: Path | dict[str, Path]
    split: Path | None = None
    set_aside: tuple[CaseError, ...] = ()
    notes: tuple[str, ...] = ()
    retrained: dict[str, list[Path]] = field(default_factory=dict)
    names: Names = OPEN

    def files(self) -> list[Path]:
        """All files, sorted; of ``FILE:PART`` the file, and the ids beside an array."""
        tables = self.radiomics.values() if isinstance(self.radiomics, dict) else [self.radiomics]
        paths = {path for pair in self.tasks.values() for path in pair} | {*tables}
        paths |= {path for paths in self.retrained.values() for path in paths}
        paths |= {self.split} if self.split is not None else set()
        return sorted({file for path in paths for file in stored_files(path)})


def check_inputs(plan: Plan) -> None:
    """Refuses an input that the run would write over.

    Raises:
        InputError: a file that a flag names is one of the run folder's own.
    """
    own = {plan.out / name for name in (*RUN_FILES, *SCOPE_FILES)}
    tables, images = plan.config.tables, plan.config.images
    for entry in (*tables.ft, *images.encoder_ft):
        own |= {plan.out / entry.partition("=")[0] / name for name in TASK_FILES}
    own = {path.resolve() for path in own}
    for path in plan.files():
        if path.resolve() in own:
            raise InputError(f"{path}: the run would write over this input; choose another --out")


def from_tables(plan: Plan, names: Names = OPEN) -> Inputs:
    """The user's own tables; raises `InputError` as `table_tasks` does."""
    flags, radiomics = plan.config.tables, plan.radiomics
    assert radiomics is not None
    again = retrained_files(plan.config)
    return Inputs(table_tasks(flags), radiomics, flags.split, retrained=again, names=names)


def table_tasks(flags: TableFlags) -> dict[str, Embeddings]:
    """Task -> embeddings before and after fine-tuning, as the flags name them.

    Raises:
        InputError: a task has no embeddings before fine-tuning, or flags name files twice.
    """
    ft = pairs(flags.ft, "--ft")
    common, own = common_and_own(flags.pre, list(ft), "--pre")
    tasks = {}
    for task, file in ft.items():
        pre = own.get(task, common)
        if pre is None:
            raise InputError(f"--pre is missing for task {task!r}: give --pre FILE or {task}=FILE")
        tasks[task] = Embeddings(pre, file)
    return tasks
