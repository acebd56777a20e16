"""Train MLPs side by side: lanes of one program, on all devices, or one per core.

On a CPU an MLP fills the caches already, and a stack of them is slower than one after another; but
steps so small leave cores idle in turn, so that as many programs run at a time as there are cores.
An accelerator wants one program with many lanes; the devices of a host share the lanes out, and the
processes of `jax.distributed` the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float, Int
from joblib import cpu_count

from lens.projection import MLP, init, penalty, reconstruction_loss

Item = TypeVar("Item")
Result = TypeVar("Result")


class Data(NamedTuple):
    """Standardised embeddings and scaled features of train and validation patients.

    `val_weight` is 0 for rows that only fill the arrays up to a common size; none means 1 each.
    """

    x: Float[Array, "n d"]
    r: Float[Array, "n k"]
    x_val: Float[Array, "m d"]
    r_val: Float[Array, "m k"]
    val_weight: Float[Array, " m"] | None = None


class Point(NamedTuple):
    """Penalties and seed of the MLP in each lane."""

    l1: Float[Array, " lanes"]
    l2: Float[Array, " lanes"]
    seed: Int[Array, " lanes"]


class State(NamedTuple):
    """MLPs side by side with Adam's moments; every leaf starts with the axis of the lanes."""

    mlp: MLP
    mean: MLP
    square: MLP


@partial(jax.jit, static_argnames=("d", "hidden", "k"))
def start(points: Point, d: int, hidden: int, k: int) -> State:
    """Untrained MLPs, one per lane of `points`; those of one seed are the same."""

    def one(seed: Array) -> State:
        mlp = init(jax.random.fold_in(jax.random.key(seed), 0), d, hidden, k)
        # Two trees of zeros: `advance` takes over every buffer, so that none may be there twice.
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
    """Trains the MLPs from epoch `first` up to epoch `last`; the old state is used up.

    Minibatches follow from seed and epoch alone: two calls in a row equal one over both spans.
    """
    n = data.r.shape[0]
    steps = -(-n // batch)

    def objective(mlp: MLP, data: Data, point: Point, rows: Array, weight: Array) -> Array:
        fit = reconstruction_loss(mlp, data.x[rows], data.r[rows], weight)
        return loss_scale * fit + penalty(mlp, point.l1, point.l2)

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
        lanes = jax.vmap(epoch, in_axes=(0, 0, None, None))
        return jax.lax.fori_loop(first, last, lambda i, s: lanes(s, points, data, i), state)

    return _over_devices(train, 2)(state, points, data, first, last)


@jax.jit
def evaluate(data: Data, state: State) -> tuple[Float[Array, " lanes"], Float[Array, " lanes"]]:
    """Mean absolute errors of each lane on train and on validation patients."""

    def losses(mlp: MLP, data: Data) -> tuple[Array, Array]:
        every = jnp.ones(data.r.shape[0])
        val = jnp.ones(data.r_val.shape[0]) if data.val_weight is None else data.val_weight
        return (
            reconstruction_loss(mlp, data.x, data.r, every),
            reconstruction_loss(mlp, data.x_val, data.r_val, val),
        )

    def lanes(mlp: MLP, data: Data) -> tuple[Array, Array]:
        return jax.vmap(losses, in_axes=(0, None))(mlp, data)

    return _over_devices(lanes, 1)(state.mlp, data)


def _over_devices(function: Callable[..., Result], split: int) -> Callable[..., Result]:
    """Gives every device its share of the lanes: of the first `split` arguments, of all results."""
    devices = jax.local_devices()
    if len(devices) == 1:
        return function

    def call(*arguments: Any) -> Result:
        shared, lanes = PartitionSpec(), PartitionSpec("lanes")
        return jax.shard_map(
            function,
            mesh=jax.make_mesh(
                (len(devices),), ("lanes",), axis_types=(AxisType.Auto,), devices=devices
            ),
            in_specs=(lanes,) * split + (shared,) * (len(arguments) - split),
            out_specs=lanes,
        )(*arguments)

    return call


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


def choose_lanes(
    mlps: int, d: int, h: int, k: int, *, wanted: int = 0, memory: float | None = None
) -> int:
    """How many MLPs to train side by side in one program: a multiple of the number of devices.

    One per device on a CPU; on an accelerator as many as fit in a quarter of its memory, with
    weights, gradient and two moments each.

    Args:
        mlps: size of the grid times seeds.
        d, h, k: widths of embedding, projection and radiomic table.
        wanted: take so many, rounded up to what all devices can share; 0 chooses.
        memory: bytes available per device; asked of the first where not given.
    """
    devices = jax.local_device_count()
    if wanted:
        return -(-wanted // devices) * devices
    if memory is None:
        if jax.default_backend() == "cpu":
            return devices
        memory = float((jax.devices()[0].memory_stats() or {}).get("bytes_limit", 8e9))
    per_mlp = 4 * 4 * (d * h + h * k + h + k)
    return devices * int(max(1, min(-(-mlps // devices), 0.25 * memory // per_mlp)))


def mine(rows: int) -> Int[np.ndarray, " n"]:
    """The rows that this process trains: all, or its share where `jax.distributed` has several."""
    padded = np.arange(-(-rows // jax.process_count()) * jax.process_count())
    return np.minimum(padded, rows - 1).reshape(-1, jax.process_count())[:, jax.process_index()]


def of_all(values: Float[np.ndarray, "n ..."], rows: int) -> Float[np.ndarray, "rows ..."]:
    """The results of all rows, in every process, from those that each has for the rows of `mine`.

    Args:
        values: in the order of `mine`, perhaps with more behind.
        rows: of all processes together.
    """
    values = values[: -(-rows // jax.process_count())]
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import process_allgather

        values = np.stack(process_allgather(values), axis=1).reshape(-1, *values.shape[1:])
    return values[:rows]


def to_chunks(rows: Int[np.ndarray, " n"], lanes: int) -> list[Int[np.ndarray, " lanes"]]:
    """Rows in portions of `lanes`; the last row fills the last portion up."""
    return list(np.pad(rows, (0, -len(rows) % lanes), mode="edge").reshape(-1, lanes))


def to_points(grid: pd.DataFrame) -> Point:
    """Lanes from rows with columns ``l1, l2, seed``."""
    return Point(
        jnp.asarray(grid["l1"].to_numpy(), jnp.float32),
        jnp.asarray(grid["l2"].to_numpy(), jnp.float32),
        jnp.asarray(grid["seed"].to_numpy(), jnp.int32),
    )


def at_a_time(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`work` of every item, in order, `workers` of them at a time.

    Compile what all items need before: threads would do it once each.
    """
    with ThreadPoolExecutor(workers()) as pool:
        return list(pool.map(work, items))


def workers() -> int:
    """How many programs run best beside each other: on a single CPU device one per core."""
    cpu = jax.default_backend() == "cpu" and jax.local_device_count() == 1
    return cpu_count() if cpu else 1
