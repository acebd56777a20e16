"""The encoder equals code that nobody here wrote, and behaves as its configuration says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import ConvNextV2Config as HubConfig
from transformers import ConvNextV2Model

from encoders.convnext import STEM_BIAS, ConvNeXtV2, ConvNeXtV2Config, Size
from encoders.convnext_weights import convert, our_name
from encoders.encoder import parameters
from tests.encoders.reference import Reference, arrays, compare, randomise

SMALL = ConvNeXtV2Config(depths=(1, 2, 1, 1), widths=(8, 16, 24, 32))


@nnx.jit
def outputs(encoder: ConvNeXtV2, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    stages = encoder.stages(x)
    return encoder.pool(stages[-1]), stages


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 32, 48, 40, 3)).astype(np.float32)


def test_3d_equals_torch_modules(volume):
    reference = Reference()
    randomise(reference)
    embedding, stages = reference(torch.from_numpy(volume).movedim(-1, 1))
    encoder, _ = convert(arrays(reference))
    assert encoder.config == SMALL
    ours, our_stages = outputs(encoder, volume)
    for own_rows, theirs in zip(our_stages, stages, strict=True):
        assert compare(np.asarray(own_rows), theirs) < 1e-4
    assert compare(np.asarray(ours), embedding) < 1e-4


def test_2d_equals_transformers():
    config = HubConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 2, 1, 1])
    model = ConvNextV2Model(config).eval()
    randomise(model)
    image = np.random.default_rng(2).normal(size=(2, 96, 64, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = model(torch.from_numpy(image).movedim(-1, 1), output_hidden_states=True)
    encoder, match = convert(arrays(model))
    assert match.full
    assert encoder.config.dims == 2
    assert encoder.config.strides == (2, 2, 2)
    hidden = theirs.hidden_states[-4:]
    ours, our_stages = outputs(encoder, image)
    for own_rows, expected in zip(our_stages, hidden, strict=True):
        assert compare(np.asarray(own_rows), expected) < 1e-4
    assert compare(np.asarray(ours), theirs.pooler_output) < 1e-4


def shallow(size: Size, dims: int = 3) -> ConvNeXtV2Config:
    """A published size with one block per stage; the blocks of a stage are alike."""
    return ConvNeXtV2Config.named(size, dims=dims, depths=(1, 1, 1, 1))


@pytest.mark.parametrize("size", ["atto", "tiny"])
def test_3d_equals_torch_modules_at_published_widths(size):
    """The widths people use, on a volume that is small; float32 sums over up to 3,072 channels."""
    config = shallow(size)
    reference = Reference(config.depths, config.widths, config.strides)
    randomise(reference)
    volume = np.random.default_rng(4).normal(size=(1, 16, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        embedding, stages = reference(torch.from_numpy(volume).movedim(-1, 1))
    encoder, _ = convert(arrays(reference))
    assert encoder.config == config
    ours = encoder.stages(volume)
    for own_rows, theirs in zip(ours, stages, strict=True):
        assert compare(np.asarray(own_rows), theirs) < 1e-4
    assert compare(np.asarray(encoder.pool(ours[-1])), embedding) < 1e-4


@cache
def numbers(config: ConvNeXtV2Config) -> dict[str, int]:
    """Parameter -> its numbers, none of which is drawn."""
    abstract = nnx.eval_shape(lambda: ConvNeXtV2(config, rngs=nnx.Rngs(0)))
    return {name: parameter.size for name, parameter in parameters(abstract).items()}


def in_all(size: Size, dims: int) -> int:
    """Numbers of a published size, in as many blocks as it has."""
    depths = ConvNeXtV2Config.named(size, dims=dims).depths
    return sum(
        count * (depths[int(name.split(".")[1])] if name.startswith("blocks.") else 1)
        for name, count in numbers(shallow(size, dims)).items()
    )


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("size", get_args(Size))
def test_every_published_size_has_the_parameters_of_the_reference(size, dims):
    config = ConvNeXtV2Config.named(size, dims=dims)
    with torch.device("meta"):
        one = Reference((1, 1, 1, 1), config.widths, config.strides, dims)
        whole = Reference(config.depths, config.widths, config.strides, dims)
    theirs = {our_name(name): p.numel() for name, p in one.named_parameters()}
    assert theirs == numbers(shallow(size, dims))
    assert in_all(size, dims) == sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize("dims", [2, 3])
def test_there_are_as_many_blocks_as_the_depths_say(dims):
    config = replace(SMALL, dims=dims, depths=(3, 1, 2, 4))
    places = {tuple(name.split(".")[1:3]) for name in numbers(config) if "blocks." in name}
    expected = [(str(stage), str(at)) for stage in range(4) for at in range(config.depths[stage])]
    assert sorted(places) == expected


@pytest.mark.parametrize(
    ("size", "millions"),
    [("atto", 3.4), ("nano", 15.0), ("tiny", 27.9), ("base", 87.7)],
)
def test_published_sizes_2d(size, millions):
    """Parameters without the classifier, in millions, from the ConvNeXt V2 paper's model zoo."""
    assert in_all(size, 2) / 1e6 == pytest.approx(millions, abs=0.06)


