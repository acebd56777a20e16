"""Gray-level bins: once an image, from the two extreme intensities, which alone decide them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from lens.radiomics.engine import pyradiomics
from lens.radiomics.view import View


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


MAX_BINS = 512
"""Most gray levels of an image. GLCM's eigenproblems grow with their third power: on one core
0.3 s an image at 128 levels, 15 s at 512, two minutes at 1,024, hours at 5,000."""


class TooManyBins(ValueError):
    """The parameters spread an ROI over more than `MAX_BINS` gray levels."""

    def __init__(self, values: np.ndarray, bins: int, settings: Mapping[str, Any]) -> None:
        self.bins = bins
        self.minutes = 0.25 * (bins / MAX_BINS) ** 3
        if settings.get("binCount") is not None:
            self.setting, self.advice = f"binCount {settings['binCount']}", "binCount 64"
        else:
            width = (float(values.max()) - float(values.min())) / 64
            self.setting, self.advice = (
                f"binWidth {settings['binWidth']:g}",
                f"binWidth {width:.2g}",
            )
        super().__init__(f"{bins} gray levels with {self.setting}")


class Bins(NamedTuple):
    """Gray levels of an ROI in one image.

    Attributes:
        spanned: bins from the lowest to the highest intensity.
        occupied: those of them that hold a voxel.
    """

    spanned: int
    occupied: int


@contextmanager
def binned_once() -> Iterator[list[Bins]]:
    """PyRadiomics bins each image once, not once for each of six feature classes, in the block.

    The last image, mask and settings are held while their bins are, and compared by identity and
    value: no other image can be taken for them. The bins are read-only, so that a class that
    wrote into them would fail rather than change the next one's.

    Yields:
        A list that grows by the `Bins` of each image, in the order in which they are binned.

    Raises:
        TooManyBins: within the block, before an image is binned into more than `MAX_BINS`.
    """
    images: list[Bins] = []
    base = import_module(f"{pyradiomics().__name__}.base").RadiomicsFeaturesBase
    operations = pyradiomics().imageoperations
    original = base._applyBinning
    last: dict[str, Any] = {}

    def apply_binning(self: Any, matrix: np.ndarray) -> np.ndarray:
        known = (
            last.get("image") is self.inputImage
            and last.get("mask") is self.inputMask
            and last.get("settings") == self.settings
        )
        if not known:
            view = self.inputImage if isinstance(self.inputImage, View) else None
            values = matrix[self.maskArray] if view is None else view.values
            _check_bins(values, self.settings)
            bins = digitised(values, operations.getBinEdges(values, **self.settings))
            binned = np.zeros(matrix.shape, np.int64)
            if view is None:
                binned[self.maskArray] = bins
            else:
                binned.ravel()[view.inside] = bins
            binned.setflags(write=False)
            occupied = np.flatnonzero(np.bincount(bins))
            last.update(
                image=self.inputImage,
                mask=self.inputMask,
                settings=self.settings,
                binned=binned,
                bins=bins,
                coefficients={"grayLevels": occupied, "Ng": int(occupied[-1])},
            )
            images.append(Bins(int(occupied[-1]), len(occupied)))
        self.voxelBins = last["bins"]
        self.coefficients.update(last["coefficients"])
        return last["binned"]

    base._applyBinning = apply_binning
    try:
        with bins_from_extremes():
            yield images
    finally:
        base._applyBinning = original


def digitised(values: np.ndarray, edges: Any) -> Int[np.ndarray, " n"]:
    """``numpy.digitize``, several times sooner where the edges are evenly spaced.

    Args:
        values: of the ROI's voxels (n,).
        edges: ascending, at least two.
    """
    bins = np.empty(values.size, np.int64)
    kernels = import_module("lens.radiomics.kernels")
    kernels.digitise(np.asarray(values, np.float64), np.asarray(edges, np.float64), bins)
    return bins


def _check_bins(values: np.ndarray, settings: Mapping[str, Any]) -> None:
    bins = settings.get("binCount")
    if bins is None:
        # PyRadiomics' own default where the settings do not say.
        settings = {"binWidth": 25} | dict(settings)
        bins = int((float(values.max()) - float(values.min())) // settings["binWidth"]) + 1
    if bins > MAX_BINS:
        raise TooManyBins(values, bins, settings)
