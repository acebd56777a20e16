"""Embeddings of every layer of an encoder in one file, joined to the rows of a study."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lens.anonymise import OPEN, Names
from lens.errors import InputError
from lens.study.array_files import from_arrays, read_npy_member, read_npz

LAYER = "layer"
"""The array of an ``.npz`` that tells the layer of each column of ``embeddings``."""

REMEDY = (
    "Write it by experiments.embed --stage all (or blocks); of a network of your own by "
    "numpy.savez(file, patient_id=ids, embeddings=x, layer=names), a name per column of x"
)


def layer_order(path: Path) -> list[str]:
    """The layers of a file in order of depth; only their names are read.

    Raises:
        InputError: no such file, no ``.npz``, no array ``layer`` of text, fewer than two layers, or
            one whose columns do not lie side by side.
    """
    names = _columns(path)
    order = [str(name) for at, name in enumerate(names) if not at or name != names[at - 1]]
    if len(set(order)) < len(order):
        twice = next(name for name in order if order.count(name) > 1)
        raise InputError(f"{path}: the columns of layer {twice} do not lie side by side. {REMEDY}")
    if len(order) < 2:
        raise InputError(f"{path}: one layer, {order[0]}; a profile needs at least two. {REMEDY}")
    return order


def read_layers(
    path: Path, ids: pd.DataFrame, names: Names = OPEN
) -> dict[str, Float64[np.ndarray, "n _"]]:
    """Layer -> embeddings of a study's rows, in order of depth.

    Args:
        path: ``.npz`` with ``patient_id``, perhaps ``study_id``, ``embeddings`` (n, d) and
            ``layer`` (d,).
        ids: of the study's rows.
        names: under which patients enter the study.

    Raises:
        InputError: as `layer_order`, a row of the study is missing in the file or twice there, or a
            number is not finite.
    """
    order, column = layer_order(path), _columns(path)
    table = names.ids(from_arrays(read_npz(path), str(path)))
    keys = [name for name in ids if name in table]
    width = len(table.columns) - len([name for name in ("patient_id", "study_id") if name in table])
    if len(column) != width:
        raise InputError(f"{path}: {len(column)} names of layers for {width} columns. {REMEDY}")
    if "study_id" in ids and "study_id" not in keys and ids["patient_id"].duplicated().any():
        raise InputError(f"{path}: no study_id, and patients of the study have several. {REMEDY}")
    if table.duplicated(keys).any():
        first = "/".join(table.loc[table.duplicated(keys), keys].iloc[0])
        raise InputError(f"{path}: {first} is there twice; leave one row of each")
    at = (
        table.reset_index()
        .set_index(keys)["index"]
        .reindex(pd.MultiIndex.from_frame(ids[keys]) if len(keys) > 1 else ids[keys[0]])
    )
    if at.isna().any():
        first = "/".join(ids.loc[at.isna().to_numpy(), keys].iloc[0])
        raise InputError(
            f"{path}: {int(at.isna().sum())} of the study's {len(ids)} rows are missing, such as "
            f"{first}; embed the same patients as in --pre"
        )
    x = table.iloc[at.to_numpy(int), -width:].to_numpy(np.float64)
    if not np.isfinite(x).all():
        first = "/".join(ids.loc[~np.isfinite(x).all(axis=1), keys].iloc[0])
        raise InputError(f"{path}: an embedding of {first} is not finite; embed in float32")
    return {name: x[:, column == name] for name in order}


def _columns(path: Path) -> np.ndarray:
    """The layer of each column."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            there = f"{LAYER}.npy" in archive.namelist()
        found = read_npy_member(path, LAYER) if there else None
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: layers are read from .npz ({error}). {REMEDY}") from error
    if found is None or found.ndim != 1 or found.dtype.kind != "U" or not len(found):
        raise InputError(f"{path}: no array {LAYER!r} with a name per column. {REMEDY}")
    return found
