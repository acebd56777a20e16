"""Tables in text: encoding, separator and decimal mark are found out before anything is read."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lens.errors import InputError
from lens.formulas import read_csv, unguarded
from lens.missing import MISSING
from lens.study.cells import DECIMAL_COMMA, DIAGNOSTICS

log = logging.getLogger(__name__)

ENCODING = "utf-8-sig"
"""UTF-8, with or without the byte-order mark that spreadsheets put before the first column."""

WIDE_ENCODING = "utf-16"
"""Of files that begin with its byte-order mark: "Unicode text" of spreadsheets."""

HEAD = 1 << 16
"""Bytes by which a text file is told from others."""

NAMES = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}
"""Separators, as messages call them."""

_MAGIC = {
    codecs.BOM_UTF32_LE: "text in UTF-32; save it as UTF-8",
    codecs.BOM_UTF32_BE: "text in UTF-32; save it as UTF-8",
    b"PK\x03\x04": "a zip archive or a workbook (.xlsx)",
    b"PAR1": "Parquet; name it .parquet",
    b"\x1f\x8b": "compressed; name it .gz",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "a NumPy array",
}

_DECLARATION = re.compile(r'"?sep=([;,\t])"?\1*', re.IGNORECASE)
"""A line by which spreadsheets say, before the header, what separates columns."""

_POINT = re.compile(r"\s*[-+]?\d*\.\d+(e[-+]?\d+)?\s*", re.IGNORECASE)
_THOUSANDS = re.compile(r"\s*[-+]?[1-9]\d{0,2}(,\d{3})+\s*")


class _Form(NamedTuple):
    """How a text is written.

    Attributes:
        header: names of the columns, stripped; empty where a column has none.
        separator: between cells.
        encoding: as Python calls it.
        above: lines before the header, 1 where the first declares the separator.
    """

    header: list[str]
    separator: str
    encoding: str
    above: int


def is_gzip(path: Path) -> bool:
    """Whether the file is compressed, by its name."""
    return path.suffix.lower() == ".gz"


def read_text(path: Path, separator: str, is_id: Callable[[str], bool]) -> pd.DataFrame:
    """A table from text, in UTF-8, or in UTF-16 with its byte-order mark.

    A first line such as ``sep=;`` says what separates columns. A header without that separator, or
    the one that the file's name stands for, but with another one, is read with that one. Decimal
    commas are read where columns are not separated by commas and no cell says otherwise. Both are
    logged.

    Args:
        path: the file, perhaps compressed (``.gz``).
        separator: that the name of the file stands for.
        is_id: whether a column holds ids, which stay text.

    Raises:
        InputError: no such text, ambiguous separators or decimals, lines of other lengths, or a
            column named twice.
    """
    form = _form(path, separator)
    names = [name or f"Unnamed: {place}" for place, name in enumerate(form.header)]
    ids = [name for name in names if is_id(name)]
    if form.separator != separator:
        log.warning("%s: columns are separated by %s, and are read so", path, NAMES[form.separator])
    table = _parse(path, form, names, ids)
    if form.separator != "," and _has_decimal_commas(path, table.drop(columns=ids), form, names):
        log.warning("%s: numbers have decimal commas, and are read so", path)
        table = _parse(path, form, names, ids, decimal=",")
    if len(table) and table.iloc[:, -1].isna().any():
        _check_lines(path, form)
    unnamed = [n for n, given in zip(names, form.header, strict=True) if not given]
    return table.drop(columns=[n for n in unnamed if table[n].isna().all()])


def _parse(
    path: Path, form: _Form, names: list[str], ids: Sequence[str], decimal: str = "."
) -> pd.DataFrame:
    blank = sorted(MISSING)
    try:
        return read_csv(
            path, sep=form.separator, encoding=form.encoding, skiprows=form.above, header=0,
            names=names, index_col=False, dtype=dict.fromkeys(ids, str), keep_default_na=False,
            decimal=decimal, na_values={name: blank for name in names if name not in ids},
        )  # fmt: skip
    except UnicodeDecodeError:
        raise InputError(_not_decoded(path, form.encoding)) from None
    except pd.errors.ParserError:
        _check_lines(path, form)
        raise


def _has_decimal_commas(path: Path, read: pd.DataFrame, form: _Form, names: list[str]) -> bool:
    """Whether commas in cells are decimal ones; refused where cells could mean something else."""
    # How PyRadiomics says that a case was done, a version for instance, is no number.
    read = read[[c for c in read.columns if not DIAGNOSTICS.fullmatch(c)]]
    text = [str(c) for c, kind in read.dtypes.items() if getattr(kind, "kind", "O") not in "iufb"]
    cells = [cell for column in text for cell in read[column] if isinstance(cell, str)]
    commas = [cell for cell in cells if DECIMAL_COMMA.fullmatch(cell)]
    groups = [cell for cell in cells if cell.count(",") > 1 and _THOUSANDS.fullmatch(cell)]
    if not commas:
        return False
    # Numbers without commas were parsed already; how they are written is in the text alone.
    written = read_csv(
        path, sep=form.separator, encoding=form.encoding, skiprows=form.above, header=0,
        names=names, index_col=False, dtype=str, usecols=list(read.columns),
    )  # fmt: skip
    points = [c for name in written for c in written[name].dropna() if _POINT.fullmatch(c)]
    if points or groups or all(_THOUSANDS.fullmatch(cell) for cell in commas):
        other = [*points, *groups]
        why = f"beside {other[0].strip()!r}" if other else "in which every comma may part thousands"
        raise InputError(
            f"{path}: {commas[0].strip()!r} is not numeric, or has a decimal comma, {why}: which, "
            "the file does not say. Save it with decimal points and nothing between thousands"
        )
    return True


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if is_gzip(path) else path.open("rb")  # type: ignore[return-value]


def _opened(path: Path, encoding: str) -> io.TextIOWrapper:
    if is_gzip(path):
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def _form(path: Path, separator: str) -> _Form:
    """How the text is written, after refusing what is no such text."""
    with _open(path) as raw:
        head = raw.read(HEAD)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise InputError(f"{path}: not readable as a table, it is {kind}")
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not wide and b"\x00" in head:
        raise InputError(
            f"{path}: is binary, or UTF-16 without a byte-order mark; save it as UTF-8 text"
        )
    encoding = WIDE_ENCODING if wide else ENCODING
    declared = _declared(path, encoding)
    above = 1 if declared else 0
    separator = declared or separator
    header = _first_lines(path, separator, encoding, above)[0]
    found = [s for s in NAMES if s != separator and header and s in header[0]]
    # Beside others, a bar is part of a name.
    others = [s for s in found if s != "|"] or found
    if len(header) == 1 and len(others) > 1:
        raise InputError(
            f"{path}: the header has {NAMES[others[0]]} and {NAMES[others[1]]}, so that it does not"
            " say what separates columns; save it as 'CSV UTF-8 (comma delimited)'"
        )
    if len(header) == 1 and others:
        separator = others[0]
    header, first = _first_lines(path, separator, encoding, above)
    if not header:
        raise InputError(f"{path}: the table has no rows")
    _check_header(path, header, first)
    return _Form(header, separator, encoding, above)


def _declared(path: Path, encoding: str) -> str | None:
    """The separator that a first line declares, as ``sep=;`` does."""
    with _opened(path, encoding) as stream:
        try:
            found = _DECLARATION.fullmatch(stream.readline(HEAD).rstrip("\r\n"))
        except UnicodeDecodeError:
            raise InputError(_not_decoded(path, encoding)) from None
    return found[1] if found else None


def _first_lines(
    path: Path, separator: str, encoding: str, above: int
) -> tuple[list[str], list[str]]:
    """Names of the columns, stripped, and the cells of the first row."""
    with _opened(path, encoding) as stream:
        try:
            below = itertools.islice(stream, above, None)
            lines = (line for line in csv.reader(below, delimiter=separator) if line)
            header = [unguarded(name.strip()) for name in next(lines, [])]
            return header, next(lines, [])
        except UnicodeDecodeError:
            raise InputError(_not_decoded(path, encoding)) from None


def _check_header(path: Path, header: Sequence[str], first: Sequence[str]) -> None:
    if header[0].startswith("#") or re.fullmatch("sep=.?", header[0], re.IGNORECASE):
        raise InputError(
            f"{path}: the first line is {header[0]!r}, where the names of the columns belong; "
            "delete that line"
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


def _check_lines(path: Path, form: _Form) -> None:
    """Refuses a line that ends early, as in a file that was cut, or goes on behind the header."""
    cells = len(form.header)
    with _opened(path, form.encoding) as stream:
        below = itertools.islice(stream, form.above, None)
        lines = csv.reader(below, delimiter=form.separator)
        for number, line in enumerate(lines, start=1 + form.above):
            if len(line) > cells or (any(line) and len(line) < cells):
                remedy = (
                    "the file may be cut short, write it again"
                    if len(line) < cells
                    else f"put text that holds {NAMES[form.separator]} in double quotes, or delete "
                    "what is too much"
                )
                raise InputError(
                    f"{path}: row {number} has {len(line)} cells, the header {cells}; {remedy}"
                )


def _not_decoded(path: Path, encoding: str) -> str:
    if encoding == WIDE_ENCODING:
        return f"{path}: begins as UTF-16 and is none; save it as 'CSV UTF-8'"
    with _open(path) as raw:
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
