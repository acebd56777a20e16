"""Boxes of regions, and features of pairs of levels, are those of PyRadiomics."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from radiomics import glcm, imageoperations

from lens.radiomics.classes import extractor
from lens.radiomics.matrices import counted_here
from lens.radiomics.region import found_here
from tests.radiomics.phantoms import ellipsoid, image, texture

MASKS = {
    "ellipsoid": ellipsoid(),
    "to the edges": np.ones(ellipsoid().shape, np.uint8),
    "two labels": ellipsoid() + ellipsoid(radii=(2, 2, 2)),
    "one voxel": np.eye(1, 20 * 28 * 28, 77, dtype=np.uint8).reshape(20, 28, 28),
    "empty": np.zeros(ellipsoid().shape, np.uint8),
}


def _asked(mask: sitk.Image, settings: dict[str, int]) -> object:
    try:
        found = imageoperations.getMask(mask, **settings)
        box, corrected = imageoperations.checkMask(image(texture(0)), found, **settings)
        return box.tolist(), corrected
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    "settings", [{}, {"label": 2}, {"minimumROISize": 400}, {"minimumROIDimensions": 3}]
)
def test_boxes_and_refusals(name: str, settings: dict[str, int]) -> None:
    mask = image(MASKS[name])
    expected = _asked(mask, settings)
    with found_here():
        assert _asked(mask, settings) == expected


@pytest.mark.parametrize("binned", [{"binCount": 200}, {"binCount": 5}, {"binWidth": 100}])
def test_every_feature_of_pairs_whatever_levels_are_missing(binned: dict[str, int]) -> None:
    volume, mask = image(texture(3)), image(ellipsoid(radii=(3, 4, 5)))
    theirs = glcm.RadiomicsGLCM(volume, mask, **binned)
    theirs.enableAllFeatures()
    expected = {name: float(value) for name, value in theirs.execute().items()}
    with counted_here() as seen:
        ours = extractor(seen)
        ours.enabledFeatures = {"glcm": None}
        found = ours.computeFeatures(volume, mask, "original", **binned)
    assert {k.removeprefix("original_glcm_"): float(v) for k, v in found.items()} == expected
