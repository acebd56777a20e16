"""The one training loop: every model with a loss per sample trains by it.

What a step does depends on the seed and on its number alone, never on the state of the process, so
that a run that was killed goes on from its checkpoint to the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped
from tqdm import tqdm

from encoders.lora import merge
from encoders.rows import Rows
from encoders.settings import TrainingSettings
from encoders.steps import Batch, Learner, Model, State, compiled, shardings, start
from encoders.training_checkpoints import TrainingRecord, restore_training, save_training
from lens.errors import InputError

VALIDATION_STREAM = 2**31 - 1
"""Folded into the seed's key for validation; no step reaches this number."""


@dataclass(frozen=True)
class Validation:
    """Samples whose weighted mean loss chooses the model: of the best epoch, or of the start.

    Attributes:
        rows: of the data.
        weights: one per row.
    """

    rows: Int[np.ndarray, " v"]
    weights: Float[np.ndarray, " v"]


@dataclass(frozen=True)
class Curves:
    """Losses and rates of a training.

    Attributes:
        loss: mean training loss of each epoch.
        validation: loss of the validation samples after each epoch; NaN without any.
        start: their loss before the first step; NaN without any.
        best_epoch: the one whose model is returned, from 0; -1 for the model of the start.
        step_loss: training loss of each step.
        rate: learning rate of each step.
    """

    loss: Float[np.ndarray, " epochs"]
    validation: Float[np.ndarray, " epochs"]
    start: float
    best_epoch: int
    step_loss: Float[np.ndarray, " steps"] = field(repr=False)
    rate: Float[np.ndarray, " steps"] = field(repr=False)

    @property
    def best(self) -> float:
        """Validation loss of the model that is returned; NaN without validation."""
        return self.start if self.best_epoch < 0 else float(self.validation[self.best_epoch])


@dataclass(frozen=True)
class Tracking:
    """How a training is kept and followed; none of it changes a number.

    Attributes:
        folder: of checkpoints; a run that was cut off goes on from there. None for none.
        every: steps between checkpoints; None for one per epoch.
        observe: progress callback, called with the curves so far after each epoch.
        progress: show a progress bar.
    """

    folder: Path | None = None
    every: int | None = None
    observe: Callable[[Curves], None] | None = None
    progress: bool = True


DEFAULT_TRACKING = Tracking()


def train(
    model: Model,
    data: Mapping[str, Rows],
    settings: TrainingSettings,
    *,
    order: Callable[[int], Int[np.ndarray, " rows"]],
    validation: Validation | None = None,
    facts: Mapping[str, Any] | None = None,
    title: str = "train",
    tracking: Tracking = DEFAULT_TRACKING,
) -> tuple[Model, Model, Curves]:
    """A copy of a model, trained.

    The batch is spread over all visible devices. With a folder, the state is written there, whole
    or not at all, and a run that was cut off goes on from it to bitwise the same curve (on the
    same machine).

    Args:
        model: what to train; it is left as it is.
        data: name -> samples; ``volumes`` and what the model's loss compares with. They stay where
            they are; the rows of a batch are moved.
        settings: rate, epochs, seed and so on.
        order: epoch -> its rows, a multiple of the batch size, always as many; a function of the
            epoch alone.
        validation: samples that choose the best epoch, or the start where no epoch is better;
            without them the last one is the best.
        facts: what else the run depends on (JSON); a checkpoint made with other facts or settings
            is refused.
        title: of the progress bar.
        tracking: checkpoints and progress.

    Returns:
        The model of the best epoch (a copy of the given one where none is better than that) and
        that of the last one, in evaluation mode, and the curves.

    Raises:
        InputError: the loss is not finite, or the folder holds another run.
    """
    steps = len(order(0)) // settings.batch_size
    total = settings.epochs * steps
    rates = _rates(settings, total)
    known = {"settings": asdict(settings), "steps": total, **(facts or {})}
    run = _Run(model, data, settings, validation, TrainingRecord(known))
    if tracking.folder is not None:
        run.restore(tracking.folder)
    if not run.record.step:
        run.score_start()
    first, hidden = run.record.step, not tracking.progress
    with tqdm(total=total, initial=first, desc=title, unit="step", disable=hidden) as bar:
        for number, rows in _batches(order, settings, first, total):
            run.step(rows, rates[number])
            bar.update()
            made = number + 1
            over = made % steps == 0
            due = made == total or made % (tracking.every or steps) == 0
            if over or due:
                run.read_losses()
            if over:
                run.close_epoch(steps)
                bar.set_postfix(run.scores())
            if due and tracking.folder is not None:
                run.save(tracking.folder)
            if over and tracking.observe is not None:
                tracking.observe(_curves(run.record, rates))
    return *run.models(), _curves(run.record, rates)


