"""The embedded default: a phantom cohort, a seeded encoder, and a fine-tuned copy of it per task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from flax import nnx
from tqdm import tqdm

import encoders
from experiments.inputs import Inputs, cohort_split, from_images
from lens.cohort import Cohort, read_case, read_manifest, stack, write_phantoms
from lens.files import file_hash

if TYPE_CHECKING:
    from experiments.run_folder import RunFolder
    from experiments.sweep import Config

TASKS = {"cls": ("classification", "pirads"), "reg": ("regression", "volume_ml")}
"""Task -> kind of fine-tuning and label column."""


def from_phantoms(config: Config, diary: RunFolder) -> Inputs:
    """The embedded default: phantoms, a seeded encoder, and a fine-tuned copy per task."""
    folder = diary.folder
    manifest = write_phantoms(folder / "cohort", config.phantoms, config.seed)
    cohort = read_manifest(manifest)
    checkpoints = {name: folder / "encoders" / name for name in ("pre", *TASKS)}
    depends = [file_hash(manifest), config.shape, config.spacing, config.seed]
    depends += [config.finetune_epochs]
    diary.stage(
        "encoders",
        depends,
        list(checkpoints.values()),
        lambda: _train_encoders(config, cohort, checkpoints),
    )
    note = (
        "The encoder before fine-tuning is a seeded random initialisation, not a pre-trained model: "
        "this run shows the tool on phantoms and says nothing about any real encoder."
    )
    return from_images(config, diary, cohort, checkpoints, notes=(note,))


def _train_encoders(
    config: Config, cohort: Cohort, checkpoints: Mapping[str, Path]
) -> None:
    split = cohort_split(cohort, config.seed)
    assert config.spacing is not None
    assert config.shape is not None
    volumes = np.stack(
        [
            stack(read_case(files, spacing_mm=config.spacing), shape=config.shape)
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
            epochs=config.finetune_epochs,
            seed=config.seed,
        )
        encoders.save(checkpoints[task], tuned, {"origin": f"fine-tuned on {label}, train patients"})


