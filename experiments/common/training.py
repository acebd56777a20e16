"""What pre-training and fine-tuning share: the cohort, the split, the curves and the seeds."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lens.errors import CaseError, InputError

if TYPE_CHECKING:
    from encoders.convnext import ConvNeXtV2
    from encoders.steps import TrainingSettings
    from encoders.training import Curves
    from encoders.volumes import CachedCohort
    from experiments.common.run_record import RunRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Flags of both jobs."""

    cohort: Path
    """The manifest, cohort.csv."""
    out: Path
    """Run folder; each seed has a folder in it, seed-0 and so on. A second run goes on there."""
    init: str = "random"
    """Encoder to start from: a checkpoint, a run folder of pretrain, or "random"."""
    size: Literal["atto", "femto", "pico", "nano", "tiny", "base", "large", "huge"] = "atto"
    """Size of a random encoder."""
    shape: tuple[int, int, int] = (64, 224, 224)
    """Depth, height and width of the encoder's input, in voxels."""
    spacing: tuple[float, float, float] = (0.5, 0.5, 1.0)
    """Voxel size along x, y, z, in mm."""
    epochs: int = 100
    """Passes over the training patients."""
    batch: int = 16
    """Volumes per step, shared by all devices."""
    rate: float = 1e-3
    """Highest learning rate: linear warm-up, then cosine to 0."""
    weight_decay: float = 0.05
    """Of AdamW, on kernels."""
    warm_up: float = 0.1
    """Share of the steps before the highest rate."""
    drop_path: float = 0.0
    """Stochastic depth of the encoder's last block (unitless, linear from 0)."""
    augment: bool = True
    """Vary the training volumes: flips, small rotations and zooms (not in a regression, whose label
    may be a size), intensity, bias field, smoothing."""
    remat: bool = False
    """Recompute blocks in the backward pass: less memory, a third more time."""
    seed: int = 0
    """Of the split, and the first of the seeds."""
    seeds: int = 1
    """Runs, with seeds SEED, SEED + 1, ..."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints; one per epoch if not given."""
    cache: Path | None = None
    """Folder of the resampled volumes; OUT/volumes if not given."""


@dataclass(frozen=True)
class TrainingData:
    """The cohort as read.

    Attributes:
        cached: usable cases.
        split: of each, ``train``, ``val`` or ``test``.
        set_aside: one error per case that cannot be used.
    """

    cached: CachedCohort
    split: np.ndarray
    set_aside: tuple[CaseError, ...]

    def rows(self, name: str) -> np.ndarray:
        """The cases of a part of the split."""
        return np.flatnonzero(self.split == name)


def read_data(config: TrainingConfig, label: str | None = None) -> TrainingData:
    """Reads the cohort, and sets aside cases without the label.

    Raises:
        InputError: no patient is left to train on, or no case has the label.
    """
    from encoders.volumes import CachedCohort, cache_cohort
    from experiments.main_job.inputs import cohort_split
    from lens.cohort import read_manifest

    if (
        min(config.epochs, config.batch, config.seeds, *config.shape) < 1
        or min(config.spacing) <= 0
    ):
        raise InputError("--epochs, --batch, --seeds, --shape and --spacing must be positive")
    cohort = read_manifest(config.cohort)
    # Before any case is set aside: a patient's part must not depend on another patient's file.
    split = dict(
        zip(map(id, cohort.cases), cohort_split(cohort, config.seed).tolist(), strict=True)
    )
    missing = [files for files in cohort.cases if label and label not in files.labels]
    if label and len(missing) == len(cohort.cases):
        known = sorted({name for files in cohort.cases for name in files.labels})
        raise InputError(
            f"{config.cohort}: no column {label} with values (labels: {', '.join(known) or 'none'})"
        )
    errors = [
        CaseError(
            files.patient_id,
            config.cohort,
            stage="read",
            reason=f"no {label} is given",
            remedy="Fill the cell, or train without this patient.",
        )
        for files in missing
    ]
    labelled = tuple(files for files in cohort.cases if files not in missing)
    cached, failed = cache_cohort(
        dataclasses.replace(cohort, cases=labelled),
        config.cache or config.out / "volumes",
        shape=config.shape,
        spacing_mm=config.spacing,
    )
    data = TrainingData(
        CachedCohort(cached.cases, cached.files),
        np.array([split[id(files)] for files in cached.cases]),
        (*errors, *failed),
    )
    if len(data.rows("train")) < 2:
        raise InputError(f"{config.cohort}: fewer than 2 patients to train on")
    return data


