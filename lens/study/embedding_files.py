"""Embeddings in files that hold arrays: what they declare is checked before it is read.

Every reader gives ``patient_id``, ``embeddings`` and perhaps ``study_id``, as an ``.npz`` has them.
"""

from __future__ import annotations

import logging
import re
import textwrap
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lens.errors import InputError
from lens.names import same_word
from lens.settings import PoolTokens
from lens.study.array_files import pooled, read_npy, read_npz, to_array
from lens.study.cells import ID_COLUMNS
from lens.study.extras import needed
from lens.study.hdf5_files import read_anndata, read_case, read_hdf5
from lens.study.located import ids_beside, located
from lens.study.table_files import read_table
from lens.utf8 import AS_TEXT, read_utf8

log = logging.getLogger(__name__)

Arrays = Mapping[str, Any]

SUFFIXES = (".npz", ".npy", ".pt", ".pth", ".h5", ".hdf5", ".h5ad")
"""Ends of the names of files of arrays."""

NAMES = ("ids", "names", "features", "feats", "embedding", "coords", "labels")
"""What people call ids and embeddings of all cases together, without case and marks."""

FEWEST_CASES = 6
"""Fewer keys are not of a case each where one of them is such a name."""

SAVE = "torch.save({'patient_id': ids, 'embeddings': x}, path)"


def holds_arrays(source: str | Path) -> bool:
    """Whether embeddings are read as arrays: from such a file, or a folder of a file per case."""
    path = located(source).path
    return path.suffix.lower() in SUFFIXES or path.is_dir()


def has_named_dimensions(source: str | Path) -> bool:
    """Whether the dimensions have names of their own, as those of ``X`` in AnnData do."""
    path, part = located(source)
    return not holds_arrays(source) or (path.suffix.lower() == ".h5ad" and part is None)


def read_arrays(source: str | Path, pool_tokens: PoolTokens | None = None) -> Arrays:
    """Ids and embeddings from a file of arrays, or a folder with a file per case.

    - ``.npz`` with ``patient_id`` and ``embeddings``.
    - ``X.npy`` with ``X_ids.csv`` (``patient_id``, perhaps ``study_id``) or ``X_ids.txt`` (an id
      per line) beside it.
    - ``.pt``: a dict of ``patient_id`` and ``embeddings``, a dict of id -> tensor, or a tensor with
      a file of ids beside it as for ``.npy``.
    - ``.h5``: ``patient_id`` and ``embeddings``, or a dataset (or group) per id; ``FILE.h5:NAME``
      names another dataset than ``embeddings``, or the group of the ids.
    - ``.h5ad``: ``X``, or an ``obsm`` by ``FILE.h5ad:KEY``; ids are ``obs_names``.
    - a folder of ``<id>.h5`` (dataset ``y_hat``, or the only one, or by ``FOLDER:NAME`` another),
      ``<id>.npy`` or ``<id>.pt``.

    Args:
        source: path, or ``FILE:PART``.
        pool_tokens: how the tokens of a case become one embedding, where cases may differ in their
            number of tokens.

    Raises:
        InputError: no such file, a library that is not installed, damaged, Python objects, other
            bytes than declared, or cases that do not make a table.
    """
    path, part = located(source)
    if path.is_dir():
        return _stacked(_folder(path, part), str(path), pool_tokens)
    if not path.is_file():
        raise InputError(f"{source}: no such file")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return read_npz(path)
    if suffix == ".npy":
        return _with_ids(read_npy(path), path)
    if suffix == ".h5ad":
        return read_anndata(path, part)
    content = _tensors(path) if suffix in (".pt", ".pth") else read_hdf5(path, part)
    if not isinstance(content, Mapping):
        return _with_ids(content, path)
    if "embeddings" in content or "patient_id" in content:
        if "patient_id" not in content or "embeddings" not in content:
            raise InputError(
                f"{path}: has {sorted(map(str, content))[:5]}, and needs both patient_id and "
                "embeddings"
            )
        return content
    _check_keys(content, path)
    return _stacked(content, str(path), pool_tokens)


def _check_keys(content: Mapping[Any, Any], path: Path) -> None:
    """Refuses what is no id -> embedding: text, or all embeddings under a name of their own."""
    nested = next((key for key, v in content.items() if isinstance(v, Mapping)), None)
    if nested is not None:
        held = ", ".join(map(str, list(content[nested])[:5]))
        raise InputError(
            f"{path}: the key {nested} holds a dict ({held}) where the array of a patient is "
            f"expected; save the arrays alone, as .pt {SAVE}"
        )
    text = any(not hasattr(v, "detach") and np.asarray(v).dtype.kind in "OSU"
               for v in content.values())  # fmt: skip
    named = len(content) < FEWEST_CASES and any(same_word(str(key)) in NAMES for key in content)
    if text or named:
        raise InputError(
            f"{path}: holds the keys {', '.join(map(str, list(content)[:5]))}; expected patient_id "
            "and embeddings, or a key per patient with the array of each. Save "
            f"numpy.savez('x.npz', patient_id=ids, embeddings=x), or as .pt {SAVE}"
        )


