"""Train the shared MLP over a grid of penalties in one compiled call; select by validation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, Float, Int

from lens.projection import (
    MLP,
    Projection,
    fit_standardise,
    init,
    penalty,
    reconstruction_loss,
    standardise,
)

Mode = Literal["default", "paper"]

L1_GRID = (0.0, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5)
L2_GRID = (0.0, 1e-5, 1e-4, 1e-3)
PAPER_L1_GRID = (0.0, 1e-7, 3e-7, 1e-6, 3e-6, 1e-6)
"""As printed in the paper, with 1e-6 twice."""


@dataclass(frozen=True)
class SweepConfig:
    """Settings of the sweep, unitless where no unit is named.

    Attributes:
        hidden: width of the projected embedding.
        l1, l2: penalty grids.
        seeds: number of initialisations and batch orders per pair.
        seed: first of them.
        epochs: passes over the train patients.
        batch: patients per step.
        rate: step size of Adam.
        mode: ``paper`` sums the loss over columns instead of averaging, and leaves the
            embeddings unscaled.
        lanes: MLPs trained side by side; 0 chooses by backend and memory.
    """

    hidden: int = 128
    l1: tuple[float, ...] = L1_GRID
    l2: tuple[float, ...] = L2_GRID
    seeds: int = 1
    seed: int = 0
    epochs: int = 200
    batch: int = 64
    rate: float = 1e-3
    mode: Mode = "default"
    lanes: int = 0


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
    config: SweepConfig = SweepConfig(),
    *,
    on_epochs: Callable[[int], object] | None = None,
) -> Sweep:
    """Trains one MLP per penalty pair and seed on the pre-fine-tuning embeddings.

    Every MLP of one seed starts from the same weights and sees the same minibatches in the same
    order, so that pairs differ by their penalty alone. The pair with the lowest validation loss
    (mean over seeds) is selected, of it the best seed.

    Args:
        x_train, x_val: embeddings of train and validation patients.
        r_train, r_val: radiomic features scaled by the train patients' range (unitless).
        config: grid, width and optimiser.
        on_epochs: told the number of finished MLP epochs since the last call (progress bars).

    Raises:
        ValueError: an input is not finite, or a penalty is negative.
    """
    _check(x_train, r_train, x_val, r_val, config)
    grid = pd.DataFrame(
        list(
            itertools.product(config.l1, config.l2, range(config.seed, config.seed + config.seeds))
        ),
        columns=["l1", "l2", "seed"],
    )
    paper = config.mode == "paper"
    mean, std = (
        (np.zeros(x_train.shape[1], np.float32), np.ones(x_train.shape[1], np.float32))
        if paper
        else fit_standardise(x_train)
    )
    lanes = config.lanes or choose_lanes(
        len(grid), x_train.shape[1], config.hidden, r_train.shape[1]
    )
    data = Data(
        x=standardise(jnp.asarray(x_train), mean, std),
        r=jnp.asarray(r_train, jnp.float32),
        x_val=standardise(jnp.asarray(x_val), mean, std),
        r_val=jnp.asarray(r_val, jnp.float32),
    )
    padded = -len(grid) % lanes
    points = Point(
        *(
            jnp.pad(jnp.asarray(grid[name], dtype), (0, padded), mode="edge").reshape(-1, lanes)
            for name, dtype in (("l1", jnp.float32), ("l2", jnp.float32), ("seed", jnp.int32))
        )
    )
    report = (lambda count: on_epochs(int(count))) if on_epochs else None
    trained = train_grid(
        data,
        points,
        hidden=config.hidden,
        epochs=config.epochs,
        batch=min(config.batch, len(x_train)),
        rate=config.rate,
        loss_scale=float(r_train.shape[1]) if paper else 1.0,
        report=report,
    )
    w, b, train_loss, val_loss = (
        np.asarray(leaf).reshape(-1, *leaf.shape[2:])[: len(grid)] for leaf in trained
    )
    jax.effects_barrier()
    table = grid.assign(train_loss=train_loss, val_loss=val_loss)
    best = _select(table)
    table["selected"] = table.index == best
    return Sweep(
        table=table,
        projection=Projection(w=w[best], b=b[best], x_mean=mean, x_std=std),
    )


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
    """Penalties and seed of each MLP; leading axes are chunks and lanes."""

    l1: Float[Array, "*axes"]
    l2: Float[Array, "*axes"]
    seed: Int[Array, "*axes"]


class Trained(NamedTuple):
    """First layers and losses of trained MLPs."""

    w: Float[Array, "*axes d h"]
    b: Float[Array, "*axes h"]
    train_loss: Float[Array, "*axes"]
    val_loss: Float[Array, "*axes"]


@partial(jax.jit, static_argnames=("hidden", "epochs", "batch", "rate", "loss_scale", "report"))
def train_grid(
    data: Data,
    points: Point,
    *,
    hidden: int,
    epochs: int,
    batch: int,
    rate: float,
    loss_scale: float,
    report: Callable[[int], None] | None,
) -> Trained:
    """The whole grid in one call: chunks one after another, the lanes of a chunk side by side."""

    def chunk(points: Point) -> Trained:
        state = start(points, data.x.shape[1], hidden, data.r.shape[1], rate=rate)
        (mlp, _), losses = advance(
            data,
            points,
            state,
            0,
            epochs,
            batch=batch,
            rate=rate,
            loss_scale=loss_scale,
            report=report,
        )
        return Trained(mlp.w, mlp.b, *losses)

    return jax.lax.map(chunk, points)


State = tuple[MLP, optax.OptState]
"""MLPs side by side and the optimiser's moments."""


