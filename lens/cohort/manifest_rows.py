"""The rows of a cohort manifest as text: cells, ids and splits, before any file is looked for."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from lens.errors import InputError
from lens.formulas import unguarded
from lens.names import either
from lens.openable import special
from lens.utf8 import AS_TABLE, read_utf8

SPLITS = ("train", "val", "test")

IDS = ("patient_id", "study_id")


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a manifest: cells without blanks around them, ids in Unicode's NFC.

    Columns and lines without any text are left out.

    Args:
        path: a comma-separated file in UTF-8, with a header.

    Returns:
        The names of the columns, and column -> cell of each row.

    Raises:
        InputError: no such file, no such text, a row of another length than the header, a column
            named twice, no ``patient_id``, a study listed twice, or splits that are unknown, are
            not given for every row, or differ between the studies of a patient.
    """
    header, rows = _cells(path)
    _check_columns(path, header)
    _check_ids(path, rows)
    _check_splits(path, rows)
    return header, rows


def _cells(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    if path.exists() and (kind := special(path) or ("a folder" if path.is_dir() else None)):
        raise InputError(f"{path}: {kind}, no file. Give the path of a cohort manifest (.csv)")
    if not path.is_file():
        raise InputError(f"{path}: no such file. Give the path of a cohort manifest (.csv)")
    try:
        stream = io.StringIO(read_utf8(path), newline="")
        lines = [[_cell(text) for text in line] for line in csv.reader(stream)]
    except csv.Error as error:
        raise InputError(
            f"{path}: not readable as comma-separated text ({error}). {AS_TABLE}"
        ) from error
    if not lines or not any(lines[0]):
        raise InputError(f"{path}: empty, where a header with patient_id was expected")
    width = max(len(line) for line in lines)
    blank = [not any("".join(line[at : at + 1]) for line in lines) for at in range(width)]
    lines = [[cell for cell, none in zip(line, blank, strict=False) if not none] for line in lines]
    header = lines[0]
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(line):
            continue
        if len(line) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(line)} cells where the header has {len(header)}. "
                "Quote cells that contain a comma"
            )
        row = dict(zip(header, line, strict=True))
        rows.append(row | {name: _id(row[name]) for name in IDS if name in row})
    if not rows:
        raise InputError(f"{path}: a header but no rows")
    return header, rows


def _cell(text: str) -> str:
    return unguarded(text.strip()).strip()


def _id(text: str) -> str:
    """As `lens.study.cells.as_text` has it in tables."""
    return unicodedata.normalize("NFC", text)


def _check_columns(path: Path, header: Sequence[str]) -> None:
    found = ", ".join(header)
    if len(header) == 1 and re.search("[;\t]", header[0]):
        raise InputError(
            f"{path}: the header is one cell, {header[0]!r}. Separate columns by commas, as "
            "'CSV UTF-8 (comma delimited)' does"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column(s) named twice: {', '.join(twice)}. Keep one of each")
    if "patient_id" not in header:
        raise InputError(f"{path}: no column patient_id (found: {found}). Add or rename it")


def _check_ids(path: Path, rows: Sequence[dict[str, str]]) -> None:
    seen: set[tuple[str, str]] = set()
    for row in rows:
        patient, study = row["patient_id"], row.get("study_id", "")
        if not patient:
            raise InputError(f"{path}: a row has no patient_id ({', '.join(row.values())})")
        if (patient, study) in seen:
            what = f"patient {patient}" + (f", study {study}" if study else "")
            raise InputError(
                f"{path}: {what} is listed twice. Remove a row, or tell several studies of a "
                "patient apart in a column study_id"
            )
        seen.add((patient, study))


def _check_splits(path: Path, rows: Sequence[dict[str, str]]) -> None:
    if not any(row.get("split") for row in rows):
        return
    of_patient: dict[str, str] = {}
    for row in rows:
        patient, split = row["patient_id"], row["split"]
        if split not in SPLITS:
            found = f"split {split!r}" if split else "no split"
            raise InputError(
                f"{path}: patient {patient} has {found}. Use {either(SPLITS)} for every row, or "
                "leave the column out and let a split be drawn"
            )
        if of_patient.setdefault(patient, split) != split:
            raise InputError(
                f"{path}: patient {patient} is in both {of_patient[patient]} and {split}. All "
                "studies of a patient belong in one split"
            )
