"""Phantoms of the study with a known mechanism: drawn once by all cores, read by many processes.

Three sets that share no patient, one after another in the order of the phantoms' indices: those to
pre-train on, those to fine-tune on, and those that are judged, which no training sees.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lens.cohort.factor_phantom import GENERATOR, draw_all
from lens.cohort.prostate import MODALITIES
from lens.files import write_json
from lens.formulas import read_csv, write_csv

CHUNK = 50
"""Phantoms that a process draws at a time."""


@dataclass(frozen=True)
class Sizes:
    """Phantoms of each set, and their grid.

    Attributes:
        pretrain: to pre-train on, with those that choose the epoch.
        finetune: to fine-tune on, with those that choose the epoch and those that score it.
        judged: to be judged.
        shape: (D, H, W) in voxels.
        spacing_mm: (x, y, z).
        seed: of the phantoms.
    """

    pretrain: int
    finetune: int
    judged: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    seed: int

    @property
    def total(self) -> int:
        """Phantoms of all sets."""
        return self.pretrain + self.finetune + self.judged

    def rows(self, part: str) -> np.ndarray:
        """Indices of the phantoms of ``pretrain``, ``finetune`` or ``judged``."""
        first = {"pretrain": 0, "finetune": self.pretrain, "judged": self.total - self.judged}[part]
        return np.arange(first, first + getattr(self, part))


def prepare(folder: Path, sizes: Sizes, processes: int | None = None) -> None:
    """Draws all phantoms into a folder, unless it holds them already.

    Args:
        folder: gets ``volumes.npy``, ``gland.npy``, ``labels.csv`` and, last, ``data.json``.
        sizes: what to draw.
        processes: that share the work; None for one per core.
    """
    if is_prepared(folder, sizes):
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.json").unlink(missing_ok=True)
    shapes = {
        "volumes": ((sizes.total, *sizes.shape, len(MODALITIES)), np.float32),
        "gland": ((sizes.total, *sizes.shape), np.bool_),
    }
    for name, (shape, dtype) in shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
    starts = range(0, sizes.total, CHUNK)
    draw = partial(_draw_part, folder, sizes)
    # Not forked: JAX may have threads by now.
    context = multiprocessing.get_context("spawn")
    workers = min(processes or os.cpu_count() or 1, len(starts))
    if workers == 1:
        tables = [draw(start) for start in starts]
    else:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            tables = list(pool.map(draw, starts))
    write_csv(pd.concat(tables, ignore_index=True), folder / "labels.csv")
    write_json(folder / "data.json", _made_as(sizes))


def is_prepared(folder: Path, sizes: Sizes) -> bool:
    """Whether the folder holds these very phantoms, complete."""
    record = folder / "data.json"
    return record.is_file() and json.loads(record.read_text()) == _made_as(sizes)


def await_file(path: Path, seconds: float) -> None:
    """Waits for a file of another process.

    Raises:
        TimeoutError: it did not come.
    """
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} did not come within {seconds:g} s")
        time.sleep(0.5)


class Volumes:
    """Volumes of one set: on the device for batches, on the host for a single one."""

    def __init__(self, folder: Path, sizes: Sizes, part: str) -> None:
        import jax.numpy as jnp

        rows = sizes.rows(part)
        host = np.load(folder / "volumes.npy", mmap_mode="r")
        self._host = host[rows[0] : rows[-1] + 1]
        self._device = jnp.asarray(self._host)
        self._first, self._made_as = int(rows[0]), json.dumps(_made_as(sizes))

    def __len__(self) -> int:
        return len(self._host)

    def row_key(self, row: int) -> str:
        """What tells the content of a row: the phantom's index and all that it was drawn by."""
        return f"{self._first + row} {self._made_as}"

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, int | np.integer):
            return np.asarray(self._host[rows])
        return self._device[np.arange(len(self))[rows]]


def glands(folder: Path, sizes: Sizes, part: str) -> np.ndarray:
    """Masks (n, D, H, W) of the glands of a set."""
    rows = sizes.rows(part)
    return np.load(folder / "gland.npy", mmap_mode="r")[rows[0] : rows[-1] + 1]


def labels(folder: Path, sizes: Sizes, part: str) -> pd.DataFrame:
    """Factors and labels of a set, a row per patient."""
    return read_csv(folder / "labels.csv").iloc[sizes.rows(part)].reset_index(drop=True)


def _draw_part(folder: Path, sizes: Sizes, start: int) -> pd.DataFrame:
    indices = range(start, min(start + CHUNK, sizes.total))
    volumes, masks, table = draw_all(indices, sizes.seed, sizes.shape, sizes.spacing_mm)
    for name, values in (("volumes", volumes), ("gland", masks)):
        stored = np.load(folder / f"{name}.npy", mmap_mode="r+")
        stored[start : start + len(indices)] = values
        stored.flush()
    return table


def _made_as(sizes: Sizes) -> dict[str, Any]:
    return {
        "generator": GENERATOR,
        "phantoms": sizes.total,
        "pretrain": sizes.pretrain,
        "finetune": sizes.finetune,
        "judged": sizes.judged,
        "shape": list(sizes.shape),
        "spacing_mm": list(sizes.spacing_mm),
        "seed": sizes.seed,
    }
