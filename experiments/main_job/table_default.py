"""The embedded default: the settings of the paper's Table 1 on phantoms of whole anatomy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import encoders
from encoders.tasks import Task
from encoders.volumes import CachedCohort, cache_cohort
from experiments.main_job.embedded_training import pretrain, tracking, trained
from experiments.main_job.images import cohort_split, from_images
from experiments.main_job.inputs import Inputs
from experiments.main_job.layers import with_layers
from experiments.main_job.plan import Plan
from lens.cohort import read_manifest, write_phantoms
from lens.cohort.phantom import is_written
from lens.cohort.prostate import MODALITIES
from lens.errors import InputError
from lens.files import file_hash

if TYPE_CHECKING:
    from experiments.common.run_record import RunRecord

CODE = (
    __name__, "experiments.main_job.embedded_training", "encoders.finetuning",
    "encoders.pretraining", "encoders.volumes",
)  # fmt: skip
"""Modules behind the embedded encoders."""

SEGMENTER_WIDTH = 32
"""Channels of UPerNet: phantoms need fewer than patients do."""

FINETUNE_RATE = 5e-4
"""Highest learning rate: fine-tuning shall not undo pre-training."""


class Tuning(NamedTuple):
    """A fine-tuning: its kind, its label column or mask, and the settings read from its encoder."""

    task: Task
    label: str
    settings: tuple[str, ...]


TUNINGS = {
    "cls": Tuning("classification", "pirads", ("cls",)),
    "reg": Tuning("regression", "volume_ml", ("reg",)),
    "seg": Tuning("segmentation", "lesion", ("seg-lesion", "seg-gland")),
}


def _tunings(plan: Plan) -> list[str]:
    """Fine-tunings of which a setting is analysed."""
    return [name for name in TUNINGS if _settings_of(plan, name)]


def _settings_of(plan: Plan, name: str) -> list[str]:
    """Settings that a fine-tuning's encoder is read in, of the regions that are analysed."""
    return [each for each in TUNINGS[name].settings if each in plan.scopes]


def stage_names(plan: Plan) -> list[str]:
    """Stages of the embedded default up to its tables, in order."""
    embedded: dict[tuple[str, ...], str] = {}
    for name in _tunings(plan):
        for setting in _settings_of(plan, name):
            channels = plan.scopes[setting].channels
            embedded.setdefault(("pre", *channels), "-".join(["embed pre", *channels]))
            # Two settings of one encoder that sees the same are embedded once.
            embedded.setdefault((name, *channels), "-".join([f"embed {setting}", *channels]))
    tunings = [f"fine-tune {name}" for name in _tunings(plan)]
    layered = with_layers(plan, list(embedded.values()))
    return ["phantoms", "pre-train", *tunings, "radiomics", *layered]


def are_written(plan: Plan) -> bool:
    """Whether the run folder holds the phantoms already, complete."""
    return is_written(plan.out / "cohort", plan.phantom.patients, plan.settings.seed)


def from_phantoms(plan: Plan, record: RunRecord) -> Inputs:
    """The embedded default: phantoms, a pre-trained encoder, and a fine-tuned copy per task."""
    folder = record.folder
    manifest = write_phantoms(folder / "cohort", plan.phantom.patients, plan.settings.seed)
    cohort = read_manifest(manifest)
    checkpoints = {name: folder / "encoders" / name for name in ("pre", *_tunings(plan))}
    depends = [file_hash(manifest), plan.shape, plan.spacing, plan.settings.seed]
    cached: list[CachedCohort] = []

    def volumes() -> CachedCohort:
        """Read when the first training needs them."""
        if not cached:
            ready, failed = cache_cohort(
                cohort,
                folder / "volumes",
                shape=plan.shape,
                spacing_mm=plan.spacing,
                told=False,
            )
            if failed:
                raise InputError(f"{manifest}: damaged ({failed[0]}); delete {folder / 'cohort'}")
            cached.append(ready)
        return cached[0]

    split = cohort_split(cohort, plan.settings.seed)
    train, val = (np.flatnonzero(split == name) for name in ("train", "val"))
    record.stage(
        "pre-train",
        CODE,
        [*depends, plan.phantom.pretrain_epochs],
        [checkpoints["pre"]],
        lambda: pretrain(plan, volumes().volumes(), train, val, checkpoints["pre"]),
        lasting=True,
    )
    for name in _tunings(plan):
        record.stage(
            f"fine-tune {name}",
            CODE,
            [*depends, plan.phantom.finetune_epochs, record.content(checkpoints["pre"])],
            [checkpoints[name]],
            _finetuning(plan, name, volumes, split, checkpoints),
            lasting=True,
        )
    note = (
        f"The encoder was pre-trained on {(split == 'train').sum()} phantoms: this run "
        "shows the tool, and says nothing about any real encoder"
    )
    tuned = {
        setting: checkpoints[name]
        for name in _tunings(plan)
        for setting in _settings_of(plan, name)
    }
    return from_images(plan, record, cohort, checkpoints["pre"], tuned, notes=(note,))


def _finetuning(
    plan: Plan,
    name: str,
    volumes: Callable[[], CachedCohort],
    split: np.ndarray,
    checkpoints: dict[str, Path],
) -> Callable[[], None]:
    task, label, settings = TUNINGS[name]

    def work() -> None:
        cohort = volumes()
        labels = (
            cohort.masks(label)
            if task == "segmentation"
            else np.array([float(files.labels[label]) for files in cohort.cases])
        )
        seen = plan.scopes[settings[0]].channels or MODALITIES
        images = cohort.volumes([name if name in seen else "" for name in MODALITIES])
        tuned, history = encoders.finetune(
            encoders.load(checkpoints["pre"]),
            images,
            labels,
            task=task,
            train_rows=np.flatnonzero(split == "train"),
            val_rows=np.flatnonzero(split == "val"),
            settings=encoders.TrainingSettings(
                epochs=plan.phantom.finetune_epochs,
                learning_rate=FINETUNE_RATE,
                seed=plan.settings.seed,
            ),
            head=encoders.HeadSettings(
                decoder_width=SEGMENTER_WIDTH, auxiliary_width=SEGMENTER_WIDTH
            ),
            tracking=tracking(checkpoints[name]),
        )
        encoders.save(
            checkpoints[name],
            trained(tuned, history),
            {"origin": f"fine-tuned on {label}, train patients"},
        )

    return work
