"""Boxes of regions, and features of pairs of levels, are those of PyRadiomics."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from radiomics import glcm, imageoperations

from lens.radiomics import kernels
from lens.radiomics.classes import extractor
from lens.radiomics.matrices import counted_here
from lens.radiomics.region import found_here
from tests.radiomics.phantoms import ellipsoid, image, texture


def _block(*box: slice) -> np.ndarray:
    mask = np.zeros(ellipsoid().shape, np.uint8)
    mask[box] = 1
    return mask


COUNT = int(ellipsoid().sum())
MASKS = {
    "a line": _block(slice(5, 6), slice(6, 7), slice(3, 9)),
    "a slice": _block(slice(5, 6), slice(4, 9), slice(3, 9)),
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
    "settings",
    [
        {},
        {"label": 2},
        {"minimumROISize": 400},
        {"minimumROISize": COUNT},
        {"minimumROISize": COUNT - 1},
        {"minimumROIDimensions": 3},
    ],
)
def test_boxes_and_refusals(name: str, settings: dict[str, int]) -> None:
    mask = image(MASKS[name])
    expected = _asked(mask, settings)
    with found_here():
        assert _asked(mask, settings) == expected


def test_a_mask_of_another_grid_is_left_to_pyradiomics() -> None:
    mask = image(MASKS["ellipsoid"], origin=(300.0, 0.0, 0.0))
    expected = _asked(mask, {})
    assert isinstance(expected, str)
    with found_here():
        assert _asked(mask, {}) == expected


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


def test_quotients_are_their_sums_also_where_pairs_are_not_symmetric() -> None:
    """PyRadiomics' matrices are symmetric, which would hide an exchange of rows and columns."""
    rng = np.random.default_rng(0)
    p = rng.random((6, 6)) * (rng.random((6, 6)) < 0.7)
    px, py, found = p.sum(axis=1), p.sum(axis=0), np.empty((6, 6))
    kernels.quotients(p, px, py, 1e-3, found)
    expected = [
        [sum(p[i, k] * p[j, k] / (px[i] * py[k] + 1e-3) for k in range(6)) for j in range(6)]
        for i in range(6)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_margins_are_their_sums_also_where_pairs_are_not_symmetric() -> None:
    rng = np.random.default_rng(1)
    p, gray = rng.random((2, 3, 3)), np.array([1, 2, 5])
    logs, level = rng.random(p.shape), gray.astype(float)
    px, py, means = np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((3, 2))
    added, apart = np.zeros((2, 9)), np.zeros((2, 5))
    kernels.margins(p, logs, gray, level, px, py, added, apart, means)
    np.testing.assert_allclose(px, p.sum(axis=2))
    np.testing.assert_allclose(py, p.sum(axis=1))
    np.testing.assert_allclose(means[0], (p.sum(axis=2) * level).sum(axis=1))
    np.testing.assert_allclose(means[1], (p.sum(axis=1) * level).sum(axis=1))
    np.testing.assert_allclose(means[2], (p * logs).sum(axis=(1, 2)))
    for name, values, of in (("sum", added, np.add), ("distance", apart, np.subtract)):
        at = np.abs(of.outer(gray, gray)) - (2 if name == "sum" else 0)
        for direction in range(2):
            counted = np.bincount(at.ravel(), p[direction].ravel(), values.shape[1])
            np.testing.assert_allclose(values[direction], counted)
