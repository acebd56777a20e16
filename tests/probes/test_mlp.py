"""Laws of the shared projection."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lens.probes.mlp import Projection, init, penalty, project, reconstruct, reconstruction_loss
from lens.probes.scaling import fit_standardise


def test_project_is_the_first_layer_of_reconstruct() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, size=(20, 7)).astype(np.float32)
    mean, std = fit_standardise(x)
    mlp = init(jax.random.key(0), 7, 5, 3)
    projection = Projection(np.asarray(mlp.w), np.asarray(mlp.b), mean, std)
    z = project(projection, x)
    expected = np.maximum((x - mean) / std @ np.asarray(mlp.w) + np.asarray(mlp.b), 0)
    np.testing.assert_allclose(z, expected, atol=1e-5)
    whole = reconstruct(mlp, jnp.asarray((x - mean) / std))
    np.testing.assert_allclose(z @ np.asarray(mlp.v) + np.asarray(mlp.c), whole, atol=1e-5)


def test_constant_and_noise_dimensions_are_not_blown_up() -> None:
    x = np.full((50, 2), 1000.0, np.float32)
    x[::2, 1] = np.nextafter(np.float32(1000), np.float32(1001))
    _, std = fit_standardise(x)
    np.testing.assert_array_equal(std, [1.0, 1.0])


def test_loss_is_a_mean_over_entries_so_that_repeated_columns_change_nothing() -> None:
    rng = np.random.default_rng(1)
    x, r = jnp.asarray(rng.normal(size=(12, 4))), jnp.asarray(rng.normal(size=(12, 3)))
    mlp = init(jax.random.key(1), 4, 6, 3)
    doubled = mlp._replace(v=jnp.tile(mlp.v, 2), c=jnp.tile(mlp.c, 2))
    weight = jnp.ones(12)
    once = reconstruction_loss(mlp, x, r, weight)
    np.testing.assert_allclose(
        reconstruction_loss(doubled, x, jnp.tile(r, 2), weight), once, rtol=1e-6
    )
    np.testing.assert_allclose(once, np.abs(np.asarray(reconstruct(mlp, x) - r)).mean(), rtol=1e-6)


def test_rows_of_weight_zero_do_not_count() -> None:
    rng = np.random.default_rng(2)
    x, r = jnp.asarray(rng.normal(size=(6, 4))), jnp.asarray(rng.normal(size=(6, 3)))
    mlp = init(jax.random.key(2), 4, 6, 3)
    weight = jnp.array([1.0, 1, 1, 1, 0, 0])
    part = reconstruction_loss(mlp, x[:4], r[:4], jnp.ones(4))
    np.testing.assert_allclose(reconstruction_loss(mlp, x, r, weight), part, rtol=1e-6)


def test_penalty_is_over_weights_not_biases() -> None:
    mlp = init(jax.random.key(3), 4, 6, 3)
    weights = np.concatenate([np.ravel(mlp.w), np.ravel(mlp.v)]).astype(np.float64)
    expected = 0.3 * np.abs(weights).sum() + 0.7 * np.square(weights).sum()
    value = penalty(mlp._replace(b=mlp.b + 100), jnp.float32(0.3), jnp.float32(0.7))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
