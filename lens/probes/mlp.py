"""The shared projection: the first layer of a two-layer MLP from embeddings to radiomic features.

Section 2.2 of the paper. The MLP is a plain pytree, so that ``vmap`` trains many at once.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lens.probes.scaling import standardise

ACTIVATION = "relu"


class MLP(NamedTuple):
    """Weights of the two-layer perceptron ``relu(x w + b) v + c``."""

    w: Float[Array, "*mlps d h"]
    b: Float[Array, "*mlps h"]
    v: Float[Array, "*mlps h k"]
    c: Float[Array, "*mlps k"]


class Projection(NamedTuple):
    """The frozen first layer and its input scaling: ``relu((x - x_mean) / x_std @ w + b)``."""

    w: Float[np.ndarray, "d h"]
    b: Float[np.ndarray, " h"]
    x_mean: Float[np.ndarray, " d"]
    x_std: Float[np.ndarray, " d"]


def project(projection: Projection, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n h"]:
    """Projected embeddings ``Z``, one row per row of `x`, float32."""
    scaled = standardise(jnp.asarray(x), projection.x_mean, projection.x_std)
    return np.asarray(hidden(scaled, jnp.asarray(projection.w), jnp.asarray(projection.b)))


def init(key: Array, d: int, h: int, k: int) -> MLP:
    """Initial weights and biases, uniform in ``+-1/sqrt(fan in)`` as in PyTorch's linear layer."""
    keys = jax.random.split(key, 4)
    first, second = d**-0.5, h**-0.5
    return MLP(
        w=jax.random.uniform(keys[0], (d, h), minval=-first, maxval=first),
        b=jax.random.uniform(keys[1], (h,), minval=-first, maxval=first),
        v=jax.random.uniform(keys[2], (h, k), minval=-second, maxval=second),
        c=jax.random.uniform(keys[3], (k,), minval=-second, maxval=second),
    )


def hidden(
    x: Float[Array, "n d"], w: Float[Array, "d h"], b: Float[Array, " h"]
) -> Float[Array, "n h"]:
    """Projected embeddings: the first layer of standardised embeddings."""
    return jax.nn.relu(x @ w + b)


def reconstruct(mlp: MLP, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
    """Radiomic features from standardised embeddings, unitless."""
    return hidden(x, mlp.w, mlp.b) @ mlp.v + mlp.c


def reconstruction_loss(
    mlp: MLP,
    x: Float[Array, "n d"],
    r: Float[Array, "n k"],
    row_weight: Float[Array, " n"],
) -> Float[Array, ""]:
    """Mean absolute error over the entries of the rows with weight 1.

    Columns of the MLP beyond those of `r` only fill up: nothing of them enters.
    """
    errors = jnp.abs(reconstruct(mlp, x)[:, : r.shape[1]] - r).sum(axis=1)
    return (errors * row_weight).sum() / (row_weight.sum() * r.shape[1])


def penalty(
    mlp: MLP, l1: Float[Array, ""], l2: Float[Array, ""], columns: int | None = None
) -> Float[Array, ""]:
    """``l1 * sum |w| + l2 * sum w^2`` over the weights of both layers, biases left free.

    Of the second layer so many columns count; the others only fill up.
    """
    v = mlp.v[:, :columns]
    absolute = jnp.abs(mlp.w).sum() + jnp.abs(v).sum()
    squared = jnp.square(mlp.w).sum() + jnp.square(v).sum()
    return l1 * absolute + l2 * squared
