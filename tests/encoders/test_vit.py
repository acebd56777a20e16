"""The vision transformer against Hugging Face's DINOv2, block by block."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import save_file

import encoders
from encoders import vit
from encoders.encoder import Encoder, EncoderConfig, encoder_hash, parameters
from encoders.positions import resample, resampling
from encoders.vit import MLP, ViT, ViTConfig, grey
from encoders.vit_weights import convert
from lens.errors import InputError
from tests.encoders.reference_vit import (
    arrays,
    as_original,
    as_published,
    as_timm,
    reference,
    states,
)

HEADS = {"num_attention_heads": 3}
KINDS = {
    "plain": {},
    "registers": {"registers": 4},
    "swiglu": {"use_swiglu_ffn": True},
    "registers and swiglu": {"registers": 2, "use_swiglu_ffn": True},
}


def images(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, height, width, channels)).astype(np.float32)


def assert_same_blocks(encoder: ViT, model, x: np.ndarray) -> None:
    """Every block's tokens and the final norm, to 1e-4 of their largest value."""
    expected = states(model, x)
    found = [np.asarray(tokens) for tokens in encoder.states(x)]
    normed = np.asarray(encoder.norm(found[-1]))
    assert len(found) + 1 == len(expected)
    for number, (ours, theirs) in enumerate(zip([*found, normed], expected, strict=True), start=1):
        worst = np.abs(ours - theirs).max() / np.abs(theirs).max()
        assert worst < 1e-4, f"after block {number}"


def test_a_few_images_at_a_time_give_what_all_together_give(monkeypatch):
    encoder = convert(arrays(reference()), facts=HEADS)[0]
    x = np.concatenate([images(42, 42), images(42, 42) * 2, images(42, 42)[:1] + 1])
    seen, found, residual = [], {}, vit._residual

    def noted(*given, few, **more):
        seen.append(few)
        return residual(*given, few=few, **more)

    monkeypatch.setattr(vit, "_residual", noted)
    for most in (0, 2 * 10 * encoder.config.hidden, 1 << 20):
        monkeypatch.setattr(vit, "_HIDDEN", most)
        found[most] = np.asarray(encoder(x))
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    found["card"] = np.asarray(encoder(x))
    depth = encoder.config.depth
    assert seen == [few for few in (1, 2, None, None) for _ in range(depth)]
    for rows in found.values():
        np.testing.assert_allclose(rows, found["card"], atol=1e-5 * np.abs(rows).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(42, 42), (28, 70)], ids=str)
def test_parity_on_all_blocks(kind, size):
    model = reference(**KINDS[kind])
    encoder, match = convert(arrays(model), facts=HEADS)
    assert match.full
    assert set(match.ignored) == {"embeddings.mask_token"}
    assert_same_blocks(encoder, model, images(*size))


@pytest.mark.parametrize(("width", "registers"), [(384, 0), (768, 4)])
def test_parity_at_the_published_widths(width, registers):
    model = reference(
        registers, hidden_size=width, num_attention_heads=width // 64, num_hidden_layers=2,
        image_size=518,
    )  # fmt: skip
    encoder, _ = convert(arrays(model))
    named = ViTConfig.named({384: "small", 768: "base"}[width])
    assert (encoder.config.heads, encoder.config.hidden) == (named.heads, named.hidden)
    assert_same_blocks(encoder, model, images(224, 224)[:1])


def test_the_perceptron_has_the_exact_gelu():
    """Parity on weights of usual size does not tell it from the approximation by tanh."""
    perceptron = MLP(ViTConfig(width=4, heads=1, hidden=4), rngs=nnx.Rngs(0))
    for layer in (perceptron.expand, perceptron.project):
        layer.kernel.set_value(jnp.eye(4))
        layer.bias.set_value(jnp.zeros(4))
    x = np.linspace(-4, 4, 80, dtype=np.float32).reshape(1, 20, 4)
    expected = torch.nn.functional.gelu(torch.from_numpy(x))
    np.testing.assert_allclose(perceptron(jnp.asarray(x)), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_other_names_give_the_same_numbers(kind):
    state = arrays(reference(num_hidden_layers=3, **KINDS[kind]))
    expected, _ = convert(state, facts=HEADS)
    for other in (
        as_published(state), as_original(state), as_original(state, chunk=2), as_timm(state),
        {f"teacher.backbone.{name}": array for name, array in as_original(state).items()},
        {f"dinov2.{name}": array for name, array in as_published(state).items()},
        {f"student.backbone.{name}": array + 1 for name, array in as_original(state).items()}
        | {f"teacher.backbone.{name}": array for name, array in as_original(state).items()},
    ):  # fmt: skip
        encoder, match = convert(other, facts=HEADS)
        assert match.full, match
        assert encoder.config == expected.config
        assert encoder_hash(encoder) == encoder_hash(expected)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("old", "new"), [(37, 16), (16, 16), (5, 12), (3, 1)])
def test_positions_are_interpolated_as_torch_does(antialias, old, new):
    x = torch.eye(old)[:, None, :, None].expand(old, 1, old, 3)
    resized = torch.nn.functional.interpolate(x, (new, 3), mode="bicubic", antialias=antialias)
    ours = resampling(old, new, antialias=antialias)
    np.testing.assert_allclose(ours, resized[:, 0, :, 0].numpy().T, atol=1e-6)


