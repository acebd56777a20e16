"""Every task learns a planted signal; with permuted labels there is none to learn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.finetuning import finetune
from encoders.metrics import classification_metrics, overlap, regression_metrics
from encoders.pretraining import Pretrainer, pretrain
from encoders.segmentation import UPerNet, dice_loss
from encoders.settings import HeadSettings, MaskingSettings, TrainingSettings
from encoders.tasks import Segmenter
from encoders.training import Tracking
from tests.encoders.planted import balls, small_encoder

TRAIN, VAL, TEST = np.arange(64), np.arange(64, 80), np.arange(80, 160)
SETTINGS = TrainingSettings(epochs=12, batch_size=16, learning_rate=3e-3)
QUIET = Tracking(progress=False)
RUN = {"train_rows": TRAIN, "val_rows": VAL, "settings": SETTINGS, "tracking": QUIET}


@pytest.fixture(scope="module")
def data():
    return balls(160, 0)


def permuted(values: np.ndarray) -> np.ndarray:
    """Exchanged among those that training sees."""
    seen = np.r_[TRAIN, VAL]
    out = values.copy()
    out[seen] = values[np.random.default_rng(0).permutation(seen)]
    return out


def test_classification(data):
    x, radius, _ = data
    labels = np.digitize(radius, [3, 4, 5]) + 2
    scores = {}
    for name, given in (("true", labels), ("permuted", permuted(labels))):
        tuned, history = finetune(small_encoder(), x, given, task="classification", **RUN)
        probability = history.predict(tuned, x, TEST)
        np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
        scores[name] = classification_metrics(probability, labels[TEST], history.classes)
    assert list(history.classes) == [2, 3, 4, 5]
    # By chance 1/4 and 1/2, each with a standard deviation near 0.04 over 80 volumes.
    assert scores["true"]["balanced_accuracy"] > 0.4
    assert scores["true"]["auc"] > 0.65
    assert scores["permuted"]["balanced_accuracy"] < 0.4
    assert abs(scores["permuted"]["auc"] - 0.5) < 0.15


def test_regression(data):
    x, radius, _ = data
    r2 = {}
    for name, given in (("true", radius), ("permuted", permuted(radius))):
        tuned, history = finetune(small_encoder(), x, given, task="regression", **RUN)
        predicted = history.predict(tuned, x, TEST).astype(float)
        r2[name] = regression_metrics(predicted, radius[TEST], history.label_mean)["r2"]
    assert r2["true"] > 0.5
    assert r2["permuted"] < 0.1


@pytest.fixture(scope="module")
def four_stages() -> ConvNeXtV2:
    config = ConvNeXtV2Config(depths=(1, 1, 1, 1), widths=(8, 16, 16, 16), in_channels=1)
    return ConvNeXtV2(config, rngs=nnx.Rngs(0))


def test_segmentation(data, four_stages):
    x, _, masks = data
    tuned, history = finetune(
        four_stages, x, masks, task="segmentation",
        head=HeadSettings(decoder_width=8, auxiliary_width=8), **RUN,
    )  # fmt: skip
    found = history.predict(tuned, x, TEST)
    assert found.shape == masks[TEST].shape
    assert found.dtype == bool
    dice = [overlap(f, m)["dice"] for f, m in zip(found, masks[TEST], strict=True)]
    # Saying "ball" everywhere gives 2 s / (1 + s) for a share s of the voxels, 0.13 on average.
    assert np.mean(dice) > 0.5


def test_segmentation_loss_is_that_of_the_batch_with_the_auxiliary_head(data, four_stages):
    x, masks = jnp.asarray(data[0][:3]), jnp.asarray(data[2][:3])
    head = UPerNet(four_stages.config.widths, 2, width=8, auxiliary_width=8, rngs=nnx.Rngs(1))
    learner = Segmenter(four_stages, head)
    graph, state = nnx.split(learner)

    # One program, since compiling is what takes time.
    @jax.jit
    def both(state):
        learner = nnx.merge(graph, state)
        main, auxiliary = learner.head(learner.encoder.stages(x), x.shape[1:4])
        batch, key = {"volumes": x, "masks": masks}, jax.random.key(0)
        losses = [learner.losses(batch, key, training=training) for training in (False, True)]
        return dice_loss(main, masks), dice_loss(auxiliary, masks), losses

    main, auxiliary, (scored, trained) = both(state)
    assert scored.shape == (3,)
    np.testing.assert_allclose(scored.mean(), main, rtol=1e-5)
    np.testing.assert_allclose(trained.mean(), main + 0.4 * auxiliary, rtol=1e-5)


def test_pretraining_lowers_the_masked_loss():
    """Ramps: what a masked patch holds follows from the visible ones."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 16)] * 3, indexing="ij"), axis=-1)
    x = grid @ rng.uniform(0, 1, (3, 160)) + 0.1 * rng.normal(size=(16, 16, 16, 160))
    x = np.moveaxis(x, -1, 0)[..., None].astype(np.float32)
    encoder = small_encoder()
    trained, history = pretrain(encoder, x, masking=MaskingSettings(patch=(8,), width=8), **RUN)
    assert history.curves.validation.min() < 0.7 * history.curves.start
    assert history.curves.start == pytest.approx(1.0, abs=0.05)
    assert not np.array_equal(trained.blocks[0][0].grn.gamma[...], encoder.blocks[0][0].grn.gamma)  # pyright: ignore[reportAttributeAccessIssue]
    graph, state = nnx.split(Pretrainer(encoder, patch=8, width=8, rngs=nnx.Rngs(0)))
    key, few = jax.random.key(3), jnp.asarray(x[:4])

    @jax.jit
    def both(state):
        model = nnx.merge(graph, state)
        return model.losses({"volumes": few}, key, training=True), model(few, key=key).loss

    losses, loss = both(state)
    np.testing.assert_allclose(losses.mean(), loss, rtol=1e-5)
