"""Training of the study with a known mechanism: encoders whose labels depend on one factor each.

``python -m benchmarks.mechanism_train --folder F`` draws phantoms whose factors are independent
(`lens.cohort.factor_phantom`), pre-trains a small ConvNeXt V2 on them as a masked autoencoder that
predicts the whole input, fine-tunes it for labels that depend on one factor each, and embeds
phantoms that no training saw. What is finished is not made again. Several processes may share the
work: one with ``--only-pretrain`` draws and pre-trains, the others, each with its own ``--labels``,
wait for it. All labels of a head (grades, or a quantity) are best in one process, which compiles
once for them.
``--pack OUT`` gathers what there is in files for `benchmarks.mechanism`.

Kinds of a fine-tuning: ``full``; ``frozen``, a linear probe; ``permuted``, labels exchanged among
the patients trained and validated on; ``noise``, the last epoch of that, which no validation chose;
``scratch``, from the random start.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.mechanism_data import (
    Sizes,
    Volumes,
    await_file,
    glands,
    is_prepared,
    labels,
    prepare,
)
from benchmarks.mechanism_files import pack

LABELS = ("volume_ml", "lesion_grade", "texture_grade", "nodule_grade")
"""Labels that the encoder is fine-tuned for, each of one factor."""

TRAINED = ("full", "permuted", "frozen", "scratch")
"""Fine-tunings of a label and seed; ``noise`` is a part of ``permuted``."""

PERMUTATION_STREAM = 1 << 20
"""Added to the seed, so that the permutation is drawn from numbers of its own."""


@dataclass(frozen=True)
class Config:
    """How many phantoms, how long."""

    folder: Path = Path("runs/mechanism")
    """Phantoms, encoders and finished parts."""
    labels: tuple[str, ...] = ()
    """Fine-tune for these; by default draw, pre-train and fine-tune for all."""
    only_pretrain: bool = False
    """Draw and pre-train, and fine-tune for none: other processes do."""
    pack: Path | None = None
    """Gather what is finished into this folder, and train nothing."""
    kinds: tuple[str, ...] = TRAINED
    """Fine-tunings of each label and seed, in their order."""
    pretrain: int = 2000
    """Phantoms to pre-train on; a sixteenth chooses the epoch."""
    finetune: int = 1680
    """Phantoms to fine-tune on: five of seven train, one chooses the epoch, one scores."""
    judged: int = 600
    """Phantoms that no training sees, and the lens judges."""
    shape: tuple[int, int, int] = (24, 32, 32)
    """Input, in voxels."""
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)
    """Voxel size x y z, in mm."""
    depths: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Blocks of each stage."""
    widths: tuple[int, int, int, int] = (24, 48, 96, 192)
    """Channels of each stage."""
    strides: tuple[int, int, int] = (2, 1, 1)
    """Of the downsamplings behind the stem, whose own is 4."""
    seeds: int = 3
    """Fine-tunings of each kind."""
    batch: int = 32
    """Volumes per step."""
    pretrain_epochs: int = 12
    """Passes of the masked autoencoder."""
    pretrain_rate: float = 2e-3
    """Its highest rate."""
    pretrain_width: int = 64
    """Channels of its decoder."""
    pretrain_seconds: float | None = None
    """Fewer passes where they would take longer than this, compilation aside."""
    epochs: int = 8
    """Passes of a fine-tuning."""
    rate: float = 5e-4
    """Its highest rate."""
    probe_epochs: int = 30
    """Passes of a head on the embeddings of the frozen encoder."""
    probe_rate: float = 1e-3
    """Their highest rate."""
    minutes: float | None = None
    """Begin no fine-tuning that would not be finished within this time from the start."""
    wait: float = 240.0
    """Seconds to wait for the process that draws and pre-trains."""
    processes: int | None = None
    """That draw phantoms; one per core by default."""

    @property
    def sizes(self) -> Sizes:
        """What is drawn."""
        return Sizes(self.pretrain, self.finetune, self.judged, self.shape, self.spacing, 17)