def _with_ids(x: Any, path: Path) -> Arrays:
    """An array with the ids of the file beside it."""
    beside = ids_beside(path)
    if len(beside) != 1:
        found = "both are there" if beside else "there is neither"
        raise InputError(
            f"{path}: an array has no ids; write them beside it, as {path.stem}_ids.csv (column "
            f"patient_id) or {path.stem}_ids.txt (one per line): {found}"
        )
    if beside[0].suffix == ".csv":
        table = read_table(beside[0])
        if "patient_id" not in table:
            raise InputError(f"{beside[0]}: no column patient_id; found {list(table.columns[:5])}")
        ids = {c: table[c].to_numpy(object) for c in ID_COLUMNS if c in table}
    else:
        lines = read_utf8(beside[0], AS_TEXT).splitlines()
        ids = {"patient_id": np.array(lines, dtype=object)}
    rows = len(ids["patient_id"])
    shape = np.shape(x)
    if not shape or rows != shape[0]:
        raise InputError(f"{beside[0]}: {rows} ids for an array of shape {tuple(shape)}")
    return ids | {"embeddings": x}


def _stacked(cases: Mapping[Any, Any], name: str, pool_tokens: PoolTokens | None) -> Arrays:
    """One array from an embedding (d,) or tokens (tokens, d) per case."""
    rows: dict[str, np.ndarray] = {}
    for case, values in cases.items():
        x = to_array(values, f"{name}: case {case}")
        x = pooled(x[None], f"{name}: case {case}", pool_tokens)[0] if x.ndim == 2 else x
        if x.ndim != 1:
            raise InputError(
                f"{name}: case {case} has shape {x.shape}, not (d,) or (tokens, d): weights of an "
                "encoder, or feature maps. Pool to a vector per case, and save "
                "numpy.savez('x.npz', patient_id=ids, embeddings=x)"
            )
        rows[str(case)] = x
    if not rows:
        raise InputError(f"{name}: holds no embeddings")
    widths = {x.shape: case for case, x in rows.items()}
    if len(widths) > 1:
        (one, first), (two, second) = list(widths.items())[:2]
        raise InputError(
            f"{name}: case {first} has {one[0]} numbers, case {second} {two[0]}; all embeddings of "
            "a table have the same"
        )
    return {"patient_id": list(rows), "embeddings": np.stack(list(rows.values()))}


def _folder(path: Path, part: str | None = None) -> dict[str, Any]:
    """Case -> embedding, from a file per case; `part` names the dataset in each HDF5."""
    of_hdf5 = partial(read_case, part=part)
    readers: dict[str, Callable[[Path], Any]] = {
        ".h5": of_hdf5, ".hdf5": of_hdf5, ".npy": read_npy, ".pt": _tensors, ".pth": _tensors,
    }  # fmt: skip
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    of_cases = [file for file in files if file.suffix.lower() in readers]
    kinds = {file.suffix.lower() for file in of_cases}
    if len(kinds) != 1:
        found = f"files of {' and '.join(sorted(kinds))}" if kinds else "no such file"
        raise InputError(
            f"{path}: a folder of embeddings holds a file per case, all <id>.h5, <id>.npy or "
            f"<id>.pt; found {found}"
        )
    if part is not None and not kinds <= {".h5", ".hdf5"}:
        raise InputError(
            f"{path}:{part}: its files are {kinds.pop()}, which have no named parts; give {path}"
        )
    if others := [file.name for file in files if file not in of_cases]:
        log.warning("%s: passed over %d other file(s), such as %s", path, len(others), others[0])
    return {file.stem: readers[file.suffix.lower()](file) for file in of_cases}


def _tensors(path: Path) -> Any:
    """A tensor, or a dict of them, from torch's file; nothing else is unpickled."""
    torch = needed("torch", "torch", path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > path.stat().st_size:
            raise InputError(f"{path}: its parts declare more bytes than the file holds")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on damaged and foreign files
        raise InputError(
            f"{path}: not readable as torch tensors, and Python objects are never unpickled "
            f"({_cause(error)}); save tensors and text: {SAVE}"
        ) from error
    for tensor in content.values() if isinstance(content, Mapping) else [content]:
        _check_tensor(torch, tensor, path)
    return content


def _cause(error: Exception) -> str:
    """What torch says of a file, without colours of a terminal and its advice around it."""
    # Its own first line says how to unpickle the file all the same.
    said = re.sub(r"\x1b\[[\d;]*m", "", str(error)).split("WeightsUnpickler error: ")[-1]
    first = next(iter(said.strip().splitlines()), "") or type(error).__name__
    return textwrap.shorten(first.split(". ")[0], 120, placeholder=" ...")


def _check_tensor(torch: Any, tensor: Any, path: Path) -> None:
    """Refuses a tensor that is larger than what is stored of it."""
    if not isinstance(tensor, torch.Tensor):
        return
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise InputError(f"{path}: holds a sparse or quantised tensor; save x.to_dense().float()")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(
            f"{path}: a tensor declares {tuple(tensor.shape)}, more than what is stored of it; "
            "save x.clone()"
        )
