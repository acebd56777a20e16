"""Image encoders in JAX: ConvNeXt V2 in 2D and 3D, weights from anywhere, embeddings, fine-tuning.

The names below are the public functions; each is imported on first use, so that scripts which
need only a part do not wait for JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encoders.checkpoints import load, save
    from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
    from encoders.embedding import embed
    from encoders.finetuning import finetune
    from encoders.pretraining import pretrain
    from encoders.steps import TrainingSettings

_PUBLIC = {
    "ConvNeXtV2": "encoders.convnext",
    "ConvNeXtV2Config": "encoders.convnext",
    "embed": "encoders.embedding",
    "TrainingSettings": "encoders.steps",
    "finetune": "encoders.finetuning",
    "load": "encoders.checkpoints",
    "pretrain": "encoders.pretraining",
    "save": "encoders.checkpoints",
}

__all__ = [
    "ConvNeXtV2",
    "ConvNeXtV2Config",
    "TrainingSettings",
    "embed",
    "finetune",
    "load",
    "pretrain",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'encoders' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
