"""Columns of a manifest: which hold images and which hold masks, declared, known or recognised."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lens.cohort.prostate as prostate
from lens.cohort.images import looks_like_mask
from lens.cohort.intensities import KINDS, Kind
from lens.cohort.reading import PICTURE_SUFFIXES, is_flat
from lens.errors import CaseError, InputError
from lens.missing import is_missing
from lens.names import check_names, closest, either, name_problem, same_word

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (
    ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm", ".img", ".hdr", *PICTURE_SUFFIXES,
)  # fmt: skip
"""Ends of names that images and masks have, in small letters."""

OTHERS = ("patient_id", "study_id", "split")
"""Columns that are neither images, masks nor labels."""

OPENED = 3
"""Files of a column that are opened to see what they are."""

LOOKED_AT = 20
"""Filled cells of a column that are looked at."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a manifest hold.

    Attributes:
        modalities: columns with images, in the order in which a case holds them; the first is the
            reference of its grid.
        rois: regions, in order; each is a column with masks, or a label of the only such column.
        kinds: modality -> what its numbers mean.
        flat: the images are of a single slice.
        labelled: region -> the column with its masks, where they differ.
    """

    modalities: tuple[str, ...]
    rois: tuple[str, ...]
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    flat: bool = False
    labelled: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, str]:
        """Region -> the column with its masks."""
        return {roi: self.labelled.get(roi, roi) for roi in self.rois}

    def __str__(self) -> str:
        images = [f"{name} ({self.kinds.get(name, 'no kind')})" for name in self.modalities]
        regions = [
            f"{roi} (labels of {self.labelled[roi]})" if roi in self.labelled else roi
            for roi in self.rois
        ]
        what = "2D images" if self.flat else "images"
        return f"{what}: {', '.join(images) or 'none'}; regions: {', '.join(regions) or 'none'}"

    def record(self) -> dict[str, Any]:
        """For the record of a run."""
        return {
            "modalities": list(self.modalities),
            "rois": list(self.rois),
            "kinds": dict(self.kinds),
            "flat": self.flat,
        }


@dataclass(frozen=True)
class Declared:
    """What a user says of the columns of a manifest; what is not said is known or recognised.

    Attributes:
        modalities: the columns with images, all of them and in order.
        rois: the regions, all of them and in order.
        channels: further columns with images, where `modalities` does not say.
        kinds: modality -> what its numbers mean.
        labels: region -> the mask values that make it. A region that is no column is made of these
            values in the masks of the only column with masks.
    """

    modalities: Sequence[str] = ()
    rois: Sequence[str] = ()
    channels: Sequence[str] = ()
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    labels: Mapping[str, Sequence[int]] = field(default_factory=dict)


UNDECLARED = Declared()


def decide(
    path: Path,
    rows: Sequence[Mapping[str, str]],
    declared: Declared = UNDECLARED,
    *,
    images: bool = True,
) -> Columns:
    """Which columns of a manifest hold images, and which masks.

    Columns that `declared` names are what it says. The names of `lens.cohort.prostate` are known.
    Any other column whose cells are paths of image files holds images if it is called like a kind
    of image, and else is recognised by its first files: masks hold few whole numbers, images do
    not. In a manifest of prostate MRI, whose names are all known, others are only named.

    Args:
        path: the manifest.
        rows: column -> cell, a mapping per row.
        declared: what the user says.
        images: False passes over images.

    Raises:
        InputError: a declared column is absent, a name cannot be one, no column holds images, a
            column could be either, the kind of a modality is not known, or a column is of a name
            that is nearly a known one.
    """
    header = list(rows[0])
    pictured = _pictured(declared, header)
    _check_declared(path, header, declared)
    masked = _mask_columns(declared, header)
    if images:
        check_unread(path, rows, {*pictured, *masked})
    found_images, found_masks = _recognised(path, rows, declared, {*pictured, *masked}, images)
    modalities: tuple[str, ...] = ()
    if images:
        modalities = tuple(declared.modalities) or _ordered(header, {*found_images, *pictured})
        modalities = tuple(name for name in modalities if name not in masked)
    masks = tuple(masked) or tuple(
        name
        for name in (*(roi for roi in prostate.REGIONS if roi in header), *found_masks)
        if name not in pictured
    )
    if images and not modalities:
        raise InputError(
            f"{path}: no modality column (found: {', '.join(header)}): none is named "
            f"{either(prostate.MODALITIES)} or holds image files. Say which do: --modalities NAME"
        )
    rois, labelled = _regions(path, masks, declared)
    for name in (*modalities, *rois):
        if problem := _name_problem(name):
            raise InputError(f"{path}: column {problem}")
    kinds: dict[str, Kind] = {name: _kind(path, rows, name, declared) for name in modalities}
    flat = bool(modalities) and _flat(path, rows, modalities[0])
    return Columns(modalities, rois, kinds, flat, labelled)


def _ordered(header: Sequence[str], others: set[str]) -> tuple[str, ...]:
    """Images in the order of the columns; those of prostate MRI alone in their own."""
    known = [name for name in prostate.MODALITIES if name in header]
    if prostate.is_prostate(header) or not others - set(known):
        return (*known, *(name for name in header if name in others and name not in known))
    return tuple(name for name in header if name in {*known, *others})


def _pictured(declared: Declared, header: Sequence[str]) -> list[str]:
    """Columns that are said to hold images."""
    return [*declared.modalities, *(name for name in declared.channels if name in header)]


def _mask_columns(declared: Declared, header: Sequence[str]) -> list[str]:
    """Columns that are said to hold masks; a region that only labels make is none."""
    made = {roi for roi in declared.labels if roi not in header}
    return [roi for roi in declared.rois if roi not in made]


def _check_declared(path: Path, header: Sequence[str], declared: Declared) -> None:
    there = [name for name in header if name not in OTHERS]
    check_names(declared.modalities, there, "column", f"--modalities, {path}")
    check_names(_mask_columns(declared, header), there, "column", f"--rois, {path}")
    both = set(declared.modalities) & set(declared.rois)
    if both:
        raise InputError(f"{min(both)} is named in both --modalities and --rois: it is one of them")


def _recognised(
    path: Path,
    rows: Sequence[Mapping[str, str]],
    declared: Declared,
    said: set[str],
    images: bool,
) -> tuple[list[str], list[str]]:
    """Further columns with images and with masks, by their first files."""
    header = list(rows[0])
    found: tuple[list[str], list[str]] = ([], [])
    if not images or prostate.is_prostate(header) or (declared.modalities and declared.rois):
        return found
    known = {*OTHERS, *prostate.MODALITIES, *prostate.REGIONS, prostate.ZONES, *said}
    for name in header:
        cells = _filled(rows, name)
        if name not in known and _holds_paths(path, cells):
            mask = name.lower() not in KINDS and _is_mask(path, name, cells)
            found[mask].append(name)
    return found


def _is_mask(path: Path, name: str, cells: Sequence[str]) -> bool:
    """Whether a column holds masks rather than images."""
    opinions: dict[Path, bool] = {}
    faults: list[str] = []
    for file in (path.parent / cell for cell in cells):
        try:
            opinions[file] = looks_like_mask(file)
        except CaseError as error:
            faults.append(f"{file.name}: {error.reason}. {error.remedy}")
        if len(opinions) == OPENED:
            break
    if len(set(opinions.values())) == 1:
        return next(iter(opinions.values()))
    if not opinions:
        raise InputError(
            f"{path}: column {name!r} holds paths, and none of its files can be read, so that it "
            f"could be of images or of masks. The first: {faults[0]}"
        )
    told = "; ".join(
        f"{file.name} looks like {'a mask' if opinion else 'an image'}"
        for file, opinion in opinions.items()
    )
    raise InputError(
        f"{path}: column {name!r} holds paths, of images or of masks ({told}). Say which: "
        f"--modalities {name} ..., or --rois {name} ..."
    )


def _regions(
    path: Path, masks: Sequence[str], declared: Declared
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Regions in order, and the column of those that labels make of another column's masks."""
    made = [roi for roi in declared.labels if roi not in masks]
    if not made:
        return tuple(masks), {}
    if len(masks) != 1:
        check_names(made, masks, "region", f"--label, {path}")
    (column,) = masks
    own = [column] if column in declared.labels or column in declared.rois else []
    rois = tuple(roi for roi in declared.rois if roi in {*own, *made}) or (*own, *made)
    return rois, dict.fromkeys(made, column)


