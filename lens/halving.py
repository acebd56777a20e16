"""Search the penalty grid by successive halving: the best third of the pairs goes on."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.sweeps import Data, Point, SweepConfig, advance, choose_lanes, start


class Winner(NamedTuple):
    """Result of `halve`.

    Attributes:
        w, b: first layer of the selected MLP.
        table: a row per penalty pair: ``l1, l2, epochs, val_loss, selected``; epochs it was given,
            and the loss at the end of them.
    """

    w: Float[np.ndarray, "d h"]
    b: Float[np.ndarray, " h"]
    table: pd.DataFrame


KEEP = 3
"""Of so many penalty pairs one goes on to the next round of `halve`."""


def halve(data: Data, config: SweepConfig, *, seed: int) -> Winner:
    """Selects the penalty pair by successive halving (Jamieson and Talwalkar 2016).

    All pairs are trained for a few epochs, the best third by validation loss for three times as
    many, and so on until one is left, which is trained to ``config.epochs``. A pair that goes on
    goes on from where it was. With 24 pairs and 200 epochs: 24 to epoch 7, 8 to 22, 3 to 67 and 1
    to 200, an eighth of the full grid's work. A pair that starts slowly can be lost, although its
    final loss would have been better than the winner's.

    Args:
        data: standardised embeddings, scaled features; `val_weight` marks fill rows.
        config: grid, width and optimiser; `seeds`, `seed` and `mode` are not used.
        seed: of the initialisation and the batch order.
    """
    grid = pd.DataFrame(list(itertools.product(config.l1, config.l2)), columns=["l1", "l2"])
    d, k = data.x.shape[1], data.r.shape[1]
    lanes = config.lanes or choose_lanes(len(grid), d, config.hidden, k)
    options = {"batch": min(config.batch, len(data.x)), "rate": config.rate}
    goals = rounds(len(grid), config.epochs)
    alive = np.arange(len(grid))
    done, states = 0, {}
    grid["epochs"], grid["val_loss"] = 0, np.nan
    for goal, count in goals:
        alive = alive[np.argsort(grid["val_loss"].to_numpy()[alive], kind="stable")][:count]
        for chunk in np.array_split(alive, -(-len(alive) // lanes)):
            points = Point(
                jnp.asarray(grid["l1"].to_numpy()[chunk], jnp.float32),
                jnp.asarray(grid["l2"].to_numpy()[chunk], jnp.float32),
                jnp.full(len(chunk), seed, jnp.int32),
            )
            state = (
                jax.tree.map(lambda *leaves: jnp.stack(leaves), *(states[i] for i in chunk))
                if done
                else start(points, d, config.hidden, k, rate=config.rate)
            )
            state, (_, loss) = advance(data, points, state, done, goal, **options)
            for lane, index in enumerate(chunk):
                states[index] = jax.tree.map(lambda leaf, lane=lane: leaf[lane], state)
            grid.loc[chunk, "val_loss"] = np.asarray(loss, np.float64)
        grid.loc[alive, "epochs"] = done = goal
    best = alive[0]
    if not np.isfinite(grid["val_loss"][best]):
        raise ValueError(
            "no penalty pair gave a finite validation loss; check the embeddings' scale"
        )
    mlp = states[best][0]
    table = grid.assign(selected=grid.index == best)
    return Winner(np.asarray(mlp.w), np.asarray(mlp.b), table)


def rounds(pairs: int, epochs: int) -> tuple[tuple[int, int], ...]:
    """``(epoch to reach, pairs that go on to it)`` of each round of `halve`."""
    counts = [pairs]
    while counts[-1] > 1:
        counts.append(max(1, round(counts[-1] / KEEP)))
    goals = [max(1, round(epochs / KEEP**left)) for left in reversed(range(len(counts)))]
    return tuple(zip(goals, counts, strict=True))
