"""Encoders on disk: our own checkpoints, and foreign weights as encoders."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from encoders.encoder import Encoder, parameters
from encoders.families import OtherEncoderError, convert, describe, from_description
from encoders.state_dicts import (
    Match,
    not_finite,
    read_facts,
    read_json,
    read_state_dict,
    source_hash,
    weights_in,
)
from encoders.torch_files import first_line, is_averaged
from encoders.ways_out import lines_for
from lens.disk import array_hash, write_json
from lens.errors import InputError
from lens.unfinished import unfinished

log = logging.getLogger(__name__)

_DESCRIPTION = "encoder.json"
_PARAMETERS = "parameters"
_FORMAT = "radiomic-lens encoder"
_HASH = "content_sha256"
_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


def load(path: str | Path, *, partial: bool = False) -> Encoder:
    """The encoder of a checkpoint or a file of foreign weights, recognised by its content.

    Args:
        path: a folder written by `save`, a PyTorch file (``.pth``, ``.pt``; needs torch, code in
            it never runs), ``.safetensors`` (without torch), or the index of several such files;
            of the last three also the folder that holds them under the names of model hubs.
        partial: accept a PyTorch file that does not match fully; the rest keeps the
            initialisation with seed 0.

    Returns:
        The encoder, with the configuration of the checkpoint or of the file's shapes.

    Raises:
        InputError: not readable, not an encoder, not a full match, holding code, numbers that are
            not finite, or contents that are not those that `save` wrote.
    """
    path = Path(path)
    return load_ours(path)[0] if is_ours(path) else load_foreign(path, partial=partial)[0]


def is_ours(path: Path) -> bool:
    """Whether a path is to be read as a folder written by `save`: holds no foreign weights."""
    return path.is_dir() and ((path / _DESCRIPTION).exists() or not weights_in(path))


def save(path: str | Path, encoder: Encoder, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes a checkpoint: a folder with an Orbax tree and ``encoder.json``, the whole or nothing.

    Args:
        path: the folder; an encoder that is there already is replaced, anything else is refused.
        encoder: the encoder; its parameters are stored as float32.
        metadata: facts to keep with it (JSON): source, hash, training settings.

    Raises:
        InputError: the folder is something else, or the encoder is of no known family, has
            variables besides its parameters, or parameters that are not finite.
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    if path.exists() and not (path / _DESCRIPTION).is_file():
        raise InputError(f"{path}: exists and is not an encoder's checkpoint; choose another name")
    facts = describe(encoder)
    if jax.tree.leaves(nnx.state(encoder, nnx.Not(nnx.Param))):
        raise InputError(f"{path}: the encoder has variables that are no parameters; not supported")
    arrays = {name: np.asarray(p[...]) for name, p in parameters(encoder).items()}
    _check_finite(path, arrays)
    with unfinished(path, folder=True) as temporary:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(temporary / _PARAMETERS, arrays)
        forget_place(temporary)
        description = {
            "format": _FORMAT,
            **facts,
            _HASH: _content_hash(facts, arrays),
            "metadata": dict(metadata or {}),
            "versions": {name: version(name) for name in ("jax", "flax", "orbax-checkpoint")},
        }
        write_json(temporary / _DESCRIPTION, description)
        if path.exists():
            with unfinished(path, folder=True) as old:
                path.rename(old / path.name)
                temporary.rename(path)
        else:
            temporary.rename(path)


def forget_place(folder: Path) -> None:
    """Has the files in which Orbax says that all is written not say where that was.

    Args:
        folder: of a finished checkpoint; checkpoints are shared, and places name users.
    """
    for path in folder.rglob("commit_success.txt"):
        path.write_text("all is written\n", encoding="utf-8")


def read_description(path: Path) -> tuple[Encoder, dict[str, Any]]:
    """The encoder of a folder written by `save` with shapes in place of values, and its facts.

    Raises:
        InputError: not such a folder, or its description is not one.
    """
    if not (path / _DESCRIPTION).exists():
        raise _no_checkpoint(path)
    try:
        description = read_json(path / _DESCRIPTION)
        return from_description(description), description
    except InputError:
        raise
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path / _DESCRIPTION}: not an encoder's description ({error})"
        ) from error


def read_values(path: Path, encoder: Encoder, *, shapes_only: bool = False) -> Mapping[str, Any]:
    """The stored parameters by name: arrays, or what tells their shapes.

    Args:
        path: a folder written by `save`.
        encoder: of its description.
        shapes_only: leave the values unread.

    Raises:
        InputError: unreadable, or of other names or shapes than the encoder's.
    """
    import orbax.checkpoint as ocp

    ours, folder = parameters(encoder), (path / _PARAMETERS).absolute()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            # Given a target of other shapes, Orbax would cut or pad without a word; asked first,
            # it reads nothing of arrays that announce more than there is.
            stored = checkpointer.metadata(folder).item_metadata.tree
            _check_shapes(stored, ours)
            if not shapes_only:
                stored = checkpointer.restore(folder)
                _check_shapes(stored, ours)
                stored = {name: np.asarray(stored[name]) for name in ours}
    except Exception as error:  # Orbax raises many kinds; to the user they are one
        raise InputError(
            f"{path}: the parameters cannot be read ({first_line(error)}); "
            "the checkpoint is damaged or incomplete, convert or train it again"
        ) from error
    return stored


def load_ours(path: Path) -> tuple[Encoder, dict[str, Any]]:
    """The encoder of a folder written by `save`, and its metadata.

    Raises:
        InputError: not such a folder, damaged, or its contents are not those that were written.
    """
    encoder, description = read_description(path)
    ours, restored = parameters(encoder), read_values(path, encoder)
    _check_hash(path, description, _content_hash(describe(encoder), restored))
    _check_finite(path, restored)
    for name, parameter in ours.items():
        parameter.set_value(jnp.asarray(restored[name]))
    return encoder, description.get("metadata", {})


def load_foreign(
    path: Path, *, partial: bool = False, shapes_only: bool = False
) -> tuple[Encoder, Match]:
    """The encoder of a PyTorch or safetensors file, and the report of its names.

    Args:
        path: the file.
        partial: accept one that does not match fully.
        shapes_only: leave the values unread; the encoder's are zeros.
    """
    _refuse_part(path)
    state = read_state_dict(path, shapes_only=shapes_only)
    try:
        encoder, match = convert(state.arrays, partial=partial, facts=read_facts(path))
    except InputError as error:
        refusal = InputError(f"{path}: {error}")
        if isinstance(error, OtherEncoderError):
            refusal.add_note(lines_for(error.page, path))
        raise refusal from error
    match = replace(
        match,
        taken=".".join(filter(None, (state.taken, match.taken))),
        others=state.others + match.others,
    )
    if shapes_only:
        return encoder, match
    _say_which(path, match)
    if not match.full or match.defaulted:
        log.warning("%s: %s", path, match)
    return encoder, match


def _say_which(path: Path, match: Match) -> None:
    """Says which weights were taken where a file holds several, or none but averaged ones."""
    taken = (match.taken or "those with the plain names") + _kind(match.taken)
    if match.others:
        others = ", ".join(other + _kind(other) for other in match.others)
        log.warning(
            "%s: holds several sets of weights; took %s, left %s. To use another, save it alone",
            path, taken, others,
        )  # fmt: skip
    elif _kind(match.taken):
        log.info("%s: took %s", path, taken)


def _kind(name: str) -> str:
    return " (averaged over the training, EMA)" if is_averaged(name) else ""


def _content_hash(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over family, configuration, and names, types, shapes and values of parameters."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array_hash(array)}".encode())
    return digest.hexdigest()


def _check_hash(path: Path, description: Mapping[str, Any], found: str) -> None:
    if _HASH not in description:
        log.warning(
            "%s: written before checkpoints held a hash of their contents, which is not checked",
            path,
        )
    elif description[_HASH] != found:
        raise InputError(
            f"{path}: its contents are not those that were written ({_HASH} in {_DESCRIPTION} is "
            "another); the checkpoint is damaged or was changed, convert or train it again"
        )


def _check_shapes(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    if {name: tuple(array.shape) for name, array in found.items()} != {
        name: tuple(parameter.shape) for name, parameter in expected.items()
    }:
        raise ValueError(f"they are not those of {_DESCRIPTION}")


def _check_finite(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise InputError(f"{path}: {name} holds {array.dtype} numbers, expected float32")
        if wrong := not_finite(array):
            raise InputError(
                f"{path}: {name} is not finite ({wrong}); the training diverged: take an earlier "
                "checkpoint, or train with a lower rate"
            )


_FOLDERS = (
    ("adapter_config.json", "a PEFT adapter, which changes another encoder", "adapter"),
    ("configs/metadata.json", "a bundle of MONAI", "monai"),
    ("plans.json", "a trained model of nnU-Net", "nnunet"),
    ("fold_0", "a trained model of nnU-Net", "nnunet"),
    ("config.json", "a folder of Hugging Face without its weights", "huggingface"),
)
"""A file in folders of other programs, what they are, and the page for them."""

_PART = re.compile(r"-\d{5}-of-(\d{5})\.")
"""How the files of a checkpoint in several are numbered."""


def _refuse_part(path: Path) -> None:
    """Refuses one file of several, whose index or folder is to be given."""
    if (found := _PART.search(path.name)) and int(found[1]) > 1:
        raise InputError(
            f"{path}: one of the {int(found[1])} files of a checkpoint; give their index "
            "(.index.json) or their folder, which are read together"
        )


def _no_checkpoint(path: Path) -> InputError:
    """What a folder is that holds no description of an encoder, and what to give instead."""
    for name, what, page in _FOLDERS:
        if (path / name).exists():
            refusal = InputError(f"{path}: {what}, not an encoder's checkpoint")
            refusal.add_note(lines_for(page, path))
            return refusal
    inside = [*path.glob(f"*/{_DESCRIPTION}"), *path.glob(f"*/*/{_DESCRIPTION}")]
    choices = [str(file.parent) for file in sorted(inside)]
    choices += [str(p) for p in sorted(path.iterdir()) if p.suffix in _SUFFIXES]
    remedy = f"give {' or '.join(choices[:4])}" if choices else "give the checkpoint itself"
    return InputError(
        f"{path}: a folder without {_DESCRIPTION}, so no encoder's checkpoint; {remedy}"
    )


def provenance(path: Path, match: Match) -> dict[str, Any]:
    """What a converted checkpoint keeps about its source."""
    return {"source": path.name, "source_sha256": source_hash(path), "match": asdict(match)}
