"""Fine-tuning an encoder with a head on one label or mask, deterministic by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from encoders.embedding import embed
from encoders.encoder import Encoder, EncoderConfig, encoder_hash
from encoders.heads import ClassificationHead, RegressionHead
from encoders.rows import Rows, rows_hash
from encoders.sampling import balanced_order, plain_order
from encoders.segmentation import UPerNet
from encoders.settings import (
    DEFAULT_HEAD,
    DEFAULT_TRAINING,
    HeadSettings,
    MaskLoss,
    Task,
    TrainingSettings,
)
from encoders.steps import Learner
from encoders.tasks import Classifier, Embedded, Regressor, Segmenter
from encoders.training import DEFAULT_TRACKING, Curves, Tracking, Validation, predict, train
from lens.disk import array_hash


@dataclass(frozen=True)
class History:
    """Curves, head and labels of a fine-tuning.

    Attributes:
        task: which.
        curves: losses and rates: cross entropy in nats, the squared error of the standardised
            label, or one minus Dice (in training with the auxiliary head's share).
        head: the trained head, in evaluation mode.
        last: encoder and head of the last epoch, where `head` is of the best one.
        classes: the labels in the order of the logits; None but for classification.
        label_mean: of the training labels, in their unit; 0 but for regression.
        label_sd: of the training labels, in their unit; 1 but for regression.
    """

    task: Task
    curves: Curves
    head: nnx.Module
    last: tuple[Encoder, nnx.Module]
    classes: Shaped[np.ndarray, " classes"] | None
    label_mean: float
    label_sd: float

    @property
    def loss(self) -> Float[np.ndarray, " epochs"]:
        """Mean training loss of each epoch."""
        return self.curves.loss

    def predict(
        self,
        encoder: Encoder,
        volumes: Rows,
        rows: Int[np.ndarray, " n"] | None = None,
        *,
        batch_size: int = 8,
    ) -> Shaped[np.ndarray, "n ..."]:
        """Predictions of encoder and head for volumes.

        Args:
            encoder: the fine-tuned encoder.
            volumes: ``(N, D, H, W, C)``.
            rows: which of them; all if not given.
            batch_size: volumes per pass.

        Returns:
            Class probabilities ``(n, classes)``, the label in its unit ``(n,)``, or masks
            ``(n, D, H, W)``.
        """
        rows = np.arange(len(volumes)) if rows is None else rows
        out = predict(_learner(encoder, self.head), volumes, rows, batch_size=batch_size)
        if self.task == "regression":
            return out * np.float32(self.label_sd) + np.float32(self.label_mean)
        return out


def finetune(
    encoder: Encoder,
    volumes: Rows | Float[Array, "n ..."],
    labels: Rows | Shaped[np.ndarray, "n ..."],
    *,
    task: Task,
    train_rows: Int[np.ndarray, " t"] | None = None,
    val_rows: Int[np.ndarray, " v"] | None = None,
    settings: TrainingSettings = DEFAULT_TRAINING,
    head: HeadSettings = DEFAULT_HEAD,
    tracking: Tracking = DEFAULT_TRACKING,
) -> tuple[Encoder, History]:
    """A copy of the encoder, fine-tuned with a head.

    A frozen encoder without augmentation embeds the volumes once, before the head is trained.
    Classification samples its classes equally often, and weighs them equally in validation;
    regression fits the label standardised over the training rows. Segmentation trains UPerNet on
    four stages.

    Args:
        encoder: where to start; it is left as it is.
        volumes: ``(N, D, H, W, C)`` float32: an array, a memory map, or anything indexed by rows.
        labels: one per volume: classes (any sortable values), numbers with a unit, or masks
            (D, H, W).
        task: which head and loss.
        train_rows: of the volumes; all if not given.
        val_rows: volumes that choose the best epoch, or the start where no epoch is better;
            without them the last epoch is taken.
        settings: rate, epochs, seed and so on.
        head: loss and widths of a segmentation.
        tracking: checkpoints and progress.

    Returns:
        The fine-tuned encoder and the history with the trained head; where no epoch was better than
        the start on the validation volumes (`Curves.best_epoch` is -1), both as they started.

    Raises:
        ValueError: a width of the head is out of range, numbers of labels and volumes differ, fewer
            than 2 volumes to train on, a constant label, or a number that is not finite.
        InputError: the loss is not finite, or the folder holds another run.
    """
    if problem := head.problem():
        raise ValueError(problem)
    if len(labels) != len(volumes):
        raise ValueError(f"{len(labels)} labels for {len(volumes)} volumes")
    rows = _rows(len(volumes), train_rows, val_rows)
    settings = _fitting(settings, rows)
    target = _target(task, labels, rows)
    built = _built_head(task, target, encoder.config, head, settings.seed)
    reader: Encoder | Embedded = encoder
    given = volumes
    if settings.freeze and settings.augmentation is None and task != "segmentation":
        reader = Embedded(encoder.config)
        volumes = _embeddings(encoder, volumes, rows.used, settings.batch_size)
    best, last, curves = train(
        _learner(reader, built, head.loss),
        {"volumes": volumes, target.name: target.values},
        settings,
        order=_order(target, rows.train, settings),
        validation=_validation(target, rows.val),
        facts=_facts(encoder, given, task, head, rows, target),
        title=task,
        tracking=tracking,
    )
    trained = [encoder if reader is not encoder else each.encoder for each in (best, last)]
    ends = (nnx.clone(trained[1]), _head(last))
    labelled = (target.classes, target.mean, target.sd)
    return nnx.clone(trained[0]), History(task, curves, _head(best), ends, *labelled)


@dataclass(frozen=True)
class _Rows:
    """Rows to train on, and rows that choose the epoch."""

    train: np.ndarray
    val: np.ndarray

    @property
    def used(self) -> np.ndarray:
        return np.concatenate([self.train, self.val])


def _rows(count: int, train: np.ndarray | None, val: np.ndarray | None) -> _Rows:
    return _Rows(
        np.arange(count) if train is None else np.asarray(train),
        np.arange(0) if val is None else np.asarray(val),
    )


@dataclass(frozen=True)
class _Target:
    """Values that the loss compares with.

    Attributes:
        name: its place in a batch.
        values: one per volume; those that are neither trained nor validated on mean nothing.
        classes, mean, sd: as in `History`.
    """

    name: str
    values: Rows
    classes: Shaped[np.ndarray, " classes"] | None = None
    mean: float = 0.0
    sd: float = 1.0


def _fitting(settings: TrainingSettings, rows: _Rows) -> TrainingSettings:
    """With batches no larger than there are rows."""
    size = min(settings.batch_size, len(rows.train))
    if size < 2:
        raise ValueError("fine-tuning needs batches of at least 2 volumes, for BatchNorm")
    return replace(settings, batch_size=size)


def _target(task: Task, labels: Rows, rows: _Rows) -> _Target:
    if task == "segmentation":
        return _Target("masks", labels)
    labels, used = np.asarray(labels), rows.used
    if task == "classification":
        return _classes(labels, rows.train, used)
    values = labels.astype(np.float64)
    if not np.isfinite(values[used]).all():
        raise ValueError(f"{(~np.isfinite(values[used])).sum()} labels are not finite numbers")
    mean, sd = float(values[rows.train].mean()), float(values[rows.train].std())
    if sd == 0:
        raise ValueError(f"every volume has the same label, {mean:g}; nothing to learn")
    return _Target("targets", ((values - mean) / sd).astype(np.float32), mean=mean, sd=sd)


def _classes(labels: np.ndarray, train_rows: np.ndarray, used: np.ndarray) -> _Target:
    trained = np.unique(labels[train_rows])
    if len(trained) < 2:
        raise ValueError(f"every volume has the same class, {trained}; nothing to learn")
    # A rare class may be in validation alone: it has a logit too, and is got wrong.
    classes = np.unique(labels[used])
    targets = np.zeros(len(labels), np.int32)
    targets[used] = np.searchsorted(classes, labels[used])
    return _Target("targets", targets, classes=classes)


def _built_head(
    task: Task, target: _Target, config: EncoderConfig, head: HeadSettings, seed: int
) -> nnx.Module:
    rngs = nnx.Rngs(seed)
    if task == "segmentation":
        widths, inside = config.widths, head.decoder_width
        return UPerNet(widths, 2, width=inside, auxiliary_width=head.auxiliary_width, rngs=rngs)
    if target.classes is None:
        return RegressionHead(config.features, rngs=rngs)
    return ClassificationHead(config.features, len(target.classes), rngs=rngs)


def _facts(
    encoder: Encoder,
    volumes: Rows,
    task: Task,
    head: HeadSettings,
    rows: _Rows,
    target: _Target,
) -> dict[str, Any]:
    """What the run depends on besides its settings."""
    return {
        "task": task,
        "loss": head.loss,
        "encoder": encoder_hash(encoder),
        "rows": array_hash(rows.train, rows.val),
        "labels": rows_hash(target.values, rows.used),
        "volumes": rows_hash(volumes, rows.used),
    }


def _embeddings(
    encoder: Encoder, volumes: Rows, used: Int[np.ndarray, " u"], batch_size: int
) -> Float[np.ndarray, "n f"]:
    """The embeddings of the volumes in `used`; zeros for others."""
    rows = np.unique(used)
    out = np.zeros((len(volumes), encoder.config.features), np.float32)
    out[rows] = embed(encoder, (volumes[row] for row in rows), batch_size=batch_size)
    return out


def _learner(encoder: Encoder | Embedded, head: nnx.Module, loss: MaskLoss = "dice") -> Learner:
    if isinstance(head, RegressionHead):
        return Regressor(encoder, head)
    if isinstance(head, ClassificationHead):
        return Classifier(encoder, head)
    assert isinstance(head, UPerNet)
    assert not isinstance(encoder, Embedded)
    return Segmenter(encoder, head, loss)


def _head(learner: Learner) -> nnx.Module:
    assert isinstance(learner, Classifier | Regressor | Segmenter)
    return learner.head


def _order(
    target: _Target, rows: np.ndarray, settings: TrainingSettings
) -> Callable[[int], np.ndarray]:
    """Epoch -> rows; whole batches, so a few volumes come twice in an epoch."""
    length = -(-len(rows) // settings.batch_size) * settings.batch_size
    if target.classes is None:
        return lambda epoch: rows[plain_order(len(rows), length, (settings.seed, epoch))]
    labels = np.asarray(target.values)[rows]
    return lambda epoch: rows[balanced_order(labels, length, (settings.seed, epoch))]


def _validation(target: _Target, rows: np.ndarray) -> Validation | None:
    if not len(rows):
        return None
    if target.classes is None:
        return Validation(rows, np.ones(len(rows)))
    labels = np.asarray(target.values)[rows]
    return Validation(rows, 1 / np.bincount(labels)[labels])
