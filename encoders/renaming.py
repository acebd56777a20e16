"""Foreign weights under our names: which of a file's weights are meant, and how they are filled in.

A family gives its table of names; what is here is the same for all. Prefixes that wrap a name
(`module.`, `encoder.`, `visual.trunk.`, ...) are taken off; of several encoders in a file one is
taken, or the file is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from encoders.encoder import parameters
from encoders.layers import shapes_of
from encoders.state_dicts import Match, not_finite
from encoders.torch_files import is_averaged
from lens.errors import InputError

WRAPPERS = re.compile(
    r"(?:module|model|state_dict|encoder|backbone|convnextv2|dinov2(?:_with_registers)?|student|"
    r"teacher|_orig_mod)\."
)
"""Parts of a prefix that say nothing of what they wrap; any other names one encoder of the file."""


@dataclass(frozen=True)
class Source:
    """A state dict under our names.

    Attributes:
        arrays: by our name, in the file's layout.
        names: our name -> the file's.
        root: prefix of the weights that were taken.
        others: prefixes of further weights.
        unexpected, ignored: as in `Match`.
    """

    arrays: dict[str, np.ndarray]
    names: dict[str, str]
    root: str = ""
    others: tuple[str, ...] = ()
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def rename(
    state: Mapping[str, np.ndarray],
    our_name: Callable[[str], str | None],
    root_of: Callable[[str], str | None],
    parts: tuple[str, ...],
) -> Source:
    """A state dict under our names.

    Args:
        state: names and arrays, as they are stored.
        our_name: our name for a foreign one without its prefix, or None.
        root_of: the prefix of an encoder, told from one of its parameters; None for others.
        parts: a name that starts so belongs to an encoder; without a name of ours it is another's.

    Raises:
        InputError: several encoders, and their prefixes do not tell which one is meant.
    """
    root, others = _roots([root for name in state if (root := root_of(name)) is not None])
    source = Source({}, {}, root, others)
    has_teacher = any("teacher" in _wrappers(name) for name in state)
    for name, array in state.items():
        # Of a self-distillation file the averaged teacher is the encoder people use.
        left_out = has_teacher and "student" in _wrappers(name)
        if left_out or not name.startswith(root) or (others and name.startswith(others)):
            source.ignored.append(name)
            continue
        bare = name.removeprefix(root)
        ours = our_name(bare)
        if ours is None:
            bare = bare[sum(len(wrapper) + 1 for wrapper in _wrappers(bare)) :]
            (source.unexpected if bare.startswith(parts) else source.ignored).append(name)
        elif ours in source.names:
            raise InputError(
                f"both {source.names[ours]} and {name} are {ours}; keep one encoder in the file"
            )
        else:
            source.names[ours], source.arrays[ours] = name, array
    return source


def build(
    make: Callable[[nnx.Rngs], Any],
    source: Source,
    layout: Callable[[str, np.ndarray], np.ndarray],
    *,
    defaulted: Callable[[str], bool] = lambda name: False,
    partial: bool = False,
) -> tuple[Any, Match]:
    """An encoder with every array of a source that fits.

    Args:
        make: the encoder, from what draws its start.
        source: from `rename`.
        layout: our name, array as stored -> array in our layout, float32.
        defaulted: whether a parameter that the file lacks may keep its start.
        partial: accept a file that does not match fully.

    Raises:
        InputError: not a full match while `partial` is False, integers, or NaN.
    """
    encoder = shapes_of(make)
    match = _fill(encoder, source, layout, defaulted)
    if not match.full and not partial:
        raise InputError(
            f"the file does not hold this encoder completely: {match}; give the whole file, or "
            "accept that the rest starts at random (--partial)"
        )
    if len(match.matched) < len(parameters(encoder)):
        started = parameters(make(nnx.Rngs(0)))
        for name, parameter in parameters(encoder).items():
            if name not in match.matched:
                parameter.set_value(started[name][...])
    return encoder, match


def bare_name(name: str) -> str | None:
    """A name without the outermost wrapper; None where it has none."""
    wrapper = WRAPPERS.match(name)
    return name[wrapper.end() :] if wrapper else None


def _fill(
    encoder: Any,
    source: Source,
    layout: Callable[[str, np.ndarray], np.ndarray],
    defaults: Callable[[str], bool],
) -> Match:
    ours = parameters(encoder)
    matched, missing, mismatched, defaulted = {}, [], [], []
    for name, parameter in ours.items():
        if name not in source.arrays:
            (defaulted if defaults(name) else missing).append(name)
            continue
        if not jnp.issubdtype(source.arrays[name].dtype, jnp.floating):
            kind = source.arrays[name].dtype
            raise InputError(
                f"{source.names[name]} holds {kind} numbers; export the weights as float32"
            )
        array = layout(name, source.arrays[name])
        if array.shape != parameter.shape:
            theirs = source.arrays[name].shape
            mismatched.append(f"{source.names[name]} {theirs} for {name} {parameter.shape}")
            continue
        if wrong := not_finite(array):
            raise InputError(
                f"{source.names[name]} is not finite ({wrong}); its training diverged or the file "
                "is damaged: take an earlier checkpoint"
            )
        parameter.set_value(jnp.asarray(array))
        matched[name] = source.names[name]
    extra = [source.names[name] for name in source.names if name not in ours]
    return Match(
        matched,
        tuple(missing),
        tuple(source.unexpected + extra),
        tuple(mismatched),
        tuple(source.ignored),
        tuple(defaulted),
        source.root.rstrip("."),
        tuple(other.rstrip(".") for other in source.others),
    )


def _roots(found: list[str]) -> tuple[str, tuple[str, ...]]:
    """The prefix that names one encoder of the file, and the prefixes of those not taken."""
    roots = list(dict.fromkeys(found))
    best = roots
    if any("teacher" in _wrappers(root) for root in roots):
        best = [root for root in best if "student" not in _wrappers(root)]
    best = [root for root in best if "teacher" in root or not is_averaged(root)] or best
    fewest = min(map(_unknown_parts, best), default=0)
    best = [root for root in best if _unknown_parts(root) == fewest]
    named = sorted({_without_wrappers(root) for root in best})
    if len(named) > 1:
        raise InputError(
            f"{len(named)} encoders in it, under {', '.join(named)}; keep one of them in the file"
        )
    return (named or [""])[0], tuple(root for root in roots if root not in best)


def _unknown_parts(root: str) -> int:
    return sum(not WRAPPERS.fullmatch(f"{part}.") for part in root.split(".")[:-1])


def _without_wrappers(root: str) -> str:
    """The prefix up to its last part that is no wrapper: Hugging Face wraps only the stages."""
    parts = root.split(".")[:-1]
    while parts and WRAPPERS.fullmatch(f"{parts[-1]}."):
        parts.pop()
    return "".join(f"{part}." for part in parts)


def _wrappers(name: str) -> list[str]:
    """What wraps a name, from the outside: ``["teacher", "backbone"]``."""
    found = []
    while wrapper := WRAPPERS.match(name):
        found.append(wrapper[0][:-1])
        name = name[wrapper.end() :]
    return found
