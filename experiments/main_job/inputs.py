"""The tables that the analysis starts from, and those that a user brings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from experiments.common.flags import common_and_own, pairs
from experiments.main_job.config import TableFlags
from experiments.main_job.layers import LayerFiles, layer_files
from experiments.main_job.plan import Plan, retrained_files
from lens.anonymise import OPEN, Names
from lens.errors import CaseError, InputError
from lens.openable import not_a_file
from lens.report.results import (
    PAPER_FILES,
    PAPER_FOLDER,
    RUN_FILES,
    SCOPE_FILES,
    TASK_FILES,
)
from lens.study.located import stored_files

PAGE = "report.html"

FOLDERS = ("figures", PAPER_FOLDER, "scopes")
"""Of the run folder, beside one of each task."""

FILES_OF_IMAGES = (
    "radiomics.parquet", "radiomics-failures.csv", "cohort-split.csv", "cohort-exposure.csv",
)  # fmt: skip

FOLDERS_OF_IMAGES = ("embeddings", "radiomics-cache", "cohort", "encoders", "volumes")
"""What a run that starts from images writes, too."""

AWAY = "move it away, or choose another --out"


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
        layers: task -> embeddings of every layer; none where they are not asked for.
        exposure: whom fine-tuning saw, where the run knows it and it is not the split.
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
    exposure: Path | None = None
    layers: dict[str, LayerFiles] = field(default_factory=dict)

    def files(self) -> list[Path]:
        """All files, sorted; of ``FILE:PART`` the file, and the ids beside an array."""
        tables = self.radiomics.values() if isinstance(self.radiomics, dict) else [self.radiomics]
        paths = {path for pair in self.tasks.values() for path in pair} | {*tables}
        paths |= {path for paths in self.retrained.values() for path in paths}
        paths |= {path for each in self.layers.values() for path in each.files().values()}
        paths |= {self.split} if self.split is not None else set()
        return sorted({file for path in paths for file in stored_files(path)})


def check_inputs(plan: Plan) -> None:
    """Refuses an input that the run would write over, and what stands where it would write.

    Raises:
        InputError: a file that a flag names is one of the run folder's own; a folder lies where a
            file of the run goes, or a file where a folder goes.
    """
    own = {path.resolve() for path in _own_files(plan)}
    for path in plan.files():
        if path.resolve() in own:
            raise InputError(f"{path}: the run would write over this input; choose another --out")
    _check_places(plan)


def _own_files(plan: Plan) -> list[Path]:
    """The files that any run writes under names of its own, but those of further scopes."""
    tasks = [*plan.scopes, *pairs(plan.config.tables.ft, "--ft")]
    tasks += pairs(plan.config.images.encoder_ft, "--encoder-ft")
    return [
        *(plan.out / name for name in (*RUN_FILES, *PAPER_FILES, PAGE, *SCOPE_FILES)),
        *(plan.out / task / name for task in dict.fromkeys(tasks) for name in TASK_FILES),
    ]


def _check_places(plan: Plan) -> None:
    """Refuses a folder where the run writes a file, and a file where it makes a folder."""
    files, folders = _own_files(plan), [plan.out / name for name in FOLDERS]
    if (scopes := plan.out / "scopes").is_dir():
        files += [place / name for place in sorted(scopes.iterdir()) for name in SCOPE_FILES]
    if not plan.config.tables.pre:
        files += [plan.out / name for name in FILES_OF_IMAGES]
        folders += [plan.out / name for name in FOLDERS_OF_IMAGES]
    for path in sorted({*folders, *(path.parent for path in files)}):
        if path.exists() and not path.is_dir():
            kind = not_a_file(path) or "a file"
            raise InputError(f"{path}: is {kind}, where the run makes a folder; {AWAY}")
    for path in files:
        if kind := not_a_file(path):
            raise InputError(f"{path}: is {kind}, where the run writes a file; {AWAY}")


def from_tables(plan: Plan, names: Names = OPEN) -> Inputs:
    """The user's own tables; raises `InputError` as `table_tasks` does."""
    flags, radiomics = plan.config.tables, plan.radiomics
    assert radiomics is not None
    again = retrained_files(plan.config)
    tasks = table_tasks(flags)
    layers = layer_files(plan.config.layers, list(tasks))
    return Inputs(tasks, radiomics, flags.split, retrained=again, names=names, layers=layers)


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
