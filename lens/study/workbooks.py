"""Workbooks (``.xlsx``): one sheet as a table, with cells as they are shown and ids as text."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lens.errors import InputError
from lens.study.array_files import MOST_DEFLATED
from lens.study.extras import needed

log = logging.getLogger(__name__)

_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([A-Z]+\d+:[A-Z]+(\d+))"')
"""A block of merged cells in the text of a sheet, with its last row."""


def read_workbook(path: Path, sheet: str | None = None) -> pd.DataFrame:
    """A sheet: names of columns in the first row that is not blank, then a row per patient.

    Args:
        path: of the workbook.
        sheet: name of the sheet; the first one by default, which is said where there are others.

    Raises:
        InputError: openpyxl is not installed, no such sheet, cells without a name above them, a
            name twice, merged cells, or a formula that was never calculated.
    """
    openpyxl = needed("openpyxl", "tables", path)
    _check_sizes(path)
    rows = _rows(openpyxl, path, sheet, values=True)
    header = next((row for row in rows if any(map(_given, row))), ())
    below = rows[rows.index(header) + 1 :] if header else []
    names = [str(name).strip() if _given(name) else "" for name in header]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise InputError(f"{path}: column {twice[0]!r} appears twice")
    longest = max((i + 1 for row in below for i, cell in enumerate(row) if _given(cell)), default=0)
    names += [""] * (longest - len(names))
    columns = [name or f"Unnamed: {place}" for place, name in enumerate(names)]
    padded = [(*row[: len(columns)], *[None] * (len(columns) - len(row))) for row in below]
    table = pd.DataFrame(padded, columns=columns, dtype=object)
    table = table.map(lambda cell: None if isinstance(cell, str) and cell.strip() == "" else cell)
    if table.isna().to_numpy().any():
        _check_calculated(openpyxl, path, sheet, rows)
        _check_merged(openpyxl, path, sheet, rows.index(header) + 1)
    blank = [c for c, name in zip(columns, names, strict=True) if not name]
    return table.drop(columns=[c for c in blank if table[c].isna().all()])


def _given(cell: Any) -> bool:
    return cell is not None and not (isinstance(cell, str) and not cell.strip())


def _rows(openpyxl: Any, path: Path, sheet: str | None, *, values: bool) -> list[tuple[Any, ...]]:
    """The cells row by row: values as last calculated, or else formulas as text."""
    with path.open("rb") as stream:
        book = openpyxl.load_workbook(stream, read_only=True, data_only=values, keep_links=False)
        names = [each.title for each in book.worksheets]
        if sheet is not None and sheet not in names:
            raise InputError(f"{path}: no sheet {sheet!r}; there are {', '.join(names)}")
        if sheet is None and values and len(names) > 1:
            log.warning(
                "%s: the first sheet, %s, is read; the others are %s (FILE.xlsx:SHEET names one)",
                path, names[0], ", ".join(names[1:]),
            )  # fmt: skip
        chosen = book.worksheets[0 if sheet is None else names.index(sheet)]
        # What the sheet says of its own size is not to be trusted.
        chosen.reset_dimensions()
        return [tuple(row) for row in chosen.iter_rows(values_only=True)]


def _check_calculated(
    openpyxl: Any, path: Path, sheet: str | None, calculated: Sequence[tuple[Any, ...]]
) -> None:
    """Refuses blanks that stand for formulas which no program has calculated."""
    written = _rows(openpyxl, path, sheet, values=False)
    for number, (shown, cells) in enumerate(zip(calculated, written, strict=True), start=1):
        for place, (value, cell) in enumerate(zip(shown, cells, strict=False)):
            if value is None and isinstance(cell, str) and cell.startswith("="):
                raise InputError(
                    f"{path}: row {number}, column {place + 1} holds the formula {cell[:40]!r} "
                    "without its value; open and save the workbook in a spreadsheet, or write "
                    "values"
                )


def _check_merged(openpyxl: Any, path: Path, sheet: str | None, header: int) -> None:
    """Refuses cells of the header (row `header`, from 1) or below that were merged into one.

    A file keeps the value of the first alone; which of the others it is meant for, nobody knows.
    """
    with path.open("rb") as stream:
        book = openpyxl.load_workbook(stream, read_only=True, keep_links=False)
        chosen = book.worksheets[0] if sheet is None else book[sheet]
        # The sheet's own text: read whole by the library it would take minutes, and gigabytes.
        with zipfile.ZipFile(path) as archive:
            text = archive.read(chosen._worksheet_path)
    merged = [found[1].decode() for found in _MERGED.finditer(text) if int(found[2]) >= header]
    if merged:
        raise InputError(
            f"{path}: {len(merged)} block(s) of merged cells, such as {merged[0]}, of which the "
            "first cell alone holds the value; unmerge them, and write the value of every patient "
            "into a cell of its own"
        )


def _check_sizes(path: Path) -> None:
    """Refuses a file that is no workbook, or unpacks to more than its bytes can hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            members: Sequence[zipfile.ZipInfo] = archive.infolist()
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path}: not readable as a workbook ({error}); save the sheet as 'CSV UTF-8 (comma "
            "delimited)'"
        ) from error
    for info in members:
        if info.file_size > MOST_DEFLATED * max(info.compress_size, 1):
            raise InputError(f"{path}: {info.filename} declares more than its bytes can hold")
