"""Batches, regions and windows change what is averaged, never the encoder."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.convnext_weights import convert
from encoders.embedding import embed, embed_windows, roi_mean
from tests.encoders.reference import Reference, arrays, randomise


@pytest.fixture(scope="module")
def encoder() -> ConvNeXtV2:
    reference = Reference(depths=(1, 1), widths=(8, 16), strides=(2,))
    randomise(reference)
    return convert(arrays(reference))[0]


@pytest.fixture(scope="module")
def volumes() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 16, 24, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def whole(encoder, volumes) -> np.ndarray:
    return embed(encoder, volumes, batch_size=2)


def test_equals_the_encoder_however_it_is_fed(encoder, volumes, whole):
    assert whole.shape == (5, 16)
    assert whole.dtype == np.float32
    direct = nnx.jit(lambda e, x: e(x))(encoder, volumes[:2])
    # Another batch composition sums in another order.
    np.testing.assert_allclose(whole[:2], direct, atol=2e-5)
    one_by_one = embed(encoder, (volume for volume in volumes), batch_size=2)
    np.testing.assert_array_equal(one_by_one, whole)


def test_regions(encoder, volumes, whole):
    """The whole volume as the region is the plain mean; half of it is the mean of that half."""
    everything = np.ones(volumes.shape[:4], bool)
    all_stages = embed(encoder, volumes, masks=everything, stages=(1, 2), batch_size=2)
    np.testing.assert_allclose(all_stages[:, 8:], whole, atol=2e-5)
    half = everything.copy()
    half[:, 8:] = False
    halves = embed(encoder, volumes, masks=half, stages=(1, 2), batch_size=2)
    maps = nnx.jit(lambda e, x: e.stages(x))(encoder, volumes)
    np.testing.assert_allclose(halves[:, :8], maps[0][:, :2].mean(axis=(1, 2, 3)), atol=2e-5)
    last = nnx.jit(lambda e, x: e.pool(x))(encoder, maps[1][:, :1])
    np.testing.assert_allclose(halves[:, 8:], last, atol=2e-5)


def test_a_region_weighs_by_its_share_of_each_position():
    features = jnp.asarray([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]).reshape(1, 3, 1, 1, 2)
    mask = jnp.zeros((1, 6, 2, 2), bool).at[0, 1, 0].set(True).at[0, 2, :, :].set(True)
    # 2 of 8 voxels of the first position and 4 of 8 of the second.
    expected = (2 * 1 + 4 * 2) / 6
    np.testing.assert_allclose(roi_mean(features, mask), [[expected, 10 * expected]], rtol=1e-6)
    assert np.isnan(roi_mean(features, jnp.zeros_like(mask))).all()


def test_one_window_is_the_plain_embedding(encoder, volumes, whole):
    out = embed_windows(encoder, volumes[0], window=(16, 24, 24))
    np.testing.assert_allclose(out, whole[0], atol=2e-5)


def test_windows_average_where_they_overlap(encoder, volumes):
    """A larger volume whose windows are known: the mean of their maps over the region."""
    tall = np.concatenate([volumes[0], volumes[1]])
    mask = np.zeros(tall.shape[:3], bool)
    mask[:8] = True  # only the first window of three sees these slices
    out = embed_windows(encoder, tall, window=(16, 24, 24), mask=mask, stages=(1,))
    first = embed(encoder, tall[None, :16], masks=mask[None, :16], stages=(1,))
    np.testing.assert_allclose(out, first[0], atol=2e-5)
    mask[:] = False
    mask[8:12] = True  # the first two see these
    out = embed_windows(encoder, tall, window=(16, 24, 24), mask=mask, stages=(1,))
    pair = np.stack([tall[:16], tall[8:24]])
    masks = np.stack([mask[:16], mask[8:24]])
    seen = embed(encoder, pair, masks=masks, stages=(1,))
    np.testing.assert_allclose(out, seen.mean(axis=0), atol=2e-5)


def test_a_2d_encoder_averages_slices():
    config = ConvNeXtV2Config(dims=2, depths=(1, 1), widths=(8, 16), strides=(2,))
    encoder = ConvNeXtV2(config, rngs=nnx.Rngs(0))
    volume = np.random.default_rng(0).normal(size=(1, 4, 24, 24, 3)).astype(np.float32)
    slices = embed(encoder, volume[0], batch_size=4)
    np.testing.assert_allclose(embed(encoder, volume)[0], slices.mean(axis=0), atol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "at least 1"),
        ({"stages": (3,)}, "stages 1 to 2"),
        ({"volumes": iter(())}, "no volume"),
        ({"volumes": [np.zeros((16, 24, 24, 3), np.float32), np.zeros((16, 8, 8, 3), np.float32)]},
         "a volume of shape"),
    ],
)  # fmt: skip
def test_wrong_use(encoder, volumes, arguments, message):
    with pytest.raises(ValueError, match=message):
        embed(encoder, **{"volumes": volumes, **arguments})
