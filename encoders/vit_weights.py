"""Vision transformers from foreign weights: DINOv2 as Hugging Face, timm and its authors name it.

A state dict is recognised by its names and shapes. What the weights cannot tell is the number of
heads: it is read from a ``config.json`` beside them, and else 64 channels make a head, as in every
published DINOv2.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import isqrt
from typing import Any

import numpy as np

from encoders.renaming import Source, bare_name, build, rename
from encoders.state_dicts import Match
from encoders.vit import HEAD, ViT, ViTConfig
from lens.errors import InputError

log = logging.getLogger(__name__)

_INDEX = "([0-9]{1,3})"
"""No network has a thousand blocks: a larger index is no name of the table."""

_BLOCK = rf"(?:(?:encoder\.)?layer|blocks(?:\.[0-9]{{1,3}})?)\.{_INDEX}\."
"""Blocks in chunks have the chunk's number before their own, which counts through all of them."""

_TABLE = (
    (r"(?:embeddings\.)?cls_token", "class_token"),
    (r"(?:embeddings\.)?(?:register_tokens|reg_token)", "registers"),
    (r"embeddings\.position_embeddings|pos_embed", "positions"),
    (r"(?:embeddings\.patch_embeddings\.projection|patch_embed\.proj)\.weight", "patches.kernel"),
    (r"(?:embeddings\.patch_embeddings\.projection|patch_embed\.proj)\.bias", "patches.bias"),
    (_BLOCK + r"norm([12])\.weight", r"blocks.\1.norm\2.scale"),
    (_BLOCK + r"norm([12])\.bias", r"blocks.\1.norm\2.bias"),
    (_BLOCK + r"(?:ls|layer_scale)([12])\.(?:gamma|lambda1)", r"blocks.\1.scale\2"),
    (_BLOCK + r"attn\.qkv\.(weight|bias)", r"blocks.\1.attention.qkv.\2"),
    (
        _BLOCK + r"attention\.(?:attention\.)?(q|k|v)(?:uery|ey|alue|_proj)\.(weight|bias)",
        r"blocks.\1.attention.\2.\3",
    ),
    (
        _BLOCK + r"(?:attn\.proj|attention\.(?:output\.dense|o_proj))\.(weight|bias)",
        r"blocks.\1.attention.out.\2",
    ),
    (_BLOCK + r"mlp\.(?:w12|weights_in)\.(weight|bias)", r"blocks.\1.perceptron.gated.\2"),
    (_BLOCK + r"mlp\.fc1\.(weight|bias)", r"blocks.\1.perceptron.expand.\2"),
    (_BLOCK + r"mlp\.gate_proj\.(weight|bias)", r"blocks.\1.perceptron.gate.\2"),
    (_BLOCK + r"mlp\.up_proj\.(weight|bias)", r"blocks.\1.perceptron.up.\2"),
    (
        _BLOCK + r"mlp\.(?:fc2|w3|weights_out|down_proj)\.(weight|bias)",
        r"blocks.\1.perceptron.project.\2",
    ),
    (r"(?:norm|layernorm)\.weight", "norm.scale"),
    (r"(?:norm|layernorm)\.bias", "norm.bias"),
)
"""A pattern that must match a whole name, and our name, in which a weight becomes a kernel."""

_JOINED = (
    ("attention.qkv", ("attention.q", "attention.k", "attention.v")),
    ("perceptron.expand", ("perceptron.gate", "perceptron.up")),
    ("perceptron.expand", ("perceptron.gated",)),
)
"""Our parameter, and those that make it, one above the other."""

_ROOT = re.compile(rf"((?:.+?\.)??){_BLOCK}(?:ls1\.gamma|layer_scale1\.lambda1)")
"""The scale of a branch: what stands before its own name is the prefix of the encoder."""

_ENCODER_PARTS = (
    "blocks.", "encoder.layer.", "layer.", "embeddings.", "patch_embed.", "norm.", "layernorm.",
    "pos_embed", "cls_token", "rope_embed", "storage_tokens", "fc_norm.",
)  # fmt: skip
_NOT_USED = re.compile(r"(?:^|\.)mask_token$")
"""Stands for hidden patches in pre-training."""


def recognises(state: Mapping[str, np.ndarray]) -> bool:
    """Whether it scales its branches, has learnt positions of patches, and cuts patches in 2D."""
    names = set(state)
    return (
        any(_root(name) is not None for name in names)
        and any(re.search(r"(?:^|\.)(?:position_embeddings|pos_embed)$", name) for name in names)
        and any(
            re.search(r"patch_embed(?:dings\.projection|\.proj)\.weight$", name)
            and np.ndim(array) == 4
            for name, array in state.items()
        )
    )


