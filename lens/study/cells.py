"""What the cells of a user's table hold: ids, numbers, nothing. One place for all tables."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np
import pandas as pd

from lens.errors import InputError
from lens.missing import is_missing
from lens.names import same_word

ID_COLUMNS = ("patient_id", "study_id")

PATIENT_WORDS = ("patientid", "participantid")
"""Other spellings of ``patient_id``, without case and marks: ``PatientID``, BIDS' participant."""

DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+(e[-+]?\d+)?\s*", re.IGNORECASE)

DIAGNOSTICS = re.compile(r"([^.\s]+\.[^.\s]+\.)?(diagnostics|general_info)_.+")
"""Columns in which PyRadiomics says how a case was done; they are no features."""

MOST = 0.5
"""A column in which more of the values are numbers is a column of numbers."""

_LONGEST = 40
"""Characters of a cell that a message shows."""


def id_name(column: str, id_column: str | None = None) -> str:
    """Which of our columns of ids a user's column is; empty for any other column.

    Args:
        column: its name.
        id_column: what the user says that the column of patients is called.
    """
    if column in ID_COLUMNS:
        return column
    return "patient_id" if column == id_column or same_word(column) in PATIENT_WORDS else ""


def as_text(ids: pd.Series, name: str) -> pd.Series:
    """Ids as text without blanks around them, a whole number without its decimals.

    Text stays what it is: ``NA``, ``null``, ``1e5`` and ``007`` are ids. None, NaN and a blank
    become missing.

    Args:
        ids: a column of ids.
        name: what messages call the table.

    Raises:
        InputError: bytes that are not UTF-8.
    """
    missing = ids.isna()
    if pd.api.types.is_float_dtype(ids.dtype) and bool((ids[~missing] % 1 == 0).all()):
        ids = ids.astype("Int64")
    text = pd.Series([_decoded(each, name) for each in ids], index=ids.index, dtype=str)
    return text.where(~missing & (text != ""))


def blanked(values: pd.Series) -> pd.Series:
    """The column with None where a cell says that nothing is there, such as ``n/a``."""
    if not _holds_objects(values):
        return values
    blank = values.isna() | values.map(lambda cell: isinstance(cell, str) and is_missing(cell))
    return values.astype(object).where(~blank, None)


def as_numbers(frame: pd.DataFrame, column: str, name: str) -> pd.Series:
    """A column as float64, NaN where nothing is there; text and decimals are read as numbers.

    Args:
        frame: table with the column, and ``patient_id`` for the message where it has one.
        column: which.
        name: what messages call the table.

    Raises:
        InputError: a cell is no real number; names patient, table, column and cell.
    """
    values, what = frame[column], f"{name}: column {column!r}"
    kind = getattr(values.dtype, "kind", "O")
    if kind in "iuf":
        return values.astype(np.float64)
    if kind == "c":
        raise InputError(
            f"{what} is not numeric but complex{_at(frame, values.notna(), column)}; give real "
            "numbers, such as magnitudes, or real and imaginary part as columns of their own"
        )
    if kind in "bmM":
        kinds = {"b": "True and False", "m": "durations", "M": "dates"}
        raise InputError(
            f"{what} is not numeric but holds {kinds[kind]}{_at(frame, values.notna(), column)}; "
            "drop it, or write numbers"
        )
    cells = blanked(values)
    numbers = _numbers(cells)
    bad = numbers.isna() & cells.notna()
    if bad.any():
        raise InputError(f"{what} is not numeric{_at(frame, bad, column)}{_hint(cells[bad])}")
    return numbers


def as_label(frame: pd.DataFrame, column: str, name: str) -> pd.Series:
    """A label: float64 where every value is a number, else names, missing where nothing is there.

    Args:
        frame: table with ``patient_id`` and the column.
        column: which.
        name: what messages call the table.

    Raises:
        InputError: most values are numbers and one is not, or numbers have a decimal comma; names
            patient, table, column and cell.
    """
    values = frame[column]
    if not _holds_objects(values):
        return as_numbers(frame, column, name) if _kind(values) != "b" else values
    cells = blanked(values)
    given = cells.notna()
    numbers = _numbers(cells)
    bad = given & numbers.isna()
    if not bad.any():
        return numbers
    readable = int(given.sum() - bad.sum())
    commas = cells[bad].map(lambda cell: bool(DECIMAL_COMMA.fullmatch(str(cell)))).sum()
    if readable + commas > MOST * given.sum():
        first = frame[bad].iloc[0]
        raise InputError(
            f"{name}: {column}: {readable} of {given.sum()} values are numbers, patient "
            f"{first['patient_id']} has {_shown(first[column])}{_hint(cells[bad])}"
        )
    return cells


def _decoded(value: Any, name: str) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}: the id {value!r} is not UTF-8 ({error.reason}); save ids as text"
            ) from error
    # The same letter with its accent apart, as file lists of a Mac have it, is the same letter.
    return unicodedata.normalize("NFC", str(value)).strip()


def _kind(values: pd.Series) -> str:
    return getattr(values.dtype, "kind", "O")


def _holds_objects(values: pd.Series) -> bool:
    return _kind(values) not in "biufcmM"


def _numbers(cells: pd.Series) -> pd.Series:
    """The cells that are real numbers, NaN elsewhere."""
    # Truth values among text would pass as 1 and 0, lists and complex numbers would stop pandas.
    plain = cells.map(lambda cell: not isinstance(cell, bool | complex | np.complexfloating | list))
    plain &= cells.map(pd.api.types.is_scalar)
    numbers = pd.to_numeric(cells.where(plain, None), errors="coerce")
    return numbers.astype(np.float64)


def _at(frame: pd.DataFrame, bad: pd.Series, column: str) -> str:
    """The first bad cell in brackets, with its patient."""
    if not bad.any():
        return ""
    first = frame[bad].iloc[0]
    who = f"patient {first['patient_id']}: " if "patient_id" in frame.columns else ""
    return f" ({who}{_shown(first[column])})"


def _shown(cell: Any) -> str:
    text = repr(cell.item() if isinstance(cell, np.generic) else cell)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _hint(cells: pd.Series) -> str:
    """What to do about cells that are no numbers."""
    first = cells.iloc[0]
    if isinstance(first, str) and DECIMAL_COMMA.fullmatch(first):
        return ", a decimal comma (write a point) or one between thousands (write none)"
    if not pd.api.types.is_scalar(first):
        return "; give a column per number"
    return "; write a number, or leave the cell blank where there is none"
