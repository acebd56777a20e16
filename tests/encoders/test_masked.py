"""The masked encoder is a sparse one, and the autoencoder's loss counts what was masked."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import erf

from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.encoder import parameters
from encoders.masked import MaskedAutoencoder, normalised_patches, patches, random_masks

GRID = (2, 3, 3)


@pytest.fixture(scope="module")
def encoder() -> ConvNeXtV2:
    """Random values everywhere, also where training starts from 0 or 1."""
    config = ConvNeXtV2Config(depths=(1, 1), widths=(4, 6), strides=(4,))
    encoder = ConvNeXtV2(config, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for name, parameter in parameters(encoder).items():
        noise = rng.normal(size=parameter.shape)
        fan_in = 7**3 if "depthwise" in name else np.prod(parameter.shape[:-1])
        kernel = len(parameter.shape) > 1
        value = noise / np.sqrt(fan_in) if kernel else 0.3 * noise + ("scale" in name)
        parameter.set_value(jnp.asarray(value, jnp.float32))
    return encoder


@pytest.fixture(scope="module")
def autoencoder(encoder) -> MaskedAutoencoder:
    return MaskedAutoencoder(encoder, width=8, rngs=nnx.Rngs(1))


@pytest.fixture(scope="module")
def volumes() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 32, 48, 48, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def visible() -> np.ndarray:
    return np.asarray(random_masks(jax.random.key(3), 2, GRID, 0.6))


@nnx.jit
def stages(encoder, x, visible):
    return encoder.stages(x, visible=visible)


@nnx.jit
def reconstruct(autoencoder, x, visible):
    return autoencoder.reconstruct(x, visible)


def enlarged(visible: np.ndarray, side: int) -> np.ndarray:
    return np.kron(visible, np.ones((1, side, side, side))).astype(bool)


def sparse_stages(encoder: ConvNeXtV2, volume: np.ndarray, visible: np.ndarray) -> list[dict]:
    """Each stage as a table from visible position to features: nothing else exists."""
    p = {name: np.asarray(v[...], np.float64) for name, v in parameters(encoder).items()}

    def norm(x, name):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-6)
        return x * p[f"{name}.scale"] + p[f"{name}.bias"]

    shown = enlarged(visible[None], 16)[0]
    table = {tuple(at): volume[tuple(at)].astype(np.float64) for at in np.argwhere(shown)}
    outputs = []
    for stage in range(2):
        kernel = p[f"downsamples.{stage}.conv.kernel"]
        coarse = {}
        for at, features in table.items():
            features = norm(features, f"downsamples.{stage}.norm") if stage else features
            tap = kernel[tuple(i % 4 for i in at)]
            above = tuple(i // 4 for i in at)
            coarse[above] = coarse.get(above, p[f"downsamples.{stage}.conv.bias"]) + features @ tap
        positions = np.array(list(coarse))
        x = np.stack(list(coarse.values()))
        x = x if stage else norm(x, "downsamples.0.norm")
        block = f"blocks.{stage}.0"
        offsets = positions[None] - positions[:, None] + 3
        near = ((offsets >= 0) & (offsets < 7)).all(axis=-1)
        depthwise = np.empty_like(x)
        for i in range(len(x)):
            taps = p[f"{block}.depthwise.kernel"][tuple(offsets[i, near[i]].T)]
            depthwise[i] = (x[near[i]] * taps).sum(axis=0) + p[f"{block}.depthwise.bias"]
        h = norm(depthwise, f"{block}.norm")
        h = h @ p[f"{block}.expand.kernel"] + p[f"{block}.expand.bias"]
        h = h * 0.5 * (1 + erf(h / np.sqrt(2)))
        response = np.sqrt(np.square(h).sum(axis=0))
        response = response / (response.mean() + 1e-6)
        h = h * (1 + p[f"{block}.grn.gamma"] * response) + p[f"{block}.grn.beta"]
        x = x + h @ p[f"{block}.project.kernel"] + p[f"{block}.project.bias"]
        table = {tuple(at): features for at, features in zip(positions, x, strict=True)}
        outputs.append(table)
    return outputs


def test_equals_sparse_convolutions(encoder, volumes, visible):
    """Stage by stage on visible positions, and zero elsewhere."""
    ours = stages(encoder, volumes, visible)
    expected = sparse_stages(encoder, volumes[0], visible[0])
    for features, table in zip(ours, expected, strict=True):
        features = np.asarray(features[0])
        seen = np.zeros(features.shape[:3], bool)
        for at, values in table.items():
            seen[at] = True
            np.testing.assert_allclose(features[at], values, rtol=1e-3, atol=1e-4)
        assert not features[~seen].any()


def test_masked_voxels_change_nothing(autoencoder, volumes, visible):
    """Not the features, not the prediction, whatever the voxels hold; the targets alone."""
    changed = np.where(enlarged(visible, 16)[..., None], volumes, volumes * 100 + 7)
    before, after = (
        stages(autoencoder.encoder, x, visible) for x in (volumes, changed.astype(np.float32))
    )
    broken = np.where(enlarged(visible, 16)[..., None], volumes, np.nan)
    after_nan = stages(autoencoder.encoder, broken, visible)
    for a, b, c in zip(before, after, after_nan, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    one = reconstruct(autoencoder, volumes, visible)
    two = reconstruct(autoencoder, changed.astype(np.float32), visible)
    np.testing.assert_array_equal(one.prediction, two.prediction)
    # Per-patch scaling removes gain and offset from the target too, to rounding.
    assert float(one.loss) == pytest.approx(float(two.loss), rel=1e-4)


def test_all_visible_is_the_plain_encoder(encoder, volumes):
    for a, b in zip(
        stages(encoder, volumes, np.ones((2, *GRID), bool)),
        stages(encoder, volumes, None),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max(), rtol=0)


def test_loss_counts_masked_patches_only(autoencoder, volumes, visible):
    """Recomputed with torch from the prediction, voxel by voxel of the masked patches."""
    out = reconstruct(autoencoder, volumes, visible)
    total, count = 0.0, 0
    for n, d, h, w in np.argwhere(~visible):
        at = (n, *(slice(16 * i, 16 * i + 16) for i in (d, h, w)))
        patch = torch.from_numpy(volumes[at].copy()).double()
        target = (patch - patch.mean()) / torch.sqrt(patch.var() + 1e-6)
        guess = torch.from_numpy(np.array(out.prediction[at])).double()
        total += float(torch.nn.functional.mse_loss(guess, target))
        count += 1
    assert count == 22
    assert float(out.loss) == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_loss_of_the_input_with_visible_patches(encoder, volumes, visible, weight):
    """Recomputed in NumPy: voxels as they are, each patch by its weight, each volume by itself."""
    few = visible.copy()
    few[0] = True
    few[0, 0, 0, 0] = False
    model = MaskedAutoencoder(
        encoder, width=8, target="input", visible_weight=weight, rngs=nnx.Rngs(1)
    )
    shifted = volumes + np.float32(2)
    out = reconstruct(model, shifted, few)
    errors = np.square(np.asarray(out.prediction, np.float64) - shifted)
    for volume, error, seen in zip(out.losses, errors, few, strict=True):
        weights = np.where(enlarged(seen[None], 16)[0], weight, 1.0)
        expected = (error.mean(axis=-1) * weights).sum() / weights.sum()
        assert float(volume) == pytest.approx(expected, rel=1e-5)
    assert float(out.loss) == pytest.approx(float(out.losses.mean()))


def test_the_input_as_target_knows_level_and_contrast(encoder, volumes, visible):
    """What scaling the patches takes away is an error of the other target."""
    changed = np.where(enlarged(visible, 16)[..., None], volumes, volumes * 3 + 7)
    for target, same in (("patch", True), ("input", False)):
        model = MaskedAutoencoder(encoder, width=8, target=target, rngs=nnx.Rngs(1))
        one, two = (float(reconstruct(model, x, visible).loss) for x in (volumes, changed))
        assert (abs(two - one) < 1e-3 * one) == same


def test_gradient_trains_encoder_and_decoder(autoencoder, volumes):
    """Finite and not zero for every parameter but the final norm, also with absent channels."""
    x = volumes.copy()
    x[..., 1:] = 0
    x[:, :16] = 0
    graph, state = nnx.split(autoencoder)

    @jax.jit
    def gradient(state):
        return jax.grad(lambda s: nnx.merge(graph, s)(x, key=jax.random.key(0)).loss)(state)

    for path, value in nnx.to_flat_state(gradient(state)):
        value = np.asarray(value[...])
        assert np.isfinite(value).all(), path
        # The decoder's response norm starts at zero, which does not stop its gradient.
        assert value.any() or path[:2] == ("encoder", "norm"), path


def test_masks_hide_a_fixed_number_at_random():
    masks = np.asarray(random_masks(jax.random.key(0), 400, GRID, 0.6))
    assert (masks.sum(axis=(1, 2, 3)) == 7).all()
    # A patch is visible 7 times of 18; four standard errors of 400 draws are 0.098.
    assert np.abs(masks.mean(axis=0) - 7 / 18).max() < 0.098
    assert len(np.unique(masks.reshape(400, -1), axis=0)) > 390
    again = random_masks(jax.random.key(0), 400, GRID, 0.6)
    np.testing.assert_array_equal(masks, again)


def test_patches_are_scaled_one_by_one(volumes):
    x = volumes * np.float32(3) + np.float32(5)
    x[0, :16, :16, :16] = 4
    scaled = patches(normalised_patches(x, (16, 16, 16)), (16, 16, 16))
    assert scaled.shape == (2, *GRID, 3 * 16**3)
    # A constant patch has no contrast to predict.
    np.testing.assert_allclose(scaled[0, 0, 0, 0], 0, atol=1e-2)
    scaled = np.asarray(scaled).reshape(18 * 2, -1)[1:]
    np.testing.assert_allclose(scaled.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.var(axis=1, ddof=1), 1, rtol=1e-4)


def test_sizes_that_do_not_fit(encoder, autoencoder, volumes):
    with pytest.raises(ValueError, match="multiple of 16"):
        MaskedAutoencoder(encoder, patch=8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="multiple of the patch"):
        autoencoder(volumes[:, :24], key=jax.random.key(0))
    with pytest.raises(ValueError, match="at least 2"):
        autoencoder(volumes[:, :16, :16, :16], key=jax.random.key(0))
