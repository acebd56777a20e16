"""The perceptron of a block: in pieces as in one, against NumPy in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from encoders import perceptron as module
from encoders.convnext import Block, ConvNeXtV2Config
from encoders.layers import gelu
from encoders.perceptron import Parts, only, perceptron

PARTS = Parts(
    hidden=lambda state, x: gelu(x @ state["first"]),
    response=lambda state, squares: 1 + state["gamma"] * jnp.sqrt(squares),
    outcome=lambda state, hidden, response: (hidden * response[:, None]) @ state["second"],
)


def planted(positions: int, samples: int = 2, channels: int = 24) -> tuple[dict, jax.Array]:
    rng = np.random.default_rng(positions)
    draw = {"first": (channels, 4 * channels), "second": (4 * channels, channels)}
    state = {name: jnp.asarray(rng.normal(size=size), jnp.float32) for name, size in draw.items()}
    gamma = jnp.asarray(rng.normal(size=4 * channels), jnp.float32)
    # A sample of other size, so that responses must not be mixed up.
    x = rng.normal(size=(samples, positions, channels)) * np.array([1, 0.2])[:samples, None, None]
    return state | {"gamma": gamma}, jnp.asarray(x, jnp.float32)


def exact(state: dict, x: jax.Array, visible: np.ndarray | None) -> np.ndarray:
    from scipy.special import erf

    wide = {name: np.asarray(value, np.float64) for name, value in state.items()}
    hidden = np.asarray(x, np.float64) @ wide["first"]
    hidden = 0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))
    if visible is not None:
        hidden = np.where(visible, hidden, 0)
    response = 1 + wide["gamma"] * np.sqrt((hidden**2).sum(axis=1))
    return hidden * response[:, None] @ wide["second"]


# The last of the pieces begins one position early, on time, and four positions early.
@pytest.mark.parametrize("positions", [30_011, 27_305, 24_001])
@pytest.mark.parametrize("masked", [False, True])
def test_pieces_give_what_float64_gives(positions, masked):
    state, x = planted(positions)
    visible = np.random.default_rng(1).random((2, positions, 1)) < 0.3 if masked else None
    if visible is not None:
        # Nothing of what is not visible enters, not even what is no number.
        x = jnp.where(visible | (np.arange(positions) % 7 > 0)[:, None], x, jnp.nan)
    ours = jax.jit(lambda *given: perceptron(PARTS, *given))(state, x, visible)
    expected = exact(state, x, visible)
    # float32: sums of 30,000 squares, of 24 and of 96 products.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def loops(state: dict, x: jax.Array) -> int:
    text = jax.jit(lambda *given: perceptron(PARTS, *given)).lower(state, x).as_text()
    return text.count("stablehlo.while")


def test_small_maps_are_computed_at_once():
    assert loops(*planted(10_000)) == 0
    assert loops(*planted(30_011)) == 2


def test_the_gradient_is_that_of_the_plain_form():
    state, x = planted(30_011)
    weight = jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)

    def plain(state, x):
        hidden = PARTS.hidden(state, x)
        response = PARTS.response(state, jnp.square(hidden).sum(axis=1))
        return PARTS.outcome(state, hidden, response)

    def gradients(run):
        return jax.jit(jax.grad(lambda *given: (run(*given) * weight).sum(), (0, 1)))(state, x)

    ours = gradients(lambda *given: perceptron(PARTS, *given))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, gradients(plain))


def test_a_block_holds_its_hidden_map_once():
    """Guards the traffic: a pass over the whole hidden map would hold it a second time."""
    block = Block(32, ConvNeXtV2Config(widths=(32,), depths=(1,), strides=()), rngs=nnx.Rngs(0))
    graph, state = nnx.split(block)
    x = jnp.zeros((1, 8, 72, 72, 32))
    compiled = jax.jit(lambda state, x: nnx.merge(graph, state)(x)).lower(state, x).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    hidden = 4 * x.nbytes
    assert 4 * x.size > module._WHOLE
    # The map, the filtered input, and pieces.
    assert analysis.temp_size_in_bytes < 1.9 * hidden


def test_only_keeps_what_is_no_number_out():
    x = jnp.array([[[jnp.nan], [2.0]]])
    assert only(jnp.array([[[False], [True]]]), x).tolist() == [[[0.0], [2.0]]]
    assert only(None, x) is x
