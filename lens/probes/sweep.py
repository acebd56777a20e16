"""Train the shared MLP over a grid of penalties; select by validation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from lens.probes.checks import check_losses
from lens.probes.devices import choose_stack, gather_rows, map_in_threads, own_rows, to_chunks
from lens.probes.mlp import Projection
from lens.probes.scaling import fit_standardise, standardise
from lens.probes.training import Data, advance, evaluate, start, to_points
from lens.settings import DEFAULT_SWEEP, SweepConfig

Layer = tuple[Float[Array, "mlps d h"], Float[Array, "mlps h"]]

REPORTS = 20
"""Calls of the progress callback by each program."""


@dataclass(frozen=True)
class Sweep:
    """Result of a sweep.

    Attributes:
        table: a row per pair and seed: ``l1, l2, seed, train_loss, val_loss, selected``; losses
            are mean absolute errors over the entries, without penalty.
        projection: first layer of the selected MLP.
    """

    table: pd.DataFrame
    projection: Projection


def sweep(
    x_train: Float[np.ndarray, "n d"],
    r_train: Float[np.ndarray, "n k"],
    x_val: Float[np.ndarray, "m d"],
    r_val: Float[np.ndarray, "m k"],
    config: SweepConfig = DEFAULT_SWEEP,
    *,
    seed: int = 0,
    on_epochs: Callable[[int], object] | None = None,
) -> Sweep:
    """Shared MLP with the best penalties: one is trained per penalty pair and seed of the grid.

    Every MLP of one seed starts from the same weights and sees the same minibatches in the same
    order, so that pairs differ by their penalty alone. The pair with the lowest validation loss
    (mean over seeds) is selected, of it the best seed.

    Under ``jax.distributed`` every process calls this with the same arguments, trains its share of
    the grid on its own devices, and gets the whole result.

    Args:
        x_train, x_val: embeddings of train and validation patients, before fine-tuning.
        r_train, r_val: radiomic features scaled by the train patients' range (unitless).
        config: grid, width and optimiser.
        seed: of the first MLP of each pair: its initialisation and batch order.
        on_epochs: called with the number of MLP epochs finished since the last call (progress
            bars).

    Raises:
        ValueError: an input is not finite, a penalty is negative, or no MLP has a finite
            validation loss.
    """
    _check(x_train, r_train, x_val, r_val, config)
    grid = pd.DataFrame(
        list(itertools.product(config.l1_grid, config.l2, range(seed, seed + config.seeds))),
        columns=["l1", "l2", "seed"],
    )
    paper = config.mode == "paper"
    mean, std = (
        (np.zeros(x_train.shape[1], np.float32), np.ones(x_train.shape[1], np.float32))
        if paper
        else fit_standardise(x_train)
    )
    data = Data(
        x=standardise(jnp.asarray(x_train), mean, std),
        r=jnp.asarray(r_train, jnp.float32),
        x_val=standardise(jnp.asarray(x_val), mean, std),
        r_val=jnp.asarray(r_val, jnp.float32),
    )
    scale = float(r_train.shape[1]) if paper else 1.0
    train_loss, val_loss, first_layer = _train(data, grid, config, scale, on_epochs)
    table = grid.assign(train_loss=train_loss, val_loss=val_loss)
    best = _select(table)
    table["selected"] = table.index == best
    w, b = first_layer(best)
    return Sweep(table=table, projection=Projection(w=w, b=b, x_mean=mean, x_std=std))


def _train(
    data: Data,
    grid: pd.DataFrame,
    config: SweepConfig,
    loss_scale: float,
    on_epochs: Callable[[int], object] | None,
) -> tuple[np.ndarray, np.ndarray, Callable[[int], tuple[np.ndarray, np.ndarray]]]:
    """Losses on train and on validation patients of every row of the grid, and any first layer.

    First layers stay where they were trained: of a large grid on an accelerator they would be
    hundreds of megabytes, of which one is wanted.
    """
    d, k, width = data.x.shape[1], data.r.shape[1], config.width(len(data.x) + len(data.x_val))
    stack = choose_stack(len(grid), d, width, k, wanted=config.stack)
    pauses = np.linspace(0, config.epochs, min(config.epochs, REPORTS) + 1).round().astype(int)
    reporting = Lock()

    def train(chunk: np.ndarray, pauses: np.ndarray = pauses) -> tuple[Layer, list[np.ndarray]]:
        points = to_points(grid.iloc[chunk])
        state = start(points, d, width, k)
        for first, last in itertools.pairwise(pauses.tolist()):
            state = advance(
                data,
                points,
                state,
                first,
                last,
                batch=min(config.batch, len(data.x)),
                rate=config.rate,
                loss_scale=loss_scale,
            )
            jax.block_until_ready(state)
            if on_epochs:
                with reporting:
                    on_epochs((last - first) * len(np.unique(chunk)))
        return (state.mlp.w, state.mlp.b), [np.asarray(loss) for loss in evaluate(data, state)]

    chunks = to_chunks(own_rows(len(grid)), stack)
    train(chunks[0], np.zeros(2, int))  # compiles, once for all
    layers, losses = zip(*map_in_threads(train, chunks), strict=True)
    train_loss, val_loss = (
        gather_rows(np.concatenate(part), len(grid)) for part in zip(*losses, strict=True)
    )

    def first_layer(row: int) -> tuple[np.ndarray, np.ndarray]:
        turn, process = divmod(row, jax.process_count())
        # One from every process, of which one has trained this row.
        w, b = (
            gather_rows(np.array(leaf[turn % stack])[None], jax.process_count())[process]
            for leaf in layers[turn // stack]
        )
        return w, b

    return train_loss, val_loss, first_layer


def _select(table: pd.DataFrame) -> int:
    """Row of the best seed of the pair with the lowest mean validation loss."""
    mean = table.groupby(["l1", "l2"])["val_loss"].transform("mean")
    check_losses(mean.to_numpy())
    tied = table[mean == mean.min()]
    return int(tied["val_loss"].idxmin())


def _check(
    x_train: np.ndarray,
    r_train: np.ndarray,
    x_val: np.ndarray,
    r_val: np.ndarray,
    config: SweepConfig,
) -> None:
    for name, values in (
        ("x_train", x_train),
        ("r_train", r_train),
        ("x_val", x_val),
        ("r_val", r_val),
    ):
        if not len(values):
            raise ValueError(f"{name} has no rows")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has values that are not finite")
    if min(*config.l1_grid, *config.l2) < 0:
        raise ValueError("penalties must not be negative")
