"""The embedded default: phantoms, a seeded encoder, and a fine-tuned copy of it per task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from flax import nnx
from tqdm import tqdm

import encoders
from experiments.inputs import Inputs, cohort_split, from_images
from experiments.plan import Plan
from lens.cohort import Cohort, read_case, read_manifest, stack, write_phantoms
from lens.files import file_hash

if TYPE_CHECKING:
    from experiments.run_folder import RunFolder

TASKS: dict[str, tuple[Literal["classification", "regression"], str]] = {
    "cls": ("classification", "pirads"),
    "reg": ("regression", "volume_ml"),
}
"""Task -> kind of fine-tuning and label column."""


def from_phantoms(plan: Plan, diary: RunFolder) -> Inputs:
    """The embedded default: phantoms, a seeded encoder, and a fine-tuned copy per task."""
    folder, config = diary.folder, plan.config
    manifest = write_phantoms(folder / "cohort", config.phantoms, config.seed)
    cohort = read_manifest(manifest)
    checkpoints = {name: folder / "encoders" / name for name in ("pre", *TASKS)}
    depends = [file_hash(manifest), plan.shape, plan.spacing, config.seed]
    depends += [config.finetune_epochs]
    diary.stage(
        "encoders",
        depends,
        list(checkpoints.values()),
        lambda: _train_encoders(plan, cohort, checkpoints),
    )
    note = (
        "The encoder before fine-tuning is a seeded random initialisation, not a pre-trained "
        "model: this run shows the tool on phantoms and says nothing about any real encoder"
    )
    return from_images(plan, diary, cohort, checkpoints, notes=(note,))


def _train_encoders(plan: Plan, cohort: Cohort, checkpoints: Mapping[str, Path]) -> None:
    config = plan.config
    split = cohort_split(cohort, config.seed)
    volumes = np.stack(
        [
            stack(read_case(files, spacing_mm=plan.spacing), shape=plan.shape)
            for files in tqdm(cohort.cases, desc="volumes", unit="patient")
        ]
    )
    train = split == "train"
    encoder = encoders.ConvNeXtV2(
        encoders.ConvNeXtV2Config.named("atto"), rngs=nnx.Rngs(config.seed)
    )
    encoders.save(checkpoints["pre"], encoder, {"origin": "seeded initialisation"})
    for task, (kind, label) in TASKS.items():
        labels = np.array([float(files.labels[label]) for files in cohort.cases])
        tuned, _ = encoders.finetune(
            encoder,
            volumes[train],
            labels[train],
            task=kind,
            settings=encoders.TrainingSettings(epochs=config.finetune_epochs, seed=config.seed),
        )
        encoders.save(
            checkpoints[task], tuned, {"origin": f"fine-tuned on {label}, train patients"}
        )
