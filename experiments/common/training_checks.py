"""What pre-training and fine-tuning refuse before a volume is read, and their dry run."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from encoders.headers import Header
from experiments.common.anonymous import check_out
from experiments.common.check_first import check_encoder, check_output
from experiments.common.outlook import (
    FLOAT,
    UNKNOWN,
    Outlook,
    Step,
    amount,
    check_room,
    several,
)
from experiments.common.rehearsal import Rehearsal
from experiments.common.training_data import cohort_split_of, labelled, labels_of
from experiments.common.training_flags import TrainingConfig
from experiments.common.training_runs import check_channel_count, check_input, checkpoint_of
from lens.anonymise import OPEN, Names
from lens.cohort import Cohort, parse_labels
from lens.errors import InputError

MASK = 1
"""Bytes of a voxel of a mask."""

MOMENTS = 2
"""Numbers that AdamW keeps of each that is trained."""


class Checked(NamedTuple):
    """A training whose input has been checked.

    Attributes:
        cohort: as the manifest tells.
        rows: cases of the train, val and test part that have the label.
        header: of the encoder to start from.
        trained: numbers that are trained besides a head or decoder; the encoder's own, if all.
    """

    cohort: Cohort
    rows: dict[str, int]
    header: Header
    trained: int


def check_training(
    config: TrainingConfig, label: str | None = None, names: Names = OPEN
) -> Checked:
    """Reads manifest and header, and refuses what could not be trained.

    Args:
        config: of the run.
        label: column that every case must have a value in; None for none.
        names: under which patients are written; the split is drawn over them.

    Raises:
        InputError: a flag is out of range, the encoder is absent or does not fit the input, or the
            manifest has too few patients to train on.
    """
    config.check()
    check_output(config.run.out, "--out", folder=True)
    if names.hides:
        check_out(config.run.out)
    if config.images.cache is not None:
        check_output(config.images.cache, "--cache", folder=True)
    cohort = names.cohort(config.cohort())
    header = _header(config, len(config.channels_of(cohort)))
    split = cohort_split_of(cohort, config.run.seed)
    usable, _ = labelled(cohort, label)
    parts = [split[id(files)] for files in usable]
    rows = {name: parts.count(name) for name in ("train", "val", "test")}
    if rows["train"] < 2:
        raise InputError(f"{cohort.path}: fewer than 2 patients to train on")
    return Checked(cohort, rows, header, header.values)


def _header(config: TrainingConfig, channels: int) -> Header:
    """Of the encoder that the seeds start from; each seed's own is looked at."""
    from encoders.checkpoints import load

    if config.start.init == "random":
        header = _named(config, channels)
        check_input(config, header.config)
        return header
    headers = {}
    for seed in config.run.each:
        path = checkpoint_of(Path(config.start.init), seed)
        if path not in headers:
            headers[path] = check_encoder(path, "--init")
            check_input(config, headers[path].config)
            check_channel_count(config, headers[path].config, channels)
            load(path)
    return next(iter(headers.values()))


def _named(config: TrainingConfig, channels: int) -> Header:
    from encoders.convnext import ConvNeXtV2Config
    from encoders.encoder import parameters
    from encoders.families import unfilled

    layout = ConvNeXtV2Config.named(config.start.size, in_channels=channels)
    shapes = [parameter.shape for parameter in parameters(unfilled(layout)).values()]
    return Header(layout, sum(prod(shape) for shape in shapes))


