"""Encoders on disk: our own checkpoints, and PyTorch's files, read without running their code."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.weights import Match, abstract, convert, parameters
from lens.errors import InputError
from lens.files import file_hash, write_json

log = logging.getLogger(__name__)

_DESCRIPTION = "encoder.json"
_PARAMETERS = "parameters"
_FORMAT = "radiomic-lens encoder"


def load(path: str | Path, *, partial: bool = False) -> ConvNeXtV2:
    """Loads an encoder; what the file is, is told by its content.

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


def save(path: str | Path, encoder: ConvNeXtV2, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes a checkpoint: a folder with an Orbax tree and ``encoder.json``, the whole or nothing.

    Args:
        path: the folder; an encoder that is there already is replaced, anything else is refused.
        encoder: the encoder; its parameters are stored as float32.
        metadata: facts to keep with it (JSON): source, hash, training settings.
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    if path.exists() and not (path / _DESCRIPTION).is_file():
        raise InputError(f"{path}: exists and is not an encoder's checkpoint; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        temporary.chmod(0o755)
        arrays = {name: np.asarray(p[...]) for name, p in parameters(encoder).items()}
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(temporary / _PARAMETERS, arrays)
        description = {
            "format": _FORMAT,
            "config": asdict(encoder.config),
            "metadata": dict(metadata or {}),
            "versions": {name: version(name) for name in ("jax", "flax", "orbax-checkpoint")},
        }
        write_json(temporary / _DESCRIPTION, description)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-old-"))
            path.rename(old / path.name)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_ours(path: Path) -> tuple[ConvNeXtV2, dict[str, Any]]:
    """Loads a folder written by `save`, and its metadata."""
    import orbax.checkpoint as ocp

    try:
        description = json.loads((path / _DESCRIPTION).read_text(encoding="utf-8"))
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in description["config"].items()
        }
        config = ConvNeXtV2Config(**fields)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: a folder without {_DESCRIPTION}; expected an encoder's checkpoint"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path / _DESCRIPTION}: not an encoder's description ({error})"
        ) from error
    encoder = abstract(config)
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
            f"{path}: the parameters cannot be read ({_first_line(error)}); "
            "the checkpoint is damaged or incomplete, convert or train it again"
        ) from error
    for name, parameter in ours.items():
        parameter.set_value(jnp.asarray(restored[name]))
    return encoder, description.get("metadata", {})


def load_foreign(path: Path, *, partial: bool = False) -> tuple[ConvNeXtV2, Match]:
    """Loads a PyTorch or safetensors file, and the report of its names."""
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


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a PyTorch or safetensors file by name, wrappers like ``model`` taken off."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as stream:
        head = stream.read(16)
    if not head:
        raise InputError(f"{path}: the file is empty")
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        return _read_torch(path)
    raise InputError(
        f"{path}: neither a PyTorch file nor safetensors (it starts with {head[:8]!r}); "
        "give the checkpoint itself"
    )


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not readable as safetensors ({_first_line(error)}); copy or export it again"
        ) from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: reading PyTorch files needs torch; install the extra 'torch', "
            "or save the file as .safetensors"
        ) from error
    try:
        # Training scripts store their options; a Namespace is data only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, storage: every layer has its own exceptions
        raise InputError(f"{path}: {_torch_problem(error)}") from error
    tensors = _find_tensors(content)
    if not tensors:
        raise InputError(f"{path}: holds no named tensors (found {type(content).__name__})")
    # NumPy has no bfloat16; float32 holds it exactly.
    return {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}


def _torch_problem(error: Exception) -> str:
    text = str(error)
    if "Unsupported" in text or "WeightsUnpickler" in text or "weights_only" in text.lower():
        detail = next((s for s in text.splitlines() if "Unsupported" in s), "").strip()
        return (
            "holds Python objects beside the weights, which could run code when read; refused, "
            f"nothing ran ({detail[:160] or 'not a plain state dict'}). Save the state dict alone: "
            "torch.save(model.state_dict(), ...)"
        )
    return f"not readable by torch ({_first_line(error)}); the file is damaged, copy it again"


def _find_tensors(content: Any) -> dict[str, Any]:
    """The state dict inside its wrappers; an averaged teacher is preferred to its student."""
    if not isinstance(content, Mapping):
        return {}
    for wrapper in ("model", "state_dict", "teacher", "student", "module"):
        if isinstance(content.get(wrapper), Mapping):
            return _find_tensors(content[wrapper])
    return {str(key): value for key, value in content.items() if hasattr(value, "detach")}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