@partial(jax.jit, static_argnames=("d", "hidden", "k", "rate"))
def start(points: Point, d: int, hidden: int, k: int, *, rate: float) -> State:
    """Untrained MLPs, one per lane of `points`; those of one seed are the same."""

    def one(seed: Array) -> State:
        mlp = init(jax.random.fold_in(jax.random.key(seed), 0), d, hidden, k)
        return mlp, optax.adam(rate).init(mlp)

    return jax.vmap(one)(points.seed)


@partial(jax.jit, static_argnames=("batch", "rate", "loss_scale", "report"))
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
    report: Callable[[int], None] | None = None,
) -> tuple[State, tuple[Float[Array, " lanes"], Float[Array, " lanes"]]]:
    """Trains the MLPs of one chunk from epoch `first` up to epoch `last`.

    Minibatches follow from seed and epoch alone: two calls in a row equal one over both spans.

    Returns:
        The new state, and the losses of each lane on train and validation patients.
    """
    n = data.r.shape[0]
    steps = -(-n // batch)
    optimiser = optax.adam(rate)

    def objective(mlp: MLP, point: Point, rows: Array, weight: Array) -> Array:
        fit = reconstruction_loss(mlp, data.x[rows], data.r[rows], weight)
        return loss_scale * fit + penalty(mlp, point.l1, point.l2)

    def epoch(state: State, point: Point, index: Array) -> State:
        rows, weight = minibatches(point.seed, index, n, steps, batch)

        def step(state: State, minibatch: tuple[Array, Array]) -> tuple[State, None]:
            mlp, opt_state = state
            gradient = jax.grad(objective)(mlp, point, *minibatch)
            update, opt_state = optimiser.update(gradient, opt_state)
            return (cast(MLP, optax.apply_updates(mlp, update)), opt_state), None

        return jax.lax.scan(step, state, (rows, weight))[0]

    def one_epoch(index: Array, state: State) -> State:
        state = jax.vmap(epoch, in_axes=(0, 0, None))(state, points, index)
        if report is not None:
            jax.debug.callback(report, points.seed.shape[0])
        return state

    state = jax.lax.fori_loop(first, last, one_epoch, state)
    evaluate = jax.vmap(reconstruction_loss, in_axes=(0, None, None, None))
    every_row = jnp.ones(n)
    val_rows = jnp.ones(data.x_val.shape[0]) if data.val_weight is None else data.val_weight
    return state, (
        evaluate(state[0], data.x, data.r, every_row),
        evaluate(state[0], data.x_val, data.r_val, val_rows),
    )


def minibatches(
    seed: Int[Array, ""], epoch: Int[Array, ""], n: int, steps: int, batch: int
) -> tuple[Int[Array, "steps batch"], Float[Array, "steps batch"]]:
    """Row indices of one epoch's shuffled minibatches; weight 0 marks the fill of the last one."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch)
    order = jax.random.permutation(key, n)
    index = jnp.arange(steps * batch)
    rows = order[index % n].reshape(steps, batch)
    return rows, (index < n).astype(jnp.float32).reshape(steps, batch)


def choose_lanes(mlps: int, d: int, h: int, k: int, *, memory: float | None = None) -> int:
    """How many MLPs to train side by side.

    On a CPU one at a time: the matrices fill the cores' caches already, and a stack of them is
    slower. On an accelerator as many as fit in a quarter of its memory, with weights, gradient and
    two moments each.

    Args:
        mlps: size of the grid times seeds.
        d, h, k: widths of embedding, projection and radiomic table.
        memory: bytes available; asked of the device where not given.
    """
    if memory is None:
        if jax.default_backend() == "cpu":
            return 1
        memory = float((jax.devices()[0].memory_stats() or {}).get("bytes_limit", 8e9))
    per_mlp = 4 * 4 * (d * h + h * k + h + k)
    return int(max(1, min(mlps, 0.25 * memory // per_mlp)))


def _select(table: pd.DataFrame) -> int:
    mean = table.groupby(["l1", "l2"])["val_loss"].transform("mean")
    if mean.isna().all():
        raise ValueError(
            "no penalty pair gave a finite validation loss; check the embeddings' scale"
        )
    tied = table[mean == mean.min()]
    return int(tied["val_loss"].idxmin())


def grid_warnings(table: pd.DataFrame) -> tuple[str, ...]:
    """What a reader must know about a sweep's grid: repeated pairs, a winner at an edge.

    Args:
        table: as in `Sweep`.
    """
    warnings = []
    best = table.loc[table["selected"]].iloc[0]
    repeated = table[table.duplicated(["l1", "l2", "seed"])]
    if len(repeated):
        pair = repeated.iloc[0]
        warnings.append(
            f"the grid holds the pair l1 = {pair['l1']:g}, l2 = {pair['l2']:g} more than once"
        )
    for name in ("l1", "l2"):
        values = sorted(set(table[name]))
        # Zero is no edge: there is no weaker penalty than none.
        edges = {values[-1], values[0]} - {0.0}
        if len(values) > 1 and best[name] in edges:
            warnings.append(
                f"the selected {name} = {best[name]:g} is at the edge of its grid; "
                f"a wider grid may fit better (--{name})"
            )
    return tuple(warnings)


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
    if min(*config.l1, *config.l2) < 0:
        raise ValueError("penalties must not be negative")
