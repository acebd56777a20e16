"""Radiomics of patients who were scanned, or drawn, more than once."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from lens.errors import InputError
from lens.study.cells import ID_COLUMNS
from lens.study.table_files import read_table
from lens.study.tables import check_feature_names, numeric

log = logging.getLogger(__name__)


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
    check_feature_names(names, str(path))
    values = numeric(frame[["patient_id", *names]], str(path))[names]
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