def training_outlook(config: TrainingConfig, checked: Checked) -> Outlook:
    """What a training would do and need; reads files to tell which volumes are made already.

    Args:
        config: of the run.
        checked: from `check_training`.
    """
    from encoders.volumes import count_cached

    out, cases = config.run.out, len(checked.cohort.cases)
    cached = count_cached(
        checked.cohort,
        config.volumes,
        shape=config.images.shape,
        spacing_mm=config.images.spacing,
        labels=parse_labels(config.region_labels),
    )
    record = Rehearsal(out)
    steps = [Step("read", cached == cases, f"{cached} of {cases} volumes made before")]
    steps += [_seed_step(config, checked, seed, record) for seed in config.run.each]
    batch = min(config.training.batch, checked.rows["train"])
    channels = prod(config.images.shape) * len(config.channels_of(checked.cohort)) * FLOAT
    kept = checked.header.values + (1 + MOMENTS) * checked.trained
    parts = ", ".join(f"{count} {name}" for name, count in checked.rows.items())
    return Outlook(
        steps=steps,
        sizes=[
            f"{several(cases, 'case')} ({parts}), volumes of {config.images.shape} voxels, "
            f"an encoder of {checked.header.values / 1e6:.1f} million weights and "
            f"{checked.header.config.features} dimensions{_part_trained(checked)}"
        ],
        out=out,
        time=[f"seeds: {UNKNOWN}"],
        memory=[
            f"weights and optimiser {amount(kept * FLOAT)}, a batch "
            f"{amount(batch * channels)}; what the encoder keeps of a batch comes on top, not known"
        ],
        disk=_disk(config, checked, cases - cached),
    )


def check_training_disk(config: TrainingConfig, checked: Checked) -> None:
    """Refuses a training that the disks of its folders have no room for.

    Args:
        config: of the run.
        checked: from `check_training`.

    Raises:
        InputError: names what is needed and what is free.
    """
    volumes, encoders = _disk(config, checked, len(checked.cohort.cases)).values()
    cache, out = config.images.cache, config.run.out
    flag = "--out" if cache is None else "--cache"
    check_room([(cache or out / "volumes", flag, volumes), (out, "--out", encoders)])


def _disk(config: TrainingConfig, checked: Checked, cases: int) -> dict[str, float]:
    """Bytes on disk of the volumes of so many cases, and of what the seeds keep."""
    cohort = checked.cohort
    volume = prod(config.images.shape) * (len(cohort.modalities) * FLOAT + len(cohort.rois) * MASK)
    weights = checked.header.values
    # Two encoders, and two checkpoints while the new one is written.
    kept = (2 * weights + 2 * (weights + MOMENTS * checked.trained)) * FLOAT
    return {
        "volumes": float(cases * volume),
        "encoders and checkpoints": float(len(config.run.each) * kept),
    }


def _part_trained(checked: Checked) -> str:
    """How much is trained of an encoder of which not all is."""
    if checked.trained == checked.header.values:
        return ""
    return f", of which {checked.trained:,} numbers are trained besides the head"


def _seed_step(config: TrainingConfig, checked: Checked, seed: int, record: Rehearsal) -> Step:
    """How far a seed's training got, by its newest checkpoint."""
    batch = min(config.training.batch, checked.rows["train"])
    total = config.training.epochs * -(-checked.rows["train"] // batch)
    folder = config.run.out / f"seed-{seed}" / "checkpoints"
    saved = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    note = f"{several(total, 'step')}"
    if saved:
        note += f"; goes on from step {max(saved)}, if it was made with the same settings"
    return Step(f"seed {seed}", note=note, seconds=record.seconds_before(f"seed-{seed}"))


def check_classes(task: str, label: str, cohort: Cohort, split: dict[int, str]) -> None:
    """Refuses a label of which nothing can be learnt.

    Args:
        task: classification or regression.
        label: column of the manifest.
        cohort: the cases.
        split: of each case, by ``id``.

    Raises:
        InputError: it is no number where one is needed, or the same in all train cases.
    """
    trained = [
        files.labels[label]
        for files in cohort.cases
        if label in files.labels and split[id(files)] == "train"
    ]
    usable, _ = labelled(cohort, label)
    labels_of(usable, cohort.path, label, numbers=task == "regression")
    values = np.array(trained)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{cohort.path}: {label} is not finite for some patient")
    if len(set(trained)) < 2:
        raise InputError(
            f"{cohort.path}: every patient to train on has the same {label}, {trained[0]}; "
            "nothing to learn"
        )
