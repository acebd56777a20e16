"""Phantoms for the benchmark of pre-training: drawn once by all cores, read from the device.

Two sets, drawn one after the other: a pool without labels to pre-train on, and those with labels.
Within each, in the order of the phantoms' indices, are the parts of `PARTS`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from lens.cohort.factor_phantom import GENERATOR, factor_phantom
from lens.cohort.prostate import MODALITIES
from lens.files import write_json
from lens.formulas import read_csv, write_csv

PARTS = {"labelled": ("train", "val", "test"), "pool": ("pool", "pool_val")}
"""Set -> its parts. The phantoms of the pool follow the labelled ones."""

CHUNK = 40
"""Phantoms that a process draws at a time."""


@dataclass(frozen=True)
class Sizes:
    """Phantoms of each set, and their grid.

    Attributes:
        train: with labels, to train on.
        val: with labels, to choose epoch and rate.
        test: with labels, to score.
        pool: without labels, to pre-train on.
        pool_val: without labels, to choose the epoch of pre-training.
        shape: (D, H, W) in voxels.
        spacing_mm: (x, y, z).
        seed: of the phantoms.
    """

    train: int
    val: int
    test: int
    pool: int
    pool_val: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    seed: int

    def indices(self, name: str) -> range:
        """Phantoms of the set ``labelled`` or ``pool``."""
        counts = {s: sum(getattr(self, part) for part in parts) for s, parts in PARTS.items()}
        first = 0 if name == "labelled" else counts["labelled"]
        return range(first, first + counts[name])

    def rows(self, part: str) -> Int[np.ndarray, " n"]:
        """Rows of ``train``, ``val``, ``test``, ``pool`` or ``pool_val`` within their set."""
        (parts,) = (parts for parts in PARTS.values() if part in parts)
        first = sum(getattr(self, other) for other in parts[: parts.index(part)])
        return np.arange(first, first + getattr(self, part))


def prepare(folder: Path, sizes: Sizes, name: str, processes: int | None = None) -> None:
    """Draws all phantoms of a set into a folder, unless it holds these very ones.

    Args:
        folder: gets ``volumes.npy``, ``lesion.npy``, ``labels.csv`` and, last, ``data.json``.
        sizes: what to draw.
        name: of the set.
        processes: that share the work; None for one per core.
    """
    made_as = json.loads(json.dumps({"generator": GENERATOR, "set": name, **asdict(sizes)}))
    record, indices = folder / "data.json", sizes.indices(name)
    if record.is_file() and json.loads(record.read_text()) == made_as:
        return
    folder.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    for array, shape, dtype in (
        ("volumes", (len(indices), *sizes.shape, len(MODALITIES)), np.float32),
        ("lesion", (len(indices), *sizes.shape), np.bool_),
    ):
        np.lib.format.open_memmap(folder / f"{array}.npy", mode="w+", dtype=dtype, shape=shape)
    starts = range(0, len(indices), CHUNK)
    draw = partial(_draw_part, folder, sizes, indices)
    workers = min(processes or os.cpu_count() or 1, len(starts))
    if workers == 1:
        tables = [draw(start) for start in starts]
    else:
        # Not forked: JAX may have threads by now.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            tables = list(pool.map(draw, starts))
    write_csv(pd.concat(tables, ignore_index=True), folder / "labels.csv")
    write_json(record, made_as)


class Volumes:
    """The volumes of a set, on the device, from which batches are gathered."""

    def __init__(self, folder: Path) -> None:
        import jax
        import jax.numpy as jnp

        self._host = np.load(folder / "volumes.npy", mmap_mode="r")
        self._device = jnp.asarray(self._host)
        self._take = jax.jit(lambda volumes, rows: volumes[rows])
        self._made_as = (folder / "data.json").read_text()

    def __len__(self) -> int:
        return len(self._host)

    def row_key(self, row: int) -> str:
        """What tells the content of a row: its index, and how all were drawn."""
        return f"{row} {self._made_as}"

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, int | np.integer):
            return np.asarray(self._host[rows])
        return self._take(self._device, np.arange(len(self))[rows])


def truth(folder: Path, target: str) -> np.ndarray:
    """A label, or for ``lesion`` the mask, of every phantom of a set."""
    if target == "lesion":
        return np.load(folder / "lesion.npy")
    return read_csv(folder / "labels.csv")[target].to_numpy()


def _draw_part(folder: Path, sizes: Sizes, indices: range, start: int) -> pd.DataFrame:
    patients = [
        factor_phantom(index, sizes.seed, sizes.shape, sizes.spacing_mm)
        for index in indices[start : start + CHUNK]
    ]
    _put(folder / "volumes.npy", start, np.stack([each.volume() for each in patients]))
    _put(folder / "lesion.npy", start, np.stack([each.masks["lesion"] for each in patients]))
    return pd.DataFrame([each.labels() for each in patients])


def _put(path: Path, start: int, values: np.ndarray) -> None:
    stored = np.load(path, mmap_mode="r+")
    stored[start : start + len(values)] = values
    stored.flush()
