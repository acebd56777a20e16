"""What training and pre-training add to an encoder's scores, on phantoms and several seeds.

``python -m benchmarks.pretraining`` writes ``benchmarks/results/pretraining.json`` and prints a
table. Each seed has its own split, its own random encoder and its own pre-training; every task is
then trained from the random and from the pre-trained encoder, all parameters or the head alone, and
scored on the test patients of the split. A run that was cut off goes on where it was.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import harness

TASKS = {"classification": "pirads", "regression": "volume_ml", "segmentation": "lesion"}
SCORES = {"classification": "auc", "regression": "r2", "segmentation": "dice"}


@dataclass(frozen=True)
class Config:
    """How many phantoms, how long."""

    folder: Path = Path("runs/pretraining-benchmark")
    """Phantoms, checkpoints and finished parts."""
    phantoms: int = 160
    """Patients."""
    seeds: int = 3
    """Splits, each with its own encoders."""
    shape: tuple[int, int, int] = (32, 48, 48)
    """Input, in voxels."""
    spacing: tuple[float, float, float] = (1.0, 1.0, 2.0)
    """Voxel size x y z, in mm."""
    batch: int = 16
    """Volumes per step."""
    pretrain_epochs: int = 20
    """Passes of the masked autoencoder."""
    pretrain_width: int = 128
    """Channels of its decoder."""
    pretrain_rate: float = 1.5e-3
    """Its highest rate."""
    epochs: int = 8
    """Passes of fine-tuning."""
    rate: float = 1e-3
    """Its highest rate."""
    probe_epochs: int = 100
    """Passes of a head on the embeddings of a frozen encoder; they cost next to nothing."""
    frozen_segmentation_epochs: int = 8
    """Passes of UPerNet on a frozen encoder."""
    decoder_width: int = 32
    """Channels of UPerNet."""
    tasks: tuple[Literal["classification", "regression", "segmentation"], ...] = (
        "classification", "regression", "segmentation",
    )  # fmt: skip
    """Which to learn."""
    out: Path = harness.RESULTS / "pretraining.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Trains everything that is not there yet, writes and prints the table."""
    import encoders  # noqa: F401  JAX starts here, not for --help
    from encoders.volumes import cache_cohort
    from lens.cohort import read_manifest, write_phantoms

    manifest = write_phantoms(config.folder / "cohort", config.phantoms, 0)
    cached, _ = cache_cohort(
        read_manifest(manifest),
        config.folder / "volumes",
        shape=config.shape,
        spacing_mm=config.spacing,
    )
    runs: dict[str, dict[str, Any]] = {}
    for seed in range(config.seeds):
        runs |= _seed(config, cached, seed)
        about = harness.facts(config, "jax", "flax", "optax")
        harness.record(config.out, {**about, "summary": _summary(config, runs), "runs": runs})
    print(_table(config, runs))


def _seed(config: Config, cached: Any, seed: int) -> dict[str, dict[str, Any]]:
    """Everything of one seed: a result per part, under its name."""
    from flax import nnx

    from encoders.convnext import STEM_BIAS, ConvNeXtV2, ConvNeXtV2Config
    from lens.study.split import split_patients

    split = split_patients([files.patient_id for files in cached.cases], seed=seed)
    rows = {name: np.flatnonzero(split == name) for name in ("train", "val", "test")}
    layout = ConvNeXtV2Config.named("atto")
    start = ConvNeXtV2(layout, rngs=nnx.Rngs(seed), stem_bias=STEM_BIAS)
    pretrained, result = _pretrain(config, cached, rows, start, seed)
    runs = {f"seed-{seed}/pretraining": result}
    for task in config.tasks:
        for name, encoder in (("random", start), ("pretrained", pretrained)):
            for freeze in (True, False):
                part = f"seed-{seed}/{task}-{name}{'-frozen' if freeze else ''}"
                runs[part] = _finetune(config, cached, rows, encoder, seed, task, freeze, part)
    return runs


def _pretrain(
    config: Config, cached: Any, rows: dict[str, np.ndarray], start: Any, seed: int
) -> tuple[Any, dict[str, Any]]:
    from encoders import MaskingSettings, Tracking, TrainingSettings, load, pretrain, save
    from lens.files import write_json

    folder = config.folder / f"seed-{seed}/pretraining"
    done = folder / "result.json"
    if not done.is_file():
        began = time.perf_counter()
        encoder, history = pretrain(
            start,
            cached.volumes(),
            train_rows=rows["train"],
            val_rows=rows["val"],
            masking=MaskingSettings(width=config.pretrain_width),
            settings=TrainingSettings(
                epochs=config.pretrain_epochs,
                batch_size=config.batch,
                learning_rate=config.pretrain_rate,
                seed=seed,
            ),
            tracking=Tracking(folder / "checkpoints"),
        )
        save(folder / "encoder", encoder)
        curves = history.curves
        write_json(
            done,
            {
                "masked_loss_start": curves.start,
                "masked_loss_end": curves.best,
                "masked_loss": curves.validation.tolist(),
                "seconds": time.perf_counter() - began,
            },
        )
    return load(folder / "encoder"), json.loads(done.read_text())


