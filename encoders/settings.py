"""Settings of training and embedding, in one place and without an import that takes time."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

Task = Literal["classification", "regression", "segmentation"]
MaskLoss = Literal["dice", "dice-ce"]
Pool = Literal["global", "gland", "lesion"]

INPUT_SHAPE = (64, 224, 224)
"""Depth, height and width of an encoder's input, in voxels."""

SPACING_MM = (0.5, 0.5, 1.0)
"""Size of its voxels along x, y and z."""


@dataclass(frozen=True)
class Augmentation:
    """Strengths; at 0 a change is left out. All draws are uniform and differ between volumes.

    Attributes:
        flip: probability that left and right are exchanged.
        rotation: largest angle in the plane of the slices, either way, in degrees; voxels are
            square in that plane.
        zoom: largest magnification in all axes is ``1 + zoom``, the smallest its inverse.
        intensity_scale: largest relative change of a channel's contrast, ``1 ± intensity_scale``.
        intensity_shift: largest change of a channel's brightness, in the units of the input,
            which are standard deviations for z-scored channels.
        bias_field: largest root mean square of the logarithm of a smooth field that multiplies
            a channel's intensities, counted from its darkest voxel.
        smoothing: largest standard deviation of a Gaussian in the plane, in voxels.
    """

    flip: float = 0.5
    rotation: float = 10.0
    zoom: float = 0.1
    intensity_scale: float = 0.1
    intensity_shift: float = 0.1
    bias_field: float = 0.1
    smoothing: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{field.name} is {value}; a strength is a number from 0 up")
        for name in ("flip", "intensity_scale"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share, at most 1")


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        epochs: passes over the training samples.
        batch_size: samples per step.
        learning_rate: of AdamW, the highest of the schedule: linear warm-up, then cosine to 0.
        weight_decay: of AdamW, on kernels; biases, scales and response norms are not decayed.
        warm_up: its share of all steps.
        layer_decay: factor of the rate from each layer to the one before it; 1 trains all alike.
        freeze: leave the encoder as it is and train what was added to it.
        drop_path: stochastic depth of the encoder's last block (linear from 0) while it trains.
        augmentation: of each batch, on the device; None for none.
        seed: of the order of the samples, augmentation, masks and stochastic depth.
    """

    epochs: int = 100
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: float = 0.1
    layer_decay: float = 1.0
    freeze: bool = False
    drop_path: float = 0.0
    augmentation: Augmentation | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs {self.epochs} and batch_size {self.batch_size}: at least 1")
        if self.learning_rate <= 0 or not 0 < self.layer_decay <= 1:
            raise ValueError("learning_rate is positive, layer_decay between 0 and 1")
        if not 0 <= self.warm_up < 1 or not 0 <= self.drop_path < 1:
            raise ValueError("warm_up and drop_path are shares below 1")


@dataclass(frozen=True)
class HeadSettings:
    """Settings of the head of a segmentation; the other tasks have none."""

    loss: MaskLoss = "dice"
    """Of a segmentation: Dice, or Dice plus cross entropy."""
    decoder_width: int = 512
    """Channels of UPerNet (segmentation)."""
    auxiliary_width: int = 256
    """Channels of its auxiliary head."""


@dataclass(frozen=True)
class MaskingSettings:
    """Settings of the masked autoencoder."""

    patch: tuple[int, ...] = (16,)
    """Sides of a masked patch, in voxels; one number for all of them alike."""
    ratio: float = 0.6
    """Share of masked patches."""
    width: int = 512
    """Channels of the decoder."""


DEFAULT_TRAINING = TrainingSettings()
DEFAULT_HEAD = HeadSettings()
DEFAULT_MASKING = MaskingSettings()