def training_settings(
    config: TrainingConfig,
    seed: int,
    augmentation: Mapping[str, float] | None = None,
    **changes: Any,
) -> TrainingSettings:
    """The settings of the loop; `augmentation` replaces strengths, `changes` anything else."""
    from encoders.augmentation import Augmentation
    from encoders.steps import TrainingSettings

    try:
        return TrainingSettings(
            epochs=config.epochs,
            batch_size=config.batch,
            learning_rate=config.rate,
            weight_decay=config.weight_decay,
            warm_up=config.warm_up,
            drop_path=config.drop_path,
            augmentation=Augmentation(**(augmentation or {})) if config.augment else None,
            seed=seed,
            **changes,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def initial_encoder(config: TrainingConfig, seed: int) -> tuple[ConvNeXtV2, dict[str, Any]]:
    """The encoder to start from, and where it comes from."""
    from flax import nnx

    from encoders.checkpoints import load
    from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
    from lens.files import file_hash

    if config.init == "random":
        encoder = ConvNeXtV2(ConvNeXtV2Config.named(config.size), rngs=nnx.Rngs(seed))
        origin = {"init": "random", "size": config.size, "init_seed": seed}
    else:
        path = _checkpoint(Path(config.init), seed)
        encoder = load(path)
        origin = {"init": str(path), "init_sha256": file_hash(path)}
    stride = encoder.config.total_strides[-1]
    if any(side % stride for side in config.shape) or encoder.config.dims != 3:
        raise InputError(
            f"--shape {config.shape}: training needs a 3D encoder and sides that are multiples of "
            f"{stride} voxels, its total stride"
        )
    encoder.config = dataclasses.replace(encoder.config, remat=config.remat)
    return encoder, origin


def _checkpoint(path: Path, seed: int) -> Path:
    """The encoder in a run folder of ours: that of this seed, or the only one."""
    if path.is_dir() and not (path / "encoder.json").is_file():
        runs = sorted(path.glob("seed-*/encoder"))
        same = [run for run in runs if run.parent.name == f"seed-{seed}"]
        if same or len(runs) == 1:
            return (same or runs)[0]
        if runs:
            raise InputError(f"{path}: several seeds, and none is {seed}; name one of {runs}")
        if (path / "encoder").is_dir():
            return path / "encoder"
    return path


def run_seeds(
    config: TrainingConfig, record: RunRecord, one: Callable[[int, Path], dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Runs every seed in its own folder and records how long each took."""
    results = {}
    for seed in range(config.seed, config.seed + config.seeds):
        start = time.perf_counter()
        folder = config.out / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            results[seed] = one(seed, folder)
        except ValueError as error:
            raise error if isinstance(error, InputError) else InputError(str(error)) from error
        record.note(f"seed-{seed}", {"seconds": round(time.perf_counter() - start, 2)})
    return results


def write_patients(config: TrainingConfig, data: TrainingData, **columns: Any) -> None:
    """Writes ``patients.csv``: ``patient_id, split, used``, a row per case of the manifest.

    Used are the patients on whom the weights depend (train) or the choice of the epoch (val).

    Args:
        config, data: of the run.
        columns: further ones, a value per usable case.
    """
    import pandas as pd

    from lens.files import write_table

    cases = data.cached.cases
    table = pd.DataFrame(
        {
            "patient_id": [files.patient_id for files in cases],
            "study_id": [files.study_id or "" for files in cases],
            "split": data.split,
            "used": data.split != "test",
            **columns,
        }
    )
    lost = sorted({e.patient_id for e in data.set_aside} - set(table["patient_id"]))
    aside = pd.DataFrame({"patient_id": lost, "split": "", "used": False})
    write_table(pd.concat([table, aside]) if lost else table, config.out / "patients.csv")


class CurveWriter:
    """Keeps ``history.csv`` and TensorBoard's event files of a run up to date."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def __call__(self, curves: Curves) -> None:
        import pandas as pd
        from tensorboardX import SummaryWriter

        from lens.files import write_table

        epochs = len(curves.loss)
        steps = len(curves.step_loss) // epochs
        first = (epochs - 1) * steps
        if self._writer is None:
            # What an earlier run wrote beyond its last checkpoint is written again.
            self._writer = SummaryWriter(
                str(self._folder / "tensorboard"), purge_step=first + 1, flush_secs=10
            )
        for step in range(first, epochs * steps):
            self._writer.add_scalar("loss/step", curves.step_loss[step], step + 1)
            self._writer.add_scalar("rate", curves.rate[step], step + 1)
        self._writer.add_scalar("loss/train", curves.loss[-1], epochs * steps)
        if np.isfinite(curves.validation[-1]):
            self._writer.add_scalar("loss/validation", curves.validation[-1], epochs * steps)
        self._writer.flush()
        write_table(
            pd.DataFrame(
                {
                    "epoch": np.arange(1, epochs + 1),
                    "step": np.arange(1, epochs + 1) * steps,
                    "train_loss": curves.loss,
                    "val_loss": curves.validation,
                    "rate": curves.rate[steps - 1 :: steps],
                    "best": np.arange(epochs) == curves.best_epoch,
                }
            ),
            self._folder / "history.csv",
        )

    def close(self) -> None:
        """Ends the event file."""
        if self._writer is not None:
            self._writer.close()
