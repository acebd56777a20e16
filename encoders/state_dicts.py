"""State dicts of PyTorch and safetensors files: read without running code, matched by name."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lens.errors import InputError


@dataclass(frozen=True)
class Match:
    """How the names of a file met the parameters of the encoder.

    Attributes:
        matched: our parameter and the file's, one pair per parameter that was taken.
        missing: our parameters that the file lacks.
        unexpected: names of the file that look like an encoder's and fit nowhere.
        mismatched: parameters of another shape, each with both shapes.
        ignored: names of the file that are no part of an encoder: heads, decoders.
        defaulted: the final LayerNorm where an autoencoder's file has none; it starts as identity.
    """

    matched: dict[str, str]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    defaulted: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        """Every parameter of the encoder is there, with its shape, and nothing contradicts it."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} parameters matched"]
        for title in ("missing", "unexpected", "mismatched", "defaulted", "ignored"):
            names = getattr(self, title)
            if names:
                shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
                lines.append(f"{len(names)} {title}: {shown}")
        return "; ".join(lines)


def read_state_dict(path: Path, *, shapes_only: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a PyTorch or safetensors file by name, wrappers like ``model`` taken off.

    Args:
        path: the file.
        shapes_only: leave the values unread; every array is zeros of its shape, in no memory.

    Raises:
        InputError: no such file, of another format, damaged, or holding Python objects.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as stream:
        head = stream.read(16)
    if not head:
        raise InputError(f"{path}: the file is empty")
    if head[8:9] == b"{":
        return _read_safetensors(path, shapes_only)
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        return _read_torch(path, shapes_only)
    raise InputError(
        f"{path}: neither a PyTorch file nor safetensors (it starts with {head[:8]!r}); "
        "give the checkpoint itself"
    )


def _read_safetensors(path: Path, shapes_only: bool) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if shapes_only:
                names = file.keys()
                return {name: _zeros(file.get_slice(name).get_shape()) for name in names}
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not readable as safetensors ({first_line(error)}); copy or export it again"
        ) from error


def _read_torch(path: Path, shapes_only: bool) -> dict[str, np.ndarray]:
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
            device = "meta" if shapes_only else "cpu"
            content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # zip, pickle, storage: every layer has its own exceptions
        raise InputError(f"{path}: {_torch_problem(error)}") from error
    tensors = _find_tensors(content)
    if not tensors:
        raise InputError(f"{path}: holds no named tensors (found {type(content).__name__})")
    if shapes_only:
        return {name: _zeros(tensor.shape) for name, tensor in tensors.items()}
    # NumPy has no bfloat16; float32 holds it exactly.
    return {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}


def _zeros(shape: Sequence[int]) -> np.ndarray:
    return np.broadcast_to(np.zeros((), np.float32), tuple(shape))


def _torch_problem(error: Exception) -> str:
    text = str(error)
    if "Unsupported" in text or "WeightsUnpickler" in text or "weights_only" in text.lower():
        detail = next((s for s in text.splitlines() if "Unsupported" in s), "").strip()
        return (
            "holds Python objects besides the weights, which could run code when read; refused, "
            f"nothing ran ({detail[:160] or 'not a plain state dict'}). Save the state dict alone: "
            "torch.save(model.state_dict(), ...)"
        )
    return f"not readable by torch ({first_line(error)}); the file is damaged, copy it again"


def _find_tensors(content: Any) -> dict[str, Any]:
    """The state dict inside its wrappers; an averaged teacher is preferred to its student."""
    if not isinstance(content, Mapping):
        return {}
    for wrapper in ("model", "state_dict", "teacher", "student", "module"):
        if isinstance(content.get(wrapper), Mapping):
            return _find_tensors(content[wrapper])
    return {str(key): value for key, value in content.items() if hasattr(value, "detach")}


def first_line(error: Exception) -> str:
    """Kind of an error and the first line of its text, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
