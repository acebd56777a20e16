"""Where a region lies in a mask: from two passes over it instead of a list of all labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Shaped

import lens.cohort.geometry as geometry
from lens.radiomics.engine import pyradiomics


def bounding_box(mask: sitk.Image) -> tuple[list[int], list[int]]:
    """First and last index (x, y, z) of the voxels that are not zero, of which there are some."""
    return box_of(sitk.GetArrayViewFromImage(mask))


def box_of(inside: Shaped[np.ndarray, "z y x"]) -> tuple[list[int], list[int]]:
    """First and last index (x, y, z) of what is not zero, of which there is some."""
    box = geometry.box_of(inside)[::-1]
    return [part.start for part in box], [part.stop - 1 for part in box]


@contextmanager
def found_here() -> Iterator[None]:
    """PyRadiomics has the boxes of its regions from this module, inside the block.

    What it would refuse, and masks of another grid or type, are left to it.
    """
    operations = pyradiomics().imageoperations
    of_mask, check = operations.getMask, operations.checkMask

    def get_mask(mask: sitk.Image, **settings: Any) -> sitk.Image:
        ordinary = mask.GetPixelID() == sitk.sitkUInt8
        label = settings.get("label", 1)
        if ordinary and (sitk.GetArrayViewFromImage(mask) == label).any():
            return mask
        return of_mask(mask, **settings)

    def check_mask(image: sitk.Image, mask: sitk.Image, **settings: Any) -> Any:
        if mask.GetPixelID() == sitk.sitkUInt8 and image.IsSameImageGeometryAs(mask):
            inside = sitk.GetArrayViewFromImage(mask) == int(settings.get("label", 1))
            least = settings.get("minimumROISize")
            if inside.any() and (least is None or np.count_nonzero(inside) > least):
                box = np.array(box_of(inside))
                wide = np.count_nonzero(box[1] > box[0])
                if wide >= max(settings.get("minimumROIDimensions", 2), 1):
                    return box.T.ravel(), None
        return check(image, mask, **settings)

    operations.getMask, operations.checkMask = get_mask, check_mask
    try:
        yield
    finally:
        operations.getMask, operations.checkMask = of_mask, check
