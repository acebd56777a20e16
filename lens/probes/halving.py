"""Search of the penalty grid by successive halving: the best third of the pairs goes on."""

from __future__ import annotations

import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.probes.checks import check_losses
from lens.probes.devices import choose_stack, map_in_threads, to_chunks
from lens.probes.training import Data, State, advance, evaluate, start, to_points
from lens.settings import SweepConfig


class Winner(NamedTuple):
    """Result of `halve`.

    Attributes:
        w, b: first layer of the selected MLP.
        table: a row per penalty pair: ``l1, l2, epochs, val_loss, selected``; epochs that it was
            trained for, and the mean absolute error on validation patients after these.
    """

    w: Float[np.ndarray, "d h"]
    b: Float[np.ndarray, " h"]
    table: pd.DataFrame


KEEP = 3
"""Of so many penalty pairs one goes on to the next round of `halve`."""


def halve(data: Data, config: SweepConfig, *, seed: int) -> Winner:
    """First layer of the MLP with the best penalties, by successive halving of the grid.

    All pairs are trained for a few epochs, the best third by validation loss for three times as
    many, and so on until one is left, which is trained to ``config.epochs``. A pair that goes on
    goes on from where it was. With 24 pairs and 200 epochs: 24 to epoch 7, 8 to 22, 3 to 67 and 1
    to 200, an eighth of the full grid's work (Jamieson and Talwalkar 2016). A pair that starts
    slowly can be lost, although its final loss would have been better than the winner's.

    Args:
        data: standardised embeddings, scaled features; `val_weight` marks fill rows.
        config: grid, width and optimiser; `seeds` and `mode` are not used.
        seed: of the initialisation and the batch order.

    Raises:
        ValueError: the selected pair's validation loss is not finite.
    """
    grid = pd.DataFrame(list(itertools.product(config.l1_grid, config.l2)), columns=["l1", "l2"])
    grid["seed"] = seed
    d, k, width = data.x.shape[1], data.r.shape[1], config.width(len(data.x) + len(data.x_val))
    stack = choose_stack(len(grid), d, width, k, wanted=config.stack)
    states: dict[int, State] = {}

    def train(chunk: np.ndarray, first: int, last: int) -> np.ndarray:
        """Validation losses of a chunk's pairs, trained from one epoch to another."""
        points = to_points(grid.iloc[chunk])
        state = (
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *(states[i] for i in chunk))
            if first
            else start(points, d, width, k)
        )
        state = advance(
            data,
            points,
            state,
            first,
            last,
            batch=min(config.batch, len(data.x)),
            rate=config.rate,
        )
        _, loss = evaluate(data, state)
        for position, index in enumerate(chunk):
            states[index] = jax.tree.map(lambda leaf, i=position: leaf[i], state)
        return np.asarray(loss, np.float64)

    left = np.arange(len(grid))
    train(to_chunks(left, stack)[0], 0, 0)  # compiles, once for all
    grid["epochs"], grid["val_loss"], done = 0, np.nan, 0
    for goal, count in rounds(len(grid), config.epochs):
        left = left[np.argsort(grid["val_loss"].to_numpy()[left], kind="stable")][:count]
        chunks = to_chunks(left, stack)
        losses = map_in_threads(partial(train, first=done, last=goal), chunks)
        grid.loc[np.concatenate(chunks), "val_loss"] = np.concatenate(losses)
        grid.loc[left, "epochs"] = done = goal
    best = left[0]
    check_losses(grid["val_loss"].to_numpy()[[best]])
    mlp = states[best].mlp
    table = grid.drop(columns="seed").assign(selected=grid.index == best)
    return Winner(np.asarray(mlp.w), np.asarray(mlp.b), table)


def rounds(pairs: int, epochs: int) -> tuple[tuple[int, int], ...]:
    """``(epoch to reach, pairs that go on to it)`` of each round of `halve`."""
    counts = [pairs]
    while counts[-1] > 1:
        counts.append(max(1, round(counts[-1] / KEEP)))
    goals = [max(1, round(epochs / KEEP**left)) for left in reversed(range(len(counts)))]
    return tuple(zip(goals, counts, strict=True))
