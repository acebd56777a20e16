"""The embedded default on phantoms of independent factors: a known mechanism, and its control.

Phantoms differ by factors that are independent of each other. An encoder is pre-trained on some of
them and fine-tuned for one factor, how bright the lesion is on DWI; the control is fine-tuned
alike, on grades dealt out at random, its epoch chosen by validation as for any task. The encoders
are compared on further phantoms, which no training saw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

import encoders
from experiments.main_job.embedded import PERMUTED
from experiments.main_job.embedded_training import pretrain, start, tracking, trained
from experiments.main_job.images import from_images
from experiments.main_job.inputs import Inputs
from experiments.main_job.layers import with_layers
from experiments.main_job.plan import Plan
from lens.cohort import factor_phantom, read_manifest

if TYPE_CHECKING:
    from experiments.common.run_record import RunRecord

CODE = (
    __name__, "experiments.main_job.embedded_training", "encoders.finetuning",
    "encoders.pretraining", "lens.cohort.factor_phantom",
)  # fmt: skip
"""Modules behind the encoders."""

LABEL = "lesion_grade"

EXPOSURE = "cohort-exposure.csv"
"""Whom training saw: none of the compared phantoms."""

VALIDATED = 8
"""One in so many phantoms of training chooses the epoch."""

RATE = 5e-4
"""Highest learning rate of fine-tuning."""


class Pool(NamedTuple):
    """The phantoms of training.

    Attributes:
        volumes: (n, D, H, W, 3) as the encoder sees them.
        labels: (n,) grades.
        train, val: their rows.
    """

    volumes: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    val: np.ndarray


def stage_names(plan: Plan) -> list[str]:
    """Stages up to the tables, in order."""
    tunings = [f"fine-tune {task}" for task in plan.scopes]
    embedded = [f"embed {name}" for name in ("pre", *plan.scopes)]
    return ["phantoms", "pre-train", *tunings, "radiomics", *with_layers(plan, embedded)]


def are_written(plan: Plan) -> bool:
    """Whether the run folder holds the phantoms that are compared, complete."""
    return factor_phantom.is_written(plan.out / "cohort", **_drawn(plan))


def from_phantoms(plan: Plan, record: RunRecord) -> Inputs:
    """Phantoms, an encoder, two fine-tuned copies of it, and the tables of all of these."""
    folder, seed = record.folder, plan.settings.seed
    manifest = factor_phantom.write_cohort(folder / "cohort", **_drawn(plan))
    names = ("pre", *plan.scopes)
    checkpoints = {name: folder / "encoders" / name for name in names}
    pool = cache(lambda: _draw(plan))
    grid = [plan.shape, plan.spacing, plan.phantom.trained, plan.phantom.patients, seed]
    record.stage(
        "pre-train",
        CODE,
        [grid, plan.phantom.pretrain_epochs],
        [checkpoints["pre"]],
        lambda: _pretrain(plan, pool, checkpoints["pre"]),
        lasting=True,
    )
    for task in plan.scopes:
        record.stage(
            f"fine-tune {task}",
            CODE,
            [grid, plan.phantom.finetune_epochs, record.content(checkpoints["pre"])],
            [checkpoints[task]],
            _finetuning(plan, task, pool, checkpoints),
            lasting=True,
        )
    note = (
        f"Simulated patients, and an encoder trained on {plan.phantom.trained} others in minutes: "
        "this run shows the tool, and says nothing about any real encoder"
    )
    cohort = read_manifest(manifest)
    unseen = pd.DataFrame({"patient_id": [files.patient_id for files in cohort.cases]})
    record.write_table(unseen.assign(used=False), folder / EXPOSURE)
    tuned = {task: checkpoints[task] for task in plan.scopes}
    made = from_images(plan, record, cohort, checkpoints["pre"], tuned, notes=(note,))
    return replace(made, exposure=folder / EXPOSURE)


def _drawn(plan: Plan) -> dict[str, Any]:
    """What determines the phantoms that are compared."""
    return {
        "n": plan.phantom.patients, "seed": plan.settings.seed,
        "shape": plan.shape, "spacing_mm": plan.spacing,
    }  # fmt: skip


def _draw(plan: Plan) -> Pool:
    """The phantoms of training: those of the cohort's seed after the compared ones."""
    first, count = plan.phantom.patients, plan.phantom.trained
    indices = range(first, first + count)
    grid = (plan.settings.seed, plan.shape, plan.spacing)
    volumes, _, labels = factor_phantom.draw_all(indices, *grid)
    rows = np.arange(count)
    val = rows % VALIDATED == 0
    return Pool(volumes, labels[LABEL].to_numpy(), rows[~val], rows[val])


def _pretrain(plan: Plan, drawn: Callable[[], Pool], checkpoint: Path) -> None:
    """Writes the encoder before fine-tuning; without an epoch it is its random start."""
    if plan.phantom.pretrain_epochs:
        pool = drawn()
        pretrain(plan, pool.volumes, pool.train, pool.val, checkpoint)
    else:
        encoders.save(checkpoint, start(plan), {"origin": "random"})


def _finetuning(
    plan: Plan, task: str, drawn: Callable[[], Pool], checkpoints: dict[str, Path]
) -> Callable[[], None]:
    """Writes the encoder of a task: that of the best epoch, of the control also the start."""
    seed = plan.settings.seed

    def work() -> None:
        pool, control = drawn(), task == PERMUTED
        labels = pool.labels
        if control:
            labels = np.random.default_rng(seed).permutation(labels)
        tuned, history = encoders.finetune(
            encoders.load(checkpoints["pre"]),
            pool.volumes,
            labels,
            task="classification",
            train_rows=pool.train,
            val_rows=pool.val,
            settings=encoders.TrainingSettings(
                epochs=plan.phantom.finetune_epochs,
                learning_rate=RATE,
                seed=seed,
            ),
            tracking=tracking(checkpoints[task]),
        )
        encoder = tuned if control else trained(tuned, history)
        origin = "fine-tuned on permuted grades" if control else "fine-tuned on the lesion's grade"
        encoders.save(checkpoints[task], encoder, {"origin": origin})

    return work
