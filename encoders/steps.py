"""The step that every training repeats, for any model with a loss per sample.

A step's randomness follows from the seed and the step's number alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from encoders.augmentation import augment
from encoders.encoder import reconfigure
from encoders.lora import adapt
from encoders.settings import Augmentation, TrainingSettings
from lens.allocator import give_back_memory

Batch = dict[str, Array]


class Learner(nnx.Module):
    """A model that can be trained.

    Attributes:
        encoder: an `Encoder`, to which layer-wise rates and freezing apply, or what stands for one.
    """

    encoder: Any

    def losses(self, batch: Batch, key: PRNGKeyArray, *, training: bool) -> Float[Array, " b"]:
        """The loss of each sample."""
        raise NotImplementedError


Model = TypeVar("Model", bound=Learner)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Everything a step changes; the number of the step decides its randomness.

    Attributes:
        params: what is trained.
        rest: BatchNorm statistics, and the encoder where it is frozen or only low-rank updates of
            it are trained.
        optimiser: moments.
        step: how many steps were made, a whole number.
    """

    params: PyTree
    rest: PyTree
    optimiser: PyTree
    step: PyTree


@dataclass(frozen=True)
class _Recipe:
    """The settings that a compiled step contains."""

    freeze: bool
    lora: bool
    weight_decay: float
    layer_decay: float
    augmentation: Augmentation | None


def start(model: Learner, settings: TrainingSettings) -> tuple[nnx.GraphDef, State]:
    """The state before the first step, on every device, and the rest of the model."""
    drop_path = 0.0 if settings.freeze else settings.drop_path
    model = nnx.clone(model)
    reconfigure(model.encoder, drop_path=drop_path)
    if settings.lora is not None:
        adapt(model.encoder, settings.lora, settings.alpha, settings.seed)
    model.train()
    graph, params, rest = nnx.split(model, _trained(_recipe(settings)), ...)
    state = _first(params, rest, weight_decay=settings.weight_decay)
    return graph, jax.device_put(state, shardings(settings.batch_size)[0])


@partial(jax.jit, static_argnames="weight_decay")
def _first(params: PyTree, rest: PyTree, *, weight_decay: float) -> State:
    """A state of copies: it is donated to the first step, and the caller's model keeps its own.

    One program, where a copy of each parameter by itself would be one for each of their shapes.
    """
    params, rest = jax.tree.map(jnp.copy, (params, rest))
    return State(params, rest, _adamw(weight_decay).init(params), jnp.zeros((), int))


def compiled(graph: nnx.GraphDef, settings: TrainingSettings) -> Callable[..., Any]:
    """The step: state, batch, key of the seed, rate -> new state (in place of the old), loss."""
    return _compiled(graph, _recipe(settings))


def _recipe(settings: TrainingSettings) -> _Recipe:
    return _Recipe(
        settings.freeze, settings.lora is not None, settings.weight_decay, settings.layer_decay,
        settings.augmentation,
    )  # fmt: skip


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
            return losses.mean(), nnx.split(model, _trained(recipe), ...)[2]

        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, moments = optimiser.update(gradient, state.optimiser, state.params)
        encoder = nnx.merge(graph, state.params, state.rest, copy=True).encoder
        scales = layer_scales(state.params, encoder, recipe.layer_decay)
        updates = jax.tree.map(lambda update, scale: scale * rate * update, updates, scales)
        params = optax.apply_updates(state.params, updates)
        return State(params, rest, moments, state.step + 1), value

    return _compiled_first(step)


def _compiled_first(step: Any) -> Callable[..., tuple[State, Array]]:
    """The step, compiled before it is called where a batch has another shape than those before.

    The compiler leaves hundreds of megabytes free, in pieces, that would lie beside the arrays of
    the first step.
    """
    known = set()

    def run(
        state: State, batch: Batch, root: PRNGKeyArray, rate: ArrayLike
    ) -> tuple[State, Float[Array, ""]]:
        shapes = tuple((name, values.shape, values.dtype) for name, values in batch.items())
        if shapes not in known:
            known.add(shapes)
            step.lower(state, batch, root, rate).compile()
            give_back_memory()
        return step(state, batch, root, rate)

    return run


def layer_scales(params: PyTree, encoder: Any, decay: float) -> PyTree:
    """The factor on each parameter's rate: ``decay ** layers`` between it and the head.

    Args:
        params: of a `Learner`; what is no part of its encoder keeps the full rate.
        encoder: that encoder, which counts the layers (`Encoder.layers_above`).
        decay: factor from each layer to the one before it.
    """

    def scale(path: tuple, _: Array) -> float:
        inside = _names(path)
        return decay ** encoder.layers_above(inside) if inside else 1.0

    return jax.tree_util.tree_map_with_path(scale, params)


def _names(path: tuple) -> tuple[str | int, ...]:
    """The path of a parameter within its encoder; empty for one outside."""
    # An entry without a key is the value inside its variable.
    names = [entry.key for entry in path if hasattr(entry, "key")]
    return tuple(names[names.index("encoder") + 1 :]) if "encoder" in names else ()


def _augmented(batch: Batch, key: PRNGKeyArray, settings: Augmentation) -> Batch:
    volumes, masks = augment(key, batch["volumes"], batch.get("masks"), settings)
    return batch | {"volumes": volumes} | ({} if masks is None else {"masks": masks})


def _trained(recipe: _Recipe) -> Any:
    """Which variables a step changes: all parameters, or those that were added to the encoder."""
    if not recipe.freeze and not recipe.lora:
        return nnx.Param
    return nnx.Any(nnx.LoRAParam, nnx.All(nnx.Param, nnx.Not(nnx.PathContains("encoder"))))


@cache
def _adamw(weight_decay: float) -> optax.GradientTransformation:
    """AdamW at rate 1: the rate multiplies its step, so that one program serves every schedule."""
    return optax.adamw(
        1.0,
        weight_decay=weight_decay,
        mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    )


def shardings(batch_size: int) -> tuple[NamedSharding, NamedSharding]:
    """Copies on every device, and the batch split over them: as many devices as divide it."""
    devices = jax.devices()
    used = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    mesh = jax.make_mesh((used,), ("batch",), axis_types=(AxisType.Auto,), devices=devices[:used])
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