def test_the_offset_is_that_of_a_scale_factor():
    x = torch.eye(37)[:, None, :, None].expand(37, 1, 37, 37)
    factor = (16 + 0.1) / 37
    resized = torch.nn.functional.interpolate(x, scale_factor=(factor, factor), mode="bicubic")
    np.testing.assert_allclose(resampling(37, 16, offset=0.1), resized[:, 0, :, 0].T, atol=5e-6)


@pytest.mark.parametrize("changes", [{"offset": 0.1}, {"antialias": True}], ids=str)
def test_how_positions_are_interpolated_is_as_configured(changes):
    encoder, _ = convert(arrays(reference()), facts=HEADS)
    x, trained = jnp.asarray(images(56, 56)[:1]), encoder.positions[...]
    plain = encoder.tokens_of(x)
    encoder.config = dataclasses.replace(encoder.config, **changes)
    moved = resample(trained, (4, 4), **changes) - resample(trained, (4, 4))
    assert np.abs(moved).max() > 1e-3
    found = (encoder.tokens_of(x) - plain)[0, 1:]
    np.testing.assert_allclose(found, moved.reshape(16, -1), atol=1e-5)


def test_the_protocol_and_its_embeddings():
    encoder, _ = convert(arrays(reference(4)), facts=HEADS)
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder.config, EncoderConfig)
    x = images(56, 56)
    maps = encoder.stages(x)
    assert encoder.config.ends == (2, 3, 4, 5)
    assert [features.shape for features in maps] == [(2, 4, 4, 48)] * 4
    final = np.asarray(encoder.norm([*encoder.states(x)][-1]))
    np.testing.assert_allclose(encoder(x), final[:, 0], atol=1e-5)
    np.testing.assert_allclose(encoder.summary(x, "patches"), final[:, 5:].mean(1), atol=1e-5)
    np.testing.assert_allclose(maps[-1].mean((1, 2)), final[:, 5:].mean(1), atol=1e-5)
    assert encoder.layers_above(("blocks", 4, "scale1")) == 1
    assert encoder.layers_above(("positions",)) == 6
    with pytest.raises(ValueError, match="cannot leave patches out"):
        encoder.stages(x, visible=np.ones((2, 4, 4), bool))
    with pytest.raises(ValueError, match="expected images"):
        encoder(x[..., :1])


def test_one_channel_is_three_alike():
    encoder, _ = convert(arrays(reference()), facts=HEADS)
    x = images(42, 42, 1)
    np.testing.assert_allclose(grey(encoder)(x), encoder(x.repeat(3, -1)), atol=1e-4)
    assert encoder.config.in_channels == 3


def test_stochastic_depth_and_recomputing_change_training_alone():
    encoder, _ = convert(arrays(reference(num_hidden_layers=2)), facts=HEADS)
    x = images(42, 42)
    plain = encoder(x)
    encoder.config = dataclasses.replace(encoder.config, drop_path=0.9, remat=True)
    np.testing.assert_array_equal(encoder(x), plain)
    assert np.abs(encoder(x, key=jax.random.key(0)) - plain).max() > 0.1
    gradient = nnx.grad(lambda model: model(x).sum())(encoder)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_checkpoint_keeps_it(tmp_path: Path):
    state = arrays(reference(4))
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(as_published(state), folder / "model.safetensors")
    with pytest.raises(InputError, match="how many heads there are"):
        encoders.load(folder / "model.safetensors")
    (folder / "config.json").write_text('{"num_attention_heads": 3, "layer_norm_eps": 1e-6}')
    encoder = encoders.load(folder)
    assert isinstance(encoder, ViT)
    assert encoder.config.heads == 3
    encoders.save(tmp_path / "ours", encoder)
    again = encoders.load(tmp_path / "ours")
    assert again.config == encoder.config
    assert encoder_hash(again) == encoder_hash(encoder)
    (folder / "config.json").write_text('{"num_attention_heads": 3, "layer_norm_eps": 1e-5}')
    with pytest.raises(InputError, match="layer_norm_eps 1e-05"):
        encoders.load(folder)


def test_what_is_not_whole_is_refused():
    state = as_timm(arrays(reference()))
    call = partial(convert, facts=HEADS)
    with pytest.raises(InputError, match=r"1 missing: blocks\.2\.attention\.out\.kernel"):
        call({n: a for n, a in state.items() if n != "blocks.2.attn.proj.weight"})
    with pytest.raises(InputError, match=r"1 unexpected: blocks\.0\.attn\.q_norm\.weight"):
        call(state | {"blocks.0.attn.q_norm.weight": np.ones(16, np.float32)})
    with pytest.raises(InputError, match="not finite"):
        call(state | {"norm.bias": np.full(48, np.nan, np.float32)})
    with pytest.raises(InputError, match="only square grids"):
        call(state | {"pos_embed": np.ones((1, 8, 48), np.float32)})
    # 4 x 6 patches and the class token, whose count is a square's.
    with pytest.raises(InputError, match=r"\(1, 24, 48\) on patches .* only square grids"):
        call(state | {"pos_embed": np.ones((1, 25, 48), np.float32)})
    encoder, match = call({n: a for n, a in state.items() if n != "norm.bias"}, partial=True)
    assert match.missing == ("norm.bias",)
    assert not np.any(parameters(encoder)["norm.bias"][...])


def test_absurd_sizes_are_refused():
    for changes in ({"depth": 999_999}, {"heads": 5}, {"grid": (3,)}):
        with pytest.raises(ValueError, match=r"whole numbers|heads|grid"):
            ViTConfig(**changes)
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="tokens"):
        ViTConfig(tokens="all")  # pyright: ignore[reportArgumentType]
