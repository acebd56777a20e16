"""The perceptron of a ConvNeXt V2 block, piece by piece on CPU.

Between its two products the perceptron holds four times the numbers of its input, and the response
normalisation between them needs the sums of squares of a whole volume. One operation after the
other, each writes and reads that hidden map, from memory if the volume is large. In pieces that
stay in cache it is written once, with its sums of squares, and read once. Arithmetic is the same
but for the order of those sums. Small maps, other backends and gradients take the plain form.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

# Hidden numbers of a piece: 2 MiB in float32, about the second-level cache of a core or two.
_PIECE = 1 << 19

# Hidden numbers of a call up to which there are no pieces: 16 MiB stay in the last cache.
_WHOLE = 1 << 22


class Hidden(Protocol):
    """From inputs to hidden numbers."""

    def __call__(self, state: Any, x: Float[Array, "n p c"]) -> Float[Array, "n p h"]: ...


class Response(Protocol):
    """From sums of squares to what hidden channels are multiplied by."""

    def __call__(self, state: Any, squares: Float[Array, "n h"]) -> Float[Array, "n h"]: ...


class Outcome(Protocol):
    """From hidden numbers and the response to outputs."""

    def __call__(
        self, state: Any, hidden: Float[Array, "n p h"], response: Float[Array, "n h"]
    ) -> Float[Array, "n p c"]: ...


class Parts(NamedTuple):
    """Two layers with a response of whole samples between them, each position by itself.

    Attributes:
        hidden: the first layer.
        response: what a sample's hidden channels are multiplied by, from their sums of squares over
            its positions, in float32.
        outcome: the second layer, from the hidden map and the response.
    """

    hidden: Hidden
    response: Response
    outcome: Outcome


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def perceptron(
    parts: Parts,
    state: Any,
    x: Float[Array, "n p c"],
    visible: Bool[Array, "n p 1"] | None = None,
) -> Float[Array, "n p c"]:
    """The perceptron of all positions of each sample.

    Args:
        parts: the layers and what is between them.
        state: their parameters.
        x: inputs of `p` positions of `n` samples.
        visible: positions whose hidden numbers count; those of the others are zero.
    """
    shapes = jax.eval_shape(parts.hidden, state, x)
    if shapes.size <= _WHOLE:
        return _whole(parts, state, x, visible)
    cpu, default = (partial(way, parts) for way in (_in_pieces, _whole))
    return lax.platform_dependent(state, x, visible, cpu=cpu, default=default)


def _forward(parts: Parts, state: Any, x: Array, visible: Array | None) -> tuple:
    # A loop would keep more for its gradient than the plain form does.
    return jax.vjp(lambda state, x: _whole(parts, state, x, visible), state, x)


def _backward(_: Parts, pull: Any, grad: Array) -> tuple[Any, Array, None]:
    return *pull(grad), None


perceptron.defvjp(_forward, _backward)


def _whole(parts: Parts, state: Any, x: Array, visible: Array | None) -> Array:
    hidden = only(visible, parts.hidden(state, x))
    return parts.outcome(state, hidden, parts.response(state, _squares(hidden)))


def _in_pieces(parts: Parts, state: Any, x: Array, visible: Array | None) -> Array:
    n, positions, _ = x.shape
    first = jax.eval_shape(parts.hidden, state, x)
    channels = first.shape[-1]
    count = -(-positions * channels // _PIECE)
    size = -(-positions // count)

    def piece(index: Array, of: Array) -> Array:
        return lax.dynamic_slice(of, (*_place(index), 0), (1, size, of.shape[-1]))

    def _place(index: Array) -> tuple[Array, Array]:
        # The last piece begins early enough to be whole.
        return index // count, jnp.minimum(index % count * size, positions - size)

    def add_hidden(index: Array, made: tuple[Array, Array]) -> tuple[Array, Array]:
        hidden, squares = made
        shown = None if visible is None else piece(index, visible)
        new = only(shown, parts.hidden(state, piece(index, x)))
        sample, start = _place(index)
        # Positions that the piece before has too are added once.
        again = index % count * size - start
        added = _squares(jnp.where(jnp.arange(size)[:, None] >= again, new, 0))
        return (
            lax.dynamic_update_slice(hidden, new, (sample, start, 0)),
            squares.at[sample].add(added[0]),
        )

    def add_outcome(index: Array, made: Array) -> Array:
        sample, start = _place(index)
        new = parts.outcome(state, piece(index, hidden), response[sample][None])
        return lax.dynamic_update_slice(made, new, (sample, start, 0))

    empty = jnp.empty(first.shape, first.dtype), jnp.zeros((n, channels), jnp.float32)
    hidden, squares = lax.fori_loop(0, n * count, add_hidden, empty)
    response = parts.response(state, squares)
    outcome = jax.eval_shape(parts.outcome, state, hidden, response)
    empty = jnp.empty(outcome.shape, outcome.dtype)
    return lax.fori_loop(0, n * count, add_outcome, empty)


def _squares(hidden: Float[Array, "n p h"]) -> Float[Array, "n h"]:
    return jnp.square(hidden.astype(jnp.float32)).sum(axis=1)


def only(
    visible: Bool[Array, "n *positions 1"] | None, x: Float[Array, "n *positions c"]
) -> Float[Array, "n *positions c"]:
    """Zero where not visible, even where `x` is not finite there."""
    return x if visible is None else jnp.where(visible, x, 0)
