"""An encoder with a head, and its loss of each sample: classes, a quantity, or masks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from encoders.encoder import Encoder, EncoderConfig
from encoders.heads import ClassificationHead, RegressionHead
from encoders.segmentation import UPerNet, dice_cross_entropy, dice_loss
from encoders.settings import MaskLoss, Task
from encoders.slices import embedding_of
from encoders.steps import Batch, Learner

__all__ = ["Classifier", "Embedded", "MaskLoss", "Regressor", "Segmenter", "Task"]

AUXILIARY_WEIGHT = 0.4
_MASK_LOSSES = {"dice": dice_loss, "dice-ce": dice_cross_entropy}


class Embedded(nnx.Module):
    """Stands for a frozen encoder where the volumes are its embeddings already."""

    def __init__(self, config: EncoderConfig) -> None:
        self.config = config

    def __call__(
        self, x: Float[Array, "b f"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "b f"]:
        return x


class Classifier(Learner):
    """Cross entropy of a class per volume, in nats; ``batch["targets"]`` counts classes from 0."""

    def __init__(self, encoder: Encoder | Embedded, head: ClassificationHead) -> None:
        self.encoder, self.head = encoder, head

    def losses(self, batch: Batch, key: PRNGKeyArray, *, training: bool) -> Float[Array, " b"]:
        logits = self.head(
            embedding_of(self.encoder, batch["volumes"], key=key if training else None)
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])

    def predict(self, volumes: Float[Array, "b ..."]) -> Float[Array, "b classes"]:
        """Probabilities."""
        return jax.nn.softmax(self.head(embedding_of(self.encoder, volumes)))


class Regressor(Learner):
    """Squared error of the standardised label, ``batch["targets"]``."""

    def __init__(self, encoder: Encoder | Embedded, head: RegressionHead) -> None:
        self.encoder, self.head = encoder, head

    def losses(self, batch: Batch, key: PRNGKeyArray, *, training: bool) -> Float[Array, " b"]:
        out = self.head(embedding_of(self.encoder, batch["volumes"], key=key if training else None))
        return jnp.square(out[:, 0] - batch["targets"])

    def predict(self, volumes: Float[Array, "b ..."]) -> Float[Array, " b"]:
        """The standardised label."""
        return self.head(embedding_of(self.encoder, volumes))[:, 0]


class Segmenter(Learner):
    """Dice loss of a mask, with or without cross entropy; the auxiliary head adds 0.4 of its own.

    ``batch["masks"]`` is (b, D, H, W).
    """

    def __init__(self, encoder: Encoder, head: UPerNet, loss: MaskLoss = "dice") -> None:
        self.encoder, self.head, self.loss = encoder, head, loss

    def losses(self, batch: Batch, key: PRNGKeyArray, *, training: bool) -> Float[Array, " b"]:
        volumes, masks = batch["volumes"], batch["masks"] > 0
        stages = self.encoder.stages(volumes, key=key if training else None)
        logits, auxiliary = self.head(stages, volumes.shape[1:4])
        each = jax.vmap(lambda scores, mask: _MASK_LOSSES[self.loss](scores[None], mask[None]))
        if not training:
            return each(logits, masks)
        return each(logits, masks) + AUXILIARY_WEIGHT * each(auxiliary, masks)

    def predict(self, volumes: Float[Array, "b ..."]) -> Bool[Array, "b d h w"]:
        """The mask."""
        logits, _ = self.head(self.encoder.stages(volumes), volumes.shape[1:4])
        return logits[..., 1] > logits[..., 0]
