"""The shared projection: the first layer of a two-layer MLP from embeddings to radiomic features.

Section 2.2 of the paper. The MLP is a plain pytree, so that ``vmap`` trains many at once.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

ACTIVATION = "relu"


class MLP(NamedTuple):
    """Weights of the two-layer perceptron ``relu(x w + b) v + c``."""

    w: Float[Array, "*lanes d h"]
    b: Float[Array, "*lanes h"]
    v: Float[Array, "*lanes h k"]
    c: Float[Array, "*lanes k"]


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


def standardise(
    x: Float[Array, "n d"],
    mean: Float[Array | np.ndarray, " d"],
    std: Float[Array | np.ndarray, " d"],
) -> Float[Array, "n d"]:
    """Embeddings with zero mean and unit standard deviation over the train patients."""
    return (x - mean) / std


def fit_standardise(
    x: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Mean and standard deviation per dimension; 1 where a dimension is constant."""
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    # A dimension that only carries rounding noise must not be blown up to unit variance.
    noise = np.finfo(np.float32).eps * np.abs(x).max(axis=0)
    return mean.astype(np.float32), np.where(std <= noise, 1.0, std).astype(np.float32)


def init(key: Array, d: int, h: int, k: int) -> MLP:
    """Uniform in ``+-1/sqrt(fan in)``, the start of PyTorch's linear layer."""
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
    """First layer."""
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
    """Mean absolute error over the entries of the rows with weight 1."""
    errors = jnp.abs(reconstruct(mlp, x) - r).sum(axis=1)
    return (errors * row_weight).sum() / (row_weight.sum() * r.shape[1])


def penalty(mlp: MLP, l1: Float[Array, ""], l2: Float[Array, ""]) -> Float[Array, ""]:
    """``l1 * sum |w| + l2 * sum w^2`` over the weights of both layers, biases left free."""
    absolute = jnp.abs(mlp.w).sum() + jnp.abs(mlp.v).sum()
    squared = jnp.square(mlp.w).sum() + jnp.square(mlp.v).sum()
    return l1 * absolute + l2 * squared
