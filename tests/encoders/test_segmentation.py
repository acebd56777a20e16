"""UPerNet and the Dice losses equal torch and code that nobody here wrote."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional
from transformers.loss.loss_for_object_detection import dice_loss as transformers_dice

from encoders.segmentation import (
    UPerNet,
    adaptive_average,
    dice_cross_entropy,
    dice_loss,
    resize,
)
from tests.encoders.reference import ChannelsFirstNorm, compare, randomise

WIDTHS = (8, 12, 16, 20)
GRIDS = ((8, 12, 10), (4, 6, 5), (2, 3, 2), (2, 3, 2))
SIZE = (32, 48, 40)


def conv(inputs: int, outputs: int, kernel: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2),
        ChannelsFirstNorm(outputs, eps=1e-6),
        torch.nn.GELU(),
    )


def up(x: torch.Tensor, size: torch.Size | tuple[int, ...]) -> torch.Tensor:
    return functional.interpolate(x, size=tuple(size), mode="trilinear", align_corners=False)


class Reference(torch.nn.Module):
    """The decoder with channels first, written with torch.nn modules from its description."""

    def __init__(self, classes: int, width: int, auxiliary_width: int) -> None:
        super().__init__()
        self.norms = torch.nn.ModuleList(ChannelsFirstNorm(w, eps=1e-6) for w in WIDTHS)
        self.pools = torch.nn.ModuleList(conv(WIDTHS[-1], width, 1) for _ in range(4))
        self.bottleneck = conv(WIDTHS[-1] + 4 * width, width, 3)
        self.laterals = torch.nn.ModuleList(conv(w, width, 1) for w in WIDTHS[:-1])
        self.smooths = torch.nn.ModuleList(conv(width, width, 3) for _ in WIDTHS[:-1])
        self.fusion = conv(4 * width, width, 3)
        self.classifier = torch.nn.Conv3d(width, classes, 1)
        self.auxiliary = conv(WIDTHS[2], auxiliary_width, 3)
        self.auxiliary_classifier = torch.nn.Conv3d(auxiliary_width, classes, 1)

    def forward(self, stages: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        one, two, three, four = (norm(s) for norm, s in zip(self.norms, stages, strict=True))
        pooled = [
            up(layer(torch.nn.AdaptiveAvgPool3d(cells)(four)), four.shape[2:])
            for layer, cells in zip(self.pools, (1, 2, 3, 6), strict=True)
        ]
        d = self.bottleneck(torch.cat([four, *pooled], 1))
        c = self.laterals[2](three) + up(d, three.shape[2:])
        b = self.laterals[1](two) + up(c, two.shape[2:])
        a = self.laterals[0](one) + up(b, one.shape[2:])
        a, b, c = (smooth(level) for smooth, level in zip(self.smooths, (a, b, c), strict=True))
        levels = [up(level, one.shape[2:]) for level in (a, b, c, d)]
        logits = self.classifier(self.fusion(torch.cat(levels, 1)))
        auxiliary = self.auxiliary_classifier(self.auxiliary(three))
        return up(logits, SIZE), up(auxiliary, SIZE)


def copy_convolution(layer: Any, source: torch.nn.Module) -> None:
    """A convolution or linear layer's parameters, or those of a convolution with its norm."""
    if isinstance(source, torch.nn.Sequential):
        copy_convolution(layer.conv, source[0])
        copy_norm(layer.norm, source[1])
        return
    kernel = source.weight.detach().numpy().transpose(2, 3, 4, 1, 0)
    layer.kernel.set_value(jnp.asarray(kernel.reshape(layer.kernel.shape)))
    layer.bias.set_value(jnp.asarray(source.bias.detach().numpy()))


def copy_norm(layer: nnx.LayerNorm, source: torch.nn.Module) -> None:
    layer.scale.set_value(jnp.asarray(source.weight.detach().numpy()))
    layer.bias.set_value(jnp.asarray(source.bias.detach().numpy()))


def copied(reference: Reference, decoder: UPerNet) -> UPerNet:
    for ours, theirs in zip(decoder.norms, reference.norms, strict=True):
        copy_norm(ours, theirs)
    for name in ("bottleneck", "fusion", "classifier", "auxiliary", "auxiliary_classifier"):
        copy_convolution(getattr(decoder, name), getattr(reference, name))
    for name in ("pools", "laterals", "smooths"):
        for ours, theirs in zip(getattr(decoder, name), getattr(reference, name), strict=True):
            copy_convolution(ours, theirs)
    return decoder


