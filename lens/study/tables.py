"""The tables a user brings, as files or in memory: one form, checked on the way in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lens.errors import InputError
from lens.radiomics.names import parse_columns
from lens.settings import PoolTokens
from lens.study.array_files import from_arrays, to_array
from lens.study.cells import ID_COLUMNS, as_numbers
from lens.study.dimensions import check_named, check_run
from lens.study.embedding_files import has_named_dimensions, holds_arrays, read_arrays
from lens.study.radiomic_tables import is_parts, join_parts, named_features
from lens.study.table_files import UNNAMED_INDEX, read_table, tidy

if TYPE_CHECKING:
    TableSource = str | Path | pd.DataFrame | Mapping[str, Any]
    EmbeddingSource = TableSource | tuple[ArrayLike, ArrayLike]
    RadiomicsSource = TableSource | Mapping[str, TableSource]
else:
    # The readers refuse other types in a sentence; a check of types at run time takes a page.
    TableSource = EmbeddingSource = RadiomicsSource = Any
"""A path, a table with ``patient_id`` as a column or index, or a mapping of its columns. Embeddings
also as ``(ids, array)`` or as a mapping of ``patient_id`` and ``embeddings`` (and ``study_id``),
with ``array (n, d)`` of NumPy, of torch, or nested lists. Radiomics also as a mapping of
``<modality>.<roi>`` to the table of each."""

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


def to_table(
    source: TableSource, name: str, forms: str = TABLE_FORMS, id_column: str | None = None
) -> pd.DataFrame:
    """A table of its own, with ids as text in columns; the user's object stays as it is.

    Args:
        source: a path as for `read_table`, or a table in memory.
        name: what messages call a table in memory, such as ``ft['cls']``.
        forms: what is welcome, for the refusal of anything else.
        id_column: column of patients where it is not ``patient_id``.

    Raises:
        InputError: of another kind, unreadable, or without rows.
    """
    if isinstance(source, str | Path):
        return read_table(Path(source), id_column)
    if isinstance(source, Mapping):
        return tidy(_from_columns(source, name), name, id_column)
    if isinstance(source, pd.DataFrame):
        return tidy(source, name, id_column)
    raise InputError(f"{name}: {_kind(source)} is no table; welcome are {forms}")


def has_names(source: EmbeddingSource) -> bool:
    """Whether the dimensions have names of their own: arrays have an order alone."""
    if isinstance(source, str | Path):
        return has_named_dimensions(source)
    return isinstance(source, pd.DataFrame) or (
        isinstance(source, Mapping) and "embeddings" not in source
    )


def read_embeddings(
    source: EmbeddingSource,
    name: str = "embeddings",
    *,
    any_columns: bool = False,
    id_column: str | None = None,
    pool_tokens: PoolTokens | None = None,
) -> pd.DataFrame:
    """Embeddings as a table: id columns, then one float64 column per dimension.

    Args:
        source: ``.npz`` with ``patient_id (n,)`` and ``embeddings (n, d)`` (optionally
            ``study_id``), another file of arrays (`read_arrays`), a table with ``patient_id`` and
            numeric columns, or the same in memory.
        name: what messages call a table in memory.
        any_columns: allow columns that break the run of names, see `lens.study.dimensions`.
        id_column: column of patients where it is not ``patient_id``.
        pool_tokens: how embeddings of tokens (n, tokens, d) become one per patient.

    Raises:
        InputError: unreadable, arrays missing or of other shapes, ids repeated, not numeric, a
            column without a name, or one that breaks the run of names.
    """
    name = name_of(source, name)
    if isinstance(source, str | Path) and holds_arrays(source):
        arrays = read_arrays(source, pool_tokens)
        frame = from_arrays(arrays, name, pool_tokens)
        if "dimensions" in arrays:
            frame.columns = [*frame.columns[: -len(arrays["dimensions"])], *arrays["dimensions"]]
    elif isinstance(source, tuple) and len(source) == 2:
        frame = from_arrays({"patient_id": source[0], "embeddings": source[1]}, name, pool_tokens)
    elif isinstance(source, Mapping) and "embeddings" in source:
        frame = from_arrays(source, name, pool_tokens)
    elif _is_array(source):
        raise InputError(
            f"{name}: an array without ids cannot be joined; give (ids, array), with an id per row"
        )
    else:
        frame = to_table(source, name, EMBEDDING_FORMS, id_column)
    _check_ids(frame, name)
    table = numeric(frame, name)
    if not any_columns:
        check_run(dimensions(table), name)
    return table


def dimensions(table: pd.DataFrame) -> list[str]:
    """Columns beside the ids."""
    return [column for column in table.columns if column not in ID_COLUMNS]


def read_radiomics(
    source: RadiomicsSource, name: str = "radiomics", *, id_column: str | None = None
) -> pd.DataFrame:
    """A radiomics table: id columns, then ``<modality>.<roi>.<image>_<class>_<feature>`` columns.

    Args:
        source: a file, or the table in memory; or ``<modality>.<roi>`` -> such a table, whose
            features then need no prefix.
        name: what messages call a table in memory.
        id_column: column of patients where it is not ``patient_id``.

    Raises:
        InputError: unreadable, ids repeated, a column that is not numeric or not a feature's name.
    """
    if is_parts(source):
        names = {part: name_of(each, f"{name}[{part!r}]") for part, each in source.items()}
        read = {p: _features(each, names[p], id_column, p) for p, each in source.items()}
        return join_parts(read, names)
    return _features(source, name_of(source, name), id_column)


def _features(source: Any, name: str, id_column: str | None, part: str = "") -> pd.DataFrame:
    """Ids, and features under our names."""
    if _is_array(source):
        raise InputError(
            f"{name}: an array has neither ids nor names of features; give a pandas.DataFrame "
            "with patient_id and a column per feature"
        )
    frame = to_table(source, name, id_column=id_column)
    _check_ids(frame, name)
    frame = named_features(frame, name, part)
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
        InputError: no such column, one given twice or without a name, or a cell that is no number.
    """
    values = frame.drop(columns=[c for c in ID_COLUMNS if c in frame.columns])
    if not values.shape[1]:
        raise InputError(f"{name}: no columns beside the ids")
    repeated = values.columns[values.columns.duplicated()]
    if len(repeated):
        raise InputError(f"{name}: column {repeated[0]!r} appears twice")
    check_named(list(values.columns), name)
    # Column by column where cells must be looked at, at once where all are numbers.
    other = [c for c, kind in values.dtypes.items() if getattr(kind, "kind", "O") not in "iuf"]
    if other:
        values = values.assign(**{str(c): as_numbers(frame, str(c), name) for c in other})
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


