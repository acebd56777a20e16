"""Fine-tunes an encoder on a cohort's label or masks, and tests it on patients it did not see.

python -m experiments.finetune --cohort cohort.csv --task classification --label pirads \\
    --init PRETRAINED --out DIR --seeds 3
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tyro

from encoders.settings import HeadSettings, Task, Tokens
from experiments.common.check_first import check_regions
from experiments.common.cli import DONE, alone, list_set_aside, run
from experiments.common.flags import as_flag
from experiments.common.training_flags import TrainingConfig
from lens.errors import InputError
from lens.lock import of_folder
from lens.settings import flat

if TYPE_CHECKING:
    from experiments.common.training_checks import Checked
    from lens.anonymise import Names
    from lens.cohort import Cohort

log = logging.getLogger(__name__)

PERMUTATION_STREAM = 1 << 20
"""Added to the seed, so that the permutation is drawn from numbers of its own."""


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Fine-tunes on the training patients; an interrupted run goes on where it was.

    Writes OUT/seed-0/encoder (best on validation), encoder-last, history.csv, metrics.json (test
    patients) and TensorBoard's event files, and OUT/patients.csv and metrics.json over the seeds.
    """

    task: Task
    """Which head and loss."""
    label: str
    """Column of the manifest: a class, a number (its unit is that of the metrics), or a region,
    which may be made of mask values: anterior=1."""
    mask_labels: tuple[str, ...] = ()
    """Mask values that make regions, such as gland=1,2 lesion=3; --label of the other jobs, for
    here that is what is learnt."""
    channels: tuple[str, ...] = ()
    """Modalities that are given, all by default; the others are zeros. The paper's volume
    regression: t2."""
    freeze: bool = False
    """Train the head alone (a linear probe of the encoder)."""
    lora: int | None = None
    """Rank of low-rank updates (LoRA) that are trained in place of the encoder, with the head: of
    the pointwise layers of a ConvNeXt V2, or the attention and perceptron of a ViT. They are part
    of the encoder that is written."""
    lora_alpha: float | None = None
    """Strength of the updates, which are multiplied by LORA_ALPHA / LORA; the rank if not given."""
    layer_decay: float = 1.0
    """Factor of the rate from each block to the one before it."""
    tokens: Tokens | None = None
    """Of a ViT: what the head reads, the class token or the mean of the patches; as the encoder's
    checkpoint says if not given, else class."""
    head: HeadSettings = field(default_factory=HeadSettings)
    """Head of a segmentation."""
    control: Literal["none", "permuted-labels"] = "none"
    """permuted-labels: the labels of train and val patients are exchanged among them, by seed."""

    @property
    def target(self) -> str:
        """The column, or the region, that is learnt."""
        return self.label.partition("=")[0] if self.task == "segmentation" else self.label

    @property
    def region_labels(self) -> tuple[str, ...]:
        """``REGION=VALUES``: mask values that make regions, that of a segmentation among them."""
        own = (self.label,) if self.task == "segmentation" and "=" in self.label else ()
        return (*own, *self.mask_labels)

    def settings(self, seed: int, augmentation: Mapping[str, float] | None = None) -> Any:
        """The settings of a seed's training (`OptimiserFlags.settings`)."""
        return self.training.settings(
            seed, augmentation, freeze=self.freeze, lora=self.lora, lora_alpha=self.lora_alpha,
            layer_decay=self.layer_decay,
        )  # fmt: skip

    @property
    def trained(self) -> dict[str, Any]:
        """What of the encoder is trained, as is written down."""
        alpha = self.settings(self.run.seed).alpha
        updates = None if self.lora is None else {"rank": self.lora, "alpha": alpha}
        return {"frozen": self.freeze, "lora": updates}

    def shown(self, cohort: Cohort) -> tuple[str, ...]:
        """Channels of the encoder, empty text for one that is zeros."""
        every = self.channels_of(cohort)
        return tuple(name if name in (self.channels or every) else "" for name in every)


@alone(lambda config: of_folder(config.run.out, config.volumes), Config.hidden)
def job(config: Config, names: Names) -> int:
    """Fine-tunes every seed and gives the exit code."""
    from experiments.common.run_record import RunRecord
    from experiments.common.training_checks import check_training_disk, training_outlook
    from experiments.common.training_data import read_data, write_patients
    from experiments.common.training_runs import run_seeds

    checked = _check(config, names)
    if config.dry_run:
        print(training_outlook(config, checked))
        return DONE
    check_training_disk(config, checked)
    out = config.run.out
    record = RunRecord(out, flat(config), names)
    record.record["columns"] = checked.cohort.record()
    data = read_data(config, None if config.task == "segmentation" else config.label, names)
    shown = config.shown(checked.cohort)
    volumes = data.cached.volumes(shown)
    sources = {seed: _sources(config, data, seed) for seed in config.run.each}
    patients = np.array([files.patient_id for files in data.cached.cases])
    permuted = {
        f"label_of_seed_{seed}": patients[order]
        for seed, order in sources.items()
        if config.control != "none"
    }
    write_patients(out / "patients.csv", data, **permuted)

    def one(seed: int, folder: Path) -> dict[str, Any]:
        return _one(config, seed, folder, data, volumes, shown, sources[seed], names)

    _summarise(config, run_seeds(config, record, one), names)
    record.finish(patients=len(data.split))
    return list_set_aside(data.set_aside, out / "failures.csv")


