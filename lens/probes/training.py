"""Training loop of the shared MLP: Adam on minibatches, for a stack of MLPs in one program.

The MLPs of a stack share data and architecture, and differ in penalties and seed.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pandas as pd
from jaxtyping import Array, Float, Int

from lens.probes.devices import filled_columns, over_devices
from lens.probes.mlp import MLP, init, penalty, reconstruction_loss


class Data(NamedTuple):
    """What the MLPs of a stack are trained and validated on.

    Attributes:
        x, x_val: standardised embeddings of train and of validation patients.
        r, r_val: scaled features, same rows.
        val_weight: 0 for validation rows that only fill the arrays up to a common size, so that
            folds of different sizes share a compiled program; None means 1 each.
    """

    x: Float[Array, "n d"]
    r: Float[Array, "n k"]
    x_val: Float[Array, "m d"]
    r_val: Float[Array, "m k"]
    val_weight: Float[Array, " m"] | None = None


class Point(NamedTuple):
    """Penalties and seed of each MLP of a stack."""

    l1: Float[Array, " mlps"]
    l2: Float[Array, " mlps"]
    seed: Int[Array, " mlps"]


class State(NamedTuple):
    """A stack of MLPs with Adam's moments; every leaf starts with the axis of the stack.

    Attributes:
        mlp: weights and biases.
        mean, square: running means of the gradient and of its square.
    """

    mlp: MLP
    mean: MLP
    square: MLP


@partial(jax.jit, static_argnames=("d", "hidden", "k"))
def start(points: Point, d: int, hidden: int, k: int) -> State:
    """Untrained MLPs, one per entry of `points`; those of one seed are the same.

    Their second layers have `filled_columns`; those beyond `k` are zero and stay so.
    """

    def one(seed: Array) -> State:
        mlp = init(jax.random.fold_in(jax.random.key(seed), 0), d, hidden, k)
        spare = (0, filled_columns(k) - k)
        mlp = mlp._replace(v=jnp.pad(mlp.v, ((0, 0), spare)), c=jnp.pad(mlp.c, spare))
        # Two trees of zeros: `advance` donates every buffer, so that none may be there twice.
        return State(mlp, *(jax.tree.map(jnp.zeros_like, mlp) for _ in range(2)))

    return jax.vmap(one)(points.seed)


@partial(jax.jit, static_argnames=("batch", "rate", "loss_scale"), donate_argnames="state")
def advance(
    data: Data,
    points: Point,
    state: State,
    first: int | Int[Array, ""],
    last: int | Int[Array, ""],
    *,
    batch: int,
    rate: float,
    loss_scale: float = 1.0,
) -> State:
    """The stack trained from epoch `first` up to epoch `last`; the old state's buffers are donated.

    Minibatches follow from seed and epoch alone: two calls in a row equal one over both spans.

    Args:
        data: standardised embeddings and scaled features.
        points, state: of the same stack; its size a multiple of the number of local devices.
        first, last: epochs, from 0.
        batch: rows per minibatch.
        rate: step size of Adam.
        loss_scale: factor of the mean absolute error, relative to the penalties.
    """
    n = data.r.shape[0]
    steps = -(-n // batch)

    def objective(mlp: MLP, data: Data, point: Point, rows: Array, weight: Array) -> Array:
        fit = reconstruction_loss(mlp, data.x[rows], data.r[rows], weight)
        return loss_scale * fit + penalty(mlp, point.l1, point.l2, data.r.shape[1])

    def epoch(state: State, point: Point, data: Data, index: Array) -> State:
        rows, weight = minibatches(point.seed, index, n, steps, batch)

        def step(state: State, each: tuple[Array, ...]) -> tuple[State, None]:
            number, *minibatch = each
            gradient = jax.grad(objective)(state.mlp, data, point, *minibatch)
            return adam(state, gradient, number, rate), None

        numbers = 1 + steps * index + jnp.arange(steps)
        return jax.lax.scan(step, state, (numbers, rows, weight))[0]

    def train(state: State, points: Point, data: Data, first: Array, last: Array) -> State:
        if points.seed.shape[0] == 1:
            # Without an axis of length one, which costs XLA transposed copies of the weights.
            one, point = jax.tree.map(lambda leaf: leaf[0], (state, points))
            one = jax.lax.fori_loop(first, last, lambda i, s: epoch(s, point, data, i), one)
            return jax.tree.map(lambda leaf: leaf[None], one)
        epochs = jax.vmap(epoch, in_axes=(0, 0, None, None))
        return jax.lax.fori_loop(first, last, lambda i, s: epochs(s, points, data, i), state)

    return over_devices(train, 2)(state, points, data, first, last)


@jax.jit
def evaluate(data: Data, state: State) -> tuple[Float[Array, " mlps"], Float[Array, " mlps"]]:
    """Mean absolute errors (unitless) of each MLP on train and on validation patients."""

    def losses(mlp: MLP, data: Data) -> tuple[Array, Array]:
        train_weight = jnp.ones(data.r.shape[0])
        val_weight = jnp.ones(data.r_val.shape[0]) if data.val_weight is None else data.val_weight
        return (
            reconstruction_loss(mlp, data.x, data.r, train_weight),
            reconstruction_loss(mlp, data.x_val, data.r_val, val_weight),
        )

    def stacked(mlp: MLP, data: Data) -> tuple[Array, Array]:
        return jax.vmap(losses, in_axes=(0, None))(mlp, data)

    return over_devices(stacked, 1)(state.mlp, data)


def adam(state: State, gradient: MLP, number: Int[Array, ""], rate: float) -> State:
    """Step `number` (from 1) of Adam (Kingma and Ba 2015), the same as ``torch.optim.Adam``.

    Written out for the accuracy of its first steps: in float32 ``1 - 0.999 ** number`` has five
    digits, of which the mean absolute error, whose gradient jumps, makes two in the result.
    """
    first, second, floor = 0.9, 0.999, 1e-8
    mean = jax.tree.map(lambda m, g: first * m + (1 - first) * g, state.mean, gradient)
    square = jax.tree.map(
        lambda s, g: second * s + (1 - second) * jnp.square(g), state.square, gradient
    )
    scale = jnp.sqrt(-jnp.expm1(number * math.log(second)))
    size = rate * scale / -jnp.expm1(number * math.log(first))
    mlp = jax.tree.map(
        lambda p, m, s: p - size * m / (jnp.sqrt(s) + floor * scale), state.mlp, mean, square
    )
    return State(mlp, mean, square)


def minibatches(
    seed: Int[Array, ""], epoch: Int[Array, ""], n: int, steps: int, batch: int
) -> tuple[Int[Array, "steps batch"], Float[Array, "steps batch"]]:
    """Row indices of one epoch's shuffled minibatches; weight 0 marks the fill of the last one."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch)
    order = jax.random.permutation(key, n)
    index = jnp.arange(steps * batch)
    rows = order[index % n].reshape(steps, batch)
    return rows, (index < n).astype(jnp.float32).reshape(steps, batch)


def to_points(grid: pd.DataFrame) -> Point:
    """Points of a stack, one per row of a table with columns ``l1, l2, seed``."""
    return Point(
        jnp.asarray(grid["l1"].to_numpy(), jnp.float32),
        jnp.asarray(grid["l2"].to_numpy(), jnp.float32),
        jnp.asarray(grid["seed"].to_numpy(), jnp.int32),
    )
