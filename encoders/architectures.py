"""Architectures that are not among the families, called by their names from those of their weights.

A name is only ever used in a message: nothing is loaded by what is found here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class _Signs(NamedTuple):
    """How an architecture is known: a pattern in some name, one that is in none, and its page."""

    name: str
    present: str
    absent: str | None = None
    page: str = "timm"


CONVNEXT_V1 = _Signs(
    "ConvNeXt V1 (it scales its layers and has no response normalisation)",
    r"stages[._]\d+\.(?:(?:blocks|layers)\.)?\d+\.(?:gamma|layer_scale_parameter)$",
    r"\.grn\.",
)

ADAPTER = _Signs(
    "PEFT adapter, which changes another encoder and is none by itself",
    r"\.lora_(?:A|B|embedding)|\.(?:ia3_l|hada_w1|oft_r|lokr_w1)|\.base_layer\.",
    page="adapter",
)

_ARCHITECTURES = (
    ADAPTER,
    CONVNEXT_V1._replace(
        name="ConvNeXt V1, of Hugging Face", present=r"\.layer_scale_parameter$", absent=r"\.grn\.",
        page="huggingface-pooled",
    ),
    CONVNEXT_V1,
    _Signs("Swin UNETR of MONAI", r"(?:^|\.)swinViT\.", page="monai"),
    _Signs(
        "Swin Transformer, of Hugging Face", r"attention\.self\.relative_position_bias_table$|"
        r"encoder\.layers\.\d+\.blocks\.\d+\..*relative_position_bias_table$",
        page="huggingface-pooled",
    ),
    _Signs("Swin Transformer", r"relative_position_bias_table$"),
    _Signs("DINOv3, with rotary positions", r"rope_embed|storage_tokens"),
    _Signs(
        "DINOv3, of Hugging Face, with rotary positions",
        r"^(?:.*\.)?layer\.\d+\.layer_scale1\.lambda1$", r"position_embeddings", "huggingface",
    ),
    _Signs(
        "DINOv2 (a ViT with scaled layers) without learnt positions of 2D patches",
        r"\.(?:ls1\.gamma|layer_scale1\.lambda1)$",
    ),
    _Signs("ViT of CLIP", r"visual\.transformer\.resblocks|resblocks\.\d+\.attn", page="open_clip"),
    _Signs("ViT of MONAI", r"patch_embedding\.patch_embeddings|patch_embedding\.cls", page="monai"),
    _Signs(
        "ViT of Hugging Face",
        r"attention\.(?:attention\.)?(?:query|q_proj)\.|vision_model\.encoder\.layers\.",
        page="huggingface",
    ),
    _Signs("ViT of torchvision", r"encoder_layer_\d+\.self_attention", page="torch"),
    _Signs("ViT", r"blocks\.\d+\.attn\.(?:qkv|q_proj|in_proj)"),
    _Signs("DenseNet", r"denseblock\d+\.denselayer\d+\."),
    _Signs("EfficientNet", r"(?:^|\.)(?:conv_stem|_conv_stem)\.weight$"),
    _Signs("SegResNet of MONAI", r"(?:^|\.)(?:convInit\.|down_layers\.\d+\.)", page="monai"),
    _Signs("DynUNet of MONAI", r"(?:^|\.)input_block\.conv1\.conv\.", page="monai"),
    _Signs("U-Net of MONAI", r"(?:^|\.)model\.0\.conv\.unit0\.", page="monai"),
    _Signs(
        "nnU-Net", r"stages\.\d+\.(?:\d+\.|blocks\.\d+\.)+convs?\.?\d*\.|conv_blocks_context\.",
        page="nnunet",
    ),
    _Signs(
        "ResNet of Hugging Face", r"stages\.\d+\.layers\.\d+\.layer\.\d+\.convolution\.",
        page="huggingface-pooled",
    ),
    _Signs("ResNet", r"layer[1-4]\.\d+\.(?:conv1|bn1)\."),
)  # fmt: skip


class Architecture(NamedTuple):
    """What weights are of, and where that is told.

    Attributes:
        name: for people.
        example: a name among theirs that tells.
        page: of docs/export, without its ending (`encoders.ways_out.lines_for`).
    """

    name: str
    example: str
    page: str


def architecture(names: Iterable[str], *, volumes: bool = False) -> Architecture | None:
    """What a state dict is of, or None where no sign is known.

    Args:
        names: of its parameters.
        volumes: whether its kernels are of volumes; such a network is not of a library of images.
    """
    names = list(names)
    for signs in _ARCHITECTURES:
        if example := shows(signs, names):
            page = "monai" if volumes and signs.page == "timm" else signs.page
            return Architecture(signs.name + " in 3D" * (page != signs.page), example, page)
    return None


def shows(signs: _Signs, names: Iterable[str]) -> str | None:
    """The first name that tells that a state dict is of this architecture."""
    names = list(names)
    if signs.absent and any(re.search(signs.absent, name) for name in names):
        return None
    return next((name for name in names if re.search(signs.present, name)), None)