def _from_columns(columns: Mapping[str, Any], name: str) -> pd.DataFrame:
    try:
        return pd.DataFrame({c: to_array(values, name) for c, values in columns.items()})
    except ValueError as error:
        raise InputError(f"{name}: the columns do not make a table ({error})") from error


def _check_ids(frame: pd.DataFrame, name: str) -> None:
    if "patient_id" not in frame.columns:
        remedy = (
            "Its index of text has no name; if it holds the ids, set df.index.name = 'patient_id' "
            "before you save"
            if frame.attrs.get(UNNAMED_INDEX)
            else "Name the column of ids so, or say which it is (--id-column, in Python id_column)"
        )
        raise InputError(
            f"{name}: column patient_id is missing; found {list(frame.columns[:5])}. {remedy}"
        )
    keys = [c for c in ID_COLUMNS if c in frame.columns]
    empty = frame[keys].isna().any(axis=1)
    if empty.any():
        raise InputError(
            f"{name}: an id is empty (row {int(empty.argmax()) + 1} of {len(frame)}, below the "
            "header); fill it, or delete the row"
        )
    repeated = frame[frame.duplicated(keys)]
    if len(repeated):
        names = ", ".join("/".join(row) for row in repeated[keys].head(5).to_numpy())
        hint = "" if "study_id" in keys else "; several studies of a patient need column study_id"
        raise InputError(f"{name}: {len(repeated)} duplicate id(s): {names}{hint}")
