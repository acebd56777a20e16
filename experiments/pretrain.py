"""Pre-trains an encoder on a cohort, without labels, as a masked autoencoder.

python -m experiments.pretrain --cohort cohort.csv --size atto --out DIR
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from encoders.settings import MaskingSettings
from experiments.common.cli import DONE, alone, list_set_aside, run
from experiments.common.training_flags import TrainingConfig
from lens.errors import InputError
from lens.lock import of_folder
from lens.settings import flat

if TYPE_CHECKING:
    from encoders.encoder import EncoderConfig
    from lens.anonymise import Names

log = logging.getLogger(__name__)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Pre-trains on the training patients; an interrupted run goes on where it was.

    Writes OUT/seed-0/encoder (best on validation), encoder-last, history.csv, metrics.json and
    TensorBoard's event files, and OUT/patients.csv.
    """

    label: tuple[str, ...] = ()
    """Mask values that make a region, such as gland=1,2 lesion=3; every value above 0 by default.
    Images are standardised about the regions."""
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    """Masked autoencoder."""

    @property
    def region_labels(self) -> tuple[str, ...]:
        """``REGION=VALUES``: mask values that make a region."""
        return self.label


@alone(lambda config: of_folder(config.run.out, config.volumes), Config.hidden)
def job(config: Config, names: Names) -> int:
    """Pre-trains every seed and gives the exit code."""
    from encoders.channels import check_channels
    from experiments.common.run_record import RunRecord
    from experiments.common.training_checks import (
        check_training,
        check_training_disk,
        training_outlook,
    )
    from experiments.common.training_data import read_data, write_patients
    from experiments.common.training_runs import run_seeds
    from lens.files import write_json

    out = config.run.out
    checked = check_training(config, names=names)
    modalities = config.channels_of(checked.cohort)
    check_channels(modalities, checked.cohort, "--modalities")
    _check_masking(config, checked.header.config)
    if config.dry_run:
        print(training_outlook(config, checked))
        return DONE
    check_training_disk(config, checked)
    record = RunRecord(out, flat(config), names)
    record.record["columns"] = checked.cohort.record()
    data = read_data(config, names=names)
    volumes = data.cached.volumes(modalities)
    write_patients(out / "patients.csv", data)

    def one(seed: int, folder: Path) -> dict[str, Any]:
        return _one(config, seed, folder, data, volumes, modalities, names)

    results = run_seeds(config, record, one)
    write_json(out / "metrics.json", {"seeds": results})
    for seed, metrics in results.items():
        if metrics["val_loss"] is None or metrics["val_loss_start"] is None:
            continue
        log.info(
            "seed %d: masked loss on validation %.4f, before training %.4f",
            seed, metrics["val_loss"], metrics["val_loss_start"],
        )  # fmt: skip
    record.finish(patients=len(data.split))
    return list_set_aside(data.set_aside, out / "failures.csv")


def _check_masking(config: Config, encoder: EncoderConfig) -> None:
    """Refuses patches that do not fit the encoder or the volumes."""
    from encoders.masked import hidden_patches, patch_grid, patch_sides

    masking = config.masking
    try:
        sides = patch_sides(encoder, masking.patch)
        hidden_patches(patch_grid(config.images.shape, sides), masking.ratio)
    except ValueError as error:
        raise InputError(f"--patch, --ratio: {error}") from error


def _one(
    config: Config,
    seed: int,
    folder: Path,
    data: Any,
    volumes: Any,
    modalities: tuple[str, ...],
    names: Names,
) -> dict[str, Any]:
    """Trains one seed, writes its encoders and metrics, and gives the metrics."""
    from encoders.checkpoints import save
    from encoders.convnext import STEM_BIAS
    from encoders.pretraining import pretrain
    from experiments.common.training_ranks import effective_ranks
    from experiments.common.training_runs import initial_encoder, tell_start, tracked, validation_of
    from lens.files import write_json

    start = initial_encoder(config, seed, len(modalities), names, stem_bias=STEM_BIAS)
    encoder, origin = start
    with tracked(config, folder) as tracking:
        trained, history = pretrain(
            encoder,
            volumes,
            train_rows=data.rows("train"),
            val_rows=data.rows("val"),
            masking=config.masking,
            settings=config.training.settings(seed),
            tracking=tracking,
        )
    tell_start(seed, history.curves)
    metrics = {
        "seed": seed,
        **data.sizes(),
        **validation_of(history.curves),
        "train_loss": float(history.curves.loss[-1]),
        "effective_rank": effective_ranks(
            seed, encoder, trained, volumes, data, batch_size=config.training.batch
        ),
    }
    facts = {"origin": "masked autoencoder", **origin, **metrics, "modalities": modalities}
    save(folder / "encoder", trained, facts)
    save(folder / "encoder-last", history.last, facts | {"epoch": "last"})
    write_json(folder / "metrics.json", metrics)
    return metrics


if __name__ == "__main__":
    run(Config, job, description=__doc__)
