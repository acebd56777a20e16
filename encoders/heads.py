"""Heads on the embedding: grade classification and regression of a measured quantity.

The last layer of each starts at zero: the first gradients then train the head alone, where a random
one would send noise into the encoder before the head has learnt anything.
"""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Array, Float


class ClassificationHead(nnx.Module):
    """Linear, BatchNorm, ReLU, Linear: logits of the classes, all zero at the start."""

    def __init__(self, features: int, classes: int, *, width: int = 256, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(features, width, rngs=rngs)
        self.norm = _batch_norm(width, rngs)
        self.logits = _zero_linear(width, classes, rngs)

    def __call__(self, embedding: Float[Array, "n f"]) -> Float[Array, "n classes"]:
        return self.logits(jax.nn.relu(self.norm(self.hidden(embedding))))


class RegressionHead(nnx.Module):
    """BatchNorm, Linear: the standardised label, at the start its mean, zero."""

    def __init__(self, features: int, *, rngs: nnx.Rngs) -> None:
        self.norm = _batch_norm(features, rngs)
        self.value = _zero_linear(features, 1, rngs)

    def __call__(self, embedding: Float[Array, "n f"]) -> Float[Array, "n 1"]:
        return self.value(self.norm(embedding))


def _zero_linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    zeros = nnx.initializers.zeros_init()
    return nnx.Linear(inputs, outputs, kernel_init=zeros, bias_init=zeros, rngs=rngs)


def _batch_norm(width: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """With torch's defaults: a weight of 0.1 for the new batch."""
    return nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
