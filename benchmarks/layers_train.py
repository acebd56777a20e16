"""Every stage of encoders whose labels depend on one factor each, for `benchmarks.layers`.

``python -m benchmarks.layers_train --mechanism F --folder G`` takes phantoms, random start and
pre-trained encoder of `benchmarks.mechanism_train` from F, fine-tunes as there, and keeps the means
over the gland of all stages, where that study keeps the last one. What is finished is not made
again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import mechanism_train as mechanism
from benchmarks.mechanism_data import Volumes


@dataclass(frozen=True)
class Config:
    """Which fine-tunings, where."""

    mechanism: Path = Path("runs/mechanism")
    """Folder of `benchmarks.mechanism_train`: data, random, pretrained."""
    folder: Path = Path("runs/layers")
    """Gets a file per encoder, and its score."""
    labels: tuple[str, ...] = ()
    """Fine-tune for these; by default for all of that study."""
    kinds: tuple[str, ...] = ("full", "permuted")
    """Fine-tunings of each label and seed."""
    seeds: int = 3
    """Fine-tunings of each kind."""
    minutes: float | None = None
    """Begin no fine-tuning after this time."""


def main(config: Config) -> None:
    """Embeds random and pre-trained encoder, then fine-tunes and embeds what is not there yet."""
    from encoders import load

    began = time.monotonic()
    config.folder.mkdir(parents=True, exist_ok=True)
    for name in ("data", "random", "pretrained"):
        if not (config.folder / name).exists():
            (config.folder / name).symlink_to((config.mechanism / name).resolve())
    theirs = mechanism.Config(
        folder=config.folder, labels=config.labels, kinds=config.kinds, seeds=config.seeds
    )
    judged = EveryStage(theirs)
    for name in ("random", "pretrained"):
        if not (path := config.folder / f"embedded/{name}.npz").is_file():
            judged.keep(path, load(config.folder / name), whole=False)
    volumes = Volumes(theirs.folder / "data", theirs.sizes, "finetune")
    for label, seed, kind in mechanism.jobs(theirs):
        if config.minutes is not None and time.monotonic() - began > 60 * config.minutes:
            mechanism.tell(f"no time is left for {label}-{seed}-{kind} and what follows")
            break
        mechanism.finetune_one(theirs, volumes, judged, label, seed, kind)


class EveryStage(mechanism.Judged):
    """The phantoms to be judged, and the embeddings of them from every stage."""

    def keep(self, path: Path, encoder: Any, *, whole: bool) -> list[float]:
        """Writes the means of every stage over the gland, ``stage1`` and so on.

        Returns:
            Effective rank of every stage (`encoders.collapse.standardised_rank`).
        """
        from encoders import embed
        from encoders.collapse import standardised_rank
        from lens.files import write_arrays

        widths = encoder.config.widths
        stages = tuple(range(1, len(widths) + 1))
        found = embed(
            encoder, np.asarray(self._volumes), masks=self._glands, stages=stages,
            batch_size=self._batch,
        )  # fmt: skip
        parts = np.split(found, np.cumsum(widths)[:-1], axis=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, **{f"stage{at}": part for at, part in enumerate(parts, 1)})
        return [standardised_rank(part) for part in parts]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
