"""The one training loop: every model with a loss per sample trains by it.

What a step does depends on the seed and on its number alone, never on the state of the process, so
that a run that was killed goes on from its checkpoint to the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped
from tqdm import tqdm

from encoders.convnext import ConvNeXtV2
from encoders.progress import Progress, restore, save_progress
from encoders.steps import (
    Batch,
    Learner,
    Model,
    State,
    TrainingSettings,
    compiled,
    shardings,
    start,
)
from encoders.weights import parameters
from lens.errors import InputError
from lens.files import array_hash

VALIDATION_STREAM = 2**31 - 1
"""Folded into the seed's key for validation; no step reaches this number."""


@runtime_checkable
class Rows(Protocol):
    """Samples along the first axis: an array, a memory map, or files read when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True)
class Validation:
    """What the best epoch is chosen by: the weighted mean loss of these samples.

    Attributes:
        rows: of the data.
        weights: one per row.
    """

    rows: Int[np.ndarray, " v"]
    weights: Float[np.ndarray, " v"]


@dataclass(frozen=True)
class Curves:
    """What a training did.

    Attributes:
        loss: mean training loss of each epoch.
        validation: loss of the validation samples after each epoch; NaN without any.
        best_epoch: the one whose model is returned, from 0.
        step_loss: training loss of each step.
        rate: learning rate of each step.
    """

    loss: Float[np.ndarray, " epochs"]
    validation: Float[np.ndarray, " epochs"]
    best_epoch: int
    step_loss: Float[np.ndarray, " steps"] = field(repr=False)
    rate: Float[np.ndarray, " steps"] = field(repr=False)


def train(
    model: Model,
    data: Mapping[str, Rows],
    settings: TrainingSettings,
    *,
    order: Callable[[int], Int[np.ndarray, " rows"]],
    validation: Validation | None = None,
    folder: Path | None = None,
    every: int | None = None,
    facts: Mapping[str, Any] | None = None,
    observe: Callable[[Curves], None] | None = None,
    title: str = "train",
    progress: bool = True,
) -> tuple[Model, Model, Curves]:
    """Trains a copy of a model.

    The batch is spread over all visible devices. With a folder, the state is written there, whole
    or not at all, and a run that was cut off goes on from it to bitwise the same curve (on the
    same machine).

    Args:
        model: what to train; it is left as it is.
        data: name -> samples; ``volumes`` and what the model's loss compares with. They stay where
            they are; the rows of a batch are moved.
        settings: how.
        order: epoch -> its rows, a multiple of the batch size, always as many; a function of the
            epoch alone.
        validation: samples that choose the best epoch; without them the last one is the best.
        folder: of the checkpoints.
        every: steps between checkpoints; one per epoch if not given.
        facts: what else the run depends on (JSON); a checkpoint made with other facts or settings
            is refused.
        observe: is told the curves so far after each epoch.
        title: of the progress bar.
        progress: show it.

    Returns:
        The model of the best epoch and that of the last one, in evaluation mode, and the curves.

    Raises:
        InputError: the loss is not finite, or the folder holds another run.
    """
    rows = order(0)
    steps = len(rows) // settings.batch_size
    total = settings.epochs * steps
    rates = _rates(settings, total)
    graph, state = start(model, settings)
    step = compiled(graph, settings)
    _, spread = shardings(settings.batch_size)
    root = jax.random.key(settings.seed)
    facts = {"settings": asdict(settings), "steps": total, **(facts or {})}
    done = Progress(facts)
    best = _on_host(state) if validation is not None else None
    if folder is not None:
        state, best, done = restore(folder, state, best, done)
    pending: list[Array] = []
    bar = tqdm(total=total, initial=done.step, desc=title, unit="step", disable=not progress)
    with bar:
        for number in range(done.step, total):
            epoch, position = divmod(number, steps)
            if position == 0 or number == done.step:
                rows = order(epoch).reshape(steps, settings.batch_size)
            batch = {name: jax.device_put(d[rows[position]], spread) for name, d in data.items()}
            state, loss = step(state, batch, root, rates[number])
            pending.append(loss)
            if len(pending) > 2:
                # Two steps ahead are enough to keep a device busy; more would only hold memory.
                pending[-3].block_until_ready()
            bar.update()
            over = position == steps - 1
            due = number + 1 == total or (over if every is None else (number + 1) % every == 0)
            if not (over or due):
                continue
            done = done.after(number + 1, np.asarray(jax.device_get(pending), float).tolist())
            pending = []
            _check_finite(done, settings)
            if over:
                done, best = _close_epoch(
                    done, steps, graph, state, best, data, settings, validation
                )
                bar.set_postfix(loss=f"{done.loss[-1]:.3f}", val=f"{done.validation[-1]:.3f}")
            if due and folder is not None:
                save_progress(folder, state, best, done)
            if over and observe is not None:
                observe(_curves(done, rates))
    last = nnx.merge(graph, state.params, state.rest)
    chosen = last if best is None else nnx.merge(graph, *jax.tree.map(jnp.asarray, best))
    for trained in (last, chosen):
        trained.eval()
        trained.encoder.config = model.encoder.config
    return chosen, last, _curves(done, rates)


def validate(
    model: Learner, data: Mapping[str, Rows], validation: Validation, settings: TrainingSettings
) -> float:
    """The weighted mean loss of the validation samples, with the same masks at every call."""
    graph, state = nnx.split(model)
    root = jax.random.fold_in(jax.random.key(settings.seed), VALIDATION_STREAM)
    size = min(settings.batch_size, len(validation.rows))
    everywhere, spread = shardings(size)
    state = jax.device_put(state, everywhere)
    total = 0.0
    for at in range(0, len(validation.rows), size):
        rows, weights = (
            _filled(values[at : at + size], size)
            for values in (validation.rows, validation.weights)
        )
        weights = np.where(at + np.arange(size) < len(validation.rows), weights, 0)
        batch = {name: jax.device_put(d[rows], spread) for name, d in data.items()}
        losses = _losses(graph, state, batch, jax.random.fold_in(root, at))
        total += float(np.asarray(losses, float) @ weights)
    return total / float(validation.weights.sum())


def predict(
    model: nnx.Module, volumes: Rows, rows: Int[np.ndarray, " n"], *, batch_size: int = 8
) -> Shaped[np.ndarray, "n ..."]:
    """What the model's `predict` says of these rows, batch by batch, over all devices."""
    graph, state = nnx.split(model)
    batch_size = min(batch_size, max(len(rows), 1))
    _, spread = shardings(batch_size)
    out = []
    for at in range(0, len(rows), batch_size):
        part = rows[at : at + batch_size]
        batch = jax.device_put(volumes[_filled(part, batch_size)], spread)
        out.append(np.asarray(_predict(graph, state, batch))[: len(part)])
    return np.concatenate(out)


