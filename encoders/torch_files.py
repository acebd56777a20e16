"""Tensors of PyTorch files: read without running code, and found inside what wraps them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoders.ways_out import lines_for
from lens.errors import InputError

_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""What the first pickle of a file by torch.save holds where it is no zip archive."""

_WRAPPERS = (
    "model", "state_dict", "teacher", "student", "module", "model_state_dict", "network_weights",
    "net", "network", "encoder", "backbone", "weights",
)  # fmt: skip
"""Keys that hold the weights, in the order in which they are preferred; an averaged teacher is
preferred to its student."""

_AVERAGED = re.compile(
    r"(?:^|[._])(?:ema|averaged?|momentum|target|swa|shadow|teacher|k)(?=[._]|$)"
)
_TRAINING_STATE = re.compile(r"optim|sched|scaler|(?:^|_)rng")
_DEPTH = 8
"""Levels of nesting that are looked through; a pickle can hold itself."""

_DATA_TYPES = (
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype",
    "numpy.ndarray", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    *(f"pathlib{place}.{pure}{kind}Path" for place in ("", "._local") for pure in ("", "Pure")
        for kind in ("", "Posix", "Windows")),
    *(f"builtins.{kind}" for kind in ("int", "float", "str", "bool", "bytes", "tuple", "frozenset",
        "range", "slice", "list", "dict")),
    *(f"datetime.{kind}" for kind in ("date", "datetime", "time", "timedelta", "timezone")),
    "argparse.Namespace", "types.SimpleNamespace", "decimal.Decimal", "fractions.Fraction",
    "uuid.UUID", "typing.Any", "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata",
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Integer", "Float", "String", "Boolean")),
)  # fmt: skip
"""Types of data that training scripts keep beside the weights."""


class _Data:
    """Stands for a value beside the weights: nothing of the named type is made or called."""

    def __new__(cls, *_: Any) -> _Data:
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _Dict:
    """Stands for a kind of dict, such as a defaultdict: makes a plain one, to be filled."""

    def __new__(cls, *_: Any) -> dict[Any, Any]:  # pyright: ignore[reportInconsistentConstructor]
        return {}


class _List:
    """Stands for a kind of list, such as a deque."""

    def __new__(cls, *_: Any) -> list[Any]:  # pyright: ignore[reportInconsistentConstructor]
        return []


_STAND_INS = [
    *((_Data, name) for name in _DATA_TYPES),
    (_Dict, "collections.defaultdict"),
    (_List, "collections.deque"),
]


def is_torch(head: bytes) -> bool:
    """Whether a file that starts so can only be by torch.save, or is refused as what it is."""
    return head[:2] == b"PK" or head[:1] == b"\x80"


def read_torch(
    path: Path, head: bytes, *, shapes_only: bool = False
) -> tuple[dict[str, np.ndarray], str, tuple[str, ...]]:
    """Arrays by name, the key that held them, and the keys of other weights in the file.

    Only tensors are made of what the file holds: a type of plain data beside them becomes an inert
    stand-in, any other type is refused.

    Args:
        path: the file.
        head: how it starts.
        shapes_only: leave the values unread; every array is `zeros`.

    Raises:
        InputError: torch is not installed, or the file is damaged, holds code, no weights, or
            several sets of weights under names that say nothing.
    """
    _refuse_other_archives(path, head)
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: reading PyTorch files needs torch; install the extra 'torch', "
            "or save the file as .safetensors"
        ) from error
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = torch.load(
                path, map_location="meta" if shapes_only else "cpu", weights_only=True
            )
    except Exception as error:  # zip, pickle, storage: every layer has its own exceptions
        refusal = InputError(f"{path}: {_problem(error)}")
        if _is_lightning(path):
            refusal.add_note(lines_for("lightning", path))
        raise refusal from error
    try:
        tensors, taken, others = _choose(content, ())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    arrays = {name: _array(path, name, tensor, shapes_only) for name, tensor in tensors.items()}
    return arrays, taken, others


def zeros(shape: Sequence[int]) -> np.ndarray:
    """Zeros of a shape, in the memory of one: an array whose values were not read."""
    return np.broadcast_to(np.zeros((), np.float32), tuple(shape))


def is_averaged(name: str) -> bool:
    """Whether a key or prefix says that its weights are an average over the training (EMA)."""
    return _AVERAGED.search(name) is not None


