"""The shared MLP of one encoder in one fold, and the projected embeddings of any encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lens.probes.halving import Winner, halve
from lens.probes.mlp import hidden
from lens.probes.scaling import MinMax, scale
from lens.probes.training import Data
from lens.settings import SweepConfig
from lens.verdicts.fold_values import standardised
from lens.verdicts.folds import Fold

_COLUMNS = 512
"""Features that are scaled at once."""


class Sizes(NamedTuple):
    """Rows of the arrays of every fold: equal sizes spare a compilation per fold."""

    train: int
    val: int


def common_sizes(folds: Sequence[Fold]) -> Sizes:
    """The fewest train rows of any fold, and the most that any fold is then left with."""
    train = min(int(fold.train.sum()) for fold in folds)
    return Sizes(train, max(int(fold.fitted.sum()) - train for fold in folds))


def train_mlp(
    x: Float[np.ndarray, "n d"],
    r: Float[np.ndarray, "n k"],
    fold: Fold,
    sizes: Sizes,
    config: SweepConfig,
    *,
    seed: int,
) -> Winner:
    """First layer of the shared MLP, penalties chosen on the fold's validation rows.

    Folds differ by a few rows: what a fold has beyond the common train size helps to choose the
    penalties instead, and validation arrays are filled up with rows of weight zero.

    Args:
        x: embeddings of the encoder, all rows.
        r: radiomic features, all rows, finite.
        fold: whose train and validation rows are used.
        sizes: of all folds.
        config: grid of penalties, width and optimiser.
        seed: of the initialisation and the batch order.
    """
    train = np.flatnonzero(fold.train)
    val = np.r_[np.flatnonzero(fold.val), train[sizes.train :]]
    train = train[: sizes.train]
    padded = np.r_[val, np.full(sizes.val - len(val), val[0])]
    scaled = np.empty(r.shape, np.float32)
    for at in range(0, r.shape[1], _COLUMNS):
        part = r[:, at : at + _COLUMNS]
        low, high = part[train].min(axis=0), part[train].max(axis=0)
        # A feature that is constant here has no range; at 0 throughout it leaves the layer alone.
        scaled[:, at : at + _COLUMNS] = scale(
            part, MinMax(low, np.where(high > low, high, low + 1))
        )
    standard = standardised(x, fold.fitted)
    data = Data(
        x=jnp.asarray(standard[train]),
        r=jnp.asarray(scaled[train]),
        x_val=jnp.asarray(standard[padded]),
        r_val=jnp.asarray(scaled[padded]),
        val_weight=jnp.asarray(np.arange(len(padded)) < len(val), jnp.float32),
    )
    return halve(data, config, seed=seed)


def project(mlp: Winner, x: Float[np.ndarray, "n d"], fold: Fold) -> Float[np.ndarray, "n h"]:
    """Projected embeddings of an encoder, standardised by that encoder's own fitted rows."""
    standard = jnp.asarray(standardised(x, fold.fitted))
    return np.asarray(hidden(standard, jnp.asarray(mlp.w), jnp.asarray(mlp.b)), np.float64)