@pytest.fixture(scope="module")
def stages() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        rng.normal(size=(2, *grid, width)).astype(np.float32)
        for grid, width in zip(GRIDS, WIDTHS, strict=True)
    ]


def test_upernet_equals_torch(stages):
    """Both outputs on random weights, to float32 rounding."""
    reference = Reference(3, 6, 5)
    randomise(reference)
    decoder = copied(reference, UPerNet(WIDTHS, 3, width=6, auxiliary_width=5, rngs=nnx.Rngs(0)))
    with torch.no_grad():
        theirs = reference([torch.from_numpy(stage).movedim(-1, 1) for stage in stages])
    ours = nnx.jit(lambda decoder, stages: decoder(stages, SIZE))(decoder, stages)
    for own_rows, expected in zip(ours, theirs, strict=True):
        assert compare(np.asarray(own_rows), expected) < 1e-4


@pytest.mark.parametrize("cells", [1, 2, 3, 6, 7])
def test_pooling_and_interpolation_equal_torch(cells):
    """Also to more positions than there are, as on the small grids of small crops."""
    x = np.random.default_rng(1).normal(size=(2, 4, 9, 14, 3)).astype(np.float32)
    first = torch.from_numpy(x).movedim(-1, 1)
    ours = adaptive_average(jnp.asarray(x), (cells,) * 3)
    assert compare(np.asarray(ours), torch.nn.AdaptiveAvgPool3d(cells)(first)) < 1e-5
    size = (2 * cells, 7, 11 - cells)
    assert compare(np.asarray(resize(jnp.asarray(x), size)), up(first, size)) < 1e-5


def test_dice_equals_transformers():
    """A single foreground: the loss of DETR's masks, which smooths by one voxel too."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(3, 4, 5, 6, 1)).astype(np.float32)
    target = rng.random((3, 4, 5, 6)) < 0.2
    target[2] = False
    flat = torch.from_numpy(logits.reshape(3, -1)), torch.from_numpy(target.reshape(3, -1)).float()
    expected = float(transformers_dice(*flat, num_boxes=3))
    assert float(dice_loss(jnp.asarray(logits), jnp.asarray(target))) == pytest.approx(
        expected, rel=1e-5
    )
    pair = np.concatenate([np.zeros_like(logits), logits], -1) + rng.normal(size=(3, 4, 5, 6, 1))
    assert float(dice_loss(jnp.asarray(pair), jnp.asarray(target))) == pytest.approx(
        expected, rel=1e-5
    )


def test_dice_cross_entropy_equals_torch():
    """Three classes: the mean of the foregrounds' losses, and torch's cross entropy."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, 4, 5, 6, 3)).astype(np.float32)
    target = rng.integers(0, 3, (2, 4, 5, 6))
    first = torch.from_numpy(logits).movedim(-1, 1)
    entropy = functional.cross_entropy(first, torch.from_numpy(target))
    odds = torch.logit(torch.softmax(first.double(), 1))
    dice = [
        transformers_dice(
            odds[:, k].reshape(2, -1),
            torch.from_numpy(target == k).reshape(2, -1).double(),
            num_boxes=2,
        )
        for k in (1, 2)
    ]
    ours = dice_cross_entropy(jnp.asarray(logits), jnp.asarray(target))
    assert float(ours) == pytest.approx(float(entropy + sum(dice) / 2), rel=1e-4)


def test_dice_of_empty_and_perfect_predictions():
    loss = jax.jit(dice_loss)
    target = np.zeros((1, 4, 4, 4), int)
    certain = jnp.full((1, 4, 4, 4, 1), 40.0)
    # Nothing there, nothing predicted; then everything predicted: 1 - 1 / (64 + 1).
    assert float(loss(-certain, jnp.asarray(target))) == pytest.approx(0, abs=1e-6)
    assert float(loss(certain, jnp.asarray(target))) == pytest.approx(64 / 65)
    target[0, 1:3, 1:3, 1:3] = 1
    sure = jnp.where(jnp.asarray(target)[..., None] == 1, certain, -certain)
    assert float(loss(sure, jnp.asarray(target))) == pytest.approx(0, abs=1e-6)
    # Missing it all: 1 - 1 / (8 + 1), and the gradient still points to the target.
    assert float(loss(-certain, jnp.asarray(target))) == pytest.approx(8 / 9)
    gradient = jax.jit(jax.grad(dice_loss))(jnp.zeros((1, 4, 4, 4, 1)), jnp.asarray(target))
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[target == 1] < 0).all()