def _kind(path: Path, rows: Sequence[Mapping[str, str]], name: str, declared: Declared) -> Kind:
    if name in declared.kinds:
        return declared.kinds[name]
    if name.lower() in KINDS:
        return KINDS[name.lower()]
    cells = _filled(rows, name)[:LOOKED_AT]
    if cells and all(cell.lower().endswith(PICTURE_SUFFIXES) for cell in cells):
        return "8-bit"
    raise InputError(
        f"{path}: what the numbers of {name} mean is not known by its name. Say it: --kind "
        f"{name}=mr (arbitrary units), {name}=ct (Hounsfield units), {name}=8-bit (gray values of "
        f"ultrasound or X-ray) or {name}=units (a map in units of its own)"
    )


def _flat(path: Path, rows: Sequence[Mapping[str, str]], name: str) -> bool:
    """Whether the images are of a single slice: the first files all are."""
    files = [path.parent / cell for cell in _filled(rows, name)[:LOOKED_AT]]
    opinions: list[bool] = []
    for file in files:
        if file.exists() and (opinion := is_flat(file)) is not None:
            opinions.append(opinion)
        if len(opinions) == OPENED:
            break
    return bool(opinions) and all(opinions)


def check_unread(path: Path, rows: Sequence[Mapping[str, str]], said: Iterable[str]) -> None:
    """Refuses a column that is a known one misspelt, and names others that nothing reads.

    A misspelt column would count as a label: its images, or the split it gives, would be left out
    without a word. Names of images and masks are held to those known only in a manifest of prostate
    MRI, where none is recognised.

    Args:
        path: the manifest.
        rows: column -> cell, a mapping per row.
        said: columns that are declared to hold images or masks.

    Raises:
        InputError: a column is like a known one that is absent.
    """
    header, said = list(rows[0]), set(said)
    files = [*prostate.MODALITIES, *prostate.REGIONS, prostate.ZONES]
    known = (*OTHERS, *files)
    absent = [name for name in known if name not in header]
    others = [name for name in header if name not in {*known, *said}]
    holding = [name for name in others if _holds_paths(path, _filled(rows, name))]
    strict = prostate.is_prostate(header)
    for name in others:
        meant, found = None, ""
        if name not in holding:
            words = {same_word(each): each for each in absent if each not in files}
            meant, found = words.get(same_word(name)), "would count as a label"
        elif strict:
            meant = closest(name, [each for each in files if each in absent])
            found = "holds paths that nothing reads"
        if meant:
            raise InputError(
                f"{path}: column {name!r} {found}; did you mean {meant}? Rename it, say what it "
                f"holds (--modalities, --rois), or give it a name that is less like one of "
                f"{', '.join(known)}"
            )
    if holding and strict:
        log.warning(
            "%s: column(s) %s hold paths that nothing reads; images and masks are %s. To have "
            "others, name all of them: --modalities, --rois",
            path, ", ".join(map(repr, holding)), ", ".join(files),
        )  # fmt: skip


def _holds_paths(path: Path, cells: Sequence[str]) -> bool:
    """Whether every filled cell that is looked at ends as images do, or is there."""
    return bool(cells) and all(_is_path(path.parent, cell) for cell in cells[:LOOKED_AT])


def _filled(rows: Sequence[Mapping[str, str]], name: str) -> list[str]:
    """Cells of a column that say something; ``n/a`` says that there is no file."""
    return [row[name] for row in rows if not is_missing(row[name])]


def _is_path(folder: Path, cell: str) -> bool:
    if cell.lower().endswith(IMAGE_SUFFIXES):
        return True
    try:
        return "/" in cell and (folder / cell).exists()
    except (OSError, ValueError):
        return False


def _name_problem(name: str) -> str:
    """As `name_problem`; and neither dots, which part the names of radiomic columns, nor blanks."""
    if "." in name or " " in name:
        return (
            f"{name!r}: no dot and no blank may be part of the name of a modality or region; "
            f"rename it, such as {re.sub(r'[. ]+', '_', name.strip('. '))}"
        )
    return name_problem(name)
