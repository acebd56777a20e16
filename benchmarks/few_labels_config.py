"""Settings of the benchmark of pre-training, and its clock."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.few_labels_data import Sizes

BEGAN = time.monotonic()
FIRST_SEED = 2000
"""Added to a seed for its phantoms, so that no other benchmark has the same."""

LOCAL = ("seeds", "merge", "minutes", "pretrain_minutes", "processes", "folder", "out")
"""Settings that say which parts, where and how long; results tell the epochs that were made."""


@dataclass(frozen=True)
class Config:
    """How many phantoms, how long."""

    folder: Path = Path("runs/few-labels")
    """Phantoms, encoders and finished parts, a folder per seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Phantoms, random start and pre-training of their own."""
    merge: tuple[Path, ...] = ()
    """Put these records together, and train nothing."""
    minutes: float | None = None
    """Start no new part after this time from the start of the process."""
    processes: int | None = None
    """That draw phantoms; one per core by default."""
    pool: int = 1500
    """Phantoms without labels, to pre-train on."""
    pool_val: int = 128
    """More of them, to choose its epoch."""
    counts: tuple[int, ...] = (120,)
    """Numbers of labels, in the order in which they are tried; smaller sets are part of larger."""
    val: int = 128
    """Phantoms with labels that choose epoch and rate."""
    test: int = 320
    """Phantoms to score."""
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
    pretrain_batch: int = 32
    """Volumes per step of pre-training."""
    pretrain_epochs: int = 12
    """Its passes."""
    pretrain_minutes: float | None = None
    """Fewer passes where they would take longer than this, compilation aside."""
    pretrain_width: int = 64
    """Channels of its decoder."""
    pretrain_rate: float = 2e-3
    """Its highest rate."""
    batch: int = 32
    """Volumes per step of fine-tuning."""
    epoch_volumes: int = 480
    """Volumes per epoch whatever the number of labels: few labels are seen more often."""
    epochs: int = 6
    """Epochs of fine-tuning."""
    rates: tuple[float, ...] = (3e-4, 1e-3)
    """Highest rates to choose from."""
    probe_epochs: int = 20
    """Epochs of a head on a frozen encoder; UPerNet has `epochs`."""
    probe_rates: tuple[float, ...] = (1e-3, 1e-2)
    """Highest rates of a head on a frozen encoder to choose from."""
    decoder_width: int = 32
    """Channels of UPerNet."""
    out: Path = harness.RESULTS / "few_labels.json"
    """Where the figures go."""

    def sizes(self, seed: int) -> Sizes:
        """What is drawn for a seed."""
        return Sizes(
            max(self.counts), self.val, self.test, self.pool, self.pool_val,
            self.shape, self.spacing, FIRST_SEED + seed,
        )  # fmt: skip

    def out_of_time(self) -> bool:
        """Whether the time is used up."""
        return self.minutes is not None and time.monotonic() - BEGAN > 60 * self.minutes


def settings(config: Config) -> dict[str, Any]:
    """What decides the numbers of a seed."""
    return {name: value for name, value in asdict(config).items() if name not in LOCAL}


def tell(text: str) -> None:
    """Prints a line with the seconds since the start."""
    print(f"[{time.monotonic() - BEGAN:4.0f} s] {text}", flush=True)
