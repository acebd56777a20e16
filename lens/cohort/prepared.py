"""A cohort as found in an archive, before it is written as a manifest."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lens.cohort.prostate import MODALITIES, REGIONS, ZONES
from lens.errors import CaseError, InputError
from lens.files import read_table, write_table
from lens.study.id_causes import RULES, probable_cause

FILE_COLUMNS = (*MODALITIES, "gland", "zones", "lesion")
"""Columns of the manifest that name a file or the folder of a DICOM series."""

OWN_COLUMNS = ("patient_id", "study_id", "split")
"""Columns that are what their names say in every manifest."""

SUFFIXES = (".mha", ".mhd", ".nii.gz", ".nii", ".nrrd")
"""Of image files, as they follow the name in an archive."""


class Note(NamedTuple):
    """A cell that was not taken as it stood, or a choice made between files.

    Attributes:
        patient_id, study_id: whose cell; the latter may be empty, both where it is no patient's.
        column: of the manifest.
        found: what there was.
        taken: what the manifest has.
    """

    patient_id: str
    study_id: str
    column: str
    found: str
    taken: str

    def __str__(self) -> str:
        study = f", study {self.study_id}" if self.study_id else ""
        patient = f"patient {self.patient_id}{study}, " if self.patient_id else ""
        return f"{patient}{self.column}: {self.found}; {self.taken}"


@dataclass(frozen=True)
class Prepared:
    """What an archive holds.

    Attributes:
        rows: one per usable study: ``patient_id``, ``study_id``, a ``Path`` per file column that
            there is, and labels as text (blank cells left out).
        set_aside: one error per study that cannot be used.
        notes: what was not taken as it stood.
        flags: what the jobs that read the manifest must be told, such as ``--label tumour=2``.
    """

    rows: tuple[dict[str, str | Path], ...]
    set_aside: tuple[CaseError, ...]
    notes: tuple[Note, ...]
    flags: tuple[str, ...] = ()


def manifest_table(prepared: Prepared, path: Path) -> pd.DataFrame:
    """The rows as a table for `path`, with file paths relative to its folder where possible.

    File columns come first, then labels in the order in which they were found. A column that no
    row fills is left out.

    Raises:
        InputError: no row is left; names the first reason.
    """
    if not prepared.rows:
        first = f"; the first: {prepared.set_aside[0]}" if prepared.set_aside else ""
        raise InputError(f"{path} is not written, since no study can be used{first}")
    named = list(dict.fromkeys(name for row in prepared.rows for name in row))
    first = [name for name in ("patient_id", "study_id", *FILE_COLUMNS) if name in named]
    columns = [*first, *(name for name in named if name not in first)]
    cells = [
        {name: _cell(row[name], path.parent) if name in row else "" for name in columns}
        for row in prepared.rows
    ]
    return pd.DataFrame(cells, columns=columns, dtype=str)


def write_manifest(prepared: Prepared, path: Path) -> None:
    """Writes the rows as a manifest (``cohort.csv``), and the notes beside it where there are any.

    The notes go to ``<name>-notes.csv``; without notes a stale one is removed.

    Raises:
        InputError: no row is left, or `path` is no ``.csv``.
    """
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: a manifest is written as .csv")
    # Whether a relative path leads to its file can only be seen from a folder that exists.
    path.parent.mkdir(parents=True, exist_ok=True)
    table = manifest_table(prepared, path)
    notes = notes_path(path)
    if prepared.notes:
        write_table(pd.DataFrame(prepared.notes), notes)
    else:
        notes.unlink(missing_ok=True)
    write_table(table, path)


def notes_path(path: Path) -> Path:
    """Where the notes about the manifest at `path` are written."""
    return path.with_name(f"{path.stem}-notes.csv")


def join_labels(prepared: Prepared, path: Path) -> Prepared:
    """Adds the columns of a table of labels to the rows.

    Args:
        prepared: from an archive.
        path: ``.csv``, ``.tsv`` or ``.parquet`` with ``patient_id``, optionally ``study_id``, and
            labels. A row without a study is taken for every study of the patient.

    Returns:
        The cohort with the labels; a row that the table does not know keeps none, with a note.

    Raises:
        InputError: unreadable, no ``patient_id``, a study listed twice, a column that names files,
            or no patient in common.
    """
    table = read_table(path)
    if "patient_id" not in table:
        found = ", ".join(map(str, table.columns))
        raise InputError(f"{path}: no column patient_id (found: {found}). Add or rename it")
    files = {name for row in prepared.rows for name in row if isinstance(row[name], Path)}
    clash = [name for name in (*FILE_COLUMNS, *sorted(files)) if name in table]
    clash = list(dict.fromkeys(clash))
    if clash:
        raise InputError(f"{path}: column(s) {', '.join(clash)} name files. Leave them out")
    known = _label_rows(table.astype(object).where(table.notna(), "").astype(str), path)
    rows, notes = [], list(prepared.notes)
    for row in prepared.rows:
        patient, study = str(row["patient_id"]), str(row.get("study_id", ""))
        labels = known.get((patient, study), known.get((patient, "")))
        if labels is None:
            notes.append(Note(patient, study, "labels", f"no row in {path}", "no labels"))
        rows.append(row | (labels or {}))
    if len(notes) - len(prepared.notes) == len(rows):
        pairs = [(str(row["patient_id"]), str(row.get("study_id", ""))) for row in rows]
        own, theirs = (
            ["/".join(filter(None, pair)) for pair in each] for each in (sorted(known), pairs)
        )
        cause = probable_cause(own, theirs, ("it", "the archive"))
        raise InputError(
            f"{path}: no patient in common with the images: {cause}. Give the ids as the files "
            "have them"
        )
    return replace(prepared, rows=tuple(rows), notes=tuple(notes))


def check_columns(
    where: Path,
    images: Iterable[str],
    masks: Iterable[str],
    regions: Iterable[str] = (),
    *,
    remedy: str,
) -> None:
    """Refuses names of images and masks with which a manifest would not say what it should.

    Args:
        where: the names come from.
        images, masks: columns.
        regions: those that values of a mask make.
        remedy: how other names are given, a sentence without its full stop.

    Raises:
        InputError: a name is one of `OWN_COLUMNS`, is that of two things, or is one by which masks
            (images) of prostate MRI are known and is given to an image (a mask).
    """
    images, masks = list(images), list(masks)
    used = Counter([*images, *masks, *(set(regions) - set(masks))])
    own = [name for name in used if name in OWN_COLUMNS]
    twice = [name for name, times in used.items() if times > 1]
    as_mask = [name for name in images if name in (*REGIONS, ZONES)]
    as_image = [name for name in masks if name in MODALITIES]
    if own:
        problem = f"an image or region is called {own[0]}, as a column of every manifest"
    elif twice:
        problem = f"two images or regions are called {twice[0]}, and one would replace the other"
    elif as_mask:
        problem = f"an image is called {as_mask[0]}, by which jobs know a mask"
    elif as_image:
        problem = f"a mask is called {as_image[0]}, by which jobs know an image"
    else:
        return
    raise InputError(f"{where}: {problem}. {remedy}")


def written_otherwise(name: str, others: Iterable[str]) -> str | None:
    """The id that is `name` but for how it is written, with the difference; None without one.

    ``Case_005 (upper and lower case)``, for `name` ``case_005``.

    Args:
        name: an id without a partner.
        others: ids among which it should have been.
    """
    others = sorted(set(others) - {name})
    for cause, rule in RULES.items():
        alike = [other for other in others if rule(other) == rule(name)]
        if len(alike) == 1:
            return f"{alike[0]} ({cause})"
    return None


def walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder below `root` with its files, in order of names; links to folders are followed.

    Hidden files and folders are passed over, and each real folder is visited once, so that a link
    to a folder above ends.

    Raises:
        InputError: `root` is not a folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    seen: set[Path] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        real = Path(folder).resolve()
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        yield Path(folder), [Path(folder, n) for n in sorted(files) if not n.startswith(".")]


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, in order of names, without hidden files (``._`` of macOS)."""
    return sorted(file for file in folder.iterdir() if not file.name.startswith("."))


