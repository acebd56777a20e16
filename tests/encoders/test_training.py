"""Fine-tuning learns a planted signal, repeats itself exactly and leaves the original alone."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.embedding import embed
from encoders.heads import ClassificationHead, RegressionHead
from encoders.training import _orders, finetune
from encoders.weights import parameters


def planted(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright ball whose radius is the label, at a random place."""
    rng = np.random.default_rng(seed)
    radius = rng.uniform(2, 6, n)
    centre = rng.uniform(6, 10, (n, 3, 1, 1, 1))
    grid = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"))
    inside = np.square(grid[None] - centre).sum(axis=1) < np.square(radius)[:, None, None, None]
    x = rng.normal(size=(n, 16, 16, 16, 1)) + 1.5 * inside[..., None]
    return x.astype(np.float32), radius


@pytest.fixture(scope="module")
def encoder() -> ConvNeXtV2:
    config = ConvNeXtV2Config(
        depths=(1, 1), widths=(8, 16), strides=(2,), in_channels=1, drop_path=0.1
    )
    return ConvNeXtV2(config, rngs=nnx.Rngs(0))


def test_classification(encoder):
    x, radius = planted(96, 0)
    labels = np.digitize(radius, [3, 4, 5]) + 2
    before = {name: np.array(p[...]) for name, p in parameters(encoder).items()}
    run = {"task": "classification", "epochs": 12, "batch_size": 16, "progress": False}
    tuned, history = finetune(encoder, x[:64], labels[:64], learning_rate=3e-3, **run)
    for name, parameter in parameters(encoder).items():
        np.testing.assert_array_equal(parameter[...], before[name], err_msg=name)
    assert history.loss[-1] < 0.6 * history.loss[0]
    assert list(history.classes) == [2, 3, 4, 5]
    probability = history.predict(embed(tuned, x[64:]))
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    guessed = history.classes[probability.argmax(axis=1)]
    # Four classes by chance: 8 of 32 with standard deviation 2.4; 16 is beyond 3.
    assert (guessed == labels[64:]).sum() >= 16

    again, repeated = finetune(encoder, x[:64], labels[:64], learning_rate=3e-3, **run)
    np.testing.assert_array_equal(repeated.loss, history.loss)
    for name, parameter in parameters(again).items():
        np.testing.assert_array_equal(parameter[...], parameters(tuned)[name][...], err_msg=name)


def test_regression(encoder):
    x, radius = planted(96, 1)
    tuned, history = finetune(
        encoder, x[:64], radius[:64], task="regression", epochs=12, batch_size=16,
        learning_rate=3e-3, seed=1, progress=False,
    )  # fmt: skip
    assert history.loss[-1] < 0.5 * history.loss[0]
    guessed = history.predict(embed(tuned, x[64:]))
    error = np.square(guessed - radius[64:]).mean() / radius[64:].var()
    assert error < 0.5


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


def test_balanced_order():
    targets = np.repeat([0, 1, 2], [40, 9, 1])
    order = next(_orders(targets, True, 60, 0))
    np.testing.assert_array_equal(np.bincount(targets[order]), [20, 20, 20])
    # Members of a class come equally often, to within one.
    counts = np.bincount(order, minlength=50)
    assert np.ptp(counts[:40]) <= 1
    assert np.ptp(counts[40:49]) <= 1
    plain = next(_orders(targets, False, 48, 0))
    assert len(np.unique(plain)) == 48


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (np.array([1, 1, 1, 1]), "classification", "same class"),
        (np.array([1.0, 1.0, 1.0, 1.0]), "regression", "same label"),
        (np.array([1.0, np.nan, 2.0, 3.0]), "regression", "not finite"),
        (np.array([1, 2]), "classification", "2 labels for 4 volumes"),
    ],
)
def test_labels_that_cannot_be_learnt(encoder, labels, task, message):
    x = np.zeros((4, 16, 16, 16, 1), np.float32)
    with pytest.raises(ValueError, match=message):
        finetune(encoder, x, labels, task=task, epochs=1, batch_size=2)