def encoder_hash(encoder: ConvNeXtV2) -> str:
    """SHA-256 over the parameters, as 64 hex digits."""
    named = sorted(parameters(encoder).items())
    return array_hash(*(np.asarray(parameter[...]) for _, parameter in named))


def _rates(settings: TrainingSettings, total: int) -> Float[np.ndarray, " steps"]:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, max(1, round(settings.warm_up * total)), max(2, total)
    )
    return np.asarray(schedule(np.arange(1, total + 1)), np.float32)


def _close_epoch(
    done: Progress,
    steps: int,
    graph: nnx.GraphDef,
    state: State,
    best: PyTree,
    data: Mapping[str, Rows],
    settings: TrainingSettings,
    validation: Validation | None,
) -> tuple[Progress, PyTree]:
    """Scores the epoch, and keeps its model where it is the best so far."""
    loss = float(np.mean(done.step_loss[-steps:]))
    if validation is None:
        return done.close(loss, float("nan"), best=True), None
    model = nnx.merge(graph, state.params, state.rest, copy=True)
    model.eval()
    score = validate(model, data, validation, settings)
    better = not done.validation or score < min(done.validation)
    if better:
        best = _on_host(state)
    return done.close(loss, score, best=better), best


def _on_host(state: State) -> PyTree:
    """The model's arrays, copied: on a CPU, JAX hands out the memory of the state itself."""
    return jax.tree.map(np.array, jax.device_get((state.params, state.rest)))


def _curves(done: Progress, rates: Float[np.ndarray, " steps"]) -> Curves:
    """The finished epochs."""
    return Curves(
        np.array(done.loss),
        np.array(done.validation),
        done.best_epoch,
        np.array(done.step_loss),
        rates[: done.step],
    )


def _check_finite(done: Progress, settings: TrainingSettings) -> None:
    if not np.isfinite(done.step_loss).all():
        at = int(np.flatnonzero(~np.isfinite(done.step_loss))[0]) + 1
        raise InputError(
            f"the training loss is not finite at step {at}, with a rate of up to "
            f"{settings.learning_rate:g}; lower --learning-rate, or look for extreme intensities"
        )


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    """Repeats the last value, so that one size is compiled."""
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])


@partial(jax.jit, static_argnums=0)
def _losses(graph: nnx.GraphDef, state: PyTree, batch: Batch, key: PRNGKeyArray) -> Array:
    return nnx.merge(graph, state).losses(batch, key, training=False)


@partial(jax.jit, static_argnums=0)
def _predict(graph: nnx.GraphDef, state: PyTree, volumes: Array) -> Array:
    return nnx.merge(graph, state).predict(volumes)
