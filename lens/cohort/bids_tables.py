"""Tables of a BIDS dataset: participants, sessions, and the names of mask values."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lens.cohort.dataset_json import column_name
from lens.cohort.prepared import plain_id
from lens.errors import InputError
from lens.missing import is_missing
from lens.utf8 import AS_TEXT, read_utf8

Study = tuple[str, str]
"""Subject and session without their prefixes; the session is empty where there is none."""

LABELS = "dseg"
"""Suffix of masks whose values are regions, named in a table beside them."""


def read_tables(root: Path) -> dict[Study, dict[str, str]]:
    """Labels of ``participants.tsv`` and of the subjects' ``sessions.tsv``, without ``n/a``.

    Args:
        root: of the dataset.

    Returns:
        Study -> column -> cell; what holds for all sessions of a subject under an empty session.

    Raises:
        InputError: unreadable, without its column of ids, or an id listed twice.
    """
    labels: dict[Study, dict[str, str]] = {}
    participants = root / "participants.tsv"
    if participants.is_file():
        for subject, row in _by_id(participants, "participant_id", "sub-"):
            labels[subject, ""] = row
    for path in sorted(root.glob("sub-*/sub-*_sessions.tsv")):
        subject = plain_id(path.parent.name.removeprefix("sub-"))
        for session, row in _by_id(path, "session_id", "ses-"):
            labels[subject, session] = row
    return labels


def table_of(root: Path, file: Path, entities: Mapping[str, str]) -> Path | None:
    """The nearest ``_dseg.tsv`` with no entity that the file lacks, from its folder upwards."""
    for folder in file.parents:
        fitting = []
        for table in sorted(folder.glob(f"*{LABELS}.tsv")):
            pairs = table.name.removesuffix(f"{LABELS}.tsv").rstrip("_").split("_")
            own = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
            if own.items() <= entities.items():
                fitting.append((len(own), table))
        if fitting:
            return max(fitting)[1]
        if folder == root:
            break
    return None


def read_values(path: Path) -> dict[str, int]:
    """Region -> mask value, of a table with ``index`` and ``name``.

    Raises:
        InputError: unreadable, a column is missing, or an index or a name that cannot be used.
    """
    regions: dict[str, int] = {}
    for row in _read(path, ("index", "name")):
        index, roi = row["index"], column_name(row["name"])
        if not re.fullmatch(r"\d+", index):
            raise InputError(f"{path}: index {index!r}, where a whole number is needed")
        if int(index) == 0:
            continue
        if roi in regions or not roi or int(index) in regions.values():
            raise InputError(
                f"{path}: index {index}, name {row['name']!r}: give each index a name of its own"
            )
        regions[roi] = int(index)
    return regions


def _by_id(path: Path, column: str, prefix: str) -> list[tuple[str, dict[str, str]]]:
    rows = [(plain_id(row.pop(column)).removeprefix(prefix), row) for row in _read(path, (column,))]
    ids = [name for name, _ in rows]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise InputError(f"{path}: {', '.join(twice)} listed twice. Remove a row")
    return [
        (name, {key: cell for key, cell in row.items() if not is_missing(cell)})
        for name, row in rows
    ]


def _read(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a tab-separated table; cells stay as they are written."""
    try:
        stream = io.StringIO(read_utf8(path, AS_TEXT), newline="")
        lines = [
            [cell.strip() for cell in line]
            for line in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            if any(cell.strip() for cell in line)
        ]
    except csv.Error as error:
        raise InputError(
            f"{path}: not readable as tab-separated text ({error}). {AS_TEXT}"
        ) from error
    header = lines[0] if lines else []
    if missing := [name for name in needed if name not in header]:
        raise InputError(
            f"{path}: no column {' and no '.join(missing)} (found: {', '.join(header)}), with tabs "
            "between columns. Add or rename it"
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(f"{path}: column(s) named twice: {', '.join(twice)}. Keep one of each")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise InputError(
                f"{path}, row {number}: {len(line)} cells where the header has {len(header)}. "
                "Put one tab between cells, and n/a where there is no value"
            )
    return [dict(zip(header, line, strict=True)) for line in lines[1:]]
