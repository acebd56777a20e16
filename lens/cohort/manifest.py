"""The cohort manifest: one row per study, paths to its images and masks, and its labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lens.cohort.columns import UNDECLARED, Columns, Declared, decide
from lens.cohort.intensities import Kind
from lens.cohort.manifest_rows import IDS, read_rows
from lens.cohort.prostate import MODALITIES, REGIONS, REQUIRED, ZONES
from lens.cohort.prostate import channels as default_channels
from lens.errors import CaseError, InputError
from lens.missing import is_missing
from lens.openable import folder_fault, plain_files, special
from lens.settings import NiftiForm

log = logging.getLogger(__name__)

NAMED = 5
"""Most patients, or groups of them, that a warning names."""

PIXEL = "spacing_mm"
"""Column with the edge of a pixel in mm, for pictures, whose files do not say."""

_RESERVED = (*IDS, "split", ZONES)


@dataclass(frozen=True)
class CaseFiles:
    """Where one study of a patient lies on disk, and what is known about it.

    Attributes:
        patient_id: as in the manifest, always text.
        study_id: as in the manifest; None without the column or with a blank cell.
        images: modality -> file, or the folder of a DICOM series; in the order of the cohort's.
        masks: region -> file, of the regions that there are.
        labels: every other column; numbers where the whole column is numeric; cells without a
            value, such as a blank or ``n/a``, left out.
        split: ``train``, ``val`` or ``test``; None where the manifest does not say.
        zones: file with the zones of the gland; None without the column or with a blank cell.
        nifti_form: which placement of NIfTI headers to use; None refuses files in which the two
            disagree.
        kinds: modality -> what its numbers mean, where its name does not say.
        flat: the images are of a single slice.
        pixel_mm: edge of a pixel of pictures, whose files do not say.
        extracted: regions of which features are wanted; None for all that there are. The others
            still belong to the case: intensities are standardised about all of them.
    """

    patient_id: str
    study_id: str | None
    images: dict[str, Path]
    masks: dict[str, Path]
    labels: dict[str, str | float]
    split: str | None
    zones: Path | None = None
    nifti_form: NiftiForm | None = None
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    flat: bool = False
    pixel_mm: float | None = None
    extracted: tuple[str, ...] | None = None

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions of which features are wanted."""
        wanted = self.extracted
        return tuple(roi for roi in self.masks if wanted is None or roi in wanted)