def main(config: Config) -> None:
    """Trains and embeds everything that is not there yet, or packs it."""
    if config.pack is not None:
        elsewhere = ("folder", "labels", "only_pretrain", "pack", "wait", "processes", "minutes")
        settings = {k: v for k, v in asdict(config).items() if k not in elsewhere}
        pack(config.folder, config.pack, settings, asdict(config.sizes))
        return
    import encoders  # noqa: F401  JAX starts here, not for --help

    began = time.monotonic()
    data = config.folder / "data"
    if not config.labels or config.only_pretrain:
        prepare(data, config.sizes, config.processes)
        tell(f"{config.sizes.total} phantoms drawn")
        start_and_pretrain(config)
    if config.only_pretrain:
        return
    await_file(config.folder / "pretrained/encoder.json", config.wait)
    if not is_prepared(data, config.sizes):
        raise SystemExit(f"{data} holds other phantoms; choose another --folder")
    judged = Judged(config)
    volumes = Volumes(data, config.sizes, "finetune")
    longest = 0.0
    for label, seed, kind in jobs(config):
        before = time.monotonic()
        if config.minutes is not None and before - began + longest > 60 * config.minutes:
            tell(f"no time is left for {label}-{seed}-{kind} and what follows")
            break
        finetune_one(config, volumes, judged, label, seed, kind)
        # The first one compiles, which the others need not.
        longest = max(longest, time.monotonic() - before) if longest else 1e-9


def jobs(config: Config) -> list[tuple[str, int, str]]:
    """Label, seed and kind of what is to be fine-tuned: all labels and kinds of a seed, then the
    next. Those that are done are left out."""
    every = product(range(config.seeds), config.kinds, config.labels or LABELS)
    named = [(label, seed, kind) for seed, kind, label in every]
    done = config.folder / "runs"
    return [job for job in named if not (done / f"{job[0]}-{job[1]}-{job[2]}.json").is_file()]


def start_and_pretrain(config: Config) -> None:
    """The random start and the pre-trained encoder, with their embeddings."""
    from flax import nnx

    from encoders import ConvNeXtV2, ConvNeXtV2Config, load, save
    from encoders.convnext import STEM_BIAS

    layout = ConvNeXtV2Config(depths=config.depths, widths=config.widths, strides=config.strides)
    if not (config.folder / "random/encoder.json").is_file():
        encoder = ConvNeXtV2(layout, rngs=nnx.Rngs(0), stem_bias=STEM_BIAS)
        save(config.folder / "random", encoder)
        tell("random start saved")
    start = load(config.folder / "random")
    if not (config.folder / "pretrained/encoder.json").is_file():
        pretrain_one(config, start)
    judged = Judged(config)
    for name in ("random", "pretrained"):
        judged.keep(config.folder / f"embedded/{name}.npz", load(config.folder / name), whole=True)
    tell("random and pre-trained encoders embedded")


