"""Architectures that are not among the families, called by their names from those of their weights.

A name is only ever used in a message: nothing is loaded by what is found here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class _Signs(NamedTuple):
    """How an architecture is known: a pattern in some name, and one that is in none."""

    name: str
    present: str
    absent: str | None = None


CONVNEXT_V1 = _Signs(
    "ConvNeXt V1 (it scales its layers and has no response normalisation)",
    r"stages[._]\d+\.(?:(?:blocks|layers)\.)?\d+\.(?:gamma|layer_scale_parameter)$",
    r"\.grn\.",
)

_ARCHITECTURES = (
    CONVNEXT_V1,
    _Signs("Swin Transformer", r"relative_position_bias_table$"),
    _Signs("DINOv2 (a ViT with scaled layers)", r"\.(?:ls1\.gamma|layer_scale1\.lambda1)$"),
    _Signs(
        "ViT",
        r"blocks\.\d+\.attn\.(?:qkv|q_proj|in_proj)|attention\.(?:attention\.)?(?:query|q_proj)\.|"
        r"encoder_layer_\d+\.self_attention|resblocks\.\d+\.attn|vision_model\.encoder\.layers\.",
    ),
    _Signs("DenseNet", r"denseblock\d+\.denselayer\d+\."),
    _Signs("EfficientNet", r"(?:^|\.)(?:conv_stem|_conv_stem)\.weight$"),
    _Signs("nnU-Net", r"stages\.\d+\.(?:\d+\.|blocks\.\d+\.)+convs?\.?\d*\.|conv_blocks_context\."),
    _Signs(
        "ResNet",
        r"layer[1-4]\.\d+\.(?:conv1|bn1)\.|stages\.\d+\.layers\.\d+\.layer\.\d+\.convolution\.",
    ),
)


def architecture(names: Iterable[str]) -> tuple[str, str] | None:
    """What a state dict is of, and the name in it that tells, or None where no sign is known.

    Args:
        names: of its parameters.
    """
    names = list(names)
    for signs in _ARCHITECTURES:
        if example := shows(signs, names):
            return signs.name, example
    return None


def shows(signs: _Signs, names: Iterable[str]) -> str | None:
    """The first name that tells that a state dict is of this architecture."""
    names = list(names)
    if signs.absent and any(re.search(signs.absent, name) for name in names):
        return None
    return next((name for name in names if re.search(signs.present, name)), None)
