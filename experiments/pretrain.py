"""Pre-trains an encoder on a cohort, without labels, as a masked autoencoder.

python -m experiments.pretrain --cohort cohort.csv --size atto --out DIR
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.cli import list_set_aside, run
from experiments.common.training import TrainingConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Pre-trains on the training patients; an interrupted run goes on where it was.

    Writes OUT/seed-0/encoder (best on validation), encoder-last, history.csv, metrics.json and
    TensorBoard's event files, and OUT/patients.csv.
    """

    patch: tuple[int, ...] = (16, 16, 16)
    """Sides of a masked patch, in voxels."""
    ratio: float = 0.6
    """Share of masked patches."""
    width: int = 512
    """Channels of the decoder."""
    modalities: tuple[str, ...] = ("t2", "dwi", "adc")
    """The encoder's channels in order; a name that the cohort lacks gives zeros."""


def job(config: Config) -> int:
    """Pre-trains every seed and gives the exit code."""
    from experiments.common.run_record import RunRecord
    from experiments.common.training import read_data, run_seeds, write_patients
    from lens.files import write_json

    record = RunRecord(config.out, dataclasses.asdict(config))
    data = read_data(config)
    volumes = data.cached.volumes(config.modalities)
    write_patients(config, data)

    def one(seed: int, folder: Path) -> dict[str, Any]:
        return _one(config, seed, folder, data, volumes)

    results = run_seeds(config, record, one)
    write_json(config.out / "metrics.json", {"seeds": results})
    for seed, metrics in results.items():
        log.info(
            "seed %d: masked loss on validation %.4f, before training %.4f",
            seed, metrics["val_loss"], metrics["val_loss_start"],
        )  # fmt: skip
    record.finish(patients=len(data.split))
    return list_set_aside(data.set_aside, config.out / "failures.csv")


def _one(config: Config, seed: int, folder: Path, data: Any, volumes: Any) -> dict[str, Any]:
    from encoders.checkpoints import save
    from encoders.pretraining import pretrain
    from experiments.common.training import CurveWriter, initial_encoder, training_settings
    from lens.files import write_json

    encoder, origin = initial_encoder(config, seed)
    writer = CurveWriter(folder)
    trained, history = pretrain(
        encoder,
        volumes,
        train_rows=data.rows("train"),
        val_rows=data.rows("val"),
        patch=config.patch,
        ratio=config.ratio,
        width=config.width,
        settings=training_settings(config, seed),
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
        "val_loss": float(np.min(history.curves.validation)),
        "val_loss_start": history.start,
        "train_loss": float(history.curves.loss[-1]),
    }
    facts = {"origin": "masked autoencoder", **origin, **metrics, "modalities": config.modalities}
    save(folder / "encoder", trained, facts)
    save(folder / "encoder-last", history.last, facts | {"epoch": "last"})
    write_json(folder / "metrics.json", metrics)
    return metrics


if __name__ == "__main__":
    run(Config, job, description=__doc__)
