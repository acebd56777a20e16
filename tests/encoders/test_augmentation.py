"""Augmentation repeats itself, leaves alone what it must, and equals SciPy's interpolation."""

from __future__ import annotations

from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from encoders.augmentation import _warp, augment
from encoders.settings import Augmentation


def only(**strengths: float) -> Augmentation:
    """These changes and no other."""
    return Augmentation(**{f.name: float(strengths.get(f.name, 0)) for f in fields(Augmentation)})


INTENSITIES = {
    "intensity_scale": 0.5, "intensity_shift": 1.0, "bias_field": 0.5, "smoothing": 1.0
}  # fmt: skip
ALL = Augmentation(flip=0.5, rotation=20.0, zoom=0.2, **INTENSITIES)
"""All changes; each combination of strengths is compiled once."""


@pytest.fixture(scope="module")
def volumes() -> np.ndarray:
    """Noise in a frame of padding; the last channel is absent."""
    x = np.random.default_rng(0).normal(size=(3, 12, 20, 24, 3)).astype(np.float32)
    x[..., 2] = 0
    x[:, :, :3] = x[:, :, -3:] = 0
    return x


@pytest.fixture(scope="module")
def blob() -> np.ndarray:
    """An ellipsoid beside the middle."""
    d, h, w = np.meshgrid(np.arange(24), np.arange(40), np.arange(44), indexing="ij")
    r = ((d - 10) / 7) ** 2 + ((h - 16) / 10) ** 2 + ((w - 28) / 8) ** 2
    return np.repeat((r < 1)[None], 4, axis=0)


def test_strength_zero_is_the_identity(volumes):
    masks = volumes[..., 0] > 0
    same, same_masks = augment(jax.random.key(0), volumes, masks, only())
    np.testing.assert_array_equal(same, volumes)
    np.testing.assert_array_equal(same_masks, masks)


def test_one_key_one_result(volumes):
    first = augment(jax.random.key(1), volumes, None, ALL)[0]
    again = augment(jax.random.key(1), volumes, None, ALL)[0]
    other = augment(jax.random.key(2), volumes, None, ALL)[0]
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first) - other).max() > 0.1
    # Twins are augmented differently, and a sample does not depend on its neighbours.
    twins = augment(jax.random.key(1), volumes[[0, 0, 0]], None, ALL)[0]
    np.testing.assert_array_equal(twins[0], first[0])
    assert np.abs(np.asarray(twins[0]) - twins[1]).max() > 0.1


def test_background_and_absent_channels_stay_zero(volumes):
    out, _ = augment(jax.random.key(3), volumes, None, ALL)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out[..., 2], 0)
    # Without a move, padding is where it was.
    out, _ = augment(jax.random.key(3), volumes, None, only(**INTENSITIES))
    np.testing.assert_array_equal(np.asarray(out) == 0, volumes == 0)


def test_flip_exchanges_left_and_right(volumes):
    masks = (volumes[..., 0] > 0).astype(np.int32) * 2
    settings = only(flip=1)
    out, out_masks = augment(jax.random.key(0), volumes, masks, settings)
    np.testing.assert_array_equal(out, volumes[:, :, :, ::-1])
    np.testing.assert_array_equal(out_masks, masks[..., ::-1])
    assert out_masks.dtype == masks.dtype


@pytest.mark.parametrize(("degrees", "zoom"), [(0, 1.0), (13, 1.0), (-7, 1.15), (90, 0.8)])
def test_warp_equals_scipy(degrees, zoom):
    """Linear interpolation with zeros outside, about the centre."""
    x = np.random.default_rng(4).normal(size=(7, 18, 18, 2)).astype(np.float32)
    angle = np.deg2rad(degrees)
    ours = jax.jit(_warp)(x, jnp.float32(angle), jnp.float32(zoom))
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]]
    )
    middle = (np.array(x.shape[:3]) - 1) / 2
    offset = middle - turn @ middle / zoom
    for channel in range(2):
        expected = ndimage.affine_transform(
            x[..., channel].astype(np.float64), turn / zoom, offset, order=1, mode="grid-constant"
        )
        # Coordinates are float32: some 1e-6 of a voxel times the contrast of neighbours.
        np.testing.assert_allclose(ours[..., channel], expected, atol=1e-4)


