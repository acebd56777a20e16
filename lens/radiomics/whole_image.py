"""Mean and standard deviation of a whole image, as SimpleITK gives them, several times sooner."""

from __future__ import annotations

import math
from importlib import import_module

import numpy as np
import SimpleITK as sitk

from lens.cohort.intensities import Scaling
from lens.radiomics.engine import one_thread

LARGE = 2**20
"""Voxels from which an image is worth it."""


def statistics(image: sitk.Image) -> Scaling:
    """``sitk.StatisticsImageFilter`` with one thread: mean and standard deviation.

    SimpleITK adds one voxel after another, each time with what the sum has lost to rounding
    (Kahan). A large image of single precision is added here in several sums at once, with the same
    care: both give the exact sums, rounded. SimpleITK's carry a trace of its steps, which decides
    the last bit of fewer than one standard deviation in a hundred; of smaller images it decides
    more, and they are left to it like those of other types.

    Args:
        image: intensities, 3D.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.dtype == np.float32 and voxels.size >= LARGE:
        kernels = import_module("lens.radiomics.kernels")
        flat = voxels.ravel()
        parts = kernels.sums(flat)
        rest = flat[flat.size // kernels.LANES * kernels.LANES :].astype(float)
        if np.isfinite(parts).all() and np.isfinite(rest).all():
            total = math.fsum(np.concatenate([*parts[:2], rest]))
            square = math.fsum(np.concatenate([*parts[2:], rest * rest]))
            variance = (square - total * total / flat.size) / (flat.size - 1)
            return Scaling(total / flat.size, math.sqrt(max(variance, 0.0)))
    # One, since the sum over all voxels depends on how threads share it.
    found = sitk.StatisticsImageFilter()
    with one_thread():
        found.Execute(image)
    return Scaling(found.GetMean(), found.GetSigma())
