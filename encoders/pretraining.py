"""Pre-training an encoder as a masked autoencoder, deterministic by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from encoders.encoder import Encoder, encoder_hash
from encoders.masked import MaskedAutoencoder
from encoders.rows import Rows, rows_hash
from encoders.sampling import plain_order
from encoders.settings import (
    DEFAULT_MASKING,
    DEFAULT_TRAINING,
    MaskingSettings,
    TrainingSettings,
)
from encoders.steps import Batch, Learner
from encoders.training import DEFAULT_TRACKING, Curves, Tracking, Validation, train
from lens.disk import array_hash


@dataclass(frozen=True)
class Pretraining:
    """Curves and last encoder of a pre-training.

    Attributes:
        curves: losses and rates; the loss is the squared error of the voxels that count, in units
            of the target: with the published one, the variance of their patch.
        last: encoder of the last epoch.
    """

    curves: Curves
    last: Encoder


class Pretrainer(MaskedAutoencoder, Learner):
    """A masked autoencoder with its loss per volume."""

    ratio: float = 0.6

    def losses(self, batch: Batch, key: PRNGKeyArray, *, training: bool) -> Float[Array, " b"]:
        return self(batch["volumes"], key=key, ratio=self.ratio).losses


def pretrain(
    encoder: Encoder,
    volumes: Rows | Float[Array, "n ..."],
    *,
    train_rows: Int[np.ndarray, " t"] | None = None,
    val_rows: Int[np.ndarray, " v"] | None = None,
    masking: MaskingSettings = DEFAULT_MASKING,
    settings: TrainingSettings = DEFAULT_TRAINING,
    tracking: Tracking = DEFAULT_TRACKING,
) -> tuple[Encoder, Pretraining]:
    """A copy of the encoder, pre-trained to fill in volumes from the patches it is shown.

    Args:
        encoder: where to start; it is left as it is.
        volumes: ``(N, D, H, W, C)`` float32: an array, a memory map, or anything indexed by rows.
        train_rows: of the volumes; all if not given.
        val_rows: volumes that choose the best epoch, or the start where no epoch is better;
            without them the last epoch is taken.
        masking: patches, what is predicted of them, and width of the decoder.
        settings: rate, epochs, seed and so on; `freeze` would leave nothing to pre-train.
        tracking: checkpoints and progress.

    Returns:
        The encoder of the best epoch, and the history (`Curves.best_epoch` is -1 where that is the
        encoder as it was given).

    Raises:
        ValueError: a setting out of range, no volume, or a patch that does not fit the volumes.
        InputError: the loss is not finite, or the folder holds another run.
    """
    if problem := masking.problem():
        raise ValueError(problem)
    if settings.freeze:
        raise ValueError("a frozen encoder cannot be pre-trained")
    train_rows = np.arange(len(volumes)) if train_rows is None else np.asarray(train_rows)
    if not len(train_rows):
        raise ValueError("there is no volume to pre-train on")
    held_out = np.asarray([] if val_rows is None else val_rows)
    settings = replace(settings, batch_size=min(settings.batch_size, len(train_rows)))
    validation = Validation(held_out, np.ones(len(held_out))) if len(held_out) else None
    model = Pretrainer(
        nnx.clone(encoder),
        patch=masking.patch,
        width=masking.width,
        target=masking.target,
        visible_weight=masking.visible_weight,
        rngs=nnx.Rngs(settings.seed),
    )
    model.ratio = masking.ratio
    best, last, curves = train(
        model,
        {"volumes": volumes},
        settings,
        order=_order(train_rows, settings),
        validation=validation,
        facts={
            **_facts(encoder, model, masking),
            "rows": array_hash(train_rows, held_out),
            "volumes": rows_hash(volumes, np.concatenate([train_rows, held_out]).astype(int)),
        },
        title="pre-train",
        tracking=tracking,
    )
    return best.encoder, Pretraining(curves, last.encoder)


def _facts(encoder: Encoder, model: Pretrainer, masking: MaskingSettings) -> dict[str, Any]:
    return {
        "task": "pre-training",
        "encoder": encoder_hash(encoder),
        "patch": model.patch,
        "ratio": masking.ratio,
        "width": masking.width,
        "target": masking.target,
        "visible_weight": masking.visible_weight,
    }


def _order(rows: np.ndarray, settings: TrainingSettings) -> Callable[[int], np.ndarray]:
    """Epoch -> rows; whole batches, so a few volumes come twice in an epoch."""
    length = -(-len(rows) // settings.batch_size) * settings.batch_size
    return lambda epoch: rows[plain_order(len(rows), length, (settings.seed, epoch))]
