"""The one training loop: every model with a loss per sample trains by it.

What a step does depends on the seed and on its number alone, never on the state of the process, so
that a run that was killed goes on from its checkpoint to the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree, Shaped
from tqdm import tqdm

from encoders.augmentation import Augmentation, augment
from encoders.convnext import ConvNeXtV2
from encoders.progress import Progress, restore, save_progress
from encoders.weights import parameters
from lens.errors import InputError
from lens.files import array_hash

VALIDATION_STREAM = 2**31 - 1
"""Folded into the seed's key for validation; no step reaches this number."""

Batch = dict[str, Array]


@runtime_checkable
class Rows(Protocol):
    """Samples along the first axis: an array, a memory map, or files read when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class Learner(nnx.Module):
    """A model that can be trained.

    Attributes:
        encoder: a `ConvNeXtV2`, which layer-wise rates and freezing are about, or what stands for
            one.
    """

    encoder: Any

    def losses(self, batch: Batch, key: PRNGKeyArray, *, training: bool) -> Float[Array, " b"]:
        """The loss of each sample."""
        raise NotImplementedError


Model = TypeVar("Model", bound=Learner)


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        epochs: passes over the training samples.
        batch_size: samples per step.
        learning_rate: of AdamW, the highest of the schedule: linear warm-up, then cosine to 0.
        weight_decay: of AdamW, on kernels; biases, scales and response norms are not decayed.
        warm_up: its share of all steps.
        layer_decay: factor of the rate from each block to the one before it; 1 trains all alike.
        freeze: leave the encoder as it is and train what was added to it.
        drop_path: stochastic depth of the encoder's last block (linear from 0) while it trains.
        augmentation: of each batch, on the device; None for none.
        seed: of the order of the samples, augmentation, masks and stochastic depth.
    """

    epochs: int = 100
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: float = 0.1
    layer_decay: float = 1.0
    freeze: bool = False
    drop_path: float = 0.0
    augmentation: Augmentation | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs {self.epochs} and batch_size {self.batch_size}: at least 1")
        if self.learning_rate <= 0 or not 0 < self.layer_decay <= 1:
            raise ValueError("learning_rate is positive, layer_decay between 0 and 1")
        if not 0 <= self.warm_up < 1 or not 0 <= self.drop_path < 1:
            raise ValueError("warm_up and drop_path are shares below 1")


DEFAULT = TrainingSettings()


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
    _, spread = _shardings(settings.batch_size)
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
    everywhere, spread = _shardings(size)
    state = jax.device_put(state, everywhere)
    total = 0.0
    for start in range(0, len(validation.rows), size):
        rows, weights = (
            _filled(values[start : start + size], size)
            for values in (validation.rows, validation.weights)
        )
        weights = np.where(start + np.arange(size) < len(validation.rows), weights, 0)
        batch = {name: jax.device_put(d[rows], spread) for name, d in data.items()}
        losses = _losses(graph, state, batch, jax.random.fold_in(root, start))
        total += float(np.asarray(losses, float) @ weights)
    return total / float(validation.weights.sum())


