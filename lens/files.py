"""Tables and arrays on disk: checked when read, atomic when written."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lens.errors import FAILURE_COLUMNS, CaseError, InputError

FORMULA = "=+-@\t\r\n＝＋－＠"
"""First characters by which a spreadsheet takes a cell for a formula, or as the lead-in of one."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE)
GUARDED = re.compile(f"'+[{re.escape(FORMULA)}]")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and moves it there when the block succeeds.

    A reader sees the old file or the whole new one, never a part; a failed block leaves no trace.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp gives 0600; results are to be read by colleagues like any other file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Refuses a folder to write to that is something else, or lies in something else.

    Raises:
        InputError: the path, or a part of it, is a file.
    """
    for part in (path, *path.parents):
        if part.exists():
            if not part.is_dir():
                raise InputError(f"{part}: is a file, not a folder to write to; name another")
            return


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes a table without its index, as Parquet or CSV by the file's suffix.

    Text that a spreadsheet would run as a formula has an apostrophe before it in a CSV (`guarded`),
    which `read_csv` takes away.
    """
    with atomic(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        elif path.suffix == ".csv":
            _write_csv(table, temporary)
        else:
            raise InputError(f"{path}: tables are written as .parquet or .csv")


def guarded(text: str) -> str:
    """Text as a spreadsheet shows it and does not run it: ``=1+1`` becomes ``'=1+1``.

    Numbers stay as they are. Text that looks guarded already gets one more apostrophe, so that
    `unguarded` gives back every text unchanged.
    """
    formula = text[:1] in FORMULA and text and not NUMBER.fullmatch(text)
    return f"'{text}" if formula or GUARDED.match(text) else text


def unguarded(text: str) -> str:
    """What `guarded` was given."""
    return text[1:] if GUARDED.match(text) else text


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """`pandas.read_csv` with the apostrophes of `guarded` taken away, in cells and header."""
    return _each_text(pd.read_csv(path, **options), unguarded)


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    safe = _each_text(table, guarded)
    # A lone carriage return ends a line for the reader unless it is quoted, which the writer's own
    # rule forgets; names of files that are no Unicode are written as escapes.
    texts = (cell for _, column in _texts(safe) for cell in column if isinstance(cell, str))
    returns = any("\r" in text for text in (*map(str, safe.columns), *texts))
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    safe.to_csv(path, index=False, quoting=quoting, errors="backslashreplace")


def _each_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with all text in it changed, that of its header too; a copy if any is."""
    names = [change(name) if isinstance(name, str) else name for name in table.columns]
    changed: dict[int, pd.Series] = {}
    for position, column in _texts(table):
        new = [change(cell) if isinstance(cell, str) else cell for cell in column]
        if any(a is not b and a != b for a, b in zip(new, column, strict=True)):
            changed[position] = pd.Series(new, index=table.index, dtype=column.dtype)
    if not changed and names == list(table.columns):
        return table
    parts = [changed.get(i, table.iloc[:, i]) for i in range(table.shape[1])]
    return pd.concat(parts, axis=1).set_axis(names, axis=1)


def _texts(table: pd.DataFrame) -> Iterator[tuple[int, pd.Series]]:
    """The columns that may hold text, with their positions."""
    for position, kind in enumerate(table.dtypes):
        if pd.api.types.is_object_dtype(kind) or pd.api.types.is_string_dtype(kind):
            yield position, table.iloc[:, position]


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes named arrays as an uncompressed ``.npz``."""
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON that people can read: indented, keys in the order given."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def write_failures(errors: Sequence[CaseError], path: Path) -> None:
    """Writes ``failures.csv``; without errors a stale one is removed, so that presence tells."""
    if not errors:
        path.unlink(missing_ok=True)
        return
    write_table(
        pd.DataFrame([error.row() for error in errors], columns=list(FAILURE_COLUMNS)), path
    )


def read_failures(path: Path) -> list[CaseError]:
    """Reads what `write_failures` wrote; an absent file means that no patient was set aside."""
    if not path.is_file():
        return []
    rows = read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    return [
        CaseError(
            r["patient_id"], r["file"], stage=r["stage"], reason=r["reason"], remedy=r["remedy"]
        )
        for r in rows
    ]


def read_table(path: Path) -> pd.DataFrame:
    """Reads ``.parquet`` or ``.csv`` (also ``.csv.gz``), with every id column as text.

    Raises:
        InputError: no such file, another suffix, not readable, or without rows.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        elif path.name.endswith((".csv", ".csv.gz")):
            table = read_csv(path, dtype={"patient_id": str, "study_id": str})
        else:
            raise InputError(f"{path}: expected .parquet, .csv or .csv.gz")
    except InputError:
        raise
    except Exception as error:  # any parser's failure means the same to the user
        raise InputError(f"{path}: not readable as a table ({error})") from error
    if table.empty:
        raise InputError(f"{path}: the table has no rows")
    for column in {"patient_id", "study_id"} & set(table.columns):
        table[column] = table[column].astype(str)
    return table


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder with their names, as 64 hex digits."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def array_hash(*arrays: np.ndarray) -> str:
    """SHA-256 over types, shapes and contents of arrays, as 64 hex digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
