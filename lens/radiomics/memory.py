"""How much memory a worker will need, before it is started."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from lens.cohort.manifest import CaseFiles
from lens.machine import memory_limit
from lens.radiomics.extract import filter_reach
from lens.radiomics.parameters import Parameters, parameters_for

log = logging.getLogger(__name__)

IMPORTS = 230e6
"""Bytes of a process that has imported what it needs and read nothing."""

REGION = 250e6
"""Bytes for the filtered images and matrices of one gland of about 200,000 voxels."""

READING = 10
"""Bytes a voxel of the grid while images are interpolated, beside the images themselves."""

FILTERS = 100
"""Bytes a voxel of the grid where filters see the whole image: eight bands of 64 bits, and more."""

LOOKED_AT = 64
"""Cases whose headers are read, evenly spaced over the cohort."""


class Needs(NamedTuple):
    """Memory of workers in bytes, and what there is of it.

    Attributes:
        each: estimated peak of one worker on the largest case looked at.
        free: on this machine.
        workers: as many as were asked for, or as fit; at least one.
        fit: whether even one does.
    """

    each: float
    free: float
    workers: int
    fit: bool


def needs(
    workers: int,
    cases: Sequence[CaseFiles],
    parameters: Mapping[str, Parameters],
    spacing_mm: tuple[float, float, float],
) -> Needs:
    """What so many workers need, from the headers of some cases.

    Args:
        workers: that are asked for.
        cases: of the cohort.
        parameters: by modality.
        spacing_mm: (x, y, z) of the grid.
    """
    sample = cases[:: max(1, len(cases) // LOOKED_AT)]
    each = max(worker_bytes(files, parameters, spacing_mm) for files in sample)
    free = free_bytes()
    fitting = int(free // each)
    return Needs(each, free, max(min(workers, fitting), 1), fitting > 0)


def affordable_workers(
    workers: int,
    cases: Sequence[CaseFiles],
    parameters: Mapping[str, Parameters],
    spacing_mm: tuple[float, float, float],
) -> int:
    """`workers`, or as many of them as the machine has memory for, which is then said.

    At least one, with a warning where even one may not fit.
    """
    each, free, fitting, fit = needs(workers, cases, parameters, spacing_mm)
    if fit and fitting >= workers:
        return workers
    log.warning(
        "radiomics: %d worker(s) would need about %.1f GB each, %.1f GB in all, and %.1f GB are "
        "free, so %s. A coarser spacing needs less",
        workers,
        each / 1e9,
        workers * each / 1e9,
        free / 1e9,
        f"{fitting} are started" if fit else "even one may run out of memory; it is tried",
    )
    return fitting


def worker_bytes(
    files: CaseFiles,
    parameters: Mapping[str, Parameters],
    spacing_mm: tuple[float, float, float],
) -> float:
    """Estimated peak memory in bytes of the process that extracts this case.

    From the header of the reference image, whose field of view is resampled to `spacing_mm`.
    """
    voxels = grid_voxels(next(iter(files.images.values())), spacing_mm)
    each = 4 * len(files.images) + len(files.masks) + READING
    whole = any(filter_reach(parameters_for(parameters, name)) is None for name in files.images)
    return IMPORTS + REGION + voxels * (each + FILTERS * whole)


def grid_voxels(image: Path, spacing_mm: tuple[float, float, float]) -> float:
    """Voxels of an image's field of view at another spacing; 0 where the header is unreadable."""
    slices = sorted(image.iterdir()) if image.is_dir() else [image]
    reader = sitk.ImageFileReader()
    try:
        reader.SetFileName(str(slices[0]))
        reader.ReadImageInformation()
    except (RuntimeError, IndexError):
        # Reading the case will tell what is wrong with it.
        return 0.0
    extent = np.multiply(reader.GetSize(), reader.GetSpacing())[:3]
    return float(np.prod(extent / spacing_mm[: len(extent)]) * len(slices))


def free_bytes() -> float:
    """Memory in bytes that this machine, or the container's limit, still has."""
    import psutil

    return float(min(memory_limit(), psutil.virtual_memory().available))
