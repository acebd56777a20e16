"""Embeddings in HDF5 and AnnData: every dataset is in the file itself, and as large as it says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lens.errors import InputError
from lens.study.array_files import MOST_DEFLATED, as_bytes
from lens.study.cells import ID_COLUMNS
from lens.study.extras import needed

CASE = "y_hat"
"""Dataset that holds the embedding in a file per case; else the only one there is."""


def read_hdf5(path: Path, part: str | None = None) -> dict[str, Any]:
    """``patient_id`` and ``embeddings``, or id -> array where there is a dataset or group per id.

    Args:
        path: of the file.
        part: dataset to take in place of ``embeddings``, or the group of the ids.

    Raises:
        InputError: h5py is not installed, damaged, no such part, a link out of the file, or more
            bytes declared than there are.
    """
    with _opened(path) as file:
        group = file
        if part is not None:
            chosen = _member(file, part, path)
            if _is_dataset(chosen):
                ids = {c: _values(_member(file, c, path), path) for c in ID_COLUMNS if c in file}
                return ids | {"embeddings": _values(chosen, path)}
            group = chosen
        if "patient_id" in group or "embeddings" in group:
            named = (*ID_COLUMNS, "embeddings")
            return {c: _values(_member(group, c, path), path) for c in named if c in group}
        return {name: _of_case(_member(group, name, path), path) for name in group}


def read_case(path: Path, part: str | None = None) -> np.ndarray:
    """The embedding in a file of one case: dataset `part`, else ``y_hat``, or the only one.

    Raises:
        InputError: as `read_hdf5`, or several datasets and no word on which.
    """
    with _opened(path) as file:
        if part is not None:
            return _values(_member(file, part, path), path)
        remedy = f"; name the one to take, as in {path.parent}:{{}}"
        return _of_case(file, path, remedy)


def read_anndata(path: Path, key: str | None = None) -> dict[str, Any]:
    """Ids and embeddings of AnnData: ``X`` with the names of its columns, or an ``obsm``.

    Args:
        path: of the file.
        key: of ``obsm``; ``X`` by default.

    Returns:
        ``patient_id`` (``obs["patient_id"]`` where there is one, else ``obs_names``),
        ``embeddings``, and perhaps ``study_id`` and ``dimensions``.

    Raises:
        InputError: anndata is not installed, damaged, no such part, or more bytes declared than
            there are.
    """
    read = needed("anndata.io", "tables", path).read_elem
    with _opened(path) as file:
        _check_sizes(file, path)
        obs, var = read(file["obs"]), read(file["var"])
        keys = [str(name) for name in file.get("obsm", ())]
        if key is not None and key not in keys:
            raise InputError(f"{path}: no obsm {key!r}; there are {', '.join(keys) or 'none'}")
        if key is None and "X" not in file:
            raise InputError(
                f"{path}: X is empty; name an obsm, as in {path.name}:{keys[0] if keys else 'KEY'}"
            )
        x = read(file["X"] if key is None else file["obsm"][key])
    x = x.toarray() if hasattr(x, "toarray") else np.asarray(x)
    ids = {c: obs[c].to_numpy(object) for c in ID_COLUMNS if c in obs}
    found = {"patient_id": obs.index.to_numpy(object)} | ids | {"embeddings": x}
    return found | ({"dimensions": list(map(str, var.index))} if key is None else {})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    h5py = needed("h5py", "tables", path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # HDF5 raises many kinds on a damaged file
        raise InputError(f"{path}: not readable as HDF5 ({error}); it may be damaged") from error


def _is_dataset(item: Any) -> bool:
    return hasattr(item, "dtype")


def _member(group: Any, name: str, path: Path) -> Any:
    """What a group holds under a name, or a path of names; nothing of another file."""
    for step in name.split("/"):
        if _is_dataset(group) or step not in group:
            there = [] if _is_dataset(group) else list(group)[:5]
            raise InputError(f"{path}: nothing is called {name!r}; there are {there}")
        if hasattr(group.get(step, getlink=True), "filename"):
            raise InputError(f"{path}: {name!r} is a link to another file, which is not followed")
        group = group[step]
    return group


def _of_case(item: Any, path: Path, remedy: str = "; save each alone") -> np.ndarray:
    if _is_dataset(item):
        return _values(item, path)
    names = [CASE] if CASE in item else list(item)
    if len(names) != 1 or not _is_dataset(_member(item, names[0], path)):
        raise InputError(
            f"{path}: {item.name} holds {names[:5]}, where dataset {CASE!r}, or one alone, belongs"
            + remedy.format("features" if "features" in names else "NAME")
        )
    return _values(_member(item, names[0], path), path)


def _values(dataset: Any, path: Path) -> np.ndarray:
    if not _is_dataset(dataset):
        raise InputError(f"{path}: {dataset.name} is a group, where a dataset belongs")
    _check_size(dataset, path)
    if dataset.dtype.kind == "O":
        if dataset.dtype.metadata is None or "vlen" not in dataset.dtype.metadata:
            raise InputError(f"{path}: {dataset.name} holds references, not numbers or text")
        return np.asarray(dataset[()])
    return dataset[()]


def _check_sizes(group: Any, path: Path) -> None:
    """Checks every dataset below a group."""
    for name in group:
        item = _member(group, name, path)
        if _is_dataset(item):
            _check_size(item, path)
        else:
            _check_sizes(item, path)


def _check_size(dataset: Any, path: Path) -> None:
    """Refuses a dataset of another file, and one whose bytes are not there."""
    if dataset.external or dataset.is_virtual:
        raise InputError(
            f"{path}: {dataset.name} lies in other files, which are not opened; save it as one file"
        )
    stored = dataset.id.get_storage_size()
    packed = dataset.chunks is not None and dataset.id.get_create_plist().get_nfilters() > 0
    most = stored * MOST_DEFLATED if packed else stored
    if dataset.size and dataset.dtype.kind != "O" and dataset.nbytes > most:
        raise InputError(
            f"{path}: {dataset.name} declares {as_bytes(dataset.nbytes)}, of which the file holds "
            f"{as_bytes(stored)}; it is damaged, save it again"
        )
