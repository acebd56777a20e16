"""The depthwise convolution and its gradients equal XLA's grouped convolution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from encoders.depthwise import depthwise


def grouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel[..., None, :],
        (1, 1, 1),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=x.shape[-1],
        precision=lax.Precision.HIGHEST,
    )


CASES = [
    ((1, 1, 1, 1, 1), (1, 1, 1)),
    ((2, 4, 6, 5, 3), (3, 3, 3)),
    ((2, 2, 9, 8, 4), (7, 7, 7)),  # fewer slices than kernel planes
    ((1, 8, 3, 3, 16), (7, 7, 7)),  # a kernel larger than the image
    ((3, 1, 17, 19, 2), (1, 7, 7)),  # a 2D image
    ((1, 3, 4, 130, 2), (3, 5, 7)),  # rows longer than a block of taps
    ((1, 2, 57, 3, 2), (5, 3, 1)),
    ((3, 3, 4, 5, 6), (7, 7, 7)),  # few positions: a matrix per channel
    ((2, 1, 4, 3, 5), (1, 7, 7)),  # the same of a 2D image
    ((2, 2, 3, 2, 1), (5, 3, 7)),
]


@pytest.mark.parametrize(("shape", "size"), CASES)
def test_equals_grouped_convolution(shape, size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*size, shape[-1])), jnp.float32)
    weight = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def run(convolution):
        def loss(x, kernel):
            out = convolution(x, kernel)
            return (out * weight).sum(), out

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, kernel)
        return out, *gradients

    for ours, expected in zip(run(depthwise), run(grouped), strict=True):
        # Sums of up to a few thousand products in float32, in another order.
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * scale)


def test_bfloat16_accumulates_in_float32():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 4, 8, 8, 4)), jnp.bfloat16)
    kernel = jnp.asarray(rng.normal(size=(7, 7, 7, 4)), jnp.bfloat16)
    out = depthwise(x, kernel)
    assert out.dtype == jnp.bfloat16
    expected = grouped(x.astype(jnp.float32), kernel.astype(jnp.float32))
    # One rounding to bfloat16 at the end: half a unit in the 8th bit.
    np.testing.assert_allclose(out.astype(jnp.float32), expected, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 8, 16, 16, 8), (1, 2, 4, 4, 8)])
def test_for_a_card_it_is_a_grouped_convolution_whatever_is_here(shape):
    def gradients(x, kernel):
        return jax.grad(lambda *given: depthwise(*given).sum(), (0, 1))(x, kernel)

    given = jnp.zeros(shape), jnp.zeros((7, 7, 7, 8))
    text = jax.export.export(jax.jit(gradients), platforms=["cuda"])(*given).mlir_module()
    assert "stablehlo.while" not in text
    assert text.count("stablehlo.convolution") == 2
