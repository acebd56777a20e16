"""State dicts of PyTorch and safetensors files: read without running code, matched by name."""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders.torch_files import compressed, first_line, is_torch, read_torch, zeros
from encoders.ways_out import lines_for
from lens.disk import file_hash
from lens.errors import InputError

_IN_FOLDERS = (
    "model.safetensors.index.json", "model.safetensors",
    "pytorch_model.bin.index.json", "pytorch_model.bin",
)  # fmt: skip
"""Under which names model hubs keep weights in a folder."""

_JSON_LIMIT = 64 * 2**20
"""Bytes of the largest index or description that is read."""

_SAFETENSORS_LIMIT = 100_000_000
"""Bytes of the largest header that the format allows."""

_PLAIN = frozenset(
    ("F64", "F32", "F16", "BF16", "BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")
)
"""Types of safetensors that are numbers by themselves."""

_FOREIGN = (
    (b"\x89HDF", "an HDF5 file, of Keras for instance", "save the weights as .safetensors"),
    (b"GGUF", "a GGUF file", "give the original weights"),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file",
        "fetch it with git lfs pull",
    ),
    (b"<", "a web page or XML, not a checkpoint", "download the file itself again"),
    (b"\x1f\x8b", "a compressed file", "unpack it and give the checkpoint in it"),
    (b"7z\xbc\xaf", "a compressed file", "unpack it and give the checkpoint in it"),
    (b"\x93NUMPY", "an array of NumPy", "give embeddings as tables, weights as .safetensors"),
)
"""How other files start, what they are, and what to do."""


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
        taken: key or prefix of the weights that were taken; empty where there is none.
        others: those of further weights in the file, an average over the training for instance.
    """

    matched: dict[str, str]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    defaulted: tuple[str, ...] = ()
    taken: str = ""
    others: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class StateDict:
    """The arrays of a file by name.

    Attributes:
        arrays: as they are stored; a wrapper like ``model`` is taken off.
        taken: the key that held them, dotted; empty where they lay bare.
        others: keys of further weights in the file that were not taken.
    """

    arrays: dict[str, np.ndarray]
    taken: str = ""
    others: tuple[str, ...] = ()


def read_state_dict(path: Path, *, shapes_only: bool = False) -> StateDict:
    """The arrays of a PyTorch or safetensors file, of an index and its shards, or of their folder.

    Args:
        path: the file or folder.
        shapes_only: leave the values unread; every array is zeros of its shape, in no memory.

    Raises:
        InputError: no such file, none of these, damaged, or holding code.
    """
    path = weights_in(path) or path
    head = _head(path)
    if _is_text(head):
        return StateDict(_read_shards(path, shapes_only))
    return _read_file(path, head, shapes_only)


def weights_in(folder: Path) -> Path | None:
    """The weights in a folder as model hubs lay it out; None where there are none."""
    return next((folder / name for name in _IN_FOLDERS if (folder / name).is_file()), None)


def facts_file(path: Path) -> Path | None:
    """The ``config.json`` in a folder of weights, or beside a file of them; None without one."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    return file if file.is_file() and file != path else None


