"""Fine-tuning an encoder with a head on one label, deterministic by seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, Shaped
from tqdm import tqdm

from encoders.convnext import ConvNeXtV2
from encoders.heads import ClassificationHead, RegressionHead

Task = Literal["classification", "regression"]

WEIGHT_DECAY = 0.05
WARM_UP = 0.1


@dataclass(frozen=True)
class History:
    """What a fine-tuning did.

    Attributes:
        task: ``classification`` or ``regression``.
        loss: mean training loss of each epoch: cross entropy in nats, or the squared error of the
            standardised label.
        head: the trained head, in evaluation mode.
        classes: the labels in the order of the logits; None for regression.
        label_mean: of the training labels, in their unit; 0 for classification.
        label_sd: of the training labels, in their unit; 1 for classification.
    """

    task: Task
    loss: Float[np.ndarray, " epochs"]
    head: ClassificationHead | RegressionHead
    classes: Shaped[np.ndarray, " classes"] | None
    label_mean: float
    label_sd: float

    def predict(self, embeddings: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n ..."]:
        """Applies the head: class probabilities ``(n, classes)``, or the label's value ``(n,)``."""
        out = self.head(jnp.asarray(embeddings))
        if self.task == "classification":
            return np.asarray(jax.nn.softmax(out))
        return np.asarray(out[:, 0]) * np.float32(self.label_sd) + np.float32(self.label_mean)


