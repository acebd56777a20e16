"""Heads on the embedding: grade classification and regression of a measured quantity."""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Array, Float


class ClassificationHead(nnx.Module):
    """Linear, BatchNorm, ReLU, Linear: logits of the classes."""

    def __init__(self, features: int, classes: int, *, width: int = 256, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(features, width, rngs=rngs)
        self.norm = _batch_norm(width, rngs)
        self.logits = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, embedding: Float[Array, "n f"]) -> Float[Array, "n classes"]:
        return self.logits(jax.nn.relu(self.norm(self.hidden(embedding))))


class RegressionHead(nnx.Module):
    """BatchNorm, Linear: the standardised label."""

    def __init__(self, features: int, *, rngs: nnx.Rngs) -> None:
        self.norm = _batch_norm(features, rngs)
        self.value = nnx.Linear(features, 1, rngs=rngs)

    def __call__(self, embedding: Float[Array, "n f"]) -> Float[Array, "n 1"]:
        return self.value(self.norm(embedding))


def _batch_norm(width: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """With torch's defaults: a weight of 0.1 for the new batch."""
    return nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