def plain_id(text: str) -> str:
    """An id as it is compared: without blanks around it, and é as one character, not two."""
    return unicodedata.normalize("NFC", text.strip())


def one_of(
    candidates: Sequence[Path], patient_id: str, what: str, *, remedy: str = ""
) -> Path | None:
    """The only candidate that holds something, or None where there is no candidate.

    Raises:
        CaseError: several candidates (named), or the only one is an empty file or a broken link.
    """
    if len(candidates) > 1:
        names = " and ".join(map(str, candidates))
        raise CaseError(
            patient_id,
            candidates[0],
            stage="read",
            reason=f"{len(candidates)} files could be the {what}: {names}",
            remedy=remedy or "Remove or rename all but one.",
        )
    if not candidates:
        return None
    file = candidates[0]
    if not file.exists():
        raise CaseError(
            patient_id,
            file,
            stage="read",
            reason=f"the {what} file is a link to {file.readlink()}, which does not exist",
            remedy="Fetch the file that the link stands for.",
        )
    if file.is_file() and file.stat().st_size == 0:
        raise CaseError(
            patient_id,
            file,
            stage="read",
            reason=f"the {what} file is empty (0 bytes)",
            remedy="Download or copy it again.",
        )
    return file


def _label_rows(table: pd.DataFrame, path: Path) -> dict[tuple[str, str], dict[str, str]]:
    labels = [name for name in table.columns if name not in ("patient_id", "study_id")]
    known: dict[tuple[str, str], dict[str, str]] = {}
    for row in table.to_dict("records"):
        study = plain_id(row.get("study_id", ""))
        key = (plain_id(row["patient_id"]), study)
        if key in known:
            raise InputError(
                f"{path}: patient {key[0]}{', study ' + key[1] if key[1] else ''} is listed "
                "twice. Remove a row"
            )
        known[key] = {str(name): row[name].strip() for name in labels if row[name].strip()}
    return known


def _cell(value: str | Path, folder: Path) -> str:
    return _relative(value, folder) if isinstance(value, Path) else value


def _relative(file: Path, folder: Path) -> str:
    """The path from `folder`, or the absolute one where that would climb to the root."""
    # Links are not resolved: an archive mounted by a link stays where the user sees it.
    file, folder = (Path(os.path.abspath(p)) for p in (file, folder))  # noqa: PTH100
    try:
        shared = Path(os.path.commonpath([file, folder]))
    except ValueError:  # another drive
        return str(file)
    if shared == Path(shared.anchor):
        return str(file)
    relative = os.path.relpath(file, folder)
    # ".." after a link leads elsewhere than its text says.
    found = folder / relative
    return relative if found.exists() and found.samefile(file) else str(file)