def convert(
    state: Mapping[str, np.ndarray],
    *,
    partial: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> tuple[ViT, Match]:
    """Builds the encoder that a state dict describes.

    Position embeddings are taken to another grid as Hugging Face does: with antialiasing where
    there are register tokens, without it where there are none, and with no offset.

    Args:
        state: names and arrays, as Hugging Face, timm or the authors of DINOv2 store them.
        partial: accept a file that does not match fully; what it lacks keeps the initialisation
            with seed 0.
        facts: of the ``config.json`` beside it.

    Returns:
        The encoder and the report of names.

    Raises:
        InputError: no encoder in it, one of another kind, or not a full match while `partial` is
            False.
    """
    source = _with_joined(rename(state, our_name, _root, _ENCODER_PARTS))
    config = _config(source, facts or {})
    return build(lambda rngs: ViT(config, rngs=rngs), source, _layout, partial=partial)


def our_name(name: str) -> str | None:
    """Our name for a foreign one, parts that are still to be joined included; None for others."""
    inside: str | None = name
    while inside is not None:
        for pattern, ours in _TABLE:
            if at := re.fullmatch(pattern, inside):
                return at.expand(ours).replace(".weight", ".kernel")
        inside = bare_name(inside)
    return None


def _root(name: str) -> str | None:
    found = _ROOT.fullmatch(name)
    return found[1] if found else None


def _with_joined(source: Source) -> Source:
    """With one array where the file has several that are one of our parameters."""
    arrays, names = dict(source.arrays), dict(source.names)
    for name in source.arrays:
        for whole, parts in _JOINED:
            start, found, leaf = name.partition(f".{parts[0]}.")
            members = [f"{start}.{part}.{leaf}" for part in parts]
            if found and set(members) <= set(arrays):
                ours = f"{start}.{whole}.{leaf}"
                arrays[ours] = np.concatenate([arrays.pop(member) for member in members])
                names[ours] = " + ".join(names.pop(member) for member in members)
    if "positions" in arrays and arrays["positions"].ndim == 3 and "class_token" in arrays:
        # The class token has a position of its own, but in timm's networks with registers. A square
        # number of positions does not tell: 14 x 16 patches and the token are 15 x 15.
        positions = arrays["positions"]
        square = isqrt(positions.shape[1]) ** 2 == positions.shape[1]
        own = int(not (square and names.get("registers", "").endswith("reg_token")))
        if own and positions.shape[2] == arrays["class_token"].size:
            arrays["class_token"] = arrays["class_token"].reshape(1, 1, -1) + positions[:, :1]
        arrays["positions"] = positions[:, own:]
    unused = [name for name in source.unexpected if _NOT_USED.search(name)]
    return replace(
        source,
        arrays=arrays,
        names=names,
        unexpected=[name for name in source.unexpected if name not in unused],
        ignored=[*source.ignored, *unused],
    )


def _config(source: Source, facts: Mapping[str, Any]) -> ViTConfig:
    """Sizes from the shapes, and heads from the facts or by the rule."""

    def shape_of(name: str, rank: int) -> tuple[int, ...]:
        if name not in source.arrays:
            raise InputError(f"{name} is missing, and without it the sizes cannot be inferred")
        shape = source.arrays[name].shape
        if len(shape) != rank:
            raise InputError(
                f"{source.names[name]} has the shape {shape}; expected {rank} axes of a ViT on 2D "
                "patches"
            )
        return shape

    width, channels, patch, across = shape_of("patches.kernel", 4)
    side = isqrt(shape_of("positions", 3)[1])
    if side**2 != shape_of("positions", 3)[1] or patch != across:
        raise InputError(
            f"{source.names['positions']} of {shape_of('positions', 3)} on patches of {patch} x "
            f"{across} pixels; only square grids and patches are known here"
        )
    depth = 1 + max(_blocks(source.arrays), default=-1)
    inside = shape_of("blocks.0.perceptron.expand.kernel", 2)[0]
    hidden = shape_of("blocks.0.perceptron.project.kernel", 2)[1]
    registers = source.arrays["registers"].shape[-2] if "registers" in source.arrays else 0
    try:
        return ViTConfig(
            depth=depth,
            width=width,
            heads=_heads(width, facts),
            hidden=hidden,
            perceptron="swiglu" if inside == 2 * hidden else "gelu",
            patch=patch,
            grid=(side, side),
            registers=registers,
            in_channels=channels,
            antialias=registers > 0,
        )
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the shapes describe no ViT ({error})") from error


def _blocks(names: Iterable[str]) -> Iterable[int]:
    return (int(at[1]) for name in names if (at := re.match(rf"blocks\.{_INDEX}\.", name)))


def _heads(width: int, facts: Mapping[str, Any]) -> int:
    """The number of heads.

    Raises:
        InputError: it cannot be told, or the facts tell of something that is not computed here.
    """
    expected = {"layer_norm_eps": 1e-6, "hidden_act": "gelu"}
    for name, value in expected.items():
        if facts.get(name, value) != value:
            raise InputError(
                f"its config.json has {name} {facts[name]!r}, and {value!r} is computed here; give "
                "a function of your own (docs/encoders.md)"
            )
    told = facts.get("num_attention_heads")
    if isinstance(told, int) and told > 0:
        return told
    if width % HEAD:
        raise InputError(
            f"{width} channels are no multiple of {HEAD}, the channels of a head in DINOv2, and "
            "the weights do not tell how many heads there are; put the config.json of Hugging Face "
            "with num_attention_heads beside them"
        )
    log.info("%d heads: %d channels each, as in every published DINOv2", width // HEAD, HEAD)
    return width // HEAD


def _layout(name: str, array: np.ndarray) -> np.ndarray:
    """A foreign array in our layout, as float32: kernels are (*space, in, out)."""
    array = np.asarray(array, dtype=np.float32)
    if name == "positions":
        side = isqrt(array.shape[-2])
        return array.reshape(side, side, -1)
    if name == "registers":
        return array.reshape(-1, array.shape[-1])
    if name == "patches.kernel":
        return np.moveaxis(array, (0, 1), (-1, -2))
    if name.endswith(".kernel"):
        return array.T
    return array.reshape(-1) if array.size == max(array.shape, default=0) else array
