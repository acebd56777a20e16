"""Embeddings as arrays, in an ``.npz`` or in memory: checked by their headers before they are read.

An ``.npz`` is a zip archive of ``.npy`` members, each with a header that declares type and shape.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lens.errors import InputError
from lens.settings import PoolTokens
from lens.study.cells import ID_COLUMNS, as_text

SAVE = "numpy.savez(path, patient_id=ids, embeddings=x)"

MOST_DEFLATED = 1100
"""Bytes that a compressed byte can stand for at most (1,032 by the format, headers aside)."""

_MAGIC = b"\x93NUMPY"


class Header(NamedTuple):
    """What the header of an array declares.

    Attributes:
        dtype: type of an entry.
        shape: of the array.
        at: bytes before the entries.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    at: int

    @property
    def size(self) -> int:
        """Bytes of header and entries."""
        count = 1
        for length in self.shape:
            count *= int(length)
        return self.at + count * self.dtype.itemsize


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays ``patient_id``, ``embeddings`` and, where there is one, ``study_id``.

    Nothing is unpickled, and other arrays in the file are not read.

    Raises:
        InputError: no such file, no ``.npz``, an array that is missing or of Python objects, or one
            whose header declares other bytes than are there.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) == _MAGIC:
            raise InputError(
                f"{path}: not readable as .npz, it is a single .npy array, without ids. "
                f"Save it with {SAVE}"
            )
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_members(path, archive)
    except InputError:
        raise
    except Exception as error:  # zip and NumPy raise many kinds on a damaged file
        raise InputError(f"{path}: not readable as .npz ({error})") from error


