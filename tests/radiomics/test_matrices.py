"""Texture matrices are those of PyRadiomics' C code: equal bytes, shapes and memory layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from radiomics import cMatrices, glcm  # pyright: ignore[reportAttributeAccessIssue]

from lens.radiomics.matrices import DIRECTIONS, MOST_LEVELS, Seen, counted_here, levels
from tests.radiomics.phantoms import ellipsoid, texture


def arguments(image, mask, gray_levels, *, distances=(1,), flat=False, alike=0):
    """What PyRadiomics' feature classes hand to each function."""
    near, plane = np.array(distances), (flat, 0)
    return {
        "calculate_glcm": (image, mask, near, gray_levels, *plane),
        "calculate_glrlm": (image, mask, gray_levels, np.max(image.shape), *plane),
        "calculate_glszm": (image, mask, gray_levels, np.sum(mask), *plane),
        "calculate_ngtdm": (image, mask, near, gray_levels, *plane),
        "calculate_gldm": (image, mask, near, gray_levels, alike, *plane),
    }


def same(image, mask, gray_levels, **options):
    for name, given_to in arguments(image, mask, gray_levels, **options).items():
        expected = getattr(cMatrices, name)(*given_to)
        with counted_here():
            got = getattr(glcm.cMatrices, name)(*given_to)
        pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
        for ours, theirs in pairs:
            assert (ours.shape, ours.strides) == (theirs.shape, theirs.strides), name
            assert ours.dtype == theirs.dtype, name
            assert ours.tobytes() == theirs.tobytes(), name


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 8)] * 3),
    gray_levels=st.integers(1, 20),
    filled=st.floats(0.05, 1),
    alike=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_small_region(shape, gray_levels, filled, alike, seed):
    assume(max(shape) > 1)
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < filled
    mask.flat[0] |= not mask.any()
    image = rng.integers(1, gray_levels + 1, shape)
    # What lies outside is 0 in PyRadiomics' binned image, but must not matter.
    image[~mask] = rng.integers(0, 99)
    same(image, mask, gray_levels, alike=alike)


@pytest.mark.parametrize("gray_levels", [2, 64, MOST_LEVELS, MOST_LEVELS + 1, 1500])
def test_a_textured_gland(gray_levels):
    mask = ellipsoid(radii=(9, 13, 13)).astype(bool)
    values = texture(0)
    scaled = (values - values.min()) / np.ptp(values)
    image = np.minimum((scaled * gray_levels).astype(int) + 1, gray_levels)
    same(image, mask, gray_levels)
    same(image, mask, gray_levels, alike=gray_levels + 1)


def test_full_flat_and_scattered_regions():
    image = np.ones((6, 7, 8), int)
    everywhere, line = np.ones(image.shape, bool), np.zeros(image.shape, bool)
    line[2, 3, :] = True
    scattered = np.zeros(image.shape, bool)
    scattered[::3, ::3, ::3] = True
    for mask in (everywhere, line, scattered):
        same(image, mask, 1)


@pytest.mark.parametrize("options", [{"distances": (1, 2)}, {"distances": (2,)}, {"flat": True}])
def test_what_is_not_counted_here_is_left_to_the_c_code(options):
    rng = np.random.default_rng(1)
    same(rng.integers(1, 9, (5, 9, 9)), rng.random((5, 9, 9)) < 0.8, 8, **options)


def test_directions_are_those_of_pyradiomics():
    angles = cMatrices.generate_angles(np.array([9, 9, 9]), np.array([1]), False, False, 0)
    assert [tuple(angle) for angle in angles] == list(DIRECTIONS)


def _fails_inside() -> None:
    with counted_here():
        assert glcm.cMatrices is not cMatrices
        raise ZeroDivisionError


def test_the_c_code_is_back_after_an_error():
    with pytest.raises(ZeroDivisionError):
        _fails_inside()
    assert glcm.cMatrices is cMatrices


@pytest.mark.parametrize("written", ["image", "mask"])
def test_what_may_be_written_to_is_looked_at_anew(written: str) -> None:
    volume, inside = np.full((4, 5, 6), 2), np.ones((4, 5, 6), bool)
    seen = Seen()
    if written == "image":
        inside.setflags(write=False)
    else:
        volume.setflags(write=False)
    before = seen.levels(volume, inside)
    if written == "image":
        volume[1, 2, 3] = 7
    else:
        inside[1, 2, 3] = False
    after, fresh = seen.levels(volume, inside), levels(volume, inside)
    assert not np.array_equal(after.flat, before.flat)
    np.testing.assert_array_equal(after.flat, fresh.flat)
    np.testing.assert_array_equal(after.inside, fresh.inside)
