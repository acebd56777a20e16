"""Training and embedding of both studies: from packs to embeddings and scores.

    python -m benchmarks.real.train ultrasound --pack us.npz --weights vit.npz --out DIR
    python -m benchmarks.real.train pretraining --pack hip.npz --out DIR
    python -m benchmarks.real.train regression --pack hip.npz --out DIR
    python -m benchmarks.real.train segmentation --pack hip.npz --out DIR
    python -m benchmarks.real.train collect --out DIR --to FOLDER

Each finished run is a file in DIR, and is not made again. The second and third part of the
hippocampus start from what the first left in DIR, and may run side by side. Encoders learn by
`encoders.finetune` and `encoders.pretrain`, as the jobs do. With ``--keep NAMES`` all encoders are
rounded to bfloat16 before they are scored and embedded, and those named are kept in DIR/encoders
(`benchmarks.real.pack.read_weights`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real.pack import Pack, read_pack, read_weights, rounded, write_weights
from encoders.settings import Augmentation, HeadSettings, MaskingSettings, TrainingSettings

SEEDS = (0, 1, 2)

PICTURES = Augmentation(bias_field=0.0, smoothing=0.0)
"""Of ultrasound: flips, rotations, zooms, brightness, contrast; no coil's field, as in MR."""

ULTRASOUND = TrainingSettings(
    epochs=15, batch_size=16, learning_rate=3e-5, layer_decay=0.8, augmentation=PICTURES
)
PRETRAINING = TrainingSettings(
    epochs=100, batch_size=16, learning_rate=1.5e-3, augmentation=Augmentation()
)
REGRESSION = TrainingSettings(
    # A zoom would change the volume that is to be told.
    epochs=20, batch_size=16, learning_rate=1e-3, augmentation=Augmentation(zoom=0.0)
)  # fmt: skip
SEGMENTATION = TrainingSettings(
    epochs=20, batch_size=16, learning_rate=1e-3, augmentation=Augmentation()
)
LOW_RANK = 8
"""Of the updates of LoRA."""

ULTRASOUND_LORA = replace(ULTRASOUND, lora=LOW_RANK, learning_rate=1e-3, layer_decay=1.0)
REGRESSION_LORA = replace(REGRESSION, lora=LOW_RANK)
FROZEN = TrainingSettings(epochs=100, batch_size=16, learning_rate=1e-3, freeze=True)

MASKING = MaskingSettings(patch=(16,), ratio=0.6, width=128)
HEAD = HeadSettings(decoder_width=64, auxiliary_width=32)

PERMUTATION_STREAM = 1 << 20
"""Added to the seed of a permutation, as in `experiments.finetune`."""


NO_CHECKPOINTS = "STUDY_WITHOUT_CHECKPOINTS"
"""Environment variable: training keeps no checkpoints, where a run takes seconds."""


@dataclass(frozen=True)
class Run:
    """One fine-tuning, and what is embedded of it.

    Attributes:
        name: of its file, such as ``cls-0`` or ``permuted-2``.
        task: which head and loss.
        settings: of the training.
        permuted: the labels of train and val patients are exchanged among them.
    """

    name: str
    task: Any
    settings: TrainingSettings
    permuted: bool = False


@dataclass(frozen=True)
class Limits:
    """How much of a part is made.

    Attributes:
        epochs: most passes of a training; all of them for None.
        only: names of the runs; all of them for none.
        keep: names of the encoders that are kept; with any, all are rounded to bfloat16.
    """

    epochs: int | None = None
    only: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def of(self, settings: TrainingSettings) -> TrainingSettings:
        """The settings of a training within them."""
        most = settings.epochs if self.epochs is None else self.epochs
        return replace(settings, epochs=min(most, settings.epochs))

    def wants(self, done: Path) -> bool:
        """Whether a run is to be made, by the file that it leaves."""
        return not done.is_file() and (not self.only or done.stem in self.only)

    def kept(self, name: str, encoder: Any, out: Path, start: Any = None) -> Any:
        """The encoder as it is scored and embedded; where it is to be kept, that is done.

        Args:
            name: of its run.
            encoder: as trained.
            out: folder of finished runs.
            start: what it was trained from, which a reader of the file needs too.
        """
        if not self.keep:
            return encoder
        encoder = rounded(encoder)
        if name in self.keep:
            write_weights(out / "encoders" / f"{name}.npz", encoder, start)
        return encoder


def runs(name: str, task: Any, settings: TrainingSettings, **changes: Any) -> list[Run]:
    """A run per seed."""
    return [Run(f"{name}-{seed}", task, replace(settings, seed=seed), **changes) for seed in SEEDS]


