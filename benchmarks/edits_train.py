"""Fine-tuned encoders of the study with a known mechanism, kept so that edited images can be shown.

``python -m benchmarks.edits_train --folder F`` takes the phantoms and the pre-trained encoder that
`benchmarks.mechanism_train` left in ``F`` and fine-tunes it again as that script does, for each
label and seed: ``full``, the epoch that validation chose, and ``noise``, the last epoch on labels
exchanged among the patients trained and validated on. It keeps the encoders in ``F/edits/encoders``
(or ``--out``). What is finished is not made again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.mechanism_data import Sizes, Volumes, is_prepared, labels
from benchmarks.mechanism_train import PERMUTATION_STREAM, score, split, tell

LABELS = ("lesion_grade", "texture_grade", "volume_ml", "level_grade", "nodule_grade")
"""Labels that the encoder is fine-tuned for, each of one factor."""

KINDS = ("full", "noise")
"""Fine-tunings of a label and seed."""


@dataclass(frozen=True)
class Config:
    """What to fine-tune for; the phantoms' sizes are those of the folder."""

    folder: Path = Path("runs/mechanism")
    """Of `benchmarks.mechanism_train`: phantoms and the pre-trained encoder."""
    out: Path | None = None
    """Folder of the encoders; edits/encoders in the other one if not given."""
    labels: tuple[str, ...] = LABELS
    """Fine-tune for these."""
    seeds: int = 3
    """Fine-tunings of each kind."""
    epochs: int = 8
    """Passes."""
    rate: float = 5e-4
    """Highest rate."""
    batch: int = 32
    """Volumes per step."""


def main(config: Config) -> None:
    """Fine-tunes for everything that is not there yet: all labels and kinds of a seed, then the
    next."""
    import encoders  # noqa: F401  JAX starts here, not for --help

    sizes = Sizes(2000, 1680, 600, (24, 32, 32), (2.0, 2.0, 2.0), 17)
    if not is_prepared(config.folder / "data", sizes):
        raise SystemExit(f"{config.folder}: make the phantoms with benchmarks.mechanism_train")
    volumes = Volumes(config.folder / "data", sizes, "finetune")
    for seed in range(config.seeds):
        for label in config.labels:
            for kind in KINDS:
                finetune_one(config, sizes, volumes, label, seed, kind)


def finetune_one(
    config: Config, sizes: Sizes, volumes: Volumes, label: str, seed: int, kind: str
) -> None:
    """Fine-tunes for a label with a seed and keeps the encoder, with its score in ``.json``."""
    from encoders import Tracking, TrainingSettings, finetune, load, save
    from lens.files import write_json

    folder = config.out or config.folder / "edits/encoders"
    done = folder / f"{label}-{seed}-{kind}.json"
    if done.is_file():
        return
    began = time.perf_counter()
    values = labels(config.folder / "data", sizes, "finetune")[label].to_numpy()
    train, val, test = split(len(values), seed)
    seen = values
    if kind == "noise":
        used = np.concatenate([train, val])
        generator = np.random.default_rng([seed, PERMUTATION_STREAM])
        seen = values.copy()
        seen[used] = values[generator.permutation(used)]
    tuned, history = finetune(
        load(config.folder / "pretrained"),
        volumes,
        seen,
        task="regression" if label == "volume_ml" else "classification",
        train_rows=train,
        val_rows=val,
        settings=TrainingSettings(
            epochs=config.epochs,
            batch_size=config.batch,
            learning_rate=config.rate,
            freeze=False,
            seed=seed,
        ),
        tracking=Tracking(progress=False),
    )
    predicted = history.predict(tuned, volumes, test, batch_size=config.batch)
    reached = score(values[test], predicted, history.classes)
    save(folder / f"{label}-{seed}-{kind}", history.last[0] if kind == "noise" else tuned)
    seconds = time.perf_counter() - began
    record = {"label": label, "seed": seed, "kind": kind, "score": reached, "seconds": seconds}
    write_json(done, record)
    tell(f"{label}-{seed}-{kind}: {reached:.3f}, {seconds:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
