"""Wavelet bands are bit for bit those of PyWavelets."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from pywt import Wavelet, swtn  # pyright: ignore[reportAttributeAccessIssue]
from radiomics import imageoperations

from lens.radiomics.wavelet import Band, filtered_here, one_level


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["coif1", "haar", "db3", "bior1.5"])
@pytest.mark.parametrize(("shape", "axes"), [((12, 38, 26), (2, 1, 0)), ((10, 16, 50), (2, 1))])
def test_every_band_to_the_edge(kind, name, shape, axes):
    data = np.random.default_rng(0).normal(100, 30, shape).astype(kind)
    wavelet = Wavelet(name)
    expected = swtn(data, wavelet, level=1, start_level=0, axes=axes)[0]
    got = one_level(data, wavelet, axes)
    assert list(got) == list(expected)
    for word, band in expected.items():
        assert got[word].dtype == band.dtype
        assert np.array_equal(got[word], band), word


@pytest.mark.parametrize("order", ["F", "view"])
def test_an_array_that_is_not_contiguous(order):
    data = np.random.default_rng(1).normal(size=(12, 14, 16))
    data = np.asfortranarray(data) if order == "F" else data[:, ::-1, :]
    expected = swtn(data, Wavelet("coif1"), level=1, axes=(2, 1, 0))[0]
    got = one_level(data, Wavelet("coif1"), (2, 1, 0))
    assert all(np.array_equal(got[word], band) for word, band in expected.items())


def test_a_line_shorter_than_the_filter_is_left_to_pywavelets():
    data = np.random.default_rng(2).normal(size=(2, 8, 8))
    wavelet = Wavelet("coif1")
    options = {"level": 1, "start_level": 0, "axes": (2, 1, 0)}
    expected = swtn(data, wavelet, **options)[0]
    with filtered_here():
        got = imageoperations.pywt.swtn(data, wavelet, **options)[0]
    assert all(np.array_equal(got[word], band) for word, band in expected.items())
    assert imageoperations.pywt.swtn is swtn


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"wavelet": "haar"}, {"force2D": True}, {"level": 2}])
def test_bands_cut_out_are_those_of_pyradiomics(kind, options):
    """Of odd and even lengths, in their order, one mask for all of them."""
    rng = np.random.default_rng(3)
    volume = sitk.GetImageFromArray(rng.normal(100, 30, (13, 16, 19)).astype(kind))
    volume.SetSpacing((0.5, 0.7, 3.0))
    inside = np.zeros((13, 16, 19), np.uint8)
    inside[3:8, 2:11, 5:18] = rng.random((5, 9, 13)) < 0.7
    mask, box = sitk.GetImageFromArray(inside), np.array([5, 17, 2, 10, 3, 7])

    def bands():
        for band, name, _ in imageoperations.getWaveletImage(volume, mask, **options):
            yield name, *imageoperations.cropToTumorMask(band, mask, box, padDistance=0)

    expected = list(bands())
    with filtered_here():
        got = list(bands())
    assert [name for name, _, _ in got] == [name for name, _, _ in expected]
    for (_, ours, our_mask), (_, theirs, their_mask) in zip(got, expected, strict=True):
        if options.get("level", 1) == 1:
            assert isinstance(ours, Band)
            ours = ours.image()
        assert ours.GetSpacing() == theirs.GetSpacing()
        for one, other in ((ours, theirs), (our_mask, their_mask)):
            a, b = sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other)
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
    assert len({id(our_mask) for _, _, our_mask in got}) == (
        1 if options.get("level", 1) == 1 else len(got)
    )