def ultrasound(pack: Pack, weights: Path, out: Path, limits: Limits = Limits()) -> None:
    """Fine-tunes the vision transformer for malignancy, with its controls."""
    from flax import nnx

    from encoders.vit import ViT, ViTConfig

    encoder = ViT(ViTConfig.named("small", in_channels=1), rngs=nnx.Rngs(0))
    pools = {"global": None, "lesion": pack.masks["lesion"]}
    if limits.wants(out / "random.npz"):
        _embed(out / "random.npz", pack, encoder, pools)
    read_weights(weights, encoder)
    if limits.wants(out / "pre.npz"):
        _embed(out / "pre.npz", pack, encoder, pools)
    for run in (
        *runs("cls", "classification", ULTRASOUND),
        *runs("permuted", "classification", ULTRASOUND, permuted=True),
        *runs("lora", "classification", ULTRASOUND_LORA),
        Run("frozen-0", "classification", FROZEN),
    ):
        _run(run, pack, pack.label, encoder, pools, out, limits)


def pretraining(pack: Pack, out: Path, limits: Limits = Limits()) -> None:
    """Pre-trains ConvNeXt V2 atto as a masked autoencoder on the train patients."""
    from flax import nnx

    from encoders import ConvNeXtV2, ConvNeXtV2Config, Tracking, pretrain, save
    from encoders.convnext import STEM_BIAS

    folder = out / "pretrained"
    if folder.is_dir():
        return
    began, kept = time.perf_counter(), _checkpoints(out, "pretraining")
    layout = ConvNeXtV2Config.named("atto", in_channels=1)
    start = ConvNeXtV2(layout, rngs=nnx.Rngs(0), stem_bias=STEM_BIAS)
    encoder, history = pretrain(
        start,
        pack.volumes,
        train_rows=pack.rows("train"),
        val_rows=pack.rows("val"),
        masking=MASKING,
        settings=limits.of(PRETRAINING),
        tracking=Tracking(kept, progress=False),
    )
    losses = history.curves.validation
    scores = {
        "loss_start": history.curves.start,
        "loss_best": history.curves.best,
        "best_epoch": history.curves.best_epoch + 1,
        "epochs": len(losses),
        "seconds": time.perf_counter() - began,
    }
    _write_scores(out / "pretraining.json", scores)
    encoder = limits.kept("pretrained", encoder, out)
    _embed(out / "pre.npz", pack, encoder, _regions(pack))
    _embed(out / "random.npz", pack, start, _regions(pack))
    save(folder, encoder)
    _forget(kept)


def regression(pack: Pack, out: Path, limits: Limits = Limits()) -> None:
    """Fine-tunes the pre-trained encoder for volume, with its controls."""
    from encoders import load

    encoder = load(out / "pretrained")
    for run in (
        *runs("reg", "regression", REGRESSION),
        *runs("permuted", "regression", REGRESSION, permuted=True),
        *runs("lora", "regression", REGRESSION_LORA),
        Run("frozen-0", "regression", FROZEN),
    ):
        _run(run, pack, pack.label, encoder, _regions(pack), out, limits)


def segmentation(pack: Pack, out: Path, limits: Limits = Limits()) -> None:
    """Fine-tunes the pre-trained encoder to outline the hippocampus."""
    from encoders import load

    encoder = load(out / "pretrained")
    for run in runs("seg", "segmentation", SEGMENTATION):
        _run(run, pack, _regions(pack)["hippocampus"], encoder, _regions(pack), out, limits)


def _regions(pack: Pack) -> dict[str, Any]:
    whole = pack.masks["anterior"] | pack.masks["posterior"]
    return {"global": None, "hippocampus": whole}


def _run(
    run: Run,
    pack: Pack,
    labels: np.ndarray,
    encoder: Any,
    pools: Mapping[str, Any],
    out: Path,
    limits: Limits,
) -> None:
    """Fine-tunes, scores on test patients and embeds every patient, unless that is done."""
    from encoders import Tracking, finetune

    done = out / f"{run.name}.npz"
    if not limits.wants(done):
        return
    began, settings = time.perf_counter(), limits.of(run.settings)
    kept = _checkpoints(out, run.name)
    shown = labels[_exchanged(pack, settings.seed)] if run.permuted else labels
    tuned, history = finetune(
        encoder,
        pack.volumes,
        shown,
        task=run.task,
        train_rows=pack.rows("train"),
        val_rows=pack.rows("val"),
        settings=settings,
        head=HEAD,
        tracking=Tracking(kept, progress=False),
    )
    curves = history.curves
    # Where nothing true can be learnt, validation would choose an encoder that changed little: the
    # control is the encoder that was trained to the end.
    chosen, head = history.last if run.permuted else (tuned, history.head)
    chosen = limits.kept(run.name, chosen, out, encoder)
    scores = {
        "epochs": settings.epochs,
        "best_epoch": curves.best_epoch + 1,
        "embedded_epoch": settings.epochs if run.permuted else curves.best_epoch + 1,
        "train_loss_first": float(curves.loss[0]),
        "train_loss_last": float(curves.loss[-1]),
        "val_loss_start": curves.start,
        "val_loss": curves.validation.round(5).tolist(),
        "test": _score(chosen, replace(history, head=head), pack, labels),
        "seconds": time.perf_counter() - began,
    }
    _write_scores(out / f"{run.name}.json", scores)
    _embed(done, pack, chosen, pools)
    _forget(kept)
    print(f"{run.name}: {time.perf_counter() - began:.1f} s, {scores['test']}", flush=True)


