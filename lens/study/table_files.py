"""Tables in files: what they are is found out first, so that nothing is read as what it is not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lens.errors import InputError
from lens.study.case_lists import read_json, read_lines
from lens.study.cells import ID_COLUMNS, as_text, id_name
from lens.study.located import located
from lens.study.text_tables import is_gzip, read_text
from lens.study.workbooks import read_workbook

WELCOME = ".parquet, .csv, .tsv (both also .gz), .xlsx, or .txt and .json of PyRadiomics"

UNNAMED_INDEX = "unnamed_index"
"""Attribute of a table that came with an index of text without a name."""

ARRAYS = "holds an array without names of columns, as embeddings come (--pre, --ft)"

REMEDIES = {
    ".npz": ARRAYS,
    ".npy": ARRAYS,
    ".pt": ARRAYS,
    ".h5": ARRAYS + "; a table in HDF5 is saved as pandas.read_hdf(path).to_parquet",
    ".h5ad": ARRAYS + "; a table is saved as anndata.read_h5ad(path).to_df()"
    ".rename_axis('patient_id').reset_index().to_parquet",
    ".xls": "is a workbook of the old kind; save it as .xlsx or 'CSV UTF-8 (comma delimited)'",
    ".pkl": "could run code and is never opened; save a DataFrame with to_parquet",
    ".rds": "is R's own; in R, write.csv(x, 'x.csv', row.names = FALSE)",
    ".mat": "is MATLAB's own; in MATLAB, writetable(T, 'x.csv')",
    ".feather": "is Feather; save pandas.read_feather(path).to_parquet",
    ".safetensors": "holds tensors without ids; save numpy.savez('x.npz', patient_id=ids, "
    "embeddings=x)",
}
REMEDIES |= {
    ".pth": REMEDIES[".pt"], ".hdf5": REMEDIES[".h5"], ".ods": REMEDIES[".xls"],
    ".xlsb": REMEDIES[".xls"], ".pickle": REMEDIES[".pkl"], ".joblib": REMEDIES[".pkl"],
    ".rdata": REMEDIES[".rds"], ".zarr": REMEDIES[".h5ad"],
}  # fmt: skip
"""What to do about files that are no table of ours, by suffix."""


def read_table(path: Path, id_column: str | None = None) -> pd.DataFrame:
    """Reads a table with every id column as text; other cells that hold nothing are missing.

    Rows and unnamed columns that are blank throughout, as spreadsheets leave them, are passed over.
    An index called ``patient_id`` or ``study_id`` becomes a column.

    Args:
        path: ``.parquet``; ``.csv`` or ``.tsv``, also with ``.gz``; ``.xlsx`` (the first sheet, or
            ``FILE.xlsx:SHEET``); ``.txt`` and ``.json`` as PyRadiomics' command line writes them.
        id_column: name of the column of patients where it is not ``patient_id``.

    Raises:
        InputError: no such file, another kind of file (with the way out), not readable, of an
            encoding or separator that cannot be told, lines of other lengths, a column named
            twice, or without rows.
    """
    file, part = located(path)
    if not file.is_file():
        found = "is no regular file" if file.exists() else "no such file"
        raise InputError(f"{path}: {found}")
    is_id = partial(_is_id, id_column=id_column)
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".parquet": pd.read_parquet,
        ".csv": lambda path: read_text(path, ",", is_id),
        ".tsv": lambda path: read_text(path, "\t", is_id),
        ".xlsx": lambda path: read_workbook(path, part),
        ".xlsm": lambda path: read_workbook(path, part),
        ".txt": read_lines,
        ".json": read_json,
    }
    reader = readers.get(_suffix(file))
    if reader is None:
        raise InputError(f"{path}: expected {WELCOME} (embeddings also .npz and others, see "
                         f"docs/tables.md); {_remedy(file)}")  # fmt: skip
    try:
        table = reader(file)
    except InputError:
        raise
    except Exception as error:  # any parser's failure means the same to the user
        raise InputError(f"{path}: not readable as a table ({error})") from error
    return tidy(table, str(path), id_column)


def tidy(table: pd.DataFrame, name: str, id_column: str | None = None) -> pd.DataFrame:
    """A table with ids as text in columns, and without blank rows; the argument stays as it is.

    Args:
        table: as read, or as the user holds it.
        name: what messages call it.
        id_column: name of the column, or level of the index, of patients where it is not
            ``patient_id``.

    Raises:
        InputError: without rows, ids that are not UTF-8, or two columns of patients.
    """
    levels = [level for level in table.index.names if _is_id(level, id_column)]
    table = table.reset_index([level for level in levels if level not in table.columns])
    if table.index.name is None and table.index.inferred_type == "string":
        # Said where the ids turn out to be missing; a table that has them may have any index.
        table.attrs[UNNAMED_INDEX] = True
    table = table.reset_index(drop=True)
    table.columns = [str(column) for column in table.columns]
    table = _with_patients(table, name, id_column)
    columns = list(table.columns)
    ids = {c: as_text(table[c], name) for c in ID_COLUMNS if columns.count(c) == 1}
    table = table.assign(**ids)
    if ids:
        no_id = pd.DataFrame(ids).isna().all(axis=1)
        if no_id.any():
            blank = table[no_id].isna().all(axis=1)
            table = table.drop(index=blank.index[blank]).reset_index(drop=True)
    if table.empty:
        raise InputError(f"{name}: the table has no rows")
    return table


def _is_id(level: Any, id_column: str | None) -> bool:
    return isinstance(level, str) and bool(id_name(level, id_column))


def _with_patients(table: pd.DataFrame, name: str, id_column: str | None) -> pd.DataFrame:
    """The table with its column of patients called ``patient_id``, as far as it can be told."""
    named = "patient_id" in table.columns
    if id_column not in (None, "patient_id") and id_column in table.columns:
        if named:
            raise InputError(
                f"{name}: has the columns patient_id and {id_column!r} (--id-column); drop one"
            )
        return table.rename(columns={str(id_column): "patient_id"})
    others = [column for column in table.columns if id_name(column) and column not in ID_COLUMNS]
    if named or len(others) != 1:
        return table
    return table.rename(columns={others[0]: "patient_id"})


def _suffix(path: Path) -> str:
    """The end that tells the kind of table, in small letters."""
    return Path(path.stem).suffix.lower() if is_gzip(path) else path.suffix.lower()


def _remedy(path: Path) -> str:
    return f"{path.suffix or 'this file'} {REMEDIES.get(path.suffix.lower(), 'is none of them')}"