def _check(config: Config, names: Names) -> Checked:
    """Refuses, before a volume is read, what could not be trained."""
    from encoders.channels import check_channels
    from experiments.common.training_checks import check_classes, check_training
    from experiments.common.training_data import cohort_split_of

    masks = config.task == "segmentation"
    config.settings(config.run.seed)
    checked = check_training(config, None if masks else config.label, names)
    check_channels(
        config.channels or config.channels_of(checked.cohort), checked.cohort, "--channels"
    )
    if masks:
        check_regions([config.target], checked.cohort, "--label")
    else:
        split = cohort_split_of(checked.cohort, config.run.seed)
        check_classes(config.task, config.label, checked.cohort, split)
    return checked._replace(trained=_count_trained(config, checked))


def _count_trained(config: Config, checked: Checked) -> int:
    """Numbers that are trained besides the head.

    Raises:
        InputError: the encoder cannot have low-rank updates of this rank.
    """
    from encoders.families import unfilled
    from encoders.lora import added, problem

    if config.lora is None:
        return 0 if config.freeze else checked.trained
    encoder = unfilled(checked.header.config)
    if found := problem(encoder, config.lora):
        raise InputError(as_flag(found))
    return added(encoder, config.lora)


def _one(
    config: Config,
    seed: int,
    folder: Path,
    data: Any,
    volumes: Any,
    shown: tuple[str, ...],
    source: np.ndarray,
    names: Names,
) -> dict[str, Any]:
    """Trains one seed, writes its encoders and metrics, and gives the metrics."""
    from encoders.finetuning import finetune
    from experiments.common.training_ranks import effective_ranks
    from experiments.common.training_runs import initial_encoder, tell_start, tracked, validation_of

    encoder, origin = initial_encoder(config, seed, len(shown), names)
    origin |= {"channels": tuple(name for name in shown if name)}
    truth = _labels(config, data, np.arange(len(source)))
    # A zoom would change the volume that is to be measured.
    augmentation = {"zoom": 0.0} if config.task == "regression" else {}
    with tracked(config, folder) as tracking:
        tuned, history = finetune(
            encoder,
            volumes,
            truth if config.control == "none" else _labels(config, data, source),
            task=config.task,
            train_rows=data.rows("train"),
            val_rows=data.rows("val"),
            settings=config.settings(seed, augmentation),
            head=config.head,
            tracking=tracking,
        )
    tell_start(seed, history.curves)
    batch = config.training.batch
    metrics = {
        "seed": seed,
        **data.sizes(),
        **validation_of(history.curves),
        "effective_rank": effective_ranks(seed, encoder, tuned, volumes, data, batch_size=batch),
        "test": score(tuned, history, volumes, truth, data.rows("test"), batch),
    }
    _write(config, folder, (tuned, history.last[0]), origin, metrics)
    return metrics


def _write(
    config: Config,
    folder: Path,
    encoders: tuple[Any, Any],
    origin: dict[str, Any],
    metrics: dict[str, Any],
) -> None:
    """The best and the last encoder with their facts, and the metrics."""
    from encoders.checkpoints import save
    from lens.files import write_json

    facts = {
        "origin": "fine-tuned", **origin, "task": config.task, "label": config.label,
        "control": config.control, **config.trained,
        "seed": metrics["seed"], "best_epoch": metrics["best_epoch"],
    }  # fmt: skip
    best, last = encoders
    save(folder / "encoder", best, facts)
    save(folder / "encoder-last", last, facts | {"epoch": "last"})
    write_json(folder / "metrics.json", metrics)


def score(
    encoder: Any, history: Any, volumes: Any, truth: Any, rows: np.ndarray, batch_size: int
) -> dict[str, Any]:
    """Metrics of encoder and head on these rows; masks are compared batch by batch.

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


def _sources(config: Config, data: Any, seed: int) -> np.ndarray:
    """The case whose label each case gets: itself, or in the control another of train and val."""
    order = np.arange(len(data.split))
    if config.control == "permuted-labels":
        rows = np.flatnonzero(data.split != "test")
        order[rows] = np.random.default_rng([seed, PERMUTATION_STREAM]).permutation(rows)
    return order


def _labels(config: Config, data: Any, source: np.ndarray) -> Any:
    from experiments.common.training_data import labels_of

    if config.task == "segmentation":
        return data.cached.masks(config.target, source)
    numbers = config.task == "regression"
    return labels_of(data.cached.cases, config.images.cohort, config.label, numbers=numbers)[source]


def _summarise(config: Config, results: dict[int, dict[str, Any]], names: Names) -> None:
    """Writes and logs the metrics over the seeds."""
    from lens.files import write_json

    over_seeds = _over_seeds(results)
    summary = {
        "task": config.task,
        "label": config.label,
        "control": config.control,
        **config.trained,
        "init": names.setting(config.start.init),
        "over_seeds": over_seeds,
        "seeds": results,
    }
    write_json(config.run.out / "metrics.json", summary)
    for name, values in over_seeds.items():
        log.info(
            "%s: %.4g (standard deviation over %d seeds %s)",
            name, values["mean"], values["n"],
            "unknown" if values["sd"] is None else f"{values['sd']:.2g}",
        )  # fmt: skip


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
