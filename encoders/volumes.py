"""A cohort's volumes and masks for training: read and resampled once, then from a cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from encoders.training import Rows
from lens.cohort import CaseFiles, Cohort, read_case, stack, stack_mask
from lens.cohort.manifest import MODALITIES, ROIS
from lens.errors import CaseError, InputError
from lens.files import write_arrays

IN_MEMORY = 4 << 30
"""Bytes up to which the volumes of a cohort are held in memory."""


@dataclass(frozen=True)
class CachedCohort:
    """The cases that can be read, in the manifest's order.

    Attributes:
        cases: from the manifest.
        files: one per case: ``volume`` (D, H, W, 3) with the modalities as channels, zeros for one
            that the case lacks, and a mask per region, empty where the case lacks it.
    """

    cases: tuple[CaseFiles, ...]
    files: tuple[Path, ...]

    def volumes(self, modalities: Sequence[str] = MODALITIES) -> Rows:
        """Volumes with these channels; a name that is no modality gives zeros."""
        channels = [MODALITIES.index(m) if m in MODALITIES else None for m in modalities]
        return _rows(self.files, partial(_volume, channels=channels))

    def masks(self, roi: str, order: Sequence[int] | np.ndarray | None = None) -> Rows:
        """Masks (D, H, W) of a region; with `order`, case ``i`` gets the mask of ``order[i]``."""
        order = range(len(self.files)) if order is None else order
        return _rows([self.files[index] for index in order], partial(_mask, roi=roi))


def cache_cohort(
    cohort: Cohort,
    cache: Path,
    *,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    progress: bool = True,
) -> tuple[CachedCohort, tuple[CaseError, ...]]:
    """Reads every case that is not in the cache yet; an interrupted reading goes on.

    Args:
        cohort: from `lens.cohort.read_manifest`.
        cache: folder, one file per case, named after what its content depends on.
        shape: (D, H, W) in voxels.
        spacing_mm: (x, y, z).
        progress: show a progress bar.

    Returns:
        The cases that can be used, and an error for every other one (the manifest's own among
        them).

    Raises:
        InputError: no case can be used.
    """
    cache.mkdir(parents=True, exist_ok=True)
    read = partial(_read, cache=cache, shape=shape, spacing_mm=spacing_mm)
    with ThreadPoolExecutor(2) as pool:
        results = list(
            tqdm(
                pool.map(read, cohort.cases),
                total=len(cohort.cases),
                desc="read",
                unit="case",
                disable=not progress,
            )
        )
    good = [i for i, result in enumerate(results) if isinstance(result, Path)]
    errors = (*cohort.set_aside, *(r for r in results if isinstance(r, CaseError)))
    if not good:
        raise InputError(f"{cohort.path}: no case can be used; the first: {errors[0]}")
    return (
        CachedCohort(
            tuple(cohort.cases[i] for i in good),
            tuple(r for r in results if isinstance(r, Path)),
        ),
        errors,
    )


class Stored:
    """An array per file, read when its rows are asked for."""

    def __init__(self, files: Sequence[Path], load: Any) -> None:
        self._files, self._load = tuple(files), load

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        return np.stack([self._load(self._files[row]) for row in chosen])


def _rows(files: Sequence[Path], load: Any) -> Rows:
    stored = Stored(files, load)
    return stored[:] if stored[:1].nbytes * len(files) <= IN_MEMORY else stored


def _volume(file: Path, channels: Sequence[int | None]) -> np.ndarray:
    volume = np.load(file)["volume"]
    out = np.zeros((*volume.shape[:-1], len(channels)), np.float32)
    for place, channel in enumerate(channels):
        if channel is not None:
            out[..., place] = volume[..., channel]
    return out


def _mask(file: Path, roi: str) -> np.ndarray:
    return np.load(file)[roi]


def _read(
    files: CaseFiles,
    *,
    cache: Path,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> Path | CaseError:
    named = {**files.images, **files.masks}
    depends = [shape, spacing_mm, [[name, _stamp(path)] for name, path in named.items()]]
    key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()
    path = cache / f"{key}.npz"
    if path.is_file():
        return path
    try:
        case = read_case(files, spacing_mm=spacing_mm)
    except CaseError as error:
        return error
    masks = {roi: stack_mask(case, roi, shape=shape) for roi in ROIS}
    write_arrays(path, volume=stack(case, shape=shape), **masks)
    return path


def _stamp(path: Path) -> list[Any]:
    """Place, size and time of a file, or of a folder's files: changed by any rewrite."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [
        str(path.absolute()),
        *((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files),
    ]