def test_stage_grids(volume):
    encoder = ConvNeXtV2(SMALL, rngs=nnx.Rngs(0))
    stages = nnx.eval_shape(lambda e: e.stages(volume), encoder)
    shapes = [stage.shape[1:-1] for stage in stages]
    assert encoder.config.total_strides == (4, 8, 16, 16)
    assert shapes == [
        tuple(extent // stride for extent in volume.shape[1:4])
        for stride in encoder.config.total_strides
    ]


@pytest.mark.parametrize("dims", [2, 3])
def test_only_a_stem_with_a_bias_sees_amplitude(dims):
    """The LayerNorm of ``c * w`` is that of ``w`` for any ``c > 0``; of ``c * w + b`` it is not."""
    config = ConvNeXtV2Config(dims=dims, depths=(1, 1), widths=(16, 32), strides=(2,))
    plain = ConvNeXtV2(config, rngs=nnx.Rngs(0))
    drawn = ConvNeXtV2(config, rngs=nnx.Rngs(0), stem_bias=STEM_BIAS)
    levels = jnp.asarray([0.5, 1.0, 2.0]).reshape(-1, *(1,) * (dims + 1))
    x = levels * jnp.ones((3, *(16,) * dims, 3))
    blind, seeing = np.asarray(plain(x)), np.asarray(drawn(x))
    # The norm's epsilon of 1e-6 is the only trace of the amplitude.
    np.testing.assert_allclose(blind, np.broadcast_to(blind[0], blind.shape), atol=2e-3)
    assert (np.abs(np.diff(seeing, axis=0)).max(axis=1) > 0.2).all()


def test_the_drawn_bias_is_the_stems_alone_and_of_its_deviation():
    def drawn(width: int, size: float) -> ConvNeXtV2:
        config = ConvNeXtV2Config(depths=(1, 1), widths=(width, 8), strides=(2,))
        return ConvNeXtV2(config, rngs=nnx.Rngs(0), stem_bias=size)

    # Of 4096 draws, in a program that leaves out the kernels, which nobody asks for: the standard
    # error of their deviation is 0.3 / sqrt(2 * 4096) = 0.0033.
    bias = np.asarray(jax.jit(lambda: drawn(4096, STEM_BIAS).downsamples[0].conv.bias[...])())
    assert bias.std() == pytest.approx(STEM_BIAS, abs=0.014)
    assert abs(bias.mean()) < 0.02
    plain, seeing = (parameters(drawn(16, size)) for size in (0.0, STEM_BIAS))
    np.testing.assert_array_equal(plain.pop("downsamples.0.conv.bias")[...], 0)
    assert np.all(seeing.pop("downsamples.0.conv.bias")[...] != 0)
    for name, parameter in seeing.items():
        np.testing.assert_array_equal(parameter[...], plain[name][...], err_msg=name)


def test_wrong_input_is_refused(volume):
    encoder = ConvNeXtV2(SMALL, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="3 channels"):
        encoder(volume[..., :2])
    with pytest.raises(ValueError, match="3 spatial axes"):
        encoder(volume[:, 0])


def test_stochastic_depth_drops_whole_branches_without_bias():
    """One block that is kept half of the time: its branch is 0 or doubled, sample by sample."""
    config = ConvNeXtV2Config(
        depths=(1, 1), widths=(8, 16), strides=(2,), drop_path=0.5, in_channels=1
    )
    encoder = ConvNeXtV2(config, rngs=nnx.Rngs(0))
    x = jnp.repeat(jax.random.normal(jax.random.key(1), (1, 8, 8, 8, 1)), 400, axis=0)
    graph, state = nnx.split(encoder)
    run = jax.jit(lambda key: nnx.merge(graph, state).stages(x, key=key)[-1])
    plain, dropped = np.asarray(run(None)), np.asarray(run(jax.random.key(0)))
    base = dropped.min(axis=0)
    kept = np.abs(dropped - dropped[0]).max(axis=(1, 2, 3, 4)) > 1e-6
    share = max(kept.mean(), 1 - kept.mean())
    # 400 coin flips: four standard errors are 0.1.
    assert share < 0.6
    assert base.shape == plain.shape[1:]
    two = np.stack([dropped[kept][0], dropped[~kept][0]])
    np.testing.assert_allclose(two.mean(axis=0), plain[0], atol=1e-5)


def test_remat_and_bfloat16():
    """Recomputation changes no gradient; bfloat16 stays within its rounding."""
    x = np.random.default_rng(3).normal(size=(2, 16, 16, 16, 3)).astype(np.float32)
    layout = {"depths": (1,), "widths": (8,), "strides": ()}

    def gradient(config):
        graph, state = nnx.split(ConvNeXtV2(config, rngs=nnx.Rngs(0)))
        return jax.jit(jax.grad(lambda s: (nnx.merge(graph, s)(x) ** 3).sum()))(state)

    kept = gradient(ConvNeXtV2Config(**layout))
    redone = gradient(ConvNeXtV2Config(**layout, remat=True))
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(redone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max())
    exact = outputs(ConvNeXtV2(ConvNeXtV2Config(**layout), rngs=nnx.Rngs(0)), x)[0]
    config = ConvNeXtV2Config(**layout, dtype="bfloat16")
    half = outputs(ConvNeXtV2(config, rngs=nnx.Rngs(0)), x)[0]
    assert half.dtype == jnp.float32
    assert np.abs(half - exact).max() < 0.05 * np.abs(exact).max()