def pretrain_one(config: Config, start: Any) -> None:
    """Pre-trains the start on its set, keeps encoder and curves."""
    from encoders import MaskingSettings, Tracking, TrainingSettings, pretrain, save
    from lens.files import write_json

    volumes = Volumes(config.folder / "data", config.sizes, "pretrain")
    held_out = max(len(volumes) // 16, 2)
    rows = np.arange(len(volumes))
    side = 4 * int(np.prod(config.strides))

    def run(epochs: int, train: np.ndarray, val: np.ndarray, *, told: bool) -> Any:
        began = time.perf_counter()

        def observe(curves: Any) -> None:
            if told:
                seconds = time.perf_counter() - began
                losses = f"loss {curves.loss[-1]:.4f} val {curves.validation[-1]:.4f}"
                tell(f"pre-training epoch {len(curves.loss)}/{epochs} {losses} {seconds:.0f} s")

        return pretrain(
            start,
            volumes,
            train_rows=train,
            val_rows=val,
            masking=MaskingSettings(
                patch=(side,), width=config.pretrain_width, target="input", visible_weight=1.0
            ),
            settings=TrainingSettings(
                epochs=epochs, batch_size=config.batch, learning_rate=config.pretrain_rate
            ),
            tracking=Tracking(observe=observe, progress=False),
        )

    epochs = config.pretrain_epochs
    train, val = rows[held_out:], rows[:held_out]
    if config.pretrain_seconds is not None:
        per_step = _seconds_per_step(config, run, train, val)
        tell(f"pre-training: {per_step * 1000:.0f} ms per step")
        whole = per_step * -(-len(train) // config.batch)
        epochs = max(1, min(epochs, int(config.pretrain_seconds / whole)))
    began = time.perf_counter()
    encoder, history = run(epochs, train, val, told=True)
    record = {
        "epochs": epochs,
        "start": history.curves.start,
        "loss": history.curves.loss.tolist(),
        "validation": history.curves.validation.tolist(),
        "best_epoch": history.curves.best_epoch,
        "seconds": time.perf_counter() - began,
    }
    write_json(config.folder / "pretraining.json", record)
    save(config.folder / "pretrained", encoder)


def _seconds_per_step(
    config: Config, run: Callable[..., Any], train: np.ndarray, val: np.ndarray
) -> float:
    """Of the compiled step: a longer run less a shorter one, after one that compiles."""
    seconds = []
    for steps in (2, 2, 22):
        began = time.perf_counter()
        run(1, np.resize(train, steps * config.batch), val, told=False)
        seconds.append(time.perf_counter() - began)
    return max((seconds[2] - seconds[1]) / 20, 1e-4)


def finetune_one(
    config: Config, volumes: Volumes, judged: Judged, label: str, seed: int, kind: str
) -> None:
    """Fine-tunes for a label with a seed, embeds the judged phantoms, keeps curves and scores."""
    from encoders import Tracking, TrainingSettings, finetune, load
    from lens.files import write_json

    name = f"{label}-{seed}-{kind}"
    done = config.folder / f"runs/{name}.json"
    if done.is_file():
        return
    began = time.perf_counter()
    values = labels(config.folder / "data", config.sizes, "finetune")[label].to_numpy()
    task = "regression" if label == "volume_ml" else "classification"
    train, val, test = split(len(values), seed)
    seen = values
    if kind == "permuted":
        used = np.concatenate([train, val])
        generator = np.random.default_rng([seed, PERMUTATION_STREAM])
        seen = values.copy()
        seen[used] = values[generator.permutation(used)]
    frozen = kind == "frozen"
    tuned, history = finetune(
        load(config.folder / ("random" if kind == "scratch" else "pretrained")),
        volumes,
        seen,
        task=task,
        train_rows=train,
        val_rows=val,
        settings=TrainingSettings(
            epochs=config.probe_epochs if frozen else config.epochs,
            batch_size=config.batch,
            learning_rate=config.probe_rate if frozen else config.rate,
            freeze=frozen,
            seed=seed,
        ),
        tracking=Tracking(progress=False),
    )
    predicted = history.predict(tuned, volumes, test, batch_size=config.batch)
    result = {
        "label": label,
        "seed": seed,
        "kind": kind,
        "score_name": "r2" if task == "regression" else "auc",
        "score": score(values[test], predicted, history.classes),
        "loss": history.curves.loss.tolist(),
        "validation": history.curves.validation.tolist(),
        "best_epoch": history.curves.best_epoch,
        "start": history.curves.start,
    }
    folder, whole = config.folder / "embedded", seed == 0 and kind == "full"
    result["ranks"] = judged.keep(folder / f"{name}.npz", tuned, whole=whole)
    if kind == "permuted":
        last = folder / f"{label}-{seed}-noise.npz"
        result["ranks_noise"] = judged.keep(last, history.last[0], whole=False)
    result["seconds"] = time.perf_counter() - began
    write_json(done, result)
    tell(f"{name}: {result['score_name']} {result['score']:.3f}, {result['seconds']:.0f} s")


def split(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, to choose the epoch by, and to score: 5, 1 and 1 of seven."""
    order = np.random.default_rng(seed).permutation(count)
    part = max(count // 7, 2)
    return order[2 * part :], order[part : 2 * part], order[:part]


def score(truth: np.ndarray, predicted: np.ndarray, classes: np.ndarray | None) -> float:
    """R2 of a quantity; mean area under the curve of each class against the others; NaN where a
    class is missing."""
    from sklearn.metrics import roc_auc_score

    if classes is None:
        return 1 - float(np.square(truth - predicted).sum() / np.square(truth - truth.mean()).sum())
    if not np.array_equal(np.unique(truth), classes):
        return float("nan")
    each = [roc_auc_score(truth == name, predicted[:, i]) for i, name in enumerate(classes)]
    return float(np.mean(each))


class Judged:
    """The phantoms to be judged, and the embeddings of them."""

    def __init__(self, config: Config) -> None:
        self._volumes = Volumes(config.folder / "data", config.sizes, "judged")[:]
        self._glands = np.array(glands(config.folder / "data", config.sizes, "judged"))
        self._batch = min(config.batch, config.judged)

    def keep(self, path: Path, encoder: Any, *, whole: bool) -> list[float]:
        """Writes the embeddings of the last stage, over the gland and, if asked, the whole crop.

        Returns:
            Effective rank of every stage, over the gland (`encoders.collapse.standardised_rank`).
        """
        from encoders import embed
        from encoders.collapse import standardised_rank
        from lens.files import write_arrays

        widths = encoder.config.widths
        stages = tuple(range(1, len(widths) + 1))
        volumes = np.asarray(self._volumes)
        found = embed(encoder, volumes, masks=self._glands, stages=stages, batch_size=self._batch)
        parts = np.split(found, np.cumsum(widths)[:-1], axis=1)
        arrays = {"gland": parts[-1]}
        if whole:
            arrays["global"] = embed(encoder, volumes, batch_size=self._batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, **arrays)
        return [standardised_rank(part) for part in parts]


def tell(text: str) -> None:
    """Prints a line with the time since this process began."""
    print(f"[{time.process_time():6.0f} s cpu, {time.strftime('%H:%M:%S')}] {text}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
