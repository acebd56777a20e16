"""Encoders of images on volumes: slices averaged, and regions that reach through them."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import encoders
from encoders.cohort_embeddings import EmbeddingSettings, check_settings, embed_cohort
from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.embedding import embed
from encoders.vit import ViT, ViTConfig, grey
from lens.cohort import read_manifest
from lens.cohort.factor_phantom import write_cohort
from lens.errors import InputError

SMALL = ViTConfig(depth=2, width=16, heads=2, hidden=24, patch=4, grid=(3, 3))
VIT = ViT(SMALL, rngs=nnx.Rngs(0))
CONV = ConvNeXtV2(
    ConvNeXtV2Config(dims=2, depths=(1, 1), widths=(8, 16), strides=(2,)), rngs=nnx.Rngs(0)
)


def volumes(depth: int = 20) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, depth, 16, 24, 3)).astype(np.float32)


def masks(depth: int = 20) -> np.ndarray:
    region = np.zeros((2, depth, 16, 24), bool)
    region[0, 3:5, 2:9, 8:14] = True
    region[0, 11, 0:4, 0:4] = True
    region[1, -1, 15, 23] = True
    return region


@pytest.mark.parametrize("encoder", [VIT, CONV], ids=["ViT", "ConvNeXt V2"])
def test_a_region_through_slices_is_a_region_of_their_stack(encoder):
    x, region = volumes(), masks()
    found = embed(encoder, x, masks=region, stages=(1, 2), batch_size=2)
    for number in range(2):
        maps = encoder.stages(x[number])
        expected = []
        for stage, features in enumerate(maps):
            features = np.asarray(features)
            steps = 16 // features.shape[1]
            weight = region[number].reshape(20, features.shape[1], steps, -1, steps).mean((2, 4))
            mean = (features * weight[..., None]).sum((0, 1, 2)) / weight.sum()
            last = stage == len(maps) - 1
            expected.append(
                np.asarray(encoder.normalise(jnp.asarray(mean[None], jnp.float32)))[0]
                if last
                else mean
            )
        np.testing.assert_allclose(found[number], np.concatenate(expected), atol=1e-4)


def test_tokens_of_the_whole_and_of_the_region():
    x, region = volumes(), masks()
    patches = np.stack([np.asarray(VIT.summary(v, "patches")) for v in x])
    own = np.stack([np.asarray(VIT(v)) for v in x])
    np.testing.assert_allclose(embed(VIT, x), own.mean(1), atol=1e-5)
    np.testing.assert_allclose(embed(VIT, x, tokens="patches"), patches.mean(1), atol=1e-5)
    slices = embed(VIT, x, masks=region, tokens="class")
    np.testing.assert_allclose(slices[0], own[0, [3, 4, 11]].mean(0), atol=1e-5)
    np.testing.assert_allclose(slices[1], own[1, -1], atol=1e-5)
    everywhere = embed(VIT, x, masks=np.ones_like(region))
    np.testing.assert_allclose(everywhere, patches.mean(1), atol=1e-5)
    asked = embed(VIT, x, masks=region, tokens="patches")
    np.testing.assert_array_equal(asked, embed(VIT, x, masks=region))
    assert np.abs(asked - slices).max() > 0.01


def test_an_empty_region_has_no_embedding():
    region = masks()
    region[1] = False
    for tokens in ("class", "patches"):
        rows = embed(VIT, volumes(), masks=region, tokens=tokens)
        assert np.isfinite(rows[0]).all()
        assert np.isnan(rows[1]).all()
    assert np.isnan(embed(VIT, volumes(), masks=np.zeros_like(region))).all()


def test_what_an_encoder_lacks_is_refused():
    with pytest.raises(ValueError, match="ConvNeXtV2 has no class token"):
        embed(CONV, volumes(), tokens="class")
    with pytest.raises(ValueError, match="stages are maps of patches"):
        embed(VIT, volumes(), tokens="class", stages=(1,))
    shape = {"shape": (4, 16, 16)}
    with pytest.raises(InputError, match="windows need a 3D encoder"):
        check_settings(SMALL, EmbeddingSettings(**shape, windows=True))
    with pytest.raises(InputError, match="tokens class: of the last block of a ViT"):
        check_settings(CONV.config, EmbeddingSettings(**shape, tokens="class"))
    with pytest.raises(InputError, match="multiple of 4 voxels"):
        check_settings(SMALL, EmbeddingSettings(shape=(4, 16, 18)))


def test_a_cohort_of_volumes_and_one_modality_as_three(tmp_path: Path):
    cohort = read_manifest(write_cohort(tmp_path / "c", 3, 0, progress=False))
    common = {"shape": (8, 16, 16), "spacing_mm": (4.0, 4.0, 6.0), "pool": "gland"}
    one = EmbeddingSettings(**common, modalities=("t2",))
    three = EmbeddingSettings(**common, modalities=("t2",) * 3)
    cache = tmp_path / "cache"
    alone, errors = embed_cohort(cohort, VIT, settings=one, cache=cache)
    assert errors == ()
    assert alone.embeddings.shape == (3, 16)
    alike, _ = embed_cohort(cohort, VIT, settings=three)
    np.testing.assert_allclose(alone.embeddings, alike.embeddings, atol=1e-4)
    again, _ = embed_cohort(cohort, VIT, settings=one, cache=cache)
    np.testing.assert_array_equal(again.embeddings, alone.embeddings)
    assert grey(VIT).config.in_channels == 1


@pytest.mark.parametrize(("task", "freeze"), [("regression", False), ("classification", True)])
def test_it_is_fine_tuned_on_volumes(task, freeze):
    rng = np.random.default_rng(1)
    bright = rng.uniform(size=16)
    x = rng.normal(size=(16, 2, 8, 8, 3)) * 0.1 + bright[:, None, None, None, None]
    labels = bright > 0.5 if task == "classification" else bright
    tuned, history = encoders.finetune(
        VIT, x.astype(np.float32), labels, task=task,
        settings=encoders.TrainingSettings(
            epochs=1, batch_size=16, freeze=freeze, drop_path=0.0 if freeze else 0.2,
            layer_decay=0.7,
        ),
        tracking=encoders.Tracking(progress=False),
    )  # fmt: skip
    assert np.isfinite(history.loss).all()
    assert history.predict(tuned, x.astype(np.float32)).shape[0] == 16
    assert isinstance(tuned, ViT)
    moved = np.abs(np.asarray(tuned.positions[...] - VIT.positions[...])).max()
    assert (moved == 0) == freeze
