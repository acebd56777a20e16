"""Fine-tunes an encoder on a cohort's label or masks, and tests it on patients it did not see.

python -m experiments.finetune --cohort cohort.csv --task classification --label pirads \\
    --init PRETRAINED --out DIR --seeds 3
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.common.cli import list_set_aside, run
from experiments.common.training import TrainingConfig

log = logging.getLogger(__name__)

PERMUTATION_STREAM = 1 << 20
"""Beside the seed, so that the permutation is drawn from numbers of its own."""


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Fine-tunes on the training patients; an interrupted run goes on where it was.

    Writes OUT/seed-0/encoder (best on validation), encoder-last, history.csv, metrics.json (test
    patients) and TensorBoard's event files, and OUT/patients.csv and metrics.json over the seeds.
    """

    task: Literal["classification", "regression", "segmentation"]
    """Which head and loss."""
    label: str
    """Column of the manifest: a class, a number (its unit is that of the metrics), or a region."""
    channels: tuple[str, ...] = ("t2", "dwi", "adc")
    """Modalities that are given; the others are zeros. The paper's volume regression: t2."""
    freeze: bool = False
    """Train the head alone (a linear probe of the encoder)."""
    layer_decay: float = 1.0
    """Factor of the rate from each block to the one before it."""
    loss: Literal["dice", "dice-ce"] = "dice"
    """Of a segmentation: Dice, or Dice plus cross entropy."""
    decoder_width: int = 512
    """Channels of UPerNet (segmentation)."""
    auxiliary_width: int = 256
    """Channels of its auxiliary head."""
    control: Literal["none", "permuted-labels"] = "none"
    """permuted-labels: the labels of train and val patients are exchanged among them, by seed."""


def job(config: Config) -> int:
    """Fine-tunes every seed and gives the exit code."""
    from experiments.common.run_record import RunRecord
    from experiments.common.training import read_data, run_seeds, write_patients
    from lens.cohort.manifest import MODALITIES, ROIS
    from lens.errors import InputError
    from lens.files import write_json

    if config.task == "segmentation" and config.label not in ROIS:
        raise InputError(f"--label {config.label}: regions are {' and '.join(ROIS)}")
    if not config.channels or set(config.channels) - set(MODALITIES):
        raise InputError(f"--channels {config.channels}: modalities are {', '.join(MODALITIES)}")
    record = RunRecord(config.out, dataclasses.asdict(config))
    data = read_data(config, None if config.task == "segmentation" else config.label)
    volumes = data.cached.volumes([name if name in config.channels else "" for name in MODALITIES])
    sources = {seed: _sources(config, data, seed) for seed in _seeds(config)}
    patients = np.array([files.patient_id for files in data.cached.cases])
    permuted = {
        f"label_of_seed_{seed}": patients[order]
        for seed, order in sources.items()
        if config.control != "none"
    }
    write_patients(config, data, **permuted)

    def one(seed: int, folder: Path) -> dict[str, Any]:
        return _one(config, seed, folder, data, volumes, sources[seed])

    results = run_seeds(config, record, one)
    summary = {
        "task": config.task,
        "label": config.label,
        "control": config.control,
        "frozen": config.freeze,
        "init": config.init,
        "over_seeds": _over_seeds(results),
        "seeds": results,
    }
    write_json(config.out / "metrics.json", summary)
    for name, values in summary["over_seeds"].items():
        log.info(
            "%s: %.4g (standard deviation over %d seeds %s)",
            name, values["mean"], values["n"],
            "unknown" if values["sd"] is None else f"{values['sd']:.2g}",
        )  # fmt: skip
    record.finish(patients=len(data.split))
    return list_set_aside(data.set_aside, config.out / "failures.csv")


