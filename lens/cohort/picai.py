"""The PI-CAI archive and its public labels, as downloaded.

Images: ``<patient>/<patient>_<study>_{t2w,adc,hbv}.mha``, in one folder or in the folders of the
five folds as published. Labels: a clone of the labels repository, or its masks in the folders
``gland``, ``zones`` and ``lesion`` beside ``marksheet.csv``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lens.cohort.prepared import SUFFIXES, Note, Prepared, one_of, plain_id, walk
from lens.errors import CaseError, InputError

IMAGES = {"t2": "t2w", "dwi": "hbv", "adc": "adc"}
"""Modality -> what follows the study in the name of an image; these the archive has."""

GLAND = (
    "anatomical_delineations/whole_gland/AI/Bosma22b",
    "anatomical_delineations/whole_gland/AI/Guerbet23",
    "anatomical_delineations/whole_gland/AI",
    "gland",
)
"""Folders of whole-gland masks: the first that exists serves every study."""

ZONES = (
    "anatomical_delineations/zonal_pz_tz/AI/Yuan23",
    "anatomical_delineations/zonal_pz_tz/AI/BDay23",
    "anatomical_delineations/zonal_pz_tz/AI/HeviAI23",
    "zones",
)
"""Folders of zone masks (1 peripheral, 2 transition): the first that exists serves every study."""

LESION = (
    "csPCa_lesion_delineations/human_expert/resampled",
    "csPCa_lesion_delineations/human_expert/Pooch25",
    "csPCa_lesion_delineations/AI/Bosma22a",
    "lesion",
)
"""Folders of masks of significant cancer: each study takes the first that has its file."""

MARKSHEET = ("clinical_information/marksheet.csv", "marksheet.csv")

_NUMBERS = {
    "psa": "psa",
    "psad": "psad",
    "prostate_volume": "volume_ml",
    "patient_age": "age",
    "case_ISUP": "isup",
}
_TEXTS = {
    "case_csPCa": "cspca",
    "center": "site",
    "histopath_type": "histology",
    "mri_date": "mri_date",
}

Study = tuple[str, str]


class Marksheet(NamedTuple):
    """The clinical table: labels and errors per (patient, study), and notes."""

    labels: dict[Study, dict[str, str]]
    set_aside: dict[Study, CaseError]
    notes: tuple[Note, ...]


class Masks(NamedTuple):
    """Mask files by (patient, study); those of lesions by folder, too, in the order of choice."""

    gland_folder: Path
    gland: dict[Study, list[Path]]
    zones: dict[Study, list[Path]]
    lesion: dict[str, dict[Study, list[Path]]]


def prepare_picai(
    images: Path | None, labels: Path, *, modalities: Sequence[str] = tuple(IMAGES)
) -> Prepared:
    """Finds the studies of PI-CAI; no image is opened.

    Args:
        images: the archive as downloaded, whole or in part; None for masks and labels alone, as
            the phantoms on real anatomy take them.
        labels: the labels repository, or its masks and marksheet in flat folders.
        modalities: what a study must have to be used.

    Returns:
        Studies with ``t2, dwi, adc`` (T2-weighted, high b-value, ADC), ``gland``, ``zones``,
        ``lesion`` (significant cancer: ISUP 2 and above; an empty mask where there is none) and
        ``lesion_source`` (the folder it comes from); ``pirads`` (the highest of its lesions, the
        cell itself in ``pirads_lesions``; 1 to 5, blank where no lesion has a number), ``isup``
        (0 to 5, of the case), ``cspca`` (YES or NO), ``psa`` (ng/ml), ``psad`` (ng/ml2),
        ``volume_ml``, ``age`` (years), ``site``, ``histology`` and ``mri_date``.

    Raises:
        InputError: a folder or the marksheet is missing, or nothing fits the expected names.
    """
    if not labels.is_dir():
        raise InputError(f"{labels}: no such folder. Give the folder of the PI-CAI labels")
    sheet = read_marksheet(_first(labels, MARKSHEET, "marksheet"))
    gland = _first(labels, GLAND, "whole-gland masks")
    masks = Masks(
        gland_folder=gland,
        gland=_masks(gland),
        zones=next((_masks(labels / f) for f in ZONES if (labels / f).is_dir()), {}),
        lesion={f: _masks(labels / f) for f in LESION if (labels / f).is_dir()},
    )
    found = {} if images is None else _images(images)
    rows, set_aside, notes = [], list(sheet.set_aside.values()), list(sheet.notes)
    for study in sorted({*sheet.labels, *found} - set(sheet.set_aside)):
        try:
            row = _row(study, images, found.get(study, {}), masks, modalities)
        except CaseError as error:
            set_aside.append(error)
            continue
        if study not in sheet.labels:
            notes.append(Note(*study, "labels", "no row in the marksheet", "no labels"))
        if "lesion" not in row:
            notes.append(Note(*study, "lesion", "no lesion mask in any folder", "left blank"))
        rows.append(row | sheet.labels.get(study, {}))
    return Prepared(tuple(rows), tuple(set_aside), tuple(notes))


def read_marksheet(path: Path) -> Marksheet:
    """Reads the clinical table row by row.

    A cell that cannot be understood becomes blank, with a note; the study goes on. Only a row
    without an id, or two rows that say different things about one study, are set aside.

    Raises:
        InputError: unreadable, or without the columns ``patient_id`` and ``study_id``.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = [(reader.line_num, row) for row in reader]
            header = list(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as UTF-8 comma-separated text ({error})") from error
    if not {"patient_id", "study_id"} <= set(header):
        raise InputError(
            f"{path}: patient_id and study_id are needed (found: {', '.join(header)}). Give the "
            "marksheet as published"
        )
    labels: dict[Study, dict[str, str]] = {}
    raw: dict[Study, tuple[int, dict[str, str]]] = {}
    set_aside: dict[Study, CaseError] = {}
    notes: list[Note] = []
    for line, cells in rows:
        # A short line leaves None, a long one a list under None.
        row = {k: (v or "").strip() for k, v in cells.items() if k and not isinstance(v, list)}
        if not any(row.values()):
            continue
        study = (_id(row["patient_id"]), _id(row["study_id"]))
        if not all(study):
            set_aside["", str(line)] = _fault(study, path, f"line {line} has no id", "Complete it.")
        elif study in raw and raw[study][1] != row:
            set_aside[study] = _fault(
                study,
                path,
                f"lines {raw[study][0]} and {line} say different things about study {study[1]}",
                "Keep the line that is right.",
            )
        elif study in raw:
            notes.append(Note(*study, "labels", f"listed twice, line {line}", "taken once"))
        else:
            raw[study] = (line, row)
            labels[study] = _labels(study, row, notes)
    kept = {study: label for study, label in labels.items() if study not in set_aside}
    return Marksheet(kept, set_aside, tuple(notes))


def _labels(study: Study, row: dict[str, str], notes: list[Note]) -> dict[str, str]:
    labels: dict[str, str] = {}
    highest, odd = _highest_pirads(row.get("lesion_PIRADS", ""))
    if odd:
        cell, what = row["lesion_PIRADS"], f"{', '.join(odd)} is no PIRADS category"
        notes.append(Note(*study, "pirads", f"{cell!r}: {what}", f"taken as {highest or 'blank'}"))
    labels["pirads"], labels["pirads_lesions"] = highest, row.get("lesion_PIRADS", "")
    for source, name in _NUMBERS.items():
        cell = row.get(source, "")
        if cell and not _is_number(cell):
            notes.append(Note(*study, name, f"{cell!r} is not a number", "left blank"))
            cell = ""
        labels[name] = cell
    labels |= {name: row.get(source, "") for source, name in _TEXTS.items()}
    return {name: cell for name, cell in labels.items() if cell}


def _highest_pirads(cell: str) -> tuple[str, list[str]]:
    """The highest category in a cell such as ``2,4,N/A``, and the entries that are none."""
    entries = [entry.strip() for entry in cell.split(",")]
    grades = [entry for entry in entries if re.fullmatch("[1-5]", entry)]
    odd = [e for e in entries if e and e not in grades and e.upper() not in ("N/A", "NA")]
    return max(grades, default=""), odd


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\d+(\.\d*)?|\.\d+", cell) is not None


def _id(text: str) -> str:
    """An id, without the ``.0`` that a spreadsheet may have put behind it."""
    return re.sub(r"^(\d+)\.0$", r"\1", plain_id(text))


def _first(labels: Path, places: Sequence[str], what: str) -> Path:
    for place in places:
        if (labels / place).exists():
            return labels / place
    raise InputError(
        f"{labels}: no {what} (looked for {', '.join(places)}). Give the folder of the PI-CAI "
        "labels repository"
    )


def _masks(folder: Path) -> dict[Study, list[Path]]:
    """The masks directly in a folder by (patient, study)."""
    found: dict[Study, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        match = re.fullmatch(rf"([^_.]+)_([^_.]+)({_suffixes()})", file.name)
        if match:
            found.setdefault((match[1], match[2]), []).append(file)
    return found


def _images(folder: Path) -> dict[Study, dict[str, list[Path]]]:
    """The images anywhere below a folder by (patient, study) and modality."""
    endings = {ending: name for name, ending in IMAGES.items()}
    pattern = re.compile(rf"([^_.]+)_([^_.]+)_({'|'.join(endings)})({_suffixes()})")
    found: dict[Study, dict[str, list[Path]]] = {}
    for _, files in walk(folder):
        for file in files:
            if match := pattern.fullmatch(file.name):
                of_study = found.setdefault((match[1], match[2]), {})
                of_study.setdefault(endings[match[3]], []).append(file)
    if not found:
        raise InputError(
            f"{folder}: no image is named <patient>_<study>_t2w.mha, _hbv.mha or _adc.mha. Give "
            "the folder into which the PI-CAI archive was unpacked"
        )
    return found


def _suffixes() -> str:
    return "|".join(re.escape(suffix) for suffix in SUFFIXES)


def _row(
    study: Study,
    images: Path | None,
    found: dict[str, list[Path]],
    masks: Masks,
    modalities: Sequence[str],
) -> dict[str, str | Path]:
    """The ids and files of a study."""
    patient = study[0]
    row: dict[str, str | Path] = {"patient_id": patient, "study_id": study[1]}
    if images is not None and not found:
        raise _fault(
            study,
            images,
            f"no image of study {study[1]} is in this folder",
            "Download the fold that holds it, or go on without it.",
        )
    for name in modalities if images is not None else ():
        file = one_of(found.get(name, []), patient, name)
        if file is None:
            there = next(iter(found.values()))[0].parent
            raise _fault(
                study,
                there,
                f"no {name} image of study {study[1]} ({study[0]}_{study[1]}_{IMAGES[name]}.mha)",
                "Download it again, or do not ask for this modality.",
            )
        row[name] = file
    gland = one_of(masks.gland.get(study, []), patient, "gland")
    if gland is None:
        raise _fault(
            study,
            masks.gland_folder,
            f"no gland mask of study {study[1]}",
            "Update the labels repository.",
        )
    row["gland"] = gland
    zones = one_of(masks.zones.get(study, []), patient, "zones")
    if zones is not None:
        row["zones"] = zones
    for folder, files in masks.lesion.items():
        lesion = one_of(files.get(study, []), patient, "lesion")
        if lesion is not None:
            row |= {"lesion": lesion, "lesion_source": folder.split("/", 1)[-1]}
            break
    return row


def _fault(study: Study, file: Path | str, reason: str, remedy: str) -> CaseError:
    return CaseError(study[0] or "?", file, stage="read", reason=reason, remedy=remedy)
