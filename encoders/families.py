"""Families of encoders: how each is built from its configuration and from foreign weights.

A new family is a module with its configuration and its `Encoder`, optionally a module with a table
of foreign names, and a line of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from encoders.architectures import ADAPTER, architecture, shows
from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.convnext_weights import convert as convert_convnext
from encoders.convnext_weights import recognises as is_convnext
from encoders.encoder import Encoder, EncoderConfig
from encoders.layers import shapes_of
from encoders.state_dicts import Match
from encoders.vit import ViT, ViTConfig
from encoders.vit_weights import convert as convert_vit
from encoders.vit_weights import recognises as is_vit
from lens.errors import InputError

State = Mapping[str, np.ndarray]
"""Arrays by name, as a PyTorch file has them."""


@dataclass(frozen=True)
class Family:
    """A family of encoders.

    Attributes:
        config: the dataclass that determines an encoder (`encoders.encoder.EncoderConfig`).
        encoder: the class, built as ``encoder(config, rngs=nnx.Rngs(seed))``.
        recognises: whether a state dict holds weights of this family; None if none can be read.
        convert: ``convert(state, partial=...)`` builds the encoder of a state dict that
            `recognises`, and reports the names.
        wants_facts: ``convert`` also takes ``facts``, the ``config.json`` beside the weights.
    """

    config: type[Any]
    encoder: type[Any]
    recognises: Callable[[State], bool] | None = None
    convert: Callable[..., tuple[Any, Match]] | None = None
    wants_facts: bool = False


CONVNEXT = "ConvNeXt V2"
VIT = "DINOv2 ViT"

FAMILIES: dict[str, Family] = {
    CONVNEXT: Family(ConvNeXtV2Config, ConvNeXtV2, is_convnext, convert_convnext),
    VIT: Family(ViTConfig, ViT, is_vit, convert_vit, wants_facts=True),
}
"""Name, as checkpoints store it -> family."""


def family_of(encoder: Encoder) -> str:
    """The name of an encoder's family.

    Raises:
        InputError: its class is of no family.
    """
    for name, family in FAMILIES.items():
        if type(encoder) is family.encoder:
            return name
    raise InputError(
        f"{type(encoder).__name__} is of no known family ({_known()}); add it to "
        "encoders.families.FAMILIES"
    )


def describe(encoder: Encoder) -> dict[str, Any]:
    """Family and configuration as JSON can hold them: what `from_description` reads."""
    config: Any = encoder.config
    return {"family": family_of(encoder), "config": asdict(config)}


def from_description(description: Mapping[str, Any]) -> Encoder:
    """The described encoder, with shapes in place of parameters: to be filled.

    A description without a family is of a ConvNeXt V2, the only one there once was.

    Raises:
        ValueError, TypeError, KeyError: not a description of a known family.
    """
    name = description.get("family", CONVNEXT)
    if name not in FAMILIES:
        raise ValueError(f"family {name!r} is not known ({_known()})")
    family = FAMILIES[name]
    fields = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in description["config"].items()
    }
    return unfilled(family.config(**fields))


def unfilled(config: EncoderConfig) -> Encoder:
    """An encoder of a known family with shapes in place of parameters: to be filled.

    Args:
        config: what it is built from.
    """
    family = next(each for each in FAMILIES.values() if type(config) is each.config)
    return shapes_of(lambda rngs: family.encoder(config, rngs=rngs))


def convert(
    state: State, *, partial: bool = False, facts: Mapping[str, Any] | None = None
) -> tuple[Encoder, Match]:
    """Builds the encoder that a state dict holds, of the first family that recognises it.

    Args:
        state: names and arrays, as they are stored.
        partial: accept a file that does not match fully; what it lacks keeps the initialisation
            with seed 0.
        facts: of the ``config.json`` beside the file.

    Raises:
        InputError: no family recognises it, or it is not a full match while `partial` is False.
    """
    if shows(ADAPTER, state):
        raise _other(state)
    for family in FAMILIES.values():
        if family.recognises and family.convert and family.recognises(state):
            more = {"facts": facts} if family.wants_facts else {}
            return family.convert(state, partial=partial, **more)
    raise _other(state)


class OtherEncoderError(InputError):
    """Weights of no known family.

    Attributes:
        page: of docs/export, for `encoders.ways_out.lines_for`.
    """

    def __init__(self, message: str, page: str) -> None:
        self.page = page
        super().__init__(message)


def _other(state: State) -> OtherEncoderError:
    names = ", ".join(list(state)[:6]) + (", ..." if len(state) > 6 else "")
    found, page = f"no parameter has a known name (it has {names or 'none'})", "torch"
    volumes = any(np.ndim(array) == 5 for array in state.values())
    if known := architecture(state, volumes=volumes):
        found = f"these are weights of a {known.name}, by the name {known.example}"
        page = known.page
    return OtherEncoderError(
        f"no {' or '.join(FAMILIES)} encoder in it: {found}. Embed the images with its own code "
        "and give the tables of embeddings (--pre, --ft), or give a function of your own that does "
        "(file.py:function, docs/encoders.md)",
        page,
    )


def _known() -> str:
    return "known: " + ", ".join(FAMILIES)
