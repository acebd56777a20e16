"""``--layers``: which files hold the embeddings of every layer, and what is refused of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.common.flags import common_and_own, pairs
from lens.errors import InputError

if TYPE_CHECKING:
    from experiments.main_job.config import LayerFlags
    from experiments.main_job.plan import Plan

SUFFIX = "layers"
"""Ends the names of tables of all layers, beside those of an encoder's embedding."""


class LayerFiles(NamedTuple):
    """Files of one task, each with every layer of an encoder.

    Attributes:
        pre, ft: before and after fine-tuning.
        random: at its random start; None where it is not given.
        permuted: fine-tuned on permuted labels; None where it is not given.
    """

    pre: Path
    ft: Path
    random: Path | None = None
    permuted: Path | None = None

    def files(self) -> dict[str, Path]:
        """Those that are there by the names of `lens.verdicts.layers`."""
        return {name: path for name, path in self._asdict().items() if path is not None}


def layer_files(
    flags: LayerFlags, tasks: list[str], made: Mapping[str, LayerFiles] | None = None
) -> dict[str, LayerFiles]:
    """Task -> its files of all layers; none where no flag asks for them.

    Args:
        flags: of the run.
        tasks: of the run.
        made: of a run on images, what ``--layers`` made.

    Raises:
        InputError: files that belong to no task, or lack their other side.
    """
    check_flags(flags, tasks, images=made is not None)
    permuted, own = common_and_own(flags.layers_permuted, tasks, "--layers-permuted")
    if made is None:
        ft = pairs(flags.layers_ft, "--layers-ft")
        common, before = common_and_own(flags.layers_pre, list(ft), "--layers-pre")
        found = {}
        for task, file in ft.items():
            pre = before.get(task, common)
            if pre is None:
                raise InputError(f"--layers-pre is missing for task {task!r}: give FILE or {task}=")
            found[task] = LayerFiles(pre, file)
        made = found
    return {
        task: files._replace(random=flags.layers_random, permuted=own.get(task, permuted))
        for task, files in made.items()
    }


def check_flags(flags: LayerFlags, tasks: list[str], *, images: bool) -> None:
    """Refuses flags of layers that do not go together, or not with the input.

    Args:
        flags: of the run.
        tasks: of the run.
        images: whether the run embeds the layers itself.

    Raises:
        InputError: as said, with what to give.
    """
    tables = flags.layers_pre or flags.layers_ft
    if images and tables:
        raise InputError(
            "--layers-pre and --layers-ft need --pre; with images --layers embeds every stage"
        )
    if flags.layers and not images:
        raise InputError(
            "--layers needs --cohort or the phantoms; of tables give --layers-pre FILE and "
            "--layers-ft TASK=FILE (experiments.embed --stage all)"
        )
    if flags.layers_pre and not flags.layers_ft:
        raise InputError("--layers-pre also needs --layers-ft TASK=FILE")
    if (flags.layers_random or flags.layers_permuted) and not (flags.layers or flags.layers_ft):
        raise InputError("--layers-random and --layers-permuted need --layers, or --layers-ft")
    for task in pairs(flags.layers_ft, "--layers-ft"):
        if task not in tasks:
            raise InputError(f"--layers-ft of task {task!r}; the tasks are {sorted(tasks)}")


def check_names(files: Mapping[str, LayerFiles]) -> None:
    """Refuses files whose layers differ from those before fine-tuning, by their names alone.

    Files that the run will only make are passed over.

    Raises:
        InputError: as said.
    """
    from lens.study.layers import layer_order
    from lens.verdicts.layers import check_layers

    for of_task in files.values():
        there = {str(path): path for path in of_task.files().values() if path.exists()}
        if there:
            check_layers({name: layer_order(path) for name, path in there.items()})


def with_layers(plan: Plan, embedded: list[str]) -> list[str]:
    """Names of the stages that embed, with those of all layers behind them if asked for."""
    return embedded + [f"{name}-{SUFFIX}" for name in embedded if plan.config.layers.layers]