def _checkpoints(out: Path, name: str) -> Path | None:
    """Where a training keeps its checkpoints; nowhere where the environment says so."""
    return None if os.environ.get(NO_CHECKPOINTS) else out / f"checkpoints-{name}"


def _forget(folder: Path | None) -> None:
    """Removes the checkpoints of a training that is done."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _exchanged(pack: Pack, seed: int) -> np.ndarray:
    """The row whose label each row gets: itself in the test, another of train and val there."""
    order, rows = np.arange(len(pack.split)), np.flatnonzero(pack.split != "test")
    order[rows] = np.random.default_rng([seed, PERMUTATION_STREAM]).permutation(rows)
    return order


def _score(encoder: Any, history: Any, pack: Pack, labels: np.ndarray) -> dict[str, Any]:
    """The test patients' main score."""
    from encoders import metrics

    rows = pack.rows("test")
    predicted = history.predict(encoder, pack.volumes, rows, batch_size=16)
    if history.task == "segmentation":
        cases = [metrics.overlap(m, t) for m, t in zip(predicted, labels[rows], strict=True)]
        return {"n": len(rows), "dice": metrics.segmentation_metrics(cases)["dice"]}
    if history.task == "classification":
        found = metrics.classification_metrics(predicted, labels[rows], history.classes)
        return {"n": len(rows), **{name: found[name] for name in ("auc", "balanced_accuracy")}}
    found = metrics.regression_metrics(predicted.astype(float), labels[rows], history.label_mean)
    return {"n": len(rows), "r2": found["r2"]}


def _embed(path: Path, pack: Pack, encoder: Any, pools: Mapping[str, Any]) -> None:
    """Embeds over each pool, and over the regions after every stage but the last.

    The last stage of a region is its pool; of the others a dozen encoders would fill a disk, so
    that they are kept as float16.
    """
    from encoders import embed
    from lens.files import write_arrays

    made, widths = {}, encoder.config.widths
    for pool, masks in pools.items():
        stages = None if masks is None else tuple(range(1, len(widths) + 1))
        x = embed(encoder, pack.volumes, masks=masks, stages=stages, batch_size=16)
        made[pool] = x if stages is None else x[:, -widths[-1] :]
        if stages is not None:
            made[f"{pool}-layers"] = x[:, : -widths[-1]].astype(np.float16)
    write_arrays(path, **made)


def _write_scores(path: Path, scores: Mapping[str, Any]) -> None:
    from lens.files import write_json

    write_json(path, dict(scores))


def collect(out: Path, to: Path) -> None:
    """All finished embeddings of a folder as a file per pool, and the scores as one."""
    from lens.files import write_arrays, write_json

    to.mkdir(parents=True, exist_ok=True)
    found = {path.stem: dict(np.load(path)) for path in sorted(out.glob("*.npz"))}
    for pool in {pool for arrays in found.values() for pool in arrays}:
        every = {name: arrays[pool] for name, arrays in found.items() if pool in arrays}
        write_arrays(to / f"{out.name}-{pool}.npz", **every)
    scores = {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
    write_json(to / f"{out.name}-scores.json", {"device": _device(), "runs": scores})


def _device() -> dict[str, str]:
    import jax

    return {"device": jax.devices()[0].device_kind, "jax": jax.__version__}


def main() -> None:
    """Runs a part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parts: dict[str, Callable[..., None]] = {
        "pretraining": pretraining, "regression": regression, "segmentation": segmentation,
    }  # fmt: skip
    parser.add_argument("part", choices=("ultrasound", *parts, "collect"))
    parser.add_argument("--pack", type=Path, help="what training reads")
    parser.add_argument("--weights", type=Path, help="of the vision transformer")
    parser.add_argument("--out", type=Path, required=True, help="folder of finished runs")
    parser.add_argument("--to", type=Path, help="folder for what is collected")
    parser.add_argument("--epochs", type=int, help="most passes of a training, to rehearse")
    parser.add_argument("--runs", nargs="+", help="names of the runs; all if not given")
    parser.add_argument("--keep", nargs="+", help="names of the encoders that are kept")
    given = parser.parse_args()
    if given.part == "collect":
        collect(given.out, given.to)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    pack, limits = (
        read_pack(given.pack),
        Limits(given.epochs, tuple(given.runs or ()), tuple(given.keep or ())),
    )
    if given.part == "ultrasound":
        ultrasound(pack, given.weights, given.out, limits)
    else:
        parts[given.part](pack, given.out, limits)


if __name__ == "__main__":
    main()
