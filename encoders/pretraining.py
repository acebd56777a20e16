"""Pre-training an encoder as a masked autoencoder, deterministic by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from encoders.convnext import ConvNeXtV2
from encoders.masked import MaskedAutoencoder, normalised_patches, patches
from encoders.sampling import plain_order
from encoders.steps import DEFAULT, Batch, Learner, TrainingSettings
from encoders.training import Curves, Rows, Validation, encoder_hash, train, validate
from lens.files import array_hash


@dataclass(frozen=True)
class Pretraining:
    """What a pre-training did.

    Attributes:
        curves: losses and rates; the loss is the squared error of masked voxels, in units of the
            variance of their patch.
        start: validation loss before the first step; NaN without validation.
        last: encoder of the last epoch.
    """

    curves: Curves
    start: float
    last: ConvNeXtV2


class Pretrainer(MaskedAutoencoder, Learner):
    """A masked autoencoder with its loss per volume."""

    ratio: float = 0.6

    def losses(self, batch: Batch, key: PRNGKeyArray, *, training: bool) -> Float[Array, " b"]:
        volumes = batch["volumes"]
        out = self(volumes, key=key, ratio=self.ratio)
        errors = jnp.square(out.prediction - normalised_patches(volumes, self.patch))
        per_patch = patches(errors, self.patch).mean(axis=-1)
        grid = tuple(range(1, per_patch.ndim))
        masked = ~out.visible
        # Every volume has as many masked patches: the mean over volumes is the batch's loss.
        return jnp.where(masked, per_patch, 0).sum(axis=grid) / masked.sum(axis=grid)


def pretrain(
    encoder: ConvNeXtV2,
    volumes: Rows | Float[Array, "n ..."],
    *,
    train_rows: Int[np.ndarray, " t"] | None = None,
    val_rows: Int[np.ndarray, " v"] | None = None,
    patch: int | tuple[int, ...] = 16,
    ratio: float = 0.6,
    width: int = 512,
    settings: TrainingSettings = DEFAULT,
    folder: Path | None = None,
    every: int | None = None,
    observe: Callable[[Curves], None] | None = None,
    progress: bool = True,
) -> tuple[ConvNeXtV2, Pretraining]:
    """Pre-trains a copy of the encoder: volumes are filled in from the patches that are not masked.

    Args:
        encoder: where to start; it is left as it is.
        volumes: ``(N, D, H, W, C)`` float32: an array, a memory map, or anything indexed by rows.
        train_rows: of the volumes; all if not given.
        val_rows: volumes that choose the best epoch; without them the last epoch is taken.
        patch: sides of a patch in voxels.
        ratio: share of masked patches.
        width: channels of the decoder.
        settings: rate, epochs, seed and so on; `freeze` would leave nothing to pre-train.
        folder: of checkpoints; a run that was cut off goes on from there.
        every: steps between checkpoints; one per epoch if not given.
        observe: is told the curves after each epoch.
        progress: show a progress bar.

    Returns:
        The encoder of the best epoch, and the history.

    Raises:
        ValueError: no volume, or a patch that does not fit the volumes.
        InputError: the loss is not finite, or the folder holds another run.
    """
    if settings.freeze:
        raise ValueError("a frozen encoder cannot be pre-trained")
    train_rows = np.arange(len(volumes)) if train_rows is None else np.asarray(train_rows)
    if not len(train_rows):
        raise ValueError("there is no volume to pre-train on")
    settings = replace(settings, batch_size=min(settings.batch_size, len(train_rows)))
    length = -(-len(train_rows) // settings.batch_size) * settings.batch_size
    validation = None
    if val_rows is not None and len(val_rows):
        validation = Validation(np.asarray(val_rows), np.ones(len(val_rows)))
    model = Pretrainer(nnx.clone(encoder), patch=patch, width=width, rngs=nnx.Rngs(settings.seed))
    model.ratio = ratio
    data = {"volumes": volumes}
    best, last, curves = train(
        model,
        data,
        settings,
        order=lambda epoch: train_rows[
            plain_order(len(train_rows), length, (settings.seed, epoch))
        ],
        validation=validation,
        folder=folder,
        every=every,
        facts={
            "task": "pre-training",
            "encoder": encoder_hash(encoder),
            "patch": model.patch,
            "ratio": ratio,
            "width": width,
            "rows": array_hash(train_rows, np.asarray(val_rows if val_rows is not None else [])),
        },
        observe=observe,
        title="pre-train",
        progress=progress,
    )
    model.eval()
    start = float("nan") if validation is None else validate(model, data, validation, settings)
    return best.encoder, Pretraining(curves, start, last.encoder)
