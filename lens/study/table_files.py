"""Tables in files: what they are is found out first, so that nothing is read as what it is not."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lens.errors import InputError
from lens.formulas import read_csv, unguarded
from lens.missing import MISSING
from lens.study.cells import ID_COLUMNS, as_text

WELCOME = ".parquet, .csv, .csv.gz, .tsv or .tsv.gz (embeddings also .npz)"

REMEDIES = {
    ".npz": "holds arrays without names of columns, as embeddings come (--pre, --ft)",
    ".npy": "holds an array without ids; save numpy.savez('x.npz', patient_id=ids, embeddings=x)",
    ".pt": "holds torch tensors; save numpy.savez('x.npz', patient_id=ids, "
    "embeddings=x.float().cpu().numpy())",
    ".h5": "is HDF5; read it with pandas.read_hdf or h5py, and save "
    "numpy.savez('x.npz', patient_id=ids, embeddings=x) or DataFrame.to_parquet",
    ".h5ad": "is AnnData; save anndata.read_h5ad(path).to_df().rename_axis('patient_id')"
    ".reset_index() with to_parquet",
    ".xlsx": "is a workbook; save the sheet as 'CSV UTF-8 (comma delimited)'",
    ".pkl": "could run code and is never opened; save a DataFrame with to_parquet",
}
REMEDIES |= {".pth": REMEDIES[".pt"], ".hdf5": REMEDIES[".h5"], ".xls": REMEDIES[".xlsx"],
             ".ods": REMEDIES[".xlsx"], ".pickle": REMEDIES[".pkl"]}  # fmt: skip
"""What to do about files that are no table of ours, by suffix."""

SEPARATORS = {".csv": ",", ".tsv": "\t"}

ALIASES = {"participant_id": "patient_id"}
"""Names that other conventions (BIDS) have for our columns."""

ENCODING = "utf-8-sig"
"""UTF-8, with or without the byte-order mark that spreadsheets put before the first column."""

HEAD = 1 << 16
"""Bytes by which a text file is told from others."""

_MAGIC = {
    b"PK\x03\x04": "a zip archive or a workbook (.xlsx)",
    b"PAR1": "Parquet; name it .parquet",
    b"\x1f\x8b": "compressed; name it .gz",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "a NumPy array",
}


def read_table(path: Path) -> pd.DataFrame:
    """Reads a table with every id column as text; other cells that hold nothing are missing.

    Rows and unnamed columns that are blank throughout, as spreadsheets leave them, are passed over.
    An index called ``patient_id`` or ``study_id`` becomes a column.

    Args:
        path: ``.parquet``, ``.csv`` or ``.tsv``, the latter two also with ``.gz``, in UTF-8.

    Raises:
        InputError: no such file, another kind of file (with the way out), not readable, not UTF-8,
            another separator, lines of other lengths, a column named twice, or without rows.
    """
    if not path.is_file():
        found = "is no regular file" if path.exists() else "no such file"
        raise InputError(f"{path}: {found}")
    try:
        if _suffix(path) == ".parquet":
            table = pd.read_parquet(path)
        elif separator := SEPARATORS.get(_suffix(path)):
            table = _read_text(path, separator)
        else:
            raise InputError(f"{path}: expected {WELCOME}; {_remedy(path)}")
    except InputError:
        raise
    except Exception as error:  # any parser's failure means the same to the user
        raise InputError(f"{path}: not readable as a table ({error})") from error
    return tidy(table, str(path))


def tidy(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """A table with ids as text in columns, and without blank rows; the argument stays as it is.

    Args:
        table: as read, or as the user holds it.
        name: what messages call it.

    Raises:
        InputError: without rows, or ids that are not UTF-8.
    """
    levels = [level for level in table.index.names if level in ID_COLUMNS]
    table = table.reset_index([level for level in levels if level not in table.columns])
    table = table.reset_index(drop=True)
    table.columns = [str(column) for column in table.columns]
    if "patient_id" not in table.columns:
        table = table.rename(columns=ALIASES)
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


def _suffix(path: Path) -> str:
    """The end that tells the kind of table, in small letters."""
    return Path(path.stem).suffix.lower() if _is_gzip(path) else path.suffix.lower()


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _remedy(path: Path) -> str:
    return f"{path.suffix or 'this file'} {REMEDIES.get(path.suffix.lower(), 'is none of them')}"


def _read_text(path: Path, separator: str) -> pd.DataFrame:
    header = _header(path, separator)
    names = [name or f"Unnamed: {place}" for place, name in enumerate(header)]
    blank = sorted(MISSING)
    ids = (*ID_COLUMNS, *ALIASES)
    try:
        table = read_csv(
            path, sep=separator, encoding=ENCODING, header=0, names=names, index_col=False,
            dtype=dict.fromkeys(ids, str), keep_default_na=False,
            na_values={name: blank for name in names if name not in ids},
        )  # fmt: skip
    except UnicodeDecodeError:
        raise InputError(_not_utf8(path)) from None
    if len(table) and table.iloc[:, -1].isna().any():
        _check_lines(path, separator, len(header))
    unnamed = [n for n, given in zip(names, header, strict=True) if not given]
    return table.drop(columns=[n for n in unnamed if table[n].isna().all()])


def _opened(path: Path) -> io.TextIOWrapper:
    if _is_gzip(path):
        return gzip.open(path, "rt", encoding=ENCODING, newline="")
    return path.open(encoding=ENCODING, newline="")


def _header(path: Path, separator: str) -> list[str]:
    """Names of the columns, stripped, after refusing what is no such text."""
    with gzip.open(path) if _is_gzip(path) else path.open("rb") as raw:
        head = raw.read(HEAD)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise InputError(f"{path}: not readable as a table, it is {kind}")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in head:
        raise InputError(f"{path}: is UTF-16 or binary; save it as UTF-8 text")
    with _opened(path) as stream:
        try:
            lines = (line for line in csv.reader(stream, delimiter=separator) if line)
            header = [unguarded(name.strip()) for name in next(lines, [])]
            first = next(lines, [])
        except UnicodeDecodeError:
            raise InputError(_not_utf8(path)) from None
    if not header:
        raise InputError(f"{path}: the table has no rows")
    _check_header(path, header, first, separator)
    return header


def _check_header(path: Path, header: Sequence[str], first: Sequence[str], separator: str) -> None:
    if header[0].startswith("#") or re.fullmatch("sep=.?", header[0], re.IGNORECASE):
        raise InputError(
            f"{path}: the first line is {header[0]!r}, where the names of the columns belong; "
            "delete that line"
        )
    others = {";": "semicolons", "\t": "tabs", ",": "commas"}
    used = [s for s in others if s != separator and s in header[0]]
    if len(header) == 1 and used:
        raise InputError(
            f"{path}: columns are separated by {others[used[0]]}, not by {others[separator]}; "
            "save it as 'CSV UTF-8 (comma delimited)' with decimal points"
            + (", or name it .tsv" if used[0] == "\t" else "")
        )
    twice = [name for name in header if name and list(header).count(name) > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} appears twice")
    if len(first) > len(header):
        raise InputError(
            f"{path}: the first row has {len(first)} cells, the header {len(header)}; a first "
            "column without a name is an index (in pandas, write with index=False), and a "
            "decimal comma splits a cell"
        )


def _check_lines(path: Path, separator: str, cells: int) -> None:
    """Refuses a line that ends early, as in a file that was cut."""
    with _opened(path) as stream:
        for number, line in enumerate(csv.reader(stream, delimiter=separator), start=1):
            if any(line) and len(line) < cells:
                raise InputError(
                    f"{path}: row {number} has {len(line)} cells, the header {cells}; the file may "
                    "be cut short, write it again"
                )


def _not_utf8(path: Path) -> str:
    with gzip.open(path) if _is_gzip(path) else path.open("rb") as raw:
        for number, line in enumerate(raw, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                near = re.sub(
                    r"[^ -~]", "?", line[max(0, error.start - 10) :][:20].decode("latin1")
                )
                return (
                    f"{path}: line {number} is not UTF-8 (byte {line[error.start]:#04x} near "
                    f"{near!r}); save it as 'CSV UTF-8'"
                )
    return f"{path}: is not UTF-8; save it as 'CSV UTF-8'"
