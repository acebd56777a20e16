"""Tables on disk: checked when read, atomic when written; other files are those of `lens.disk`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lens.disk import array_hash as array_hash
from lens.disk import atomic as atomic
from lens.disk import check_folder as check_folder
from lens.disk import check_writable as check_writable
from lens.disk import existing as existing
from lens.disk import file_hash as file_hash
from lens.disk import write_arrays as write_arrays
from lens.disk import write_json as write_json
from lens.disk import write_text as write_text
from lens.errors import FAILURE_COLUMNS, CaseError, InputError
from lens.formulas import read_csv, write_csv
from lens.study.table_files import read_table as read_table  # every table has one reader


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes a table without its index, as Parquet or CSV by the file's suffix.

    Text that a spreadsheet would run as a formula has an apostrophe before it in a CSV (`guarded`),
    which `read_csv` takes away.
    """
    with atomic(path) as temporary:
        if path.suffix.lower() == ".parquet":
            table.to_parquet(temporary, index=False)
        elif path.suffix.lower() == ".csv":
            write_csv(table, temporary)
        else:
            raise InputError(f"{path}: tables are written as .parquet or .csv")


def write_failures(errors: Sequence[CaseError], path: Path) -> None:
    """Writes ``failures.csv``; without errors a stale one is removed, so that presence tells."""
    if not errors:
        path.unlink(missing_ok=True)
        return
    write_table(failure_table(errors), path)


def failure_table(errors: Sequence[CaseError]) -> pd.DataFrame:
    """A row per error with `FAILURE_COLUMNS`, as ``failures.csv`` has them."""
    return pd.DataFrame([error.row() for error in errors], columns=list(FAILURE_COLUMNS))


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