def predict(
    model: nnx.Module, volumes: Rows, rows: Int[np.ndarray, " n"], *, batch_size: int = 8
) -> Shaped[np.ndarray, "n ..."]:
    """What the model's `predict` says of these rows, batch by batch, over all devices."""
    graph, state = nnx.split(model)
    batch_size = min(batch_size, max(len(rows), 1))
    _, spread = _shardings(batch_size)
    out = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        batch = jax.device_put(volumes[_filled(part, batch_size)], spread)
        out.append(np.asarray(_predict(graph, state, batch))[: len(part)])
    return np.concatenate(out)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Everything a step changes; the number of the step decides its randomness.

    Attributes:
        params: what is trained.
        rest: BatchNorm statistics, and the encoder where it is frozen.
        optimiser: moments.
        step: how many steps were made.
    """

    params: PyTree
    rest: PyTree
    optimiser: PyTree
    step: Int[Array, ""]


@dataclass(frozen=True)
class _Recipe:
    """The settings that a compiled step contains."""

    freeze: bool
    weight_decay: float
    layer_decay: float
    augmentation: Augmentation | None


def start(model: Learner, settings: TrainingSettings) -> tuple[nnx.GraphDef, State]:
    """The state before the first step, on every device, and the rest of the model."""
    drop_path = 0.0 if settings.freeze else settings.drop_path
    model = nnx.clone(model)
    model.encoder.config = replace(model.encoder.config, drop_path=drop_path)
    model.train()
    graph, params, rest = nnx.split(model, _trained(settings.freeze), ...)
    state = State(params, rest, _adamw(settings.weight_decay).init(params), jnp.zeros((), int))
    # The state is donated to the first step; the caller's model must keep its own.
    return graph, jax.device_put(jax.tree.map(jnp.copy, state), _shardings(settings.batch_size)[0])


def compiled(graph: nnx.GraphDef, settings: TrainingSettings) -> Callable[..., Any]:
    """The step: state, batch, key of the seed, rate -> new state (in place of the old), loss."""
    recipe = (settings.freeze, settings.weight_decay, settings.layer_decay, settings.augmentation)
    return _compiled(graph, _Recipe(*recipe))


@cache
def _compiled(graph: nnx.GraphDef, recipe: _Recipe) -> Callable[..., tuple[State, Array]]:
    """One update, compiled once for every run of the same model and recipe."""
    optimiser = _adamw(recipe.weight_decay)

    @partial(jax.jit, donate_argnums=0)
    def step(
        state: State, batch: Batch, root: PRNGKeyArray, rate: ArrayLike
    ) -> tuple[State, Float[Array, ""]]:
        augment_key, model_key = jax.random.split(jax.random.fold_in(root, state.step))
        if recipe.augmentation is not None:
            batch = _augmented(batch, augment_key, recipe.augmentation)

        def loss(params: PyTree) -> tuple[Array, PyTree]:
            model = nnx.merge(graph, params, state.rest, copy=True)
            losses = model.losses(batch, model_key, training=True)
            return losses.mean(), nnx.split(model, _trained(recipe.freeze), ...)[2]

        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, moments = optimiser.update(gradient, state.optimiser, state.params)
        scales = layer_scales(state.params, recipe.layer_decay)
        updates = jax.tree.map(lambda update, scale: scale * rate * update, updates, scales)
        params = optax.apply_updates(state.params, updates)
        return State(params, rest, moments, state.step + 1), value

    return step


def layer_scales(params: PyTree, decay: float) -> PyTree:
    """The factor on each parameter's rate: ``decay ** (blocks + 1 - layer)``.

    The stem is layer 0, the blocks of the encoder are 1, 2, ... through all stages, a downsampling
    belongs to the block after it and the final norm to the last block; all that is no part of the
    encoder is one layer above the last block and keeps the full rate.
    """
    paths = [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    blocks = sorted({p[1:3] for p in paths if p[:1] == ("blocks",)})
    number = {block: index + 1 for index, block in enumerate(blocks)}

    def scale(path: tuple, _: Array) -> float:
        name = _names(path)
        if name[:1] == ("blocks",):
            layer = number[name[1:3]]
        elif name[:1] == ("downsamples",):
            layer = number[name[1], 0] if name[1] else 0
        else:
            layer = len(blocks) if name else len(blocks) + 1
        return decay ** (len(blocks) + 1 - layer)

    return jax.tree_util.tree_map_with_path(scale, params)


def _names(path: tuple) -> tuple:
    """The path of a parameter within its encoder; empty for one outside."""
    names = [getattr(entry, "key", None) for entry in path]
    return tuple(names[names.index("encoder") + 1 :]) if "encoder" in names else ()


def encoder_hash(encoder: ConvNeXtV2) -> str:
    """SHA-256 over the parameters, as 64 hex digits."""
    named = sorted(parameters(encoder).items())
    return array_hash(*(np.asarray(parameter[...]) for _, parameter in named))


def _trained(freeze: bool) -> Any:
    inside = nnx.PathContains("encoder")
    return nnx.All(nnx.Param, nnx.Not(inside)) if freeze else nnx.Param


@cache
def _adamw(weight_decay: float) -> optax.GradientTransformation:
    """AdamW at rate 1: the rate multiplies its step, so that one program serves every schedule."""
    return optax.adamw(
        1.0,
        weight_decay=weight_decay,
        mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    )


def _rates(settings: TrainingSettings, total: int) -> Float[np.ndarray, " steps"]:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, max(1, round(settings.warm_up * total)), max(2, total)
    )
    return np.asarray(schedule(np.arange(1, total + 1)), np.float32)


def _shardings(batch_size: int) -> tuple[NamedSharding, NamedSharding]:
    """Copies on every device, and the batch split over them: as many devices as divide it."""
    devices = jax.devices()
    used = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    mesh = jax.make_mesh((used,), ("batch",), axis_types=(AxisType.Auto,), devices=devices[:used])
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))


def _augmented(batch: Batch, key: PRNGKeyArray, settings: Augmentation) -> Batch:
    volumes, masks = augment(key, batch["volumes"], batch.get("masks"), settings)
    return batch | {"volumes": volumes} | ({} if masks is None else {"masks": masks})


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
