"""Gray-level bins: once an image, from the two extreme intensities, which alone decide them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
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


@contextmanager
def binned_once() -> Iterator[None]:
    """PyRadiomics bins each image once, not once for each of six feature classes, in the block.

    The last image, mask and settings are held while their bins are, and compared by identity and
    value: no other image can be taken for them. The bins are read-only, so that a class that
    wrote into them would fail rather than change the next one's.
    """
    base = import_module(f"{pyradiomics().__name__}.base").RadiomicsFeaturesBase
    original = base._applyBinning
    last: dict[str, Any] = {}

    def apply_binning(self: Any, matrix: np.ndarray) -> np.ndarray:
        known = (
            last.get("image") is self.inputImage
            and last.get("mask") is self.inputMask
            and last.get("settings") == self.settings
        )
        if not known:
            binned = original(self, matrix)
            binned.setflags(write=False)
            last.update(
                image=self.inputImage,
                mask=self.inputMask,
                settings=self.settings,
                binned=binned,
                coefficients={n: self.coefficients[n] for n in ("grayLevels", "Ng")},
            )
        self.coefficients.update(last["coefficients"])
        return last["binned"]

    base._applyBinning = apply_binning
    try:
        with bins_from_extremes():
            yield
    finally:
        base._applyBinning = original
