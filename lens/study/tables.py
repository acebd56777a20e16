"""The tables a user brings, as files or in memory: one form, checked on the way in."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lens.errors import InputError
from lens.files import read_table
from lens.radiomics.names import parse_columns

ID_COLUMNS = ("patient_id", "study_id")

if TYPE_CHECKING:
    TableSource = str | Path | pd.DataFrame | Mapping[str, Any]
    EmbeddingSource = TableSource | tuple[ArrayLike, ArrayLike]
else:
    # The readers refuse other types in a sentence; a check of types at run time takes a page.
    TableSource = EmbeddingSource = Any
"""A path, a table with ``patient_id`` as a column or index, or a mapping of its columns. Embeddings
also as ``(ids, array)`` or as a mapping of ``patient_id`` and ``embeddings`` (and ``study_id``),
with ``array (n, d)`` of NumPy, of torch, or nested lists."""

EMBEDDING_FORMS = (
    "a path, a pandas.DataFrame with patient_id, (ids, array), or "
    "{'patient_id': ids, 'embeddings': array}"
)
TABLE_FORMS = "a path, a pandas.DataFrame with patient_id, or a mapping of its columns"


def is_table(source: Any) -> bool:
    """Whether this stands for one table; False for a mapping of tasks to tables."""
    return not isinstance(source, Mapping) or bool({"patient_id", "embeddings"} & set(source))


def name_of(source: Any, name: str) -> str:
    """What messages call a table: its path, or `name` where it is in memory."""
    return str(source) if isinstance(source, str | Path) else name


def to_table(source: TableSource, name: str, forms: str = TABLE_FORMS) -> pd.DataFrame:
    """A table of its own, with ids as text in columns; the user's object stays as it is.

    Args:
        source: a path to ``.parquet``, ``.csv`` or ``.csv.gz``, or a table in memory.
        name: what messages call a table in memory, such as ``ft['cls']``.
        forms: what is welcome, for the refusal of anything else.

    Raises:
        InputError: of another kind, unreadable, or without rows.
    """
    if isinstance(source, str | Path):
        return read_table(Path(source))
    if isinstance(source, Mapping):
        table = _from_columns(source, name)
    elif isinstance(source, pd.DataFrame):
        levels = [level for level in source.index.names if level in ID_COLUMNS]
        table = source.reset_index([level for level in levels if level not in source.columns])
        table = table.reset_index(drop=True)
    else:
        raise InputError(f"{name}: {_kind(source)} is no table; welcome are {forms}")
    if table.empty:
        raise InputError(f"{name}: the table has no rows")
    table.columns = [str(column) for column in table.columns]
    ids = {c: _as_text(table[c]) for c in ID_COLUMNS if list(table.columns).count(c) == 1}
    return table.assign(**ids)


def read_embeddings(source: EmbeddingSource, name: str = "embeddings") -> pd.DataFrame:
    """Embeddings as a table: id columns, then one float64 column per dimension.

    Args:
        source: ``.npz`` with ``patient_id (n,)`` and ``embeddings (n, d)`` (optionally
            ``study_id``), a table with ``patient_id`` and numeric columns, or the same in memory.
        name: what messages call a table in memory.

    Raises:
        InputError: unreadable, arrays missing or of other shapes, ids repeated, not numeric.
    """
    name = name_of(source, name)
    if isinstance(source, str | Path) and Path(source).suffix == ".npz":
        frame = _from_arrays(_read_npz(Path(source)), name)
    elif isinstance(source, tuple) and len(source) == 2:
        frame = _from_arrays({"patient_id": source[0], "embeddings": source[1]}, name)
    elif isinstance(source, Mapping) and "embeddings" in source:
        frame = _from_arrays(source, name)
    elif _is_array(source):
        raise InputError(
            f"{name}: an array without ids cannot be joined; give (ids, array), with an id per row"
        )
    else:
        frame = to_table(source, name, EMBEDDING_FORMS)
    _check_ids(frame, name)
    return numeric(frame, name)


def read_radiomics(source: TableSource, name: str = "radiomics") -> pd.DataFrame:
    """A radiomics table: id columns, then ``<modality>.<roi>.<image>_<class>_<feature>`` columns.

    Args:
        source: a file, or the table in memory.
        name: what messages call a table in memory.

    Raises:
        InputError: unreadable, ids repeated, a column that is not numeric or not a feature's name.
    """
    name = name_of(source, name)
    if _is_array(source):
        raise InputError(
            f"{name}: an array has neither ids nor names of features; give a pandas.DataFrame "
            "with patient_id and a column per feature"
        )
    frame = to_table(source, name)
    _check_ids(frame, name)
    check_feature_names([c for c in frame.columns if c not in ID_COLUMNS], name)
    return numeric(frame, name)


def check_feature_names(columns: list[str], name: str) -> pd.DataFrame:
    """What each column measures, see `parse_columns`.

    Raises:
        InputError: a column is not a feature's name; the table's `name` leads the message.
    """
    try:
        return parse_columns(columns)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def numeric(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The ids, and all other columns as float64.

    Raises:
        InputError: no such column, one given twice, or one with a cell that is no number.
    """
    values = frame.drop(columns=[c for c in ID_COLUMNS if c in frame.columns])
    if not values.shape[1]:
        raise InputError(f"{name}: no columns beside the ids")
    repeated = values.columns[values.columns.duplicated()]
    if len(repeated):
        raise InputError(f"{name}: column {repeated[0]!r} appears twice")
    for column in values.select_dtypes(exclude="number").columns:
        as_numbers = pd.to_numeric(values[column], errors="coerce")
        bad = frame[as_numbers.isna() & values[column].notna()]
        cell = (
            f" (patient {bad['patient_id'].iloc[0]}: {bad[column].iloc[0]!r})" if len(bad) else ""
        )
        raise InputError(f"{name}: column {column!r} is not numeric{cell}")
    ids = frame[[c for c in ID_COLUMNS if c in frame.columns]]
    return pd.concat([ids, values.astype(np.float64)], axis=1)


