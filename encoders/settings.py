"""Settings of training and embedding, in one place and without an import that takes time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from lens.ranges import (
    COUNT,
    EDGE_MM,
    INNER_SHARE,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_SHARE,
    SEED,
    SHARE,
    SHARE_BELOW_1,
    Check,
    first_problem,
)

Task = Literal["classification", "regression", "segmentation"]
MaskLoss = Literal["dice", "dice-ce"]
Tokens = Literal["class", "patches"]
"""What the embedding of a ViT is: its class token, or the mean of its patches."""
Layers = Literal["stages", "blocks"]
"""Every stage of an encoder, or every block."""
Target = Literal["patch", "input"]
"""What a masked autoencoder predicts: each patch scaled to mean 0 and variance 1, or the input."""
Pool = str
"""Over what feature maps are averaged: ``global``, or a region of the cohort."""

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
        shares = ("flip", "intensity_scale")
        _refuse(
            Check(
                each.name, getattr(self, each.name), SHARE if each.name in shares else NOT_NEGATIVE
            )
            for each in fields(self)
        )


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
        lora: rank of low-rank updates of the encoder's linear layers (`encoders.lora`), which are
            trained in place of the encoder with what was added to it, and are part of its kernels
            in the end; None trains the encoder itself.
        lora_alpha: the updates are ``lora_alpha / lora`` times the product of their factors; as
            large as the rank if not given.
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
    lora: int | None = None
    lora_alpha: float | None = None
    drop_path: float = 0.0
    augmentation: Augmentation | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _refuse(
            [
                Check("epochs", self.epochs, COUNT),
                Check("batch_size", self.batch_size, COUNT),
                Check("learning_rate", self.learning_rate, POSITIVE),
                Check("weight_decay", self.weight_decay, NOT_NEGATIVE),
                Check("warm_up", self.warm_up, SHARE_BELOW_1),
                Check("layer_decay", self.layer_decay, POSITIVE_SHARE),
                Check("lora", 1 if self.lora is None else self.lora, COUNT),
                Check("lora_alpha", 1 if self.lora_alpha is None else self.lora_alpha, POSITIVE),
                Check("drop_path", self.drop_path, SHARE_BELOW_1),
                Check("seed", self.seed, SEED),
            ]
        )
        if self.lora is not None and self.freeze:
            raise ValueError(
                f"lora is {self.lora}, and freeze leaves the encoder as it is; give one of the two"
            )
        if self.lora is None and self.lora_alpha is not None:
            raise ValueError(
                f"lora_alpha is {self.lora_alpha}, and there is no rank, lora, that it belongs to"
            )

    @property
    def alpha(self) -> float:
        """`lora_alpha`, or what stands in for it."""
        return float(self.lora or 1) if self.lora_alpha is None else self.lora_alpha


@dataclass(frozen=True)
class HeadSettings:
    """Settings of the head of a segmentation; the other tasks have none."""

    loss: MaskLoss = "dice"
    """Of a segmentation: Dice, or Dice plus cross entropy."""
    decoder_width: int = 512
    """Channels of UPerNet (segmentation)."""
    auxiliary_width: int = 256
    """Channels of its auxiliary head."""

    def problem(self) -> str:
        """What is out of range, led by the name of the field; an empty text where nothing is."""
        return first_problem(
            [
                Check("decoder_width", self.decoder_width, COUNT),
                Check("auxiliary_width", self.auxiliary_width, COUNT),
            ]
        )


@dataclass(frozen=True)
class MaskingSettings:
    """Settings of the masked autoencoder."""

    patch: tuple[int, ...] = (16,)
    """Sides of a masked patch, in voxels; one number for all of them alike."""
    ratio: float = 0.6
    """Share of masked patches."""
    width: int = 512
    """Channels of the decoder."""
    target: Target = "patch"
    """What is predicted: patch, the voxels scaled to mean 0 and variance 1 in each patch, as
    published; input, the voxels as the encoder gets them, with their level and contrast."""
    visible_weight: float = 0.0
    """Weight of a visible patch in the loss, over that of a masked one: 0 as published; above it
    the embedding must also hold what the encoder sees."""

    def problem(self) -> str:
        """What is out of range, led by the name of the field; an empty text where nothing is."""
        return first_problem(
            [
                Check("visible_weight", self.visible_weight, NOT_NEGATIVE),
                Check("patch", self.patch, COUNT),
                Check("ratio", self.ratio, INNER_SHARE),
                Check("width", self.width, COUNT),
            ]
        )


def grid_problem(shape: Sequence[int], spacing_mm: Sequence[float]) -> str:
    """What is wrong with an encoder's input, led by ``shape`` or ``spacing``; else an empty text.

    Args:
        shape: (D, H, W) in voxels.
        spacing_mm: (x, y, z).
    """
    return first_problem(
        [Check("shape", tuple(shape), COUNT), Check("spacing", tuple(spacing_mm), EDGE_MM)]
    )


def _refuse(checks: Iterable[Check]) -> None:
    if problem := first_problem(checks):
        raise ValueError(problem)


DEFAULT_TRAINING = TrainingSettings()
DEFAULT_HEAD = HeadSettings()
DEFAULT_MASKING = MaskingSettings()
