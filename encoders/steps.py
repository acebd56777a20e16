"""The step that every training repeats, for any model with a loss per sample.

A step's randomness follows from the seed and the step's number alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

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
    """The step: state, batch, key of the seed, rate -> new state (in place of the old), loss.

    On a CPU it is two programs, one after the other: what XLA's compiler holds, about a megabyte
    per kernel, grows with what it compiles at once, and a quarter of a step's kernels is AdamW.
    """
    return _compiled(graph, _recipe(settings), two=jax.default_backend() == "cpu")


def whole(graph: nnx.GraphDef, settings: TrainingSettings) -> Any:
    """The step as one program, as an accelerator runs it (``jax.jit``)."""
    return _programs(graph, _recipe(settings)).joined()


def _recipe(settings: TrainingSettings) -> _Recipe:
    return _Recipe(
        settings.freeze, settings.lora is not None, settings.weight_decay, settings.layer_decay,
        settings.augmentation,
    )  # fmt: skip


class _Programs(NamedTuple):
    """The two parts of a step.

    Attributes:
        gradient: parameters, the rest of the model (in place of which the new one comes), number
            of the step, batch, key of the seed -> new rest, gradient, loss.
        update: parameters, moments and number (in place of which the new ones come), gradient,
            rest, rate -> new parameters, moments and number.
    """

    gradient: Any
    update: Any

    def step(
        self,
        call: Callable[..., Any],
        state: State,
        batch: Batch,
        root: PRNGKeyArray,
        rate: ArrayLike,
    ) -> tuple[State, Float[Array, ""]]:
        """One after the other, each by `call`."""
        rest, gradient, loss = call(
            self.gradient, state.params, state.rest, state.step, batch, root
        )
        params, moments, number = call(
            self.update, state.params, state.optimiser, state.step, gradient, rest, rate
        )
        return State(params, rest, moments, number), loss

    def joined(self) -> Any:
        """Both as one program."""
        run = partial(self.step, lambda program, *arguments: program(*arguments))
        return jax.jit(run, donate_argnums=0)


@cache
def _programs(graph: nnx.GraphDef, recipe: _Recipe) -> _Programs:
    """One update of a model by a recipe."""
    optimiser = _adamw(recipe.weight_decay)

    @partial(jax.jit, donate_argnums=1)
    def gradient(
        params: PyTree, rest: PyTree, number: Array, batch: Batch, root: PRNGKeyArray
    ) -> tuple[PyTree, PyTree, Float[Array, ""]]:
        augment_key, model_key = jax.random.split(jax.random.fold_in(root, number))
        if recipe.augmentation is not None:
            batch = _augmented(batch, augment_key, recipe.augmentation)

        def loss(params: PyTree) -> tuple[Array, PyTree]:
            model = nnx.merge(graph, params, rest, copy=True)
            losses = model.losses(batch, model_key, training=True)
            return losses.mean(), nnx.split(model, _trained(recipe), ...)[2]

        (value, changed), slopes = jax.value_and_grad(loss, has_aux=True)(params)
        # JAX puts an output in the place of the first input of its shape: the rest goes first.
        return changed, slopes, value

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def update(
        params: PyTree,
        moments: PyTree,
        number: Array,
        slopes: PyTree,
        rest: PyTree,
        rate: ArrayLike,
    ) -> tuple[PyTree, PyTree, Array]:
        updates, moments = optimiser.update(slopes, moments, params)
        encoder = nnx.merge(graph, params, rest, copy=True).encoder
        scales = layer_scales(params, encoder, recipe.layer_decay)
        updates = jax.tree.map(lambda update, scale: scale * rate * update, updates, scales)
        return optax.apply_updates(params, updates), moments, number + 1

    return _Programs(gradient, update)


@cache
def _compiled(
    graph: nnx.GraphDef, recipe: _Recipe, *, two: bool
) -> Callable[..., tuple[State, Array]]:
    """A step that is compiled once for every run of the same model and recipe."""
    programs = _programs(graph, recipe)
    one = None if two else programs.joined()
    known = set()

    def run(
        state: State, batch: Batch, root: PRNGKeyArray, rate: ArrayLike
    ) -> tuple[State, Float[Array, ""]]:
        shapes = tuple((name, values.shape, values.dtype) for name, values in batch.items())
        first = shapes not in known
        known.add(shapes)
        call, given = partial(_called, first=first), (state, batch, root, rate)
        return programs.step(call, *given) if one is None else call(one, *given)

    return run


def _called(program: Any, *arguments: Any, first: bool) -> Any:
    """Calls a program, which is compiled before where it is the first of its shapes.

    Nothing else runs meanwhile, and free memory goes back to the system before and after: the
    compiler leaves hundreds of megabytes, in pieces, that would lie beside the arrays of the step.
    """
    if first:
        jax.block_until_ready(arguments)
        give_back_memory()
        program.lower(*arguments).compile()
        give_back_memory()
    return program(*arguments)


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
