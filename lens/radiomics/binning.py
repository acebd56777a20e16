"""Gray-level bins from the two extreme intensities, which alone decide them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lens.radiomics.engine import pyradiomics


@contextmanager
def bins_from_extremes() -> Iterator[None]:
    """PyRadiomics computes bin edges from the ROI's minimum and maximum, inside the block.

    Its ``getBinEdges`` walks over all voxels in Python, six times an image, to find these two;
    here NumPy finds them and PyRadiomics' own function sees nothing else. Every value is bit for
    bit the same, because the edges depend on the extremes only, for a bin width and a bin count.
    The former function is back after the block, also after an error.
    """
    operations = pyradiomics().imageoperations
    original = operations.getBinEdges

    def from_extremes(values: np.ndarray, **settings: Any):
        return original(np.array([values.min(), values.max()]), **settings)

    operations.getBinEdges = from_extremes
    try:
        yield
    finally:
        operations.getBinEdges = original
