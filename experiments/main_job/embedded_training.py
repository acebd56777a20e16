"""What the trainings of the embedded default share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

import encoders
from encoders.convnext import STEM_BIAS
from encoders.finetuning import History
from encoders.rows import Rows
from experiments.main_job.embedded import Form
from experiments.main_job.plan import Plan

PRETRAIN_RATE = 2e-3
"""Highest learning rate of pre-training, which is short."""

MASKED_WIDTH = 64
"""Channels of the masked autoencoder's decoder: phantoms need fewer than patients do."""


def layout(form: Form) -> encoders.ConvNeXtV2Config:
    """The encoder of a form of the embedded default."""
    return encoders.ConvNeXtV2Config(depths=form.depths, widths=form.widths, strides=form.strides)


def start(plan: Plan) -> encoders.ConvNeXtV2:
    """The encoder before any training."""
    rngs = nnx.Rngs(plan.settings.seed)
    return encoders.ConvNeXtV2(layout(plan.phantom), stem_bias=STEM_BIAS, rngs=rngs)


def pretrain(
    plan: Plan, volumes: Rows, train_rows: np.ndarray, val_rows: np.ndarray, checkpoint: Path
) -> None:
    """Writes the encoder before fine-tuning.

    Args:
        plan: of the run.
        volumes: (n, D, H, W, 3).
        train_rows, val_rows: of the volumes.
        checkpoint: where to write.
    """
    encoder, history = encoders.pretrain(
        start(plan),
        volumes,
        train_rows=train_rows,
        val_rows=val_rows,
        # The published loss lets a small encoder forget level and contrast in these few steps.
        masking=encoders.MaskingSettings(
            patch=plan.phantom.patch, width=MASKED_WIDTH, target="input", visible_weight=1.0
        ),
        settings=encoders.TrainingSettings(
            epochs=plan.phantom.pretrain_epochs,
            learning_rate=PRETRAIN_RATE,
            seed=plan.settings.seed,
        ),
        tracking=tracking(checkpoint),
    )
    curves = history.curves
    losses = {"validation_loss_before": curves.start, "validation_loss": curves.best}
    encoders.save(checkpoint, encoder, {"origin": "masked autoencoder"} | losses)


def trained(best: Any, history: History) -> Any:
    """The encoder of the best epoch; where none was better than the start, that of the last.

    What a training changed is to be shown, and the start is what it is compared with.
    """
    return history.last[0] if history.curves.best_epoch < 0 else best


def tracking(checkpoint: Path) -> encoders.Tracking:
    """Checkpoints of a training beside the encoders that it makes."""
    return encoders.Tracking(checkpoint.parent.parent / "training" / checkpoint.name)