def test_a_mask_follows_its_image(blob):
    """The blob as an image, cut at one half, and as a mask differ by a rim of voxels only."""
    settings = only(flip=0.5, rotation=25, zoom=0.2)
    images, masks = augment(jax.random.key(5), blob[..., None].astype(np.float32), blob, settings)
    cut, masks = np.asarray(images)[..., 0] > 0.5, np.asarray(masks)
    assert masks.dtype == bool
    for original, image, mask in zip(blob, cut, masks, strict=True):
        assert 2 * (image & mask).sum() / (image.sum() + mask.sum()) > 0.97
        # It did move.
        assert 2 * (original & mask).sum() / (original.sum() + mask.sum()) < 0.95


def test_zoom_changes_the_volume_by_its_cube(blob):
    """The blob stays inside, so the measured magnification is within its bounds, both ways."""
    masks = np.repeat(blob[:1], 32, axis=0)
    images = masks[..., None].astype(np.float32)
    out, _ = augment(jax.random.key(6), images, None, only(zoom=0.15))
    ratio = np.asarray(out.sum(axis=(1, 2, 3, 4)) / blob[0].sum()) ** (1 / 3)
    assert ratio.min() > 1 / 1.16
    assert ratio.max() < 1.16
    # 32 uniform draws leave no fifth of the range empty at either end (chance 2 * 0.8**32).
    assert ratio.min() < 1 / 1.15**0.6
    assert ratio.max() > 1.15**0.6


def test_intensities_change_linearly_within_bounds(volumes):
    settings = only(intensity_scale=0.2, intensity_shift=0.3)
    out, _ = augment(jax.random.key(7), volumes, None, settings)
    fits = []
    for sample in range(3):
        for channel in range(2):
            x, y = volumes[sample, ..., channel], np.asarray(out)[sample, ..., channel]
            scale, shift = np.polyfit(x[x != 0], y[x != 0], 1)
            np.testing.assert_allclose(y[x != 0], scale * x[x != 0] + shift, atol=1e-5)
            fits.append((scale, shift))
    fits = np.array(fits)
    assert (np.abs(fits - [1, 0]) <= [0.2, 0.3]).all()
    assert (fits.std(axis=0) > 0.02).all()


def test_bias_field_is_smooth_and_bounded():
    """On a constant above one dark voxel the field itself is seen."""
    x = np.full((16, 16, 24, 24, 1), 2.0, np.float32)
    x[:, 0, 0, 0] = 1.0
    out, _ = augment(jax.random.key(8), x, None, only(bias_field=0.3))
    field = np.log(np.asarray(out)[..., 0] - 1, where=x[..., 0] > 1, out=np.zeros(x.shape[:4]))
    rms = np.sqrt(np.square(field).mean(axis=(1, 2, 3)))
    # The dark voxel is one of 9216.
    assert rms.max() <= 0.3 * 1.001
    assert rms.max() > 0.15
    # Two half periods over 24 voxels: a step changes at most pi / 12 of the amplitude, which
    # is at most sqrt(8 * 26) times the root mean square.
    steps = np.abs(np.diff(field, axis=3))[:, 1:].max(axis=(1, 2, 3))
    assert (steps < np.pi / 12 * np.sqrt(8 * 26) * rms).all()
    assert (steps < 0.5 * np.abs(field).max(axis=(1, 2, 3))).all()


def test_smoothing_is_a_gaussian_in_the_plane():
    """The spread of a point is the drawn variance, the same along rows and columns."""
    x = np.full((16, 3, 15, 15, 1), 1e-20, np.float32)
    x[:, 1, 7, 7] = 1
    out, _ = augment(jax.random.key(9), x, None, only(smoothing=1.0))
    out = np.asarray(out, np.float64)[..., 0]
    np.testing.assert_allclose(out.sum(axis=(1, 2, 3)), 1, rtol=1e-5)
    assert np.abs(out[:, [0, 2]]).max() < 1e-15
    offsets = np.square(np.arange(15) - 7)
    rows, columns = out[:, 1].sum(axis=2) @ offsets, out[:, 1].sum(axis=1) @ offsets
    np.testing.assert_allclose(rows, columns, rtol=1e-4, atol=1e-9)
    assert rows.max() <= 1.0
    assert rows.max() > 0.5
    expected = ndimage.gaussian_filter(x[0, 1, ..., 0].astype(float), np.sqrt(rows.max()), radius=3)
    # The variance measured is that of the sampled, cut Gaussian, some percent from its parameter.
    np.testing.assert_allclose(out[rows.argmax(), 1], expected, atol=0.01)


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"rotation": -1.0}, {"zoom": float("nan")}])
def test_wrong_strengths_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augmentation(**wrong)