def _one(
    config: Config, seed: int, folder: Path, data: Any, volumes: Any, source: np.ndarray
) -> dict[str, Any]:
    from encoders.checkpoints import save
    from encoders.finetuning import finetune
    from experiments.common.training import CurveWriter, initial_encoder, training_settings
    from lens.files import write_json

    encoder, origin = initial_encoder(config, seed)
    truth = _labels(config, data, np.arange(len(source)))
    writer = CurveWriter(folder)
    tuned, history = finetune(
        encoder,
        volumes,
        truth if config.control == "none" else _labels(config, data, source),
        task=config.task,
        train_rows=data.rows("train"),
        val_rows=data.rows("val"),
        settings=training_settings(
            config,
            seed,
            # A zoom would change the volume that is to be measured.
            {"zoom": 0.0} if config.task == "regression" else {},
            freeze=config.freeze,
            layer_decay=config.layer_decay,
        ),
        loss=config.loss,
        decoder_width=config.decoder_width,
        auxiliary_width=config.auxiliary_width,
        folder=folder / "checkpoints",
        every=config.checkpoint_steps,
        observe=writer,
    )
    writer.close()
    metrics = {
        "seed": seed,
        "n_train": len(data.rows("train")),
        "n_val": len(data.rows("val")),
        "best_epoch": history.curves.best_epoch + 1,
        "test": score(tuned, history, volumes, truth, data.rows("test"), config.batch),
    }
    facts = {
        "origin": "fine-tuned", **origin, "task": config.task, "label": config.label,
        "channels": config.channels, "control": config.control, "frozen": config.freeze,
        "seed": seed, "best_epoch": metrics["best_epoch"],
    }  # fmt: skip
    save(folder / "encoder", tuned, facts)
    save(folder / "encoder-last", history.last[0], facts | {"epoch": "last"})
    write_json(folder / "metrics.json", metrics)
    return metrics


def score(
    encoder: Any, history: Any, volumes: Any, truth: Any, rows: np.ndarray, batch_size: int
) -> dict[str, Any]:
    """How encoder and head do on these rows; masks are compared batch by batch.

    Args:
        encoder, history: from `encoders.finetune`.
        volumes, truth: as there.
        rows: patients to test on.
        batch_size: volumes per pass.
    """
    from encoders.metrics import (
        classification_metrics,
        overlap,
        regression_metrics,
        segmentation_metrics,
    )

    if history.task == "segmentation":
        cases = []
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            masks = history.predict(encoder, volumes, part, batch_size=batch_size)
            cases += [overlap(m, t > 0) for m, t in zip(masks, truth[part], strict=True)]
        return segmentation_metrics(cases)
    predicted = history.predict(encoder, volumes, rows, batch_size=batch_size)
    if history.task == "classification":
        return classification_metrics(predicted, truth[rows], history.classes)
    return regression_metrics(
        predicted.astype(float), truth[rows].astype(float), history.label_mean
    )


def _seeds(config: Config) -> range:
    return range(config.seed, config.seed + config.seeds)


def _sources(config: Config, data: Any, seed: int) -> np.ndarray:
    """Whose label each case is given: its own, or in the control another one's of train and val."""
    order = np.arange(len(data.split))
    if config.control == "permuted-labels":
        rows = np.flatnonzero(data.split != "test")
        order[rows] = np.random.default_rng([seed, PERMUTATION_STREAM]).permutation(rows)
    return order


def _labels(config: Config, data: Any, source: np.ndarray) -> Any:
    from lens.errors import InputError

    if config.task == "segmentation":
        return data.cached.masks(config.label, source)
    labels = np.array([data.cached.cases[row].labels[config.label] for row in source])
    if config.task == "regression" and labels.dtype.kind != "f":
        raise InputError(f"{config.cohort}: {config.label} is not a number for every patient")
    return labels


def _over_seeds(results: dict[int, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation of each test metric that is a number."""
    tests = [result["test"] for result in results.values()]
    summary = {}
    for name in tests[0]:
        values = [test[name] for test in tests]
        if all(isinstance(value, int | float) for value in values):
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
            summary[name] = {"mean": float(np.mean(values)), "sd": sd, "n": len(values)}
    return summary


if __name__ == "__main__":
    run(Config, job, description=__doc__)
