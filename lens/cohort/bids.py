"""A dataset in the Brain Imaging Data Structure (BIDS), with masks among its derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from lens.cohort.bids_tables import LABELS, Study, read_tables, read_values, table_of
from lens.cohort.dataset_json import column_name
from lens.cohort.prepared import (
    Note,
    Prepared,
    check_columns,
    one_of,
    plain_id,
    walk,
    written_otherwise,
)
from lens.errors import CaseError, InputError

MASKS = ("mask", "roi")
"""Suffixes of masks of one region, which the entity ``label`` or ``desc`` names."""

NATIVE = ("orig", "native", "individual", "scanner", "subject")
"""Spaces of masks on the grid of an image, in small letters; so is the suffix of that image."""

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Named:
    """An image file by its name.

    Attributes:
        path: of the file.
        place: the path below the dataset, which patterns match.
        study: subject and session without their prefixes; the latter may be empty.
        datatype: the folder it lies in, such as ``anat``.
        entities: such as ``run`` -> ``01``.
        suffix: such as ``T1w``.
    """

    path: Path
    place: str
    study: Study
    datatype: str
    entities: Mapping[str, str]
    suffix: str

    @property
    def is_mask(self) -> bool:
        """Whether the suffix is one of masks."""
        return self.suffix in (*MASKS, LABELS)

    @property
    def region(self) -> str:
        """The region that the name tells."""
        return column_name(self.entities.get("label") or self.entities.get("desc") or self.suffix)


@dataclass
class _Found:
    """Columns of images and masks: study -> candidates; notes; regions of label values."""

    images: dict[str, dict[Study, list[Path]]] = field(default_factory=dict)
    masks: dict[str, dict[Study, list[Path]]] = field(default_factory=dict)
    labelled: dict[str, list[Named]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def add(self, columns: dict[str, dict[Study, list[Path]]], name: str, file: Named) -> None:
        columns.setdefault(name, {}).setdefault(file.study, []).append(file.path)


def prepare_bids(
    root: Path, *, images: Mapping[str, str] | None = None, masks: Mapping[str, str] | None = None
) -> Prepared:
    """Finds the sessions of a BIDS dataset; no image is opened.

    Images are the files of ``sub-*/[ses-*/]anat``, a column per suffix. Masks are those of suffix
    ``mask`` or ``roi`` (a column per ``label`` or ``desc``) and ``dseg`` (regions by the values
    that its table names), anywhere below the dataset, on the grid of an image.

    Args:
        root: folder with ``sub-*``.
        images, masks: column -> shell pattern of the path below `root`, without the ending, such as
            ``*_run-01_T1w``, in place of what names tell; of any folder.

    Returns:
        A row per session (per subject, where there is none) with every image and at least one mask;
        labels are the columns of ``participants.tsv`` and of the subjects' ``sessions.tsv``;
        ``n/a`` is a blank cell.

    Raises:
        InputError: no subjects, nothing that fits a pattern, no masks, masks of both kinds, or a
            table without its ids.
    """
    files = _files(root)
    found = _columns(files, images or {}, masks or {})
    if not found.images:
        raise InputError(
            f"{root}: no image in a folder anat. Say which files are meant: --image NAME=PATTERN"
        )
    if not found.masks:
        raise InputError(
            f"{root}: no mask (*_mask, *_roi or *_dseg, with the ending of an image) on the grid "
            "of an image. Add derivatives, or say which files they are: --mask NAME=PATTERN"
        )
    if found.labelled and len(found.masks) > 1:
        single = ", ".join(name for name in found.masks if name not in found.labelled)
        several = next(iter(found.labelled))
        raise InputError(
            f"{root}: masks of one region each ({single}) and of several ({several}). Say which "
            f"are meant: --mask {several}='*_{LABELS}'"
        )
    flags, odd = _regions(root, found)
    regions = (flag.partition("=")[0] for flag in flags[1:])
    remedy = "Give other names: --image NAME=PATTERN, --mask NAME=PATTERN"
    check_columns(root, found.images, found.masks, regions, remedy=remedy)
    tables = read_tables(root)
    listed, seen = {subject for subject, _ in tables}, {file.study[0] for file in files}
    rows, set_aside = [], []
    columns = (*found.images.values(), *found.masks.values())
    for study in sorted({study for of in columns for study in of}):
        try:
            if study in odd:
                raise odd[study]
            row = _row(root, study, found)
        except CaseError as error:
            set_aside.append(error)
            continue
        labels = tables.get((study[0], ""), {}) | tables.get(study, {})
        if tables and not labels:
            what = "no row in participants.tsv" + _meant(study[0], listed - seen, "it has")
            found.notes.append(Note(*study, "labels", what, "no labels"))
        clash = sorted(set(labels) & {*row, *found.images, *found.masks})
        if clash:
            raise InputError(
                f"{root}: the tables have column(s) {', '.join(clash)}, as images and masks have. "
                "Rename them, or the images: --image NAME=PATTERN"
            )
        rows.append(row | labels)
    for subject in sorted(listed - seen):
        reason = "a row of participants.tsv without images"
        reason += _meant(subject, seen - listed, "there is a folder")
        remedy = "Download the subject, or remove the row."
        set_aside.append(_fault((subject, ""), root / f"sub-{subject}", reason, remedy))
    return Prepared(tuple(rows), tuple(set_aside), tuple(found.notes), flags)


def parse(root: Path, path: Path) -> Named | None:
    """What the name of an image file says; None for other files."""
    ending = next((end for end in ENDINGS if path.name.endswith(end)), None)
    if ending is None:
        return None
    *pairs, suffix = path.name.removesuffix(ending).split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    if not entities.get("sub"):
        return None
    place = path.relative_to(root).as_posix().removesuffix(ending)
    study = plain_id(entities["sub"]), plain_id(entities.get("ses", ""))
    return Named(path, place, study, path.parent.name, entities, suffix)


def _files(root: Path) -> list[Named]:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    if not any(p.is_dir() for p in root.glob("sub-*")):
        raise InputError(f"{root}: no folder sub-*. Give the folder of the BIDS dataset")
    every = [parse(root, path) for _, paths in walk(root) for path in paths]
    return [file for file in every if file is not None]


def _columns(files: Sequence[Named], images: Mapping[str, str], masks: Mapping[str, str]) -> _Found:
    """Which files belong to which column."""
    found = _Found()
    suffixes = {file.suffix.lower() for file in files}
    for file in files:
        asked = _asked(file, images), _asked(file, masks)
        for name in asked[0]:
            found.add(found.images, name, file)
        for name in asked[1]:
            found.add(found.masks, name, file)
            if file.suffix == LABELS:
                found.labelled.setdefault(name, []).append(file)
        if file.is_mask and not masks:
            space = file.entities.get("space", "").lower()
            if space and space not in {*NATIVE, *suffixes}:
                what = f"{file.place} lies in the space {file.entities['space']}"
                found.notes.append(Note(*file.study, file.region, what, "not taken"))
            elif file.suffix == LABELS:
                found.add(found.masks, LABELS, file)
                found.labelled.setdefault(LABELS, []).append(file)
            else:
                found.add(found.masks, file.region, file)
        elif not file.is_mask and not images and _is_raw(file):
            found.add(found.images, column_name(file.suffix), file)
    for name, pattern in (*images.items(), *masks.items()):
        if name not in found.images and name not in found.masks:
            raise InputError(f"nothing fits the pattern of {name}, {pattern!r}. Correct it")
    return found


def _is_raw(file: Named) -> bool:
    """Whether it is an anatomical image as it was acquired."""
    return file.datatype == "anat" and file.place.startswith("sub-")


def _asked(file: Named, patterns: Mapping[str, str]) -> list[str]:
    return [name for name, pattern in patterns.items() if fnmatchcase(file.place, pattern)]


def _row(root: Path, study: Study, found: _Found) -> dict[str, str | Path]:
    subject, session = study
    row: dict[str, str | Path] = {"patient_id": subject}
    row |= {"study_id": session} if session else {}
    pictured, drawn = ({s for of in each.values() for s, _ in of} for each in
                       (found.images, found.masks))  # fmt: skip
    for flag, columns in (("--image", found.images), ("--mask", found.masks)):
        for name, of in columns.items():
            remedy = f"Say which is meant: {flag} {name}='*_run-01_*', by a part of its name."
            file = one_of(of.get(study, []), subject, name, remedy=remedy)
            if file is not None:
                row[name] = file
            elif columns is found.images:
                what = f" of session {session}" if session else ""
                raise _fault(
                    study,
                    _folder(root, study),
                    f"no {name} image{what}" + _meant(subject, pictured - drawn, "there is"),
                    "Add it, or say which images are meant: --image NAME=PATTERN.",
                )
    missing = [name for name in found.masks if name not in row]
    if len(missing) == len(found.masks):
        listed = ", ".join(found.masks)
        reason = f"no mask ({listed})" + (f" of session {session}" if session else "")
        reason += _meant(subject, drawn - pictured, "there is one of")
        raise _fault(study, _folder(root, study), reason, "Add one, or leave out the images.")
    for name in missing:
        found.notes.append(Note(*study, name, "no mask", "left blank"))
    return row


def _regions(root: Path, found: _Found) -> tuple[tuple[str, ...], dict[Study, CaseError]]:
    """``--label`` for the regions that tables name, and the studies whose table says otherwise."""
    odd: dict[Study, CaseError] = {}
    first: dict[str, int] | None = None
    source = Path()
    for column, files in found.labelled.items():
        for file in files:
            table = table_of(root, file.path, file.entities)
            if table is None:
                what = f"no table names the values of {file.place}"
                found.notes.append(Note(*file.study, column, what, "name them: --label NAME=1"))
                continue
            regions = read_values(table)
            if first is None:
                first, source = regions, table
            elif regions != first:
                odd[file.study] = _fault(
                    file.study,
                    table,
                    f"values named otherwise than in {source}",
                    "Number the regions alike in all masks.",
                )
    if not first:
        return (), odd
    return ("--label", *(f"{name}={value}" for name, value in first.items())), odd


def _meant(subject: str, others: set[str], where: str) -> str:
    """Names the subject that is likely meant."""
    other = written_otherwise(subject, others)
    return f"; {where} sub-{other}" if other else ""


def _folder(root: Path, study: Study) -> Path:
    folder = root / f"sub-{study[0]}"
    return folder / f"ses-{study[1]}" if study[1] else folder


def _fault(study: Study, file: Path, reason: str, remedy: str) -> CaseError:
    return CaseError(study[0], file, stage="read", reason=reason, remedy=remedy)
