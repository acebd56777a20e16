"""Bin edges from the extremes are bit for bit those from all voxels."""

from __future__ import annotations

import numpy as np
import pytest
from radiomics import imageoperations

from lens.radiomics.binning import bins_from_extremes

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


def _fails_inside() -> None:
    with bins_from_extremes():
        raise ZeroDivisionError(imageoperations.getBinEdges.__module__)


def test_the_original_is_back_after_an_error():
    original = imageoperations.getBinEdges
    with pytest.raises(ZeroDivisionError, match=r"lens\.radiomics\.binning"):
        _fails_inside()
    assert imageoperations.getBinEdges is original
