"""Effective rank by stage: closed forms, and an encoder that says the same of everyone."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from encoders.collapse import collapse_note, stage_ranks, standardised_rank
from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.embedding import embed
from encoders.encoder import Encoder, reconfigure
from encoders.vit import ViT, ViTConfig

ROWS = np.arange(0, 40, 2)


def test_closed_forms():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(40, 1))
    signs = np.array([1.0, -3.0, 0.01])
    assert standardised_rank(one * signs + 5) == pytest.approx(1)
    # Orthogonal columns count each, whatever their scales are.
    q = np.linalg.qr(np.column_stack([np.ones(40), rng.normal(size=(40, 6))]))[0][:, 1:]
    assert standardised_rank(q) == pytest.approx(6)
    assert standardised_rank(q * 10.0 ** np.arange(-1, 5) + 3) == pytest.approx(6)
    # Correlation 0.6 of two channels: eigenvalues 1.6 and 0.4 of 2.
    pair = np.column_stack([q[:, 0], 0.6 * q[:, 0] + 0.8 * q[:, 1]])
    expected = np.exp(-(0.8 * np.log(0.8) + 0.2 * np.log(0.2)))
    assert standardised_rank(pair) == pytest.approx(expected)
    # Independent channels: nearly their number, of 4000 patients.
    assert standardised_rank(rng.normal(size=(4000, 8))) == pytest.approx(8, abs=0.05)


def test_constant_channels_and_rounding_count_nothing():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(np.column_stack([np.ones(40), rng.normal(size=(40, 3))]))[0][:, 1:]
    constant = np.full((40, 3), 2.0)
    rounded = (1 + 1e-7 * rng.normal(size=(40, 3))).astype(np.float32)
    assert standardised_rank(np.column_stack([q, constant, rounded])) == pytest.approx(3)
    assert standardised_rank(constant) == 0
    assert standardised_rank(rounded) == 0


def convnext(dims: int) -> ConvNeXtV2:
    config = ConvNeXtV2Config(dims=dims, depths=(1, 1), widths=(8, 16), strides=(2,), in_channels=1)
    return ConvNeXtV2(config, rngs=nnx.Rngs(0), stem_bias=0.3)


def vit() -> ViT:
    layout = ViTConfig(depth=2, width=8, heads=1, hidden=8, patch=8, grid=(2, 2), in_channels=1)
    return ViT(layout, rngs=nnx.Rngs(0))


def volumes(dims: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    shape = (40, 16 if dims == 3 else 2, 16, 16, 1)
    return rng.normal(size=shape).astype(np.float32) * rng.uniform(0.5, 2, (40, 1, 1, 1, 1)).astype(
        np.float32
    )


def rank_by_definition(x: np.ndarray) -> float:
    values = np.linalg.eigvalsh(np.corrcoef(x.astype(float), rowvar=False))
    shares = values[values > 1e-10] / values[values > 1e-10].sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


@pytest.mark.parametrize("dims", [2, 3])
def test_every_stage_of_a_convnext_by_its_definition(dims):
    encoder, x = convnext(dims), volumes(dims)
    shown = x[ROWS] if dims == 3 else x[ROWS].reshape(-1, 16, 16, 1)
    first, last = (
        np.asarray(maps).mean(axis=tuple(range(1, maps.ndim - 1))) for maps in encoder.stages(shown)
    )
    last = np.asarray(encoder.normalise(jnp.asarray(last)))
    means = [each.reshape(len(ROWS), -1, each.shape[-1]).mean(axis=1) for each in (first, last)]
    expected = [rank_by_definition(each) for each in means]
    ranks = stage_ranks(encoder, x, ROWS, batch_size=8)
    np.testing.assert_allclose(ranks, expected, rtol=2e-2)
    assert ranks[1] > 3


@pytest.mark.parametrize("tokens", ["class", "patches"])
def test_the_last_rank_of_a_vit_is_of_what_it_gives(tokens):
    encoder, x = vit(), volumes(2)
    reconfigure(encoder, tokens=tokens)
    ranks = stage_ranks(encoder, x, ROWS)
    assert len(ranks) == len(encoder.config.widths) == 2
    given = standardised_rank(embed(encoder, x[ROWS]))
    other = {"class": "patches", "patches": "class"}[tokens]
    assert ranks[-1] == pytest.approx(given, rel=1e-3)
    assert ranks[-1] != pytest.approx(standardised_rank(embed(encoder, x[ROWS], tokens=other)))


def silenced(encoder: Encoder) -> Encoder:
    """An encoder that says the same of everyone: the scale of its final norm is zero."""
    encoder.norm.scale.set_value(0 * encoder.norm.scale[...])  # pyright: ignore[reportAttributeAccessIssue]
    encoder.norm.bias.set_value(0.7 + encoder.norm.bias[...])  # pyright: ignore[reportAttributeAccessIssue]
    return encoder


@pytest.mark.parametrize("make", [lambda: convnext(3), vit])
def test_an_encoder_that_says_the_same_of_everyone_is_told(make):
    encoder = silenced(make())
    x = volumes(encoder.config.dims)
    ranks = stage_ranks(encoder, x, np.arange(40))
    assert ranks[-1] == 0
    assert ranks[0] > 1
    channels = encoder.config.features
    note = collapse_note(ranks, patients=40, channels=channels)
    assert note is not None
    assert f"rank is 0.0 of {channels} channels over 40 patients" in note


def test_the_rule_of_a_collapse():
    assert collapse_note([9.0, 2.9], patients=30, channels=8)
    assert collapse_note([1.0, 3.0], patients=30, channels=8) is None
    # As low a rank may come of few patients, or of few channels.
    assert collapse_note([9.0, 2.9], patients=29, channels=8) is None
    assert collapse_note([9.0, 2.9], patients=30, channels=7) is None