def first_line(error: BaseException) -> str:
    """Kind of an error and the first line of its text, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _refuse_other_archives(path: Path, head: bytes) -> None:
    if head[:1] == b"\x80" and _MAGIC not in head:
        raise InputError(
            f"{path}: a Python pickle that torch.save did not write; reading it could run code, so "
            "nothing was read. Save the state dict: torch.save(model.state_dict(), ...)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = [Path(name).name for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError):
        return  # torch says what is wrong with it
    if "constants.pkl" in names:
        raise InputError(
            f"{path}: a TorchScript program, which is code; refused, nothing ran. Save the state "
            "dict: torch.save(torch.jit.load(...).state_dict(), ...)"
        )
    if names and all(name.endswith(".npy") for name in names):
        raise InputError(
            f"{path}: arrays of NumPy (.npz), not a PyTorch file; embeddings are given as tables "
            "(--pre, --ft), weights as .safetensors"
        )
    if "model.weights.h5" in names:
        refusal = InputError(f"{path}: a model of Keras, not a PyTorch file")
        refusal.add_note(lines_for("keras", path))
        raise refusal
    if "data.pkl" not in names:
        raise InputError(f"{path}: an archive, not a checkpoint; unpack it and give the file in it")


def _is_lightning(path: Path) -> bool:
    """Whether a file is PyTorch Lightning's, told from its words, which are not unpickled."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return any(b"pytorch-lightning_version" in archive.read(name) for name in pickles)
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _problem(error: Exception) -> str:
    text = str(error)
    if "Unsupported" in text or "WeightsUnpickler" in text or "weights_only" in text.lower():
        detail = next((s for s in text.splitlines() if "Unsupported" in s), "").strip()
        return (
            "holds Python objects besides the weights, which could run code when read; refused, "
            f"nothing ran ({detail[:160] or 'not a plain state dict'}). Save the state dict alone: "
            "torch.save(model.state_dict(), ...)"
        )
    return f"not readable by torch ({first_line(error)}); the file is damaged, copy it again"


def _choose(content: Any, path: tuple[str, ...]) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """The state dict inside its wrappers, its key, and the keys of those that were not taken."""
    where = f"under {'.'.join(path)}" if path else "in it"
    if not isinstance(content, Mapping):
        raise InputError(f"holds no named tensors ({type(content).__name__} {where})")
    nested = {
        str(key): value
        for key, value in content.items()
        if not _TRAINING_STATE.search(str(key).lower()) and _has_weights(value, _DEPTH)
    }
    own = {str(key): value for key, value in content.items() if hasattr(value, "detach")}
    chosen = next((key for key in _WRAPPERS if key in nested), None)
    if chosen is None and any(_is_weight(value) for value in own.values()):
        return own, ".".join(path), tuple(".".join((*path, key)) for key in nested)
    if chosen is None:
        candidates = [key for key in nested if not is_averaged(key)] or list(nested)
        if not candidates:
            keys = ", ".join(map(str, list(content)[:8])) or "nothing"
            raise InputError(f"holds no named tensors ({where}: {keys})")
        if len(candidates) > 1:
            raise InputError(
                f"holds several sets of weights ({where}: {', '.join(candidates[:8])}), and no "
                "name says which is the encoder; save that one alone: torch.save(weights[...], ...)"
            )
        chosen = candidates[0]
    tensors, taken, others = _choose(nested[chosen], (*path, chosen))
    beside = tuple(".".join((*path, key)) for key in nested if key != chosen)
    return tensors, taken, beside + others


def _has_weights(value: Any, depth: int) -> bool:
    if not isinstance(value, Mapping) or depth == 0:
        return False
    values = value.values()
    return any(map(_is_weight, values)) or any(_has_weights(v, depth - 1) for v in values)


def _is_weight(value: Any) -> bool:
    """A tensor of real numbers along some axis: no counter and no state of a generator."""
    return hasattr(value, "detach") and value.is_floating_point() and value.ndim > 0


def _array(path: Path, name: str, tensor: Any, shapes_only: bool) -> np.ndarray:
    """A tensor as NumPy holds it: real numbers as float32, others with their type."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_quantized or (tensor.is_floating_point() and tensor.element_size() == 1):
        raise compressed(path, name, kind)
    try:
        tensor = tensor.detach()
        stored = tensor.untyped_storage().nbytes()
        if tensor.is_floating_point() and tensor.numel() * tensor.element_size() > stored:
            raise ValueError(f"{tuple(tensor.shape)} declared, {stored} bytes there")
        if shapes_only:
            return zeros(tensor.shape)
        # NumPy has no bfloat16; float32 holds it exactly.
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path}: {name} ({kind}) is no plain array ({first_line(error)}); save the weights "
            "as plain tensors on the CPU"
        ) from error


def compressed(path: Path, name: str, kind: str) -> InputError:
    """The refusal of weights in a type of number that is no full number without its scale."""
    return InputError(
        f"{path}: {name} is stored as {kind}, a compressed number whose scale the file does not "
        "give in a known form; export the weights as float32 or bfloat16"
    )