def _is_array(source: Any) -> bool:
    """Whether it holds numbers without ids: an array, a tensor or nested lists."""
    return isinstance(source, list) or (
        hasattr(source, "ndim") and hasattr(source, "dtype") and not isinstance(source, pd.Series)
    )


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")


def _to_array(values: Any, name: str) -> np.ndarray:
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
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: not an array ({error})") from error


def _from_columns(columns: Mapping[str, Any], name: str) -> pd.DataFrame:
    try:
        return pd.DataFrame({c: _to_array(values, name) for c, values in columns.items()})
    except ValueError as error:
        raise InputError(f"{name}: the columns do not make a table ({error})") from error


def _from_arrays(arrays: Mapping[str, Any], name: str) -> pd.DataFrame:
    """Ids and embeddings as one table."""
    if "patient_id" not in arrays:
        raise InputError(f"{name}: embeddings without patient_id cannot be joined; add the ids")
    x = _to_array(arrays["embeddings"], name)
    ids = {c: _to_array(arrays[c], name) for c in ID_COLUMNS if c in arrays}
    shapes = [values.shape for values in ids.values()]
    if x.ndim != 2 or any(shape != x.shape[:1] for shape in shapes):
        raise InputError(
            f"{name}: expected patient_id (n,) and embeddings (n, d), "
            f"found {' and '.join(map(str, (*shapes, x.shape)))}"
        )
    if not np.issubdtype(x.dtype, np.number):
        raise InputError(f"{name}: embeddings have type {x.dtype}, not numbers")
    frame = pd.DataFrame(x, columns=[f"e{i}" for i in range(x.shape[1])])
    for column in reversed(ids):
        frame.insert(0, column, _as_text(pd.Series(ids[column])))
    return frame


def _as_text(ids: pd.Series) -> pd.Series:
    """Ids as text, a whole number without its decimals; missing where one is missing."""
    missing = ids.isna()
    if pd.api.types.is_float_dtype(ids.dtype) and bool((ids[~missing] % 1 == 0).all()):
        ids = ids.astype("Int64")
    text = [each.decode() if isinstance(each, bytes) else str(each) for each in ids]
    return pd.Series(text, index=ids.index, dtype=str).where(~missing)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: not readable as .npz ({error}); ids must be text or integers, not objects"
        ) from error
    missing = {"patient_id", "embeddings"} - arrays.keys()
    if missing:
        raise InputError(
            f"{path}: array {sorted(missing)[0]!r} is missing; found {sorted(arrays)}. "
            "Save it with numpy.savez(path, patient_id=ids, embeddings=x)"
        )
    return arrays | {c: arrays[c].astype(str) for c in ID_COLUMNS if c in arrays}


def _check_ids(frame: pd.DataFrame, name: str) -> None:
    if "patient_id" not in frame.columns:
        raise InputError(f"{name}: column patient_id is missing; found {list(frame.columns[:5])}")
    keys = [c for c in ID_COLUMNS if c in frame.columns]
    if frame[keys].isna().to_numpy().any():
        raise InputError(f"{name}: an id is empty")
    repeated = frame[frame.duplicated(keys)]
    if len(repeated):
        names = ", ".join("/".join(row) for row in repeated[keys].head(5).to_numpy())
        hint = "" if "study_id" in keys else "; several studies of a patient need column study_id"
        raise InputError(f"{name}: {len(repeated)} duplicate id(s): {names}{hint}")
