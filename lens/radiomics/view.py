"""An image and its ROI as arrays, made once for all feature classes."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Int, Shaped

from lens.radiomics.matrices import Seen
from lens.radiomics.wavelet import Band


class View:
    """An image and a mask as PyRadiomics' classes read them: arrays, made once, and a spacing.

    Attributes:
        array: intensities (z, y, x).
        mask: where the ROI is.
        inside: positions of the ROI's voxels in the flattened arrays, ascending.
        seen: what gives the gray levels of the binned image.
    """

    def __init__(
        self, image: sitk.Image | Band, mask: sitk.Image, label: int, seen: Seen, last: View | None
    ) -> None:
        self.seen = seen
        self._spacing = image.GetSpacing()
        self.array: Shaped[np.ndarray, "z y x"] = (
            image.array if isinstance(image, Band) else sitk.GetArrayFromImage(image)
        )
        roi = sitk.GetArrayViewFromImage(mask) == label
        # The same objects where it is the same mask, since what rests on it is known by it.
        known = last if last is not None and np.array_equal(last.mask, roi) else None
        self.mask: Bool[np.ndarray, "z y x"] = known.mask if known else roi
        self.inside: Int[np.ndarray, " n"] = known.inside if known else np.flatnonzero(roi)
        for made in (self.array, self.mask, self.inside):
            made.setflags(write=False)

    def GetSpacing(self) -> tuple[float, ...]:
        """Of the voxels along x, y, z (mm), by SimpleITK's name."""
        return self._spacing

    @cached_property
    def values(self) -> Shaped[np.ndarray, " n"]:
        """Intensities of the ROI's voxels, in raster order."""
        return self.array.ravel()[self.inside]
