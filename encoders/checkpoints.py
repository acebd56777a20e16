"""Encoders on disk: our own checkpoints, and foreign weights as encoders."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from encoders.encoder import Encoder, parameters
from encoders.families import convert, describe, from_description
from encoders.state_dicts import Match, first_line, read_state_dict
from lens.errors import InputError
from lens.files import file_hash, write_json
from lens.unfinished import unfinished

log = logging.getLogger(__name__)

_DESCRIPTION = "encoder.json"
_PARAMETERS = "parameters"
_FORMAT = "radiomic-lens encoder"


def load(path: str | Path, *, partial: bool = False) -> Encoder:
    """The encoder of a checkpoint or a file of foreign weights, recognised by its content.

    Args:
        path: a folder written by `save`, a PyTorch file (``.pth``, ``.pt``; needs torch, code in
            it never runs) or ``.safetensors`` (without torch).
        partial: accept a PyTorch file that does not match fully; the rest keeps the
            initialisation with seed 0.

    Returns:
        The encoder, with the configuration of the checkpoint or of the file's shapes.

    Raises:
        InputError: not readable, not an encoder, not a full match, or holding code.
    """
    path = Path(path)
    return load_ours(path)[0] if path.is_dir() else load_foreign(path, partial=partial)[0]


def save(path: str | Path, encoder: Encoder, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes a checkpoint: a folder with an Orbax tree and ``encoder.json``, the whole or nothing.

    Args:
        path: the folder; an encoder that is there already is replaced, anything else is refused.
        encoder: the encoder; its parameters are stored as float32.
        metadata: facts to keep with it (JSON): source, hash, training settings.

    Raises:
        InputError: the folder is something else, or the encoder is of no known family or has
            variables besides its parameters.
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    if path.exists() and not (path / _DESCRIPTION).is_file():
        raise InputError(f"{path}: exists and is not an encoder's checkpoint; choose another name")
    facts = describe(encoder)
    if jax.tree.leaves(nnx.state(encoder, nnx.Not(nnx.Param))):
        raise InputError(f"{path}: the encoder has variables that are no parameters; not supported")
    with unfinished(path, folder=True) as temporary:
        arrays = {name: np.asarray(p[...]) for name, p in parameters(encoder).items()}
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(temporary / _PARAMETERS, arrays)
        description = {
            "format": _FORMAT,
            **facts,
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


def load_ours(path: Path) -> tuple[Encoder, dict[str, Any]]:
    """The encoder of a folder written by `save`, and its metadata."""
    import orbax.checkpoint as ocp

    try:
        description = json.loads((path / _DESCRIPTION).read_text(encoding="utf-8"))
        encoder = from_description(description)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: a folder without {_DESCRIPTION}; expected an encoder's checkpoint"
        ) from error
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path / _DESCRIPTION}: not an encoder's description ({error})"
        ) from error
    ours = parameters(encoder)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            restored = checkpointer.restore((path / _PARAMETERS).absolute())
        # Given a target of other shapes, Orbax would cut or pad without a word.
        expected = {name: p.shape for name, p in ours.items()}
        if {name: array.shape for name, array in restored.items()} != expected:
            raise ValueError(f"they are not those of {_DESCRIPTION}")
    except Exception as error:  # Orbax raises many kinds; to the user they are one
        raise InputError(
            f"{path}: the parameters cannot be read ({first_line(error)}); "
            "the checkpoint is damaged or incomplete, convert or train it again"
        ) from error
    for name, parameter in ours.items():
        parameter.set_value(jnp.asarray(restored[name]))
    return encoder, description.get("metadata", {})


def load_foreign(path: Path, *, partial: bool = False) -> tuple[Encoder, Match]:
    """The encoder of a PyTorch or safetensors file, and the report of its names."""
    state = read_state_dict(path)
    try:
        encoder, match = convert(state, partial=partial)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not match.full or match.defaulted:
        log.warning("%s: %s", path, match)
    return encoder, match


def provenance(path: Path, match: Match) -> dict[str, Any]:
    """What a converted checkpoint keeps about its source."""
    return {"source": path.name, "source_sha256": file_hash(path), "match": asdict(match)}