def read_npy(path: Path) -> np.ndarray:
    """The array of a ``.npy``; nothing is unpickled.

    Raises:
        InputError: damaged, of Python objects, or with a header that declares other bytes than are
            there.
    """
    try:
        with path.open("rb") as stream:
            header = _header(stream)
        _check_header(f"{path}: not readable as .npy", header, path.stat().st_size)
        return np.load(path, allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # NumPy raises many kinds on a damaged file
        raise InputError(f"{path}: not readable as .npy ({error})") from error


def to_array(values: Any, name: str) -> np.ndarray:
    """NumPy's form of an array, a tensor on any device, or nested lists."""
    if hasattr(values, "detach"):
        # A torch tensor, perhaps with a gradient or on a GPU.
        values = values.detach().cpu()
        try:
            values = values.numpy()
        except TypeError:
            # Of a type that NumPy lacks, such as bfloat16: float32 holds it exactly.
            values = values.float().numpy()
    try:
        array = np.asarray(values)
        # FITS and old scanners write the large end first, which pandas does not take.
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: not an array ({error})") from error


def from_arrays(
    arrays: Mapping[str, Any], name: str, pool_tokens: PoolTokens | None = None
) -> pd.DataFrame:
    """Ids as text and embeddings as columns ``e0, e1, ...`` of one table.

    Args:
        arrays: ``patient_id (n,)``, ``embeddings (n, d)`` or of tokens (n, tokens, d), and perhaps
            ``study_id (n,)``.
        name: what messages call them.
        pool_tokens: how the tokens of a patient become one embedding.

    Raises:
        InputError: no ids, other shapes, tokens without a word on pooling, or no real numbers.
    """
    if "patient_id" not in arrays:
        raise InputError(f"{name}: embeddings without patient_id cannot be joined; add the ids")
    x = pooled(to_array(arrays["embeddings"], name), name, pool_tokens)
    ids = {c: to_array(arrays[c], name) for c in ID_COLUMNS if c in arrays}
    shapes = [values.shape for values in ids.values()]
    if x.ndim != 2 or any(shape != x.shape[:1] for shape in shapes):
        raise InputError(
            f"{name}: expected patient_id (n,) and embeddings (n, d), "
            f"found {' and '.join(map(str, (*shapes, x.shape)))}"
        )
    frame = pd.DataFrame(_real(x, name), columns=[f"e{i}" for i in range(x.shape[1])])
    for column in reversed(ids):
        frame.insert(0, column, as_text(pd.Series(ids[column]), name))
    return frame


def pooled(x: np.ndarray, name: str, pool_tokens: PoolTokens | None) -> np.ndarray:
    """Embeddings (n, d) of tokens (n, tokens, d); others, and arrays of other shapes, as they are.

    Raises:
        InputError: several tokens, and no word on pooling.
    """
    if x.ndim != 3:
        return x
    if pool_tokens is None and x.shape[1] != 1:
        raise InputError(
            f"{name}: embeddings {x.shape} are (patients, tokens, dimensions); say how tokens "
            "become one embedding, by --pool-tokens mean, or first (a class token), in Python "
            "pool_tokens='mean'"
        )
    # Half precision would overflow in the sum.
    return _real(x, name).mean(axis=1, dtype=np.float64) if pool_tokens == "mean" else x[:, 0]


def read_npy_member(path: Path, name: str) -> np.ndarray:
    """One array of an ``.npz``; nothing is unpickled.

    Args:
        path: the file.
        name: of the array, which is there.

    Raises:
        InputError: of Python objects, or one whose header declares other bytes than are there.
    """
    with zipfile.ZipFile(path) as archive:
        _check_member(path, name, archive, archive.getinfo(f"{name}.npy"))
        with archive.open(f"{name}.npy") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


def _read_members(path: Path, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    missing = {"patient_id", "embeddings"} - members.keys()
    if missing:
        raise InputError(
            f"{path}: array {sorted(missing)[0]!r} is missing; found {sorted(members)}. "
            f"Save it with {SAVE}"
        )
    wanted = [name for name in (*ID_COLUMNS, "embeddings") if name in members]
    for name in wanted:
        _check_member(path, name, archive, members[name])
    arrays = {}
    for name in wanted:
        with archive.open(members[name]) as stream:
            arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _check_member(path: Path, name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Refuses an array by its header, before memory is asked for."""
    what = f"{path}: array {name!r} is not readable"
    with archive.open(info) as stream:
        header = _header(stream)
    _check_header(what, header, info.file_size)
    if info.file_size > MOST_DEFLATED * max(info.compress_size, 1):
        raise InputError(
            f"{what}: {as_bytes(info.compress_size)} cannot hold the {as_bytes(info.file_size)} "
            "that its header declares; it is damaged, save it again"
        )


def _check_header(what: str, header: Header, size: int) -> None:
    if header.dtype.hasobject:
        raise InputError(
            f"{what}: it holds Python objects, which are never unpickled; save text or numbers, as "
            "in numpy.array(ids, str)"
        )
    if header.size != size:
        raise InputError(
            f"{what}: its header declares {as_bytes(header.size)}, the file holds "
            f"{as_bytes(size)}; it is damaged, save it again"
        )


def _header(stream: Any) -> Header:
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(stream)
    return Header(dtype, shape, stream.tell())


def as_bytes(size: int | float) -> str:
    """A size in bytes, as people read it."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def _real(x: np.ndarray, name: str) -> np.ndarray:
    """The embeddings, if they are real numbers; types that NumPy does not know become float32."""
    if x.dtype.kind == "c":
        raise InputError(
            f"{name}: embeddings are complex numbers ({x.dtype}), whose imaginary parts would be "
            "lost; give real ones, such as numpy.abs(x), or both parts side by side"
        )
    if x.dtype.name.startswith(("bfloat16", "float8")):
        return x.astype(np.float32)
    if x.dtype.kind == "V":
        raise InputError(
            f"{name}: embeddings have type {x.dtype}, not numbers: bfloat16 or another type that "
            "NumPy has no name for; save x.float() (torch) or x.astype('float32')"
        )
    if not np.issubdtype(x.dtype, np.number) or x.dtype.kind == "m":
        raise InputError(f"{name}: embeddings have type {x.dtype}, not numbers")
    return x
