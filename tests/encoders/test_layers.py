"""What the layers that encoders share compute."""

from __future__ import annotations

from math import erf, exp, pi, sqrt

import jax
import jax.numpy as jnp
import numpy as np

from encoders.layers import gelu


def test_gelu_is_the_exact_one_with_its_slope():
    x = np.linspace(-12, 12, 2401, dtype=np.float32)
    phi = np.array([0.5 * (1 + erf(value / sqrt(2))) for value in x.tolist()])
    density = np.array([exp(-(value**2) / 2) / sqrt(2 * pi) for value in x.tolist()])
    np.testing.assert_allclose(gelu(jnp.asarray(x)), x * phi, rtol=2e-7, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), phi + x * density, atol=1e-6)
    half = jnp.asarray(x, jnp.bfloat16)
    exact = gelu(half.astype(jnp.float32))
    assert gelu(half).dtype == jnp.bfloat16
    np.testing.assert_allclose(gelu(half).astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)
