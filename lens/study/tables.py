"""The tables a user brings: embeddings, radiomics and repeats, checked on the way in."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from lens.errors import InputError
from lens.files import read_table
from lens.radiomics.names import parse_columns

log = logging.getLogger(__name__)

ID_COLUMNS = ("patient_id", "study_id")


def read_embeddings(path: Path) -> pd.DataFrame:
    """Embeddings as a table: id columns, then one float column per dimension.

    Accepts ``.npz`` with ``patient_id (n,)`` and ``embeddings (n, d)`` (optionally ``study_id``),
    or a table with ``patient_id`` and numeric columns.

    Raises:
        InputError: unreadable, arrays missing or of other shapes, ids repeated, not numeric.
    """
    path = Path(path)
    frame = _read_npz(path) if path.suffix == ".npz" else read_table(path)
    _check_ids(frame, path)
    return _numeric(frame, path)


def read_radiomics(path: Path) -> pd.DataFrame:
    """A radiomics table: id columns, then ``<modality>.<roi>.<image>_<class>_<feature>`` columns.

    Raises:
        InputError: unreadable, ids repeated, a column that is not numeric or not a feature's name.
    """
    path = Path(path)
    frame = read_table(path)
    _check_ids(frame, path)
    names = [c for c in frame.columns if c not in ID_COLUMNS]
    try:
        parse_columns(names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return _numeric(frame, path)


def read_test_retest(path: Path) -> pd.DataFrame:
    """Radiomics of patients who were scanned, or drawn, more than once.

    A row per patient and scan. Column ``repeat``, or without it ``study_id``, tells the scans of a
    patient apart in any words; they are numbered per patient in their order. Where patients differ
    in their number of scans, the number that most have is used: patients with fewer are left out,
    and so are later scans, which is logged.

    Returns:
        Table for `lens.radiomics.repeatability.repeatability`: ``patient_id``, ``study_id`` where
        the file has it beside ``repeat``, ``repeat`` from 0, and one float column per feature.

    Raises:
        InputError: unreadable, no column that tells scans apart, a scan given twice, nobody with
            two scans, a column that is not numeric or not a feature's name.
    """
    path = Path(path)
    frame = read_table(path)
    scan = "repeat" if "repeat" in frame.columns else "study_id"
    for column in ("patient_id", scan):
        if column not in frame.columns or frame[column].isna().any():
            raise InputError(
                f"{path}: a row per patient and scan needs the columns patient_id and repeat (or "
                f"study_id), without blanks; found {list(frame.columns[:5])}"
            )
    subject = [c for c in ID_COLUMNS if c in frame.columns and c != scan]
    if frame.duplicated([*subject, scan]).any():
        twice = frame.loc[frame.duplicated([*subject, scan]), [*subject, scan]].iloc[0]
        raise InputError(f"{path}: listed twice: {', '.join(map(str, twice))}")
    names = [c for c in frame.columns if c not in (*subject, scan)]
    try:
        parse_columns(names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    values = _numeric(frame[["patient_id", *names]], path)[names]
    keys = frame[subject].assign(repeat=_numbered(frame, subject, scan))
    table = pd.concat([keys, values], axis=1).sort_values([*subject, "repeat"], ignore_index=True)
    return _balanced(table, subject, path)


def _numbered(frame: pd.DataFrame, subject: list[str], scan: str) -> pd.Series:
    """The place of each scan among those of its patient, from 0."""
    return frame.sort_values(scan).groupby(subject, sort=False).cumcount()


def _balanced(table: pd.DataFrame, subject: list[str], path: Path) -> pd.DataFrame:
    """The patients with at least the number of scans that most have, and so many of theirs."""
    scans = table.groupby(subject)["repeat"].transform("size")
    counts = scans[table["repeat"].eq(0) & scans.ge(2)].value_counts()
    if counts.empty:
        raise InputError(f"{path}: no patient has two or more scans, which a repeat is")
    number = int(counts[counts == counts.max()].index.min())
    fewer = int((table["repeat"].eq(0) & scans.lt(number)).sum())
    later = int((table["repeat"].ge(number)).sum())
    if fewer or later:
        log.info(
            "%s: %d scans a patient are compared; %d patient(s) with fewer and %d later scan(s) "
            "are left out",
            path,
            number,
            fewer,
            later,
        )
    kept = scans.ge(number) & table["repeat"].lt(number)
    return table[kept].reset_index(drop=True)


def _read_npz(path: Path) -> pd.DataFrame:
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
    ids, x = arrays["patient_id"], arrays["embeddings"]
    if ids.ndim != 1 or x.ndim != 2 or len(ids) != len(x):
        raise InputError(
            f"{path}: expected patient_id (n,) and embeddings (n, d), "
            f"found {ids.shape} and {x.shape}"
        )
    if not np.issubdtype(x.dtype, np.number):
        raise InputError(f"{path}: embeddings have type {x.dtype}, not numbers")
    frame = pd.DataFrame(x, columns=[f"e{i}" for i in range(x.shape[1])])
    for column in ("study_id", "patient_id"):
        if column in arrays:
            frame.insert(0, column, arrays[column].astype(str))
    return frame


def _check_ids(frame: pd.DataFrame, path: Path) -> None:
    if "patient_id" not in frame.columns:
        raise InputError(f"{path}: column patient_id is missing; found {list(frame.columns[:5])}")
    keys = [c for c in ID_COLUMNS if c in frame.columns]
    if frame[keys].isna().to_numpy().any():
        raise InputError(f"{path}: an id is empty")
    repeated = frame[frame.duplicated(keys)]
    if len(repeated):
        names = ", ".join("/".join(row) for row in repeated[keys].head(5).to_numpy())
        hint = "" if "study_id" in keys else "; several studies of a patient need column study_id"
        raise InputError(f"{path}: {len(repeated)} duplicate id(s): {names}{hint}")


def _numeric(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Checks that all but the ids are numbers and names the first cell that is not."""
    values = frame.drop(columns=[c for c in ID_COLUMNS if c in frame.columns])
    if not values.shape[1]:
        raise InputError(f"{path}: no columns beside the ids")
    repeated = values.columns[values.columns.duplicated()]
    if len(repeated):
        raise InputError(f"{path}: column {repeated[0]!r} appears twice")
    for column in values.select_dtypes(exclude="number").columns:
        as_numbers = pd.to_numeric(values[column], errors="coerce")
        bad = frame[as_numbers.isna() & values[column].notna()]
        cell = (
            f" (patient {bad['patient_id'].iloc[0]}: {bad[column].iloc[0]!r})" if len(bad) else ""
        )
        raise InputError(f"{path}: column {column!r} is not numeric{cell}")
    ids = frame[[c for c in ID_COLUMNS if c in frame.columns]]
    return pd.concat([ids, values.astype(np.float64)], axis=1)
