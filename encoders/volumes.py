"""A cohort's volumes and masks for training: read and resampled once, then from a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from encoders.case_cache import CaseCache, kept_notes
from encoders.channels import check_channels
from encoders.rows import Rows
from lens.cohort import CaseFiles, Cohort, read_case, stack, stack_mask
from lens.cohort.case_notes import log_notes
from lens.errors import CaseError, InputError

IN_MEMORY = 4 << 30
"""Bytes up to which the volumes of a cohort are held in memory."""


@dataclass(frozen=True)
class CachedCohort:
    """The cases that can be read, in the manifest's order.

    Attributes:
        cases: from the manifest.
        files: one per case: ``volume`` (D, H, W, C) with the modalities of the cohort as channels,
            and ``mask-<region>`` for each of its regions, empty where the case lacks it.
        cohort: the cases as a cohort, for the names of its images and regions.
    """

    cases: tuple[CaseFiles, ...]
    files: tuple[Path, ...]
    cohort: Cohort

    def volumes(self, modalities: Sequence[str] | None = None) -> Rows:
        """Volumes with these channels, by default those of the cohort.

        Zeros stand for one of `encoders.channels.ZEROS`, or for one that the cohort lacks.

        Raises:
            InputError: as `encoders.channels.check_channels`.
        """
        modalities = self.cohort.channels if modalities is None else modalities
        check_channels(modalities, self.cohort, "modalities")
        stored = self.cohort.modalities
        channels = [stored.index(name) if name in stored else None for name in modalities]
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
    labels: Mapping[str, Sequence[int]] | None = None,
    progress: bool = True,
    told: bool = True,
) -> tuple[CachedCohort, tuple[CaseError, ...]]:
    """Volumes and masks of every case; what is not in the cache yet is read into it.

    Args:
        cohort: from `lens.cohort.read_manifest`.
        cache: folder, one file per case, keyed by ids, the content of its files, the settings and
            the code; a file there that is damaged is made again.
        shape: (D, H, W) in voxels.
        spacing_mm: (x, y, z).
        labels: region -> the mask values that make it; every value above zero by default.
        progress: show a progress bar.
        told: log the notes on the cases, those that the cache has as well.

    Returns:
        The cases that can be used, and an error for every other one (the manifest's own among
        them).

    Raises:
        InputError: no case can be used.
    """
    kept = CaseCache(cache, (__name__,), shape, spacing_mm, labels)
    reading = {"shape": shape, "spacing_mm": spacing_mm, "labels": labels}
    read = partial(_read, kept=kept, cohort=cohort, **reading)
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
    cases = tuple(cohort.cases[i] for i in good)
    paths = tuple(r for r in results if isinstance(r, Path))
    if told:
        log_notes(
            (files.patient_id, kept_notes(path)) for files, path in zip(cases, paths, strict=True)
        )
    return CachedCohort(cases, paths, replace(cohort, cases=cases)), errors


def count_cached(
    cohort: Cohort,
    cache: Path,
    *,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    labels: Mapping[str, Sequence[int]] | None = None,
) -> int:
    """Cases that `cache_cohort` would find in the cache; reads all files where there is a folder.

    Args:
        cohort, cache, shape, spacing_mm, labels: as there.
    """
    if not cache.is_dir():
        return 0
    kept = CaseCache(cache, (__name__,), shape, spacing_mm, labels)
    return sum(kept.find(files) is not None for files in cohort.cases)


class Stored:
    """An array per file, read when its rows are asked for."""

    def __init__(self, files: Sequence[Path], load: Any) -> None:
        self._files, self._load = tuple(files), load

    def __len__(self) -> int:
        return len(self._files)

    def row_key(self, row: int) -> str:
        """What tells the content of a row: its file is named after it (`CaseCache`)."""
        return f"{self._files[row].name} {getattr(self._load, 'keywords', None)}"

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
    return np.load(file)[f"mask-{roi}"]


def _read(
    files: CaseFiles,
    *,
    kept: CaseCache,
    cohort: Cohort,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    labels: Mapping[str, Sequence[int]] | None,
) -> Path | CaseError:
    if path := kept.find(files):
        return path
    try:
        case = read_case(files, spacing_mm=spacing_mm, labels=labels, crop=shape)
        volume = stack(case, shape=shape, modalities=cohort.modalities)
    except CaseError as error:
        return error
    masks = {f"mask-{roi}": stack_mask(case, roi, shape=shape) for roi in cohort.rois}
    return kept.keep(files, case.notes, volume=volume, **masks)