class _Run:
    """A training in progress: the state of the last step, the best epoch's, and the record."""

    def __init__(
        self,
        model: Learner,
        data: Mapping[str, Rows],
        settings: TrainingSettings,
        validation: Validation | None,
        record: TrainingRecord,
    ) -> None:
        self._config = model.encoder.config
        self._data, self._settings, self._validation = data, settings, validation
        self._graph, self._state = start(model, settings)
        self._best = None if validation is None else _on_host(self._state)
        self._step = compiled(self._graph, settings)
        self._spread = shardings(settings.batch_size)[1]
        self._root = jax.random.key(settings.seed)
        self._pending: list[Array] = []
        self.record = record

    def restore(self, folder: Path) -> None:
        self._state, self._best, self.record = restore_training(
            folder, self._state, self._best, self.record
        )

    def save(self, folder: Path) -> None:
        save_training(folder, self._state, self._best, self.record)

    def score_start(self) -> None:
        """Scores the model before the first step, which every epoch is then measured against."""
        if self._validation is not None:
            self.record = replace(self.record, start=self._score(self._validation))

    def step(self, rows: Int[np.ndarray, " b"], rate: np.floating) -> None:
        """Starts a step; its loss is read later."""
        batch = {name: jax.device_put(d[rows], self._spread) for name, d in self._data.items()}
        self._state, loss = self._step(self._state, batch, self._root, rate)
        self._pending.append(loss)
        if len(self._pending) > 2:
            # Two steps ahead are enough to keep a device busy; more would only hold memory.
            self._pending[-3].block_until_ready()

    def read_losses(self) -> None:
        """Records the losses of the steps since the last call.

        Raises:
            InputError: one is not finite.
        """
        losses = np.asarray(jax.device_get(self._pending), float).tolist()
        self.record = self.record.after(self.record.step + len(losses), losses)
        self._pending = []
        _check_finite(self.record, self._settings)

    def close_epoch(self, steps: int) -> None:
        """Scores the epoch of the last `steps` steps, and keeps its model if it is the best so far.

        A tie goes to what was there before: the start, or the earlier epoch.
        """
        loss = float(np.mean(self.record.step_loss[-steps:]))
        if self._validation is None:
            self.record = self.record.close(loss, float("nan"), best=True)
            return
        score = self._score(self._validation)
        # Whatever comes is better than a loss that is not finite.
        better = score < self.record.best or not np.isfinite(self.record.best)
        if better:
            self._best = _on_host(self._state)
        self.record = self.record.close(loss, score, best=better)

    def _score(self, validation: Validation) -> float:
        """The validation loss of the model as it is now, in evaluation mode."""
        model = nnx.merge(self._graph, self._state.params, self._state.rest, copy=True)
        model.eval()
        return validate(model, self._data, validation, self._settings)

    def scores(self) -> dict[str, str]:
        """Losses of the last epoch, for a progress bar."""
        return {
            "loss": f"{self.record.loss[-1]:.3f}",
            "val": f"{self.record.validation[-1]:.3f}",
        }

    def models(self) -> tuple[Any, Any]:
        """The model of the best epoch and that of the last one, in evaluation mode.

        Their encoders are built like the one that was given: low-rank updates are merged.
        """
        last = nnx.merge(self._graph, self._state.params, self._state.rest)
        chosen = last
        if self._best is not None:
            chosen = nnx.merge(self._graph, *jax.tree.map(jnp.asarray, self._best))
        for trained in (last, chosen):
            trained.eval()
            trained.encoder.config = self._config
            merge(trained.encoder)
        return chosen, last


def _batches(
    order: Callable[[int], Int[np.ndarray, " rows"]],
    settings: TrainingSettings,
    first: int,
    total: int,
) -> Iterator[tuple[int, Int[np.ndarray, " b"]]]:
    """The number and the rows of each step from `first` on."""
    steps = total // settings.epochs
    for epoch in range(first // steps, settings.epochs):
        batches = order(epoch).reshape(steps, settings.batch_size)
        for number in range(max(first, epoch * steps), (epoch + 1) * steps):
            yield number, batches[number % steps]


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
    """Predictions of the model for these rows, batch by batch, over all devices."""
    graph, state = nnx.split(model)
    batch_size = min(batch_size, max(len(rows), 1))
    _, spread = shardings(batch_size)
    out = []
    for at in range(0, len(rows), batch_size):
        part = rows[at : at + batch_size]
        batch = jax.device_put(volumes[_filled(part, batch_size)], spread)
        out.append(np.asarray(_predict(graph, state, batch))[: len(part)])
    return np.concatenate(out)


def _rates(settings: TrainingSettings, total: int) -> Float[np.ndarray, " steps"]:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, max(1, round(settings.warm_up * total)), max(2, total)
    )
    return np.asarray(schedule(np.arange(1, total + 1)), np.float32)


def _on_host(state: State) -> PyTree:
    """The model's arrays, copied: on a CPU, JAX hands out the memory of the state itself."""
    return jax.tree.map(np.array, jax.device_get((state.params, state.rest)))


def _curves(record: TrainingRecord, rates: Float[np.ndarray, " steps"]) -> Curves:
    """The finished epochs."""
    return Curves(
        np.array(record.loss),
        np.array(record.validation),
        record.start,
        record.best_epoch,
        np.array(record.step_loss),
        rates[: record.step],
    )


def _check_finite(record: TrainingRecord, settings: TrainingSettings) -> None:
    if not np.isfinite(record.step_loss).all():
        at = int(np.flatnonzero(~np.isfinite(record.step_loss))[0]) + 1
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
