"""The heads equal PyTorch's modules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from encoders.heads import ClassificationHead, RegressionHead


def test_heads_equal_torch():
    """On random weights and statistics, in evaluation and in training, to float32 rounding."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 24)).astype(np.float32)
    hidden, norm = torch.nn.Linear(24, 256), torch.nn.BatchNorm1d(256)
    logits = torch.nn.Linear(256, 4)
    classifier = torch.nn.Sequential(hidden, norm, torch.nn.ReLU(), logits)
    single_norm, value = torch.nn.BatchNorm1d(24), torch.nn.Linear(24, 1)
    regressor = torch.nn.Sequential(single_norm, value)
    for tensor in [*classifier.state_dict().values(), *regressor.state_dict().values()]:
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.1)
    ours, one = ClassificationHead(24, 4, rngs=nnx.Rngs(0)), RegressionHead(24, rngs=nnx.Rngs(0))
    for layer, source in ((ours.hidden, hidden), (ours.logits, logits), (one.value, value)):
        layer.kernel.set_value(jnp.asarray(source.weight.detach().numpy().T))
        layer.bias.set_value(jnp.asarray(source.bias.detach().numpy()))
    for layer, source in ((ours.norm, norm), (one.norm, single_norm)):
        layer.scale.set_value(jnp.asarray(source.weight.detach().numpy()))
        layer.bias.set_value(jnp.asarray(source.bias.detach().numpy()))
        # Copies: training torch changes its buffers in place.
        layer.mean.set_value(jnp.array(source.running_mean.numpy().copy()))
        layer.var.set_value(jnp.array(source.running_var.numpy().copy()))
    for head, module in ((ours, classifier), (one, regressor)):
        for training in (False, True):
            module.train(training)
            (head.train if training else head.eval)()
            expected = module(torch.from_numpy(x)).detach().numpy()
            np.testing.assert_allclose(head(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4)


def test_the_first_gradient_reaches_the_last_layer_alone():
    """Heads say zero at the start, and send nothing into the encoder before they have learnt."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(8, 24)), jnp.float32)
    for head in (ClassificationHead(24, 4, rngs=nnx.Rngs(0)), RegressionHead(24, rngs=nnx.Rngs(0))):
        graph, params, rest = nnx.split(head, nnx.Param, ...)
        out, backward = jax.vjp(lambda p, x: nnx.merge(graph, p, rest, copy=True)(x), params, x)  # noqa: B023
        np.testing.assert_array_equal(out, 0)
        weights, inputs = backward(jnp.asarray(rng.normal(size=out.shape), jnp.float32))
        np.testing.assert_array_equal(inputs, 0)
        moved = {path[0] for path, g in nnx.to_flat_state(weights) if np.any(g[...])}
        assert moved == {"logits" if isinstance(head, ClassificationHead) else "value"}