@dataclass(frozen=True)
class Cohort:
    """A manifest as read: the cases that can be opened and those that cannot, each with its reason.

    Attributes:
        path: the manifest.
        cases: one per usable row, in the manifest's order.
        set_aside: one error per row that lacks a file or a cell.
        columns: which columns hold images and masks; those of the cases where it is not given.
    """

    path: Path
    cases: tuple[CaseFiles, ...]
    set_aside: tuple[CaseError, ...]
    columns: Columns | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the images, in the order in which a case holds them."""
        if self.columns is not None:
            return self.columns.modalities
        return tuple(dict.fromkeys(name for files in self.cases for name in files.images))

    @property
    def rois(self) -> tuple[str, ...]:
        """Names of the regions, in order."""
        if self.columns is not None:
            return self.columns.rois
        return tuple(dict.fromkeys(name for files in self.cases for name in files.masks))

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """Modality -> what its numbers mean."""
        return self.columns.kinds if self.columns is not None else {}

    @property
    def flat(self) -> bool:
        """Whether the images are of a single slice."""
        return self.columns is not None and self.columns.flat

    def record(self) -> dict[str, Any]:
        """What was taken for what, for the record of a run."""
        return self.columns.record() if self.columns is not None else {}

    @property
    def channels(self) -> tuple[str, ...]:
        """What an encoder is shown where nothing else is asked for."""
        return default_channels(self.modalities)


def read_manifest(
    path: Path,
    *,
    images: bool = True,
    nifti_form: NiftiForm | None = None,
    declared: Declared = UNDECLARED,
) -> Cohort:
    """Reads ``cohort.csv``; images are looked for, and a few opened where their column is unknown.

    Columns: ``patient_id``; a column per modality, with images; a column per region, with masks;
    optionally ``study_id``, ``split`` and any labels. Which columns hold images and which masks is
    declared, known by name (``t2``, ``dwi``, ``adc``; ``gland``, ``lesion``, ``zones``) or
    recognised (`lens.cohort.columns.decide`). Paths are absolute or relative to the manifest's
    folder. A blank cell of a mask column means that the case lacks the region; a gland is needed
    where there is a gland column.

    Args:
        path: a comma-separated file in UTF-8, with a header.
        images: False reads masks and labels alone, as phantoms on real anatomy need them: image
            columns are passed over and need not be there.
        nifti_form: ``qform`` or ``sform``, where the headers of this cohort disagree; the cases
            carry it to whatever reads them.
        declared: what is said of the columns.

    Returns:
        The cohort, with every row either in ``cases`` or in ``set_aside``.

    Raises:
        InputError: the manifest itself is at fault (columns, ids, splits; a column of a name that
            is nearly one of these, or of which it is not clear what it holds), or no case is left.
    """
    path = Path(path)
    header, rows = read_rows(path)
    columns = decide(path, rows, declared, images=images)
    known = (() if declared.modalities else MODALITIES, () if declared.rois else REGIONS)
    others = {*_RESERVED, *columns.modalities, *columns.files.values(), *known[0], *known[1]}
    labels = [name for name in header if name not in others]
    numeric = _numeric_columns(labels, rows)
    cases: list[CaseFiles] = []
    set_aside: list[CaseError] = []
    for row in rows:
        try:
            cases.append(_case(path, row, columns, labels, numeric, nifti_form))
        except CaseError as error:
            set_aside.append(error)
    if not cases:
        raise InputError(
            f"{path}: none of its {len(rows)} case(s) can be used; the first: {set_aside[0]}"
        )
    if images:
        _warn_of_the_same_images(path, cases)
    return Cohort(path, tuple(cases), tuple(set_aside), columns)


def _numeric_columns(labels: Sequence[str], rows: Sequence[dict[str, str]]) -> set[str]:
    def is_number(text: str) -> bool:
        try:
            float(text)
        except ValueError:
            return False
        return "_" not in text  # 3_4 is a Gleason score; Python reads 34

    given = {name: [row[name] for row in rows if not is_missing(row[name])] for name in labels}
    return {name for name, cells in given.items() if all(map(is_number, cells))}


def _case(
    path: Path,
    row: dict[str, str],
    columns: Columns,
    labels: Sequence[str],
    numeric: set[str],
    nifti_form: NiftiForm | None,
) -> CaseFiles:
    patient = row["patient_id"]
    file_columns = dict.fromkeys((*columns.modalities, *columns.files.values(), ZONES))
    named = {name: _file_cell(path, row[name]) for name in file_columns if name in row}
    needed = (*columns.modalities, *(roi for roi in columns.rois if roi in REQUIRED))
    blank = [name for name in needed if not named[name]]
    if blank:
        raise CaseError(
            patient,
            path,
            stage="read",
            reason=f"no {' and no '.join(blank)} is given",
            remedy="Fill the cell, or leave out the whole column or this patient.",
        )
    # Joining an absolute path to a folder gives the absolute path.
    paths = {name: path.parent / cell for name, cell in named.items() if cell}
    missing = [name for name, file in paths.items() if not file.exists()]
    if missing:
        raise _missing(path, patient, missing, paths)
    for name, file in paths.items():
        if fault := _not_openable(path, file):
            raise CaseError(
                patient,
                file,
                stage="read",
                reason=f"the {name} cell names {fault}",
                remedy=f"Name an image file in {path}, or the folder of one DICOM series.",
            )
    return CaseFiles(
        patient_id=patient,
        study_id=row.get("study_id") or None,
        images={name: paths[name] for name in columns.modalities},
        masks={roi: paths[name] for roi, name in columns.files.items() if name in paths},
        labels={
            name: float(row[name]) if name in numeric else row[name]
            for name in labels
            if not is_missing(row[name])
        },
        split=row.get("split") or None,
        zones=paths.get(ZONES),
        nifti_form=nifti_form,
        kinds=columns.kinds,
        flat=columns.flat,
        pixel_mm=_pixel_mm(path, row, columns),
    )


def _file_cell(manifest: Path, cell: str) -> str:
    """A cell that names a file; blank where it says that there is none, as ``n/a`` does."""
    return "" if is_missing(cell) and not (manifest.parent / cell).exists() else cell


def _warn_of_the_same_images(path: Path, cases: Sequence[CaseFiles]) -> None:
    """Names patients whose images are the very same files: a row copied and not filled in."""
    patients: dict[tuple[tuple[str, Path], ...], list[str]] = {}
    for case in cases:
        files = tuple((name, file.resolve()) for name, file in case.images.items())
        patients.setdefault(files, []).append(case.patient_id)
    shared = [list(dict.fromkeys(each)) for each in patients.values()]
    shared = [each for each in shared if len(each) > 1]
    if shared:
        log.warning(
            "%s: patients with the very same image files, which count as patients of their own: "
            "%s. Correct the paths, or leave out one of them",
            path, "; ".join(_few(*(", ".join(_few(*each)) for each in shared))),
        )  # fmt: skip


def _few(*texts: str) -> list[str]:
    """The first of them, and how many more there are."""
    more = [f"and {len(texts) - NAMED} more"] if len(texts) > NAMED else []
    return [*texts[:NAMED], *more]


def _pixel_mm(path: Path, row: Mapping[str, str], columns: Columns) -> float | None:
    """The edge of a pixel that the manifest tells."""
    cell = row.get(PIXEL, "")
    if not columns.flat or is_missing(cell):
        return None
    try:
        edge = float(cell)
    except ValueError:
        edge = float("nan")
    if not 0 < edge < float("inf"):
        raise CaseError(
            row["patient_id"],
            path,
            stage="read",
            reason=f"{PIXEL} is {cell!r}, no edge of a pixel in mm",
            remedy="Write a number above 0, or leave the cell blank.",
        )
    return edge


def _not_openable(manifest: Path, file: Path) -> str | None:
    """What a cell names that can never be an image, in words, without opening it."""
    if kind := special(file):
        return f"{kind}, which is never opened"
    if not file.is_dir():
        return None
    if manifest.resolve().is_relative_to(file.resolve()):
        return "a folder that holds the manifest itself"
    if fault := folder_fault(file):
        return f"a folder that cannot be read: {fault}"
    return None if plain_files(file) else "a folder without files"


def _missing(path: Path, patient: str, missing: Sequence[str], paths: dict[str, Path]) -> CaseError:
    first = paths[missing[0]]
    also = f" (nor {', '.join(missing[1:])})" if missing[1:] else ""
    reason = f"the {missing[0]} file does not exist{also}"
    remedy = f"Correct the path in {path}; relative paths start at {path.parent}."
    if first.is_symlink():
        reason = f"the {missing[0]} file is a link to {first.readlink()}, which does not exist"
        remedy = "Fetch the file that the link stands for, or correct the path."
    elif "\\" in first.name:
        remedy = f"Write / rather than \\ between folders in {path}."
    return CaseError(patient, first, stage="read", reason=reason, remedy=remedy)
