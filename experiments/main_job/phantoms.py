"""The embedded default: phantoms, a pre-trained encoder, and a fine-tuned copy of it per task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from flax import nnx

import encoders
from encoders.convnext import STEM_BIAS
from encoders.tasks import Task
from encoders.volumes import CachedCohort, cache_cohort
from experiments.main_job.images import cohort_split, from_images
from experiments.main_job.inputs import Inputs
from experiments.main_job.plan import PHANTOM_SCOPES, Plan
from lens.cohort import read_manifest, write_phantoms
from lens.cohort.prostate import MODALITIES
from lens.errors import InputError
from lens.files import file_hash

if TYPE_CHECKING:
    from experiments.common.run_record import RunRecord

CODE = (__name__, "encoders.finetuning", "encoders.pretraining", "encoders.volumes")
"""Modules behind the embedded encoders."""

DECODER_WIDTH = 64
"""Channels of the masked autoencoder's decoder: phantoms need fewer than patients do."""

SEGMENTER_WIDTH = 32
"""Channels of UPerNet, for the same reason."""


PRETRAIN_RATE, FINETUNE_RATE = 2e-3, 5e-4
"""Highest learning rates: pre-training is short, and fine-tuning shall not undo it."""


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


def _settings_of(plan: Plan, name: str) -> list[str]:
    """Settings that a fine-tuning's encoder is read in, of the regions that are analysed."""
    regions = set(plan.config.roi)
    return [each for each in TUNINGS[name].settings if set(PHANTOM_SCOPES[each].rois) <= regions]


def _tunings(plan: Plan) -> dict[str, Tuning]:
    """A quick look leaves out the segmentation, whose decoder takes long to compile."""
    return {name: t for name, t in TUNINGS.items() if not (plan.phantom.quick and name == "seg")}


def stage_names(plan: Plan) -> list[str]:
    """Stages of the embedded default up to its tables, in order."""
    embedded: dict[tuple[str, ...], str] = {}
    for name in _tunings(plan):
        for setting in _settings_of(plan, name):
            channels = PHANTOM_SCOPES[setting].channels
            embedded.setdefault(("pre", *channels), "-".join(["embed pre", *channels]))
            # Two settings of one encoder that sees the same are embedded once.
            embedded.setdefault((name, *channels), "-".join([f"embed {setting}", *channels]))
    tunings = [f"fine-tune {name}" for name in _tunings(plan)]
    return ["phantoms", "pre-train", *tunings, "radiomics", *embedded.values()]


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
    record.stage(
        "pre-train",
        CODE,
        [*depends, plan.phantom.pretrain_epochs, plan.phantom.quick],
        [checkpoints["pre"]],
        lambda: _pretrain(plan, volumes(), split, checkpoints["pre"]),
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


def _pretrain(plan: Plan, cohort: CachedCohort, split: np.ndarray, checkpoint: Path) -> None:
    # A quick look would spend half of its time on compiling the full depth.
    depth: dict[str, Any] = {"depths": (1, 1, 1, 1)} if plan.phantom.quick else {}
    layout = encoders.ConvNeXtV2Config.named("atto", **depth)
    rngs = nnx.Rngs(plan.settings.seed)
    encoder = encoders.ConvNeXtV2(layout, rngs=rngs, stem_bias=STEM_BIAS)
    trained, history = encoders.pretrain(
        encoder,
        cohort.volumes(),
        train_rows=np.flatnonzero(split == "train"),
        val_rows=_validation(plan, split),
        masking=encoders.MaskingSettings(width=DECODER_WIDTH),
        settings=encoders.TrainingSettings(
            epochs=plan.phantom.pretrain_epochs,
            learning_rate=PRETRAIN_RATE,
            seed=plan.settings.seed,
        ),
        tracking=encoders.Tracking(checkpoint.parent.parent / "training" / checkpoint.name),
    )
    facts: dict[str, Any] = {"origin": "masked autoencoder, train patients"}
    if not plan.phantom.quick:
        curves = history.curves
        facts |= {"validation_loss_before": curves.start, "validation_loss": curves.best}
    encoders.save(checkpoint, trained, facts)


def _validation(plan: Plan, split: np.ndarray) -> np.ndarray | None:
    """Patients that choose the best epoch; a quick look takes the last one."""
    return None if plan.phantom.quick else np.flatnonzero(split == "val")


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
        seen = PHANTOM_SCOPES[settings[0]].channels or MODALITIES
        images = cohort.volumes([name if name in seen else "" for name in MODALITIES])
        tuned, _ = encoders.finetune(
            encoders.load(checkpoints["pre"]),
            images,
            labels,
            task=task,
            train_rows=np.flatnonzero(split == "train"),
            val_rows=_validation(plan, split),
            settings=encoders.TrainingSettings(
                epochs=plan.phantom.finetune_epochs,
                learning_rate=FINETUNE_RATE,
                seed=plan.settings.seed,
            ),
            head=encoders.HeadSettings(
                decoder_width=SEGMENTER_WIDTH, auxiliary_width=SEGMENTER_WIDTH
            ),
            tracking=encoders.Tracking(checkpoints[name].parent.parent / "training" / name),
        )
        encoders.save(
            checkpoints[name], tuned, {"origin": f"fine-tuned on {label}, train patients"}
        )

    return work
