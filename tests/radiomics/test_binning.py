"""Bin edges from the extremes are bit for bit those from all voxels."""

from __future__ import annotations

import numpy as np
import pytest
from radiomics import base, firstorder, glcm, imageoperations

from lens.radiomics import binning
from lens.radiomics.binning import binned_once, bins_from_extremes, digitised
from tests.radiomics.phantoms import ellipsoid, image, texture

VALUES = {
    "normal": np.random.default_rng(0).normal(0, 100, 5000),
    "single precision": np.random.default_rng(1).normal(1000, 300, 5000).astype(np.float32),
    "integers": np.random.default_rng(2).integers(-40, 90, 5000),
    "on the edges": np.arange(-50.0, 51.0, 5.0),
    "constant": np.full(100, 25.0),
    "constant off an edge": np.full(100, 3.7, np.float32),
    "zeros of both signs": np.array([0.0, -0.0, -0.0, 0.0]),
}


@pytest.mark.parametrize("settings", [{"binWidth": 5}, {"binWidth": 0.3}, {"binCount": 64}, {}])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_bit_identical(values, settings):
    roi = np.ones(values.shape, bool)
    expected, expected_edges = imageoperations.binImage(values, roi, **settings)
    with bins_from_extremes():
        got, edges = imageoperations.binImage(values, roi, **settings)
    assert np.asarray(edges).tobytes() == np.asarray(expected_edges).tobytes()
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("edges", [np.arange(-300.0, 301.0, 7), [-0.5, 0.5], [0.0, 1.0, 50.0]])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_bins_are_those_of_numpy_on_the_edges_and_beyond_them(edges, kind):
    between = np.random.default_rng(3).normal(0, 100, 3000)
    values = np.concatenate([between, edges, np.nextafter(edges, -np.inf), [-1e30, 1e30]])
    values = values.astype(kind)
    assert np.array_equal(digitised(values, edges), np.digitize(values, edges))


def _fails_inside() -> None:
    with bins_from_extremes():
        raise ZeroDivisionError(imageoperations.getBinEdges.__module__)


@pytest.mark.parametrize("edges", [[0, 10, 11, 12], [0, 1, 2, 100], [-5, 0, 0.5, 90, 91]])
def test_a_guess_that_is_far_off_is_mended_either_way(edges):
    """Where a bin begins is guessed as if edges were evenly spaced."""
    values = np.r_[np.linspace(edges[0] - 1, edges[-1] + 1, 400), edges, np.nan, np.inf, -np.inf]
    np.testing.assert_array_equal(digitised(values, edges), np.digitize(values, edges))


def test_the_original_is_back_after_an_error():
    original = imageoperations.getBinEdges
    with pytest.raises(ZeroDivisionError, match=r"lens\.radiomics\.binning"):
        _fails_inside()
    assert imageoperations.getBinEdges is original


def test_an_image_is_binned_once_and_no_image_is_taken_for_another(monkeypatch):
    calls = []
    bin_image, digitised = imageoperations.binImage, binning.digitised
    monkeypatch.setattr(binning, "digitised", lambda *a: calls.append(1) or digitised(*a))
    mask, other_mask = image(ellipsoid()), image(ellipsoid(radii=(3, 5, 5)))
    first, second = image(texture(1)), image(texture(2))
    with binned_once():
        for volume, roi, settings, count in [
            (first, mask, {"binWidth": 50}, 1),
            (second, mask, {"binWidth": 50}, 2),
            (second, other_mask, {"binWidth": 50}, 3),
            (second, other_mask, {"binCount": 20}, 4),
        ]:
            texture_class = glcm.RadiomicsGLCM(volume, roi, **settings)
            histogram_class = firstorder.RadiomicsFirstOrder(volume, roi, **settings)
            assert len(calls) == count
            assert texture_class.imageArray is histogram_class.discretizedImageArray
            inside = texture_class.maskArray
            array = texture_class.inputImage
            expected, _ = bin_image(
                imageoperations.sitk.GetArrayFromImage(array), inside, **settings
            )
            assert np.array_equal(texture_class.imageArray, expected)
            assert texture_class.coefficients["Ng"] == expected.max()
            assert not texture_class.imageArray.flags.writeable
    assert base.RadiomicsFeaturesBase._applyBinning.__module__ == "radiomics.base"