def _finetune(
    config: Config,
    cached: Any,
    rows: dict[str, np.ndarray],
    encoder: Any,
    seed: int,
    task: Any,
    freeze: bool,
    part: str,
) -> dict[str, Any]:
    from encoders import HeadSettings, Tracking, TrainingSettings, finetune
    from experiments.finetune import score
    from lens.cohort.prostate import MODALITIES as CHANNELS
    from lens.files import write_json

    done = config.folder / part / "result.json"
    if not done.is_file():
        began = time.perf_counter()
        mask = task == "segmentation"
        seen = ("t2",) if task == "regression" else CHANNELS
        volumes = cached.volumes([name if name in seen else "" for name in CHANNELS])
        labels = (
            cached.masks(TASKS[task])
            if mask
            else np.array([files.labels[TASKS[task]] for files in cached.cases])
        )
        frozen = config.frozen_segmentation_epochs if mask else config.probe_epochs
        tuned, history = finetune(
            encoder,
            volumes,
            labels,
            task=task,
            train_rows=rows["train"],
            val_rows=rows["val"],
            settings=TrainingSettings(
                epochs=frozen if freeze else config.epochs,
                batch_size=config.batch,
                learning_rate=config.rate,
                freeze=freeze,
                seed=seed,
            ),
            head=HeadSettings(
                decoder_width=config.decoder_width, auxiliary_width=config.decoder_width // 2
            ),
            tracking=Tracking(config.folder / part / "checkpoints"),
        )
        result = score(tuned, history, volumes, labels, rows["test"], config.batch)
        result["chance"] = _chance(task, labels, rows["test"])
        result["seconds"] = time.perf_counter() - began
        write_json(done, result)
        print(f"{part}: {SCORES[task]} {result[SCORES[task]]:.3f}", flush=True)
    return json.loads(done.read_text())


def _chance(task: str, labels: Any, test: np.ndarray) -> float:
    """The score without looking: a constant; for masks, the better of nothing and everything."""
    if task == "segmentation":
        shares = labels[test].mean(axis=(1, 2, 3))
        return float(np.mean([2 * s / (1 + s) for s in shares if s > 0]))
    return {"classification": 0.5, "regression": 0.0}[task]


def _summary(config: Config, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over seeds, and of differences within a seed."""
    seeds = sorted({name.split("/")[0] for name in runs})
    ends = {
        key: _spread([runs[f"{seed}/pretraining"][key] for seed in seeds])
        for key in ("masked_loss_start", "masked_loss_end")
    }
    summary: dict[str, Any] = {"pretraining": ends}
    for task in config.tasks:
        of = {
            kind: np.array([runs[f"{seed}/{task}-{kind}"][SCORES[task]] for seed in seeds])
            for kind in ("random", "random-frozen", "pretrained", "pretrained-frozen")
        }
        chance = np.array([runs[f"{seed}/{task}-random"]["chance"] for seed in seeds])
        summary[task] = {
            "score": SCORES[task],
            "chance": _spread(chance),
            **{kind: _spread(values) for kind, values in of.items()},
            "trained_minus_frozen_random": _spread(of["random"] - of["random-frozen"]),
            "pretrained_minus_random": _spread(of["pretrained"] - of["random"]),
            "pretrained_minus_random_frozen": _spread(
                of["pretrained-frozen"] - of["random-frozen"]
            ),
        }
    return summary


def _spread(values: Any) -> dict[str, Any]:
    values = np.asarray(values, float)
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "sd": sd, "values": values.round(4).tolist()}


def _table(config: Config, runs: dict[str, dict[str, Any]]) -> str:
    summary = _summary(config, runs)
    lines = []
    for name, entry in summary.items():
        lines.append(name if name == "pretraining" else f"{name} ({entry['score']})")
        for kind, value in entry.items():
            if isinstance(value, dict):
                sd = "" if value["sd"] is None else f" ± {value['sd']:.3f}"
                lines.append(f"  {kind:32} {value['mean']:7.3f}{sd}   {value['values']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