def read_facts(path: Path) -> dict[str, Any]:
    """What the ``config.json`` beside weights tells; empty where there is none, or no table.

    Args:
        path: of the weights, or their folder.
    """
    try:
        file = facts_file(path)
        content = read_json(file) if file else {}
    except (InputError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def source_hash(path: Path) -> str:
    """SHA-256 of all that an encoder is read from: with an index, its shards, and facts beside it.

    Raises:
        InputError: neither a file nor a folder, or an index whose files are not there.
    """
    if path.is_dir():
        return file_hash(path)
    facts = facts_file(path) if read_facts(path) else None
    shards = sorted(set(_weight_map(path).values())) if _is_text(_head(path)) else []
    files = [path, *(path.parent / shard for shard in shards), *([facts] if facts else [])]
    if len(files) == 1:
        return file_hash(path)
    return hashlib.sha256("".join(map(file_hash, files)).encode()).hexdigest()


def require_file(path: Path) -> None:
    """Refuses what is not a regular file before anything is read of it: a pipe might never end.

    Raises:
        InputError: absent, a folder, a device, a pipe or a socket.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        raise InputError(f"{path}: {'no such file' if absent else error.strerror}") from error
    if not stat.S_ISREG(mode):
        kinds = {"d": "a folder", "p": "a pipe", "s": "a socket"}
        kind = kinds.get(stat.filemode(mode)[0], "a device")
        raise InputError(f"{path}: {kind}, not a file; give the checkpoint itself")


def read_json(path: Path) -> Any:
    """The content of a JSON file of a checkpoint.

    Raises:
        InputError: not a file, or too large to be one.
        ValueError: not JSON.
    """
    require_file(path)
    if (size := path.stat().st_size) > _JSON_LIMIT:
        raise InputError(f"{path}: {size} bytes, too many for a description of a checkpoint")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def not_finite(array: np.ndarray) -> str:
    """What of an array is not finite, in words; empty where all is."""
    finite = np.isfinite(array)
    wrong = int(finite.size - finite.sum())
    return f"{wrong} of {finite.size} values NaN or infinite" if wrong else ""


def _head(path: Path) -> bytes:
    require_file(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not head:
        raise InputError(f"{path}: the file is empty")
    return head


def _is_text(head: bytes) -> bool:
    """Whether it starts as the JSON of an index does."""
    return head.lstrip()[:1] == b"{"


def _read_file(path: Path, head: bytes, shapes_only: bool) -> StateDict:
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _SAFETENSORS_LIMIT:
        return StateDict(_read_safetensors(path, shapes_only))
    if path.suffix == ".py":
        raise InputError(
            f"{path}: code, not weights; name the function in it, as in {path}:FUNCTION"
        )
    if is_torch(head):
        return StateDict(*read_torch(path, head, shapes_only=shapes_only))
    for start, what, remedy in _FOREIGN:
        if head.lstrip().startswith(start):
            refusal = InputError(f"{path}: {what}; {remedy}")
            if "HDF5" in what:
                refusal.add_note(lines_for("keras", path))
            raise refusal
    raise InputError(
        f"{path}: neither a PyTorch file nor safetensors (it starts with {head[:8]!r}); "
        "give the checkpoint itself"
    )


def _read_safetensors(path: Path, shapes_only: bool) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            for name in names:
                if (kind := file.get_slice(name).get_dtype()) not in _PLAIN:
                    raise compressed(path, name, kind)
            if shapes_only:
                return {name: zeros(file.get_slice(name).get_shape()) for name in names}
            return {name: file.get_tensor(name) for name in names}
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not readable as safetensors ({first_line(error)}); copy or export it again"
        ) from error


def _read_shards(index: Path, shapes_only: bool) -> dict[str, np.ndarray]:
    """The arrays that an index lists, each from its shard."""
    places = _weight_map(index)
    read = {
        shard: _read_file(index.parent / shard, _head(index.parent / shard), shapes_only).arrays
        for shard in sorted(set(places.values()))
    }
    if lost := [name for name, shard in places.items() if name not in read[shard]]:
        raise InputError(
            f"{index}: {len(lost)} of {len(places)} parameters are not in the file it names, first "
            f"{lost[0]} in {places[lost[0]]}; copy index and files from the same place again"
        )
    return {name: read[shard][name] for name, shard in places.items()}


def _weight_map(index: Path) -> dict[str, str]:
    """Parameter -> name of the file beside the index that holds it."""
    try:
        places = read_json(index)["weight_map"]
        if not (places and all(isinstance(name, str) for name in places.values())):
            raise ValueError("weight_map is no table of names")
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{index}: text, but no index of weights ({first_line(error)}); give the checkpoint "
            "itself"
        ) from error
    for name in set(places.values()):
        if Path(name).name != name:
            raise InputError(f"{index}: lists {name}, which is not a file beside it; refused")
    shards = sorted(set(places.values()))
    if absent := [shard for shard in shards if not (index.parent / shard).is_file()]:
        raise InputError(
            f"{index}: {len(absent)} of the {len(shards)} files it lists are not beside it "
            f"({', '.join(absent[:4])}); copy them there"
        )
    return places