def finetune(
    encoder: ConvNeXtV2,
    volumes: Float[np.ndarray | Array, "n ..."],
    labels: Shaped[np.ndarray, " labels"],
    *,
    task: Task,
    epochs: int,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> tuple[ConvNeXtV2, History]:
    """Fine-tunes a copy of the encoder with a head; all parameters train.

    AdamW with weight decay 0.05 on kernels, linear warm-up over a tenth of the steps, cosine to 0.
    Classification samples its classes equally often; regression fits the standardised label.

    Args:
        encoder: where to start; it is left as it is.
        volumes: ``(N, D, H, W, C)`` float32, held in memory.
        labels: one per volume: classes (any sortable values), or numbers with a unit.
        task: which head and loss.
        epochs: passes over as many volumes as there are.
        batch_size: volumes per step; BatchNorm needs at least 2.
        learning_rate: the highest rate of the schedule.
        seed: of the head, the order of the volumes and stochastic depth.
        progress: show a progress bar.

    Returns:
        The fine-tuned encoder and the history with the trained head.

    Raises:
        ValueError: numbers of labels and volumes differ, fewer than 2 volumes, a constant label,
            or a number that is not finite.
    """
    targets, classes, mean, sd = _targets(labels, len(volumes), task)
    batch_size = min(batch_size, len(volumes))
    if batch_size < 2:
        raise ValueError("fine-tuning needs batches of at least 2 volumes, for BatchNorm")
    features = encoder.config.widths[-1]
    rngs = nnx.Rngs(seed)
    head = (
        RegressionHead(features, rngs=rngs)
        if classes is None
        else ClassificationHead(features, len(classes), rngs=rngs)
    )
    model = _Model(nnx.clone(encoder), head)
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    steps = -(-len(volumes) // batch_size)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, max(1, round(WARM_UP * epochs * steps)), max(2, epochs * steps)
    )
    state = _State(params, stats, _ADAMW.init(params), jax.random.key(seed))
    # The parameters are donated to the first step; the caller's encoder must keep its own.
    state = jax.tree.map(jnp.copy, state)
    volumes, targets = jnp.asarray(volumes, jnp.float32), jnp.asarray(targets)
    orders = _orders(np.asarray(targets), classes is not None, steps * batch_size, seed)
    loss = np.zeros(epochs, np.float32)
    rates = iter(np.asarray(schedule(np.arange(1, epochs * steps + 1))))
    with tqdm(total=epochs * steps, desc=task, unit="step", disable=not progress) as bar:
        for epoch in range(epochs):
            losses = []
            for rows in next(orders).reshape(steps, batch_size):
                state, step_loss = _step(graph, task, state, volumes, targets, rows, next(rates))
                losses.append(step_loss)
                bar.update()
            loss[epoch] = np.mean(jax.device_get(losses))
            bar.set_postfix(loss=f"{loss[epoch]:.3f}")
    model = nnx.merge(graph, state.params, state.stats)
    model.head.eval()
    return model.encoder, History(task, loss, model.head, classes, mean, sd)


class _Model(nnx.Module):
    def __init__(self, encoder: ConvNeXtV2, head: ClassificationHead | RegressionHead) -> None:
        self.encoder = encoder
        self.head = head


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _State:
    params: Any
    stats: Any
    optimiser: Any
    key: PRNGKeyArray


# The rate multiplies the step of AdamW at rate 1, so that one compiled step serves every schedule.
# Biases, scales and response norms are not decayed.
_ADAMW = optax.adamw(
    1.0,
    weight_decay=WEIGHT_DECAY,
    mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
)


@partial(jax.jit, static_argnames=("graph", "task"), donate_argnames="state")
def _step(
    graph: Any,
    task: Task,
    state: _State,
    volumes: Float[Array, "n ..."],
    targets: Shaped[Array, " n"],
    rows: Int[Array, " b"],
    rate: ArrayLike,
) -> tuple[_State, Float[Array, ""]]:
    """One update from the volumes in `rows`."""
    key, step_key = jax.random.split(state.key)

    def loss(params: Any) -> tuple[Array, Any]:
        model = nnx.merge(graph, params, state.stats, copy=True)
        out = model.head(model.encoder(volumes[rows], key=step_key))
        if task == "classification":
            each = optax.softmax_cross_entropy_with_integer_labels(out, targets[rows])
        else:
            each = jnp.square(out[:, 0] - targets[rows])
        return each.mean(), nnx.state(model, nnx.BatchStat)

    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, optimiser_state = _ADAMW.update(gradient, state.optimiser, state.params)
    updates = jax.tree.map(lambda step: rate * step, updates)
    params = optax.apply_updates(state.params, updates)
    return _State(params, stats, optimiser_state, key), value


def _targets(
    labels: Shaped[np.ndarray, " labels"], volumes: int, task: Task
) -> tuple[np.ndarray, np.ndarray | None, float, float]:
    """What the loss compares with; the classes, or the mean and standard deviation taken off."""
    if len(labels) != volumes:
        raise ValueError(f"{len(labels)} labels for {volumes} volumes")
    if task == "classification":
        classes, targets = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"every volume has the same class, {classes}; nothing to learn")
        return targets.astype(np.int32), classes, 0.0, 1.0
    values = np.asarray(labels, np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} labels are not finite numbers")
    mean, sd = float(values.mean()), float(values.std())
    if sd == 0:
        raise ValueError(f"every volume has the same label, {mean:g}; nothing to learn")
    return ((values - mean) / sd).astype(np.float32), None, mean, sd


def _orders(
    targets: Shaped[np.ndarray, " n"], balanced: bool, length: int, seed: int
) -> Iterator[Int[np.ndarray, " length"]]:
    """The rows of each epoch; balanced: every class as often, its members in turn."""
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(targets == c) for c in np.unique(targets)] if balanced else []
    groups = groups or [np.arange(len(targets))]
    share = -(-length // len(groups))
    while True:
        drawn = [_shuffled(group, share, generator) for group in groups]
        # Taking one of each class in turn, then shuffling, keeps the remainder spread over classes.
        turns = np.stack(drawn, axis=1)
        turns = generator.permuted(turns, axis=1).reshape(-1)[:length]
        yield generator.permutation(turns)


def _shuffled(
    group: Int[np.ndarray, " m"], length: int, generator: np.random.Generator
) -> Int[np.ndarray, " length"]:
    """`length` members of the group, each used before any is used again."""
    rounds = -(-length // len(group))
    return np.concatenate([generator.permutation(group) for _ in range(rounds)])[:length]
