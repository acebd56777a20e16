"""DICOM images of any modality, with segmentations and structures as their masks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset
from tqdm import tqdm

from lens.cohort.dataset_json import column_name
from lens.cohort.dicom_frames import Segmentation, read_segmentation
from lens.cohort.dicom_header import is_dicom, read_header
from lens.cohort.dicom_structures import on_grid, read_structures
from lens.cohort.headers import HeaderFault
from lens.cohort.images import read_image
from lens.cohort.prepared import Note, Prepared, check_columns, plain_id, walk
from lens.errors import CaseError, InputError
from lens.files import atomic

OBJECTS = {"SEG": "segmentation", "RTSTRUCT": "structures"}
"""Modality of a DICOM object with masks -> what it is called."""

NOT_IMAGES = ("SR", "PR", "KO", "REG", "RTPLAN", "RTDOSE", "RTRECORD", "DOC", "RWV", "AU", "ECG")
"""Modalities without an image of the patient."""

TAGS = [
    "PatientID", "StudyInstanceUID", "StudyDate", "SeriesInstanceUID", "SeriesNumber",
    "SeriesDescription", "Modality", "ImageType",
]  # fmt: skip
"""What the headers are read for."""


@dataclass
class Series:
    """One series of a study.

    Attributes:
        header: of its first file, with `TAGS`.
        files: in order of names.
    """

    header: Dataset
    files: list[Path] = field(default_factory=list)

    def text(self, name: str) -> str:
        """A header value, empty where there is none."""
        return str(self.header.get(name, "") or "").strip()

    @property
    def modality(self) -> str:
        """As DICOM has it, such as ``CT``."""
        return self.text("Modality").upper()

    @property
    def named(self) -> str:
        """For messages: number, description and folder."""
        folder = self.files[0].parent
        return f"series {self.text('SeriesNumber')} {self.text('SeriesDescription')!r} in {folder}"


def prepare_objects(
    root: Path,
    volumes: Path,
    *,
    images: Mapping[str, str] | None = None,
    regions: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Prepared:
    """Finds the studies of a DICOM tree whose regions are DICOM SEG or RTSTRUCT objects.

    Segments and structures are told by their names, whatever their numbers; each region of a study
    is written as a mask, on the grid of the segmentation, or of the image on which the contours
    were drawn (`lens.cohort.contours.fill` has the rule).

    Args:
        root: any folder structure; the slices of a series lie in a folder of their own.
        volumes: folder for the masks.
        images: column -> shell pattern of the SeriesDescription; by default a column per DICOM
            modality, such as ``ct``.
        regions: column -> shell pattern of segment labels and ROI names; by default a column per
            name. Case does not matter in either.
        progress: show a progress bar.

    Returns:
        A row per study with one series of each image column and at least one region.

    Raises:
        InputError: no folder, no series of images or no object with masks in it.
    """
    studies = _studies(root, progress)
    every = [series for members in studies.values() for series in members]
    if not any(_is_image(series) for series in every):
        raise InputError(f"{root}: no DICOM series of images. Give the folder with the DICOM files")
    if not any(series.modality in OBJECTS for series in every):
        raise InputError(
            f"{root}: no DICOM SEG or RTSTRUCT, from which the regions come. Add the objects, or "
            "name mask files by a pattern (prepare glob)"
        )
    columns = list(images or _modalities(every))
    rows, set_aside, notes = [], [], []
    for (patient, study), members in sorted(studies.items()):
        try:
            chosen = {name: _image(patient, name, members, images) for name in columns}
            found = _masks(patient, study, members, chosen, regions or {}, notes)
            place = volumes / study
            masks = {name: _written(mask, place / f"{name}.mha") for name, mask in found.items()}
        except CaseError as error:
            set_aside.append(error)
            continue
        remedy = "Give other names: --image NAME=PATTERN, --region NAME=PATTERN"
        check_columns(root, columns, masks, remedy=remedy)
        places = {name: _place(series) for name, series in chosen.items()}
        date = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", members[0].text("StudyDate"))
        row: dict[str, str | Path] = {"patient_id": patient, "study_id": study, **places, **masks}
        rows.append(row | ({"study_date": date} if date else {}))
    return Prepared(tuple(rows), tuple(set_aside), tuple(notes))


def _studies(root: Path, progress: bool) -> dict[tuple[str, str], list[Series]]:
    """(PatientID, StudyInstanceUID) -> series, by the headers of all files."""
    found: dict[tuple[str, ...], Series] = {}
    folders = tqdm(walk(root), desc="DICOM folders", unit="folder", disable=not progress)
    for folder, files in folders:
        for file in files:
            if not file.is_file() or file.name == "DICOMDIR" or not is_dicom(file):
                continue
            header = _header(file)
            if header is None or not header.get("SeriesInstanceUID"):
                continue
            # A series of an object is a file each; slices of one series lie in one folder.
            single = str(file) if header.get("Modality") in OBJECTS else str(folder)
            key = (str(header.SeriesInstanceUID), single)
            found.setdefault(key, Series(header)).files.append(file)
    studies: dict[tuple[str, str], list[Series]] = {}
    for series in found.values():
        study = plain_id(series.text("PatientID")), series.text("StudyInstanceUID")
        studies.setdefault(study, []).append(series)
    return studies


def _header(file: Path) -> Dataset | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=TAGS)
        except Exception:
            return None


def _is_image(series: Series) -> bool:
    kind = {str(part).upper() for part in series.header.get("ImageType") or []}
    return series.modality not in (*OBJECTS, *NOT_IMAGES, "") and "LOCALIZER" not in kind


def _modalities(every: Iterable[Series]) -> list[str]:
    return sorted({column_name(series.modality) for series in every if _is_image(series)})


def _image(
    patient: str, name: str, members: Sequence[Series], images: Mapping[str, str] | None
) -> Series:
    """The one series of a study that a column means."""
    if not patient:
        raise _fault(members[0], "the header holds no PatientID", "Put one in.")
    there = [series for series in members if _is_image(series)]
    pattern = (images or {}).get(name)
    fitting = [
        series
        for series in there
        if (column_name(series.modality) == name if pattern is None
            else _fits(series.text("SeriesDescription"), pattern))
    ]  # fmt: skip
    if not fitting:
        listed = ", ".join(series.named for series in there) or "no images"
        raise _fault(
            members[0],
            f"no {name} series" + (f" (nothing fits {pattern!r})" if pattern else "")
            + f", among {listed}",
            "Add it, or say which series are meant: --image NAME='part of SeriesDescription*'.",
        )  # fmt: skip
    if len(fitting) > 1:
        listed = " and ".join(series.named for series in fitting)
        raise _fault(
            fitting[0],
            f"{len(fitting)} series could be the {name}: {listed}",
            f"Say which is meant by its SeriesDescription: --image {name}='pattern'.",
        )
    return fitting[0]


def _fits(text: str, pattern: str) -> bool:
    return fnmatchcase(text.lower(), pattern.lower())


def _place(series: Series) -> Path:
    """What a manifest names: the folder, or the only file."""
    return series.files[0] if len(series.files) == 1 else series.files[0].parent


def _masks(
    patient: str,
    study: str,
    members: Sequence[Series],
    chosen: Mapping[str, Series],
    regions: Mapping[str, str],
    notes: list[Note],
) -> dict[str, sitk.Image]:
    """Region -> mask, of all objects of a study that belong to its images."""
    uids = {series.text("SeriesInstanceUID"): name for name, series in chosen.items()}
    found: dict[str, tuple[sitk.Image, Series]] = {}
    names: list[str] = []
    for series in members:
        if series.modality not in OBJECTS:
            continue
        try:
            header = _whole(series.files[0])
            drawn_on = _referenced(header)
            if drawn_on and not drawn_on & uids.keys():
                what = f"a DICOM {OBJECTS[series.modality]}, {series.named}, of another series"
                notes.append(Note(patient, study, "masks", what, "not taken"))
                continue
            grids = [uids[uid] for uid in uids if uid in drawn_on] or list(chosen)
            segments, more = _segments(series, header, patient, {n: chosen[n] for n in grids},
                                       regions)  # fmt: skip
        except HeaderFault as fault:
            raise _fault(series, fault.reason, fault.remedy) from fault
        notes += [Note(patient, study, "masks", note, "taken as it is") for note in more]
        names += segments.names.values()
        for region, numbers in _chosen(segments.names, regions).items():
            voxels = [segments.voxels[n] for n in numbers if n in segments.voxels]
            if not voxels or not any(each.any() for each in voxels):
                notes.append(Note(patient, study, region, "an empty segment", "left blank"))
                continue
            if not regions:
                _check_names(series, region, [segments.names[number] for number in numbers])
            if region in found:
                raise _fault(
                    series,
                    f"2 objects hold the {region}: {found[region][1].named} and {series.named}",
                    "Remove one of the two, or name the regions apart: --region NAME='pattern'.",
                )
            found[region] = _image_of(segments, voxels), series
    if not found:
        listed = f" (segments and structures: {', '.join(names)})" if names else ""
        raise _fault(
            members[0],
            f"no mask of the images: no SEG or RTSTRUCT of them holds a region{listed}",
            "Add the object, or correct the patterns: --region NAME='pattern'.",
        )
    for region in regions:
        if region not in found:
            what = f"no segment or structure fits {regions[region]!r}"
            notes.append(Note(patient, study, region, what, "left blank"))
    return {name: mask for name, (mask, _) in found.items()}


def _whole(file: Path) -> Dataset:
    """Header of an object, without pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pydicom.dcmread(file, force=True, stop_before_pixels=True)
        except Exception as error:  # a damaged file raises anything
            raise HeaderFault(f"unreadable DICOM ({error})", "Copy or export it again.") from error


def _referenced(header: Dataset) -> set[str]:
    """SeriesInstanceUIDs of the images on which an object was drawn; empty where it is silent."""
    items = list(header.get("ReferencedSeriesSequence") or [])
    for frame in header.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            items += study.get("RTReferencedSeriesSequence") or []
    return {str(item.SeriesInstanceUID) for item in items if "SeriesInstanceUID" in item}


def _segments(
    series: Series,
    header: Dataset,
    patient: str,
    images: Mapping[str, Series],
    regions: Mapping[str, str],
) -> tuple[Segmentation, tuple[str, ...]]:
    file = series.files[0]
    if series.modality == "SEG":
        return read_segmentation(file, read_header(file)), ()
    found = read_structures(file)
    wanted = [n for numbers in _chosen(found.names, regions).values() for n in numbers]
    # What has neither area nor a name that is asked for, such as an isocentre, is no region.
    wanted = [n for n in wanted if found.contours[n]]
    grids = {name: read_image(_place(image), patient) for name, image in images.items()}
    return on_grid(found, wanted, grids)


def _chosen(names: Mapping[int, str], regions: Mapping[str, str]) -> dict[str, list[int]]:
    """Region -> numbers of the segments or structures that make it."""
    chosen: dict[str, list[int]] = {}
    for number, name in names.items():
        fitting = [roi for roi, pattern in regions.items() if _fits(name, pattern)]
        for roi in fitting if regions else [column_name(name) or f"region_{number}"]:
            chosen.setdefault(roi, []).append(number)
    return chosen


def _check_names(series: Series, region: str, names: Sequence[str]) -> None:
    """Refuses segments that only a column's letters would make one region."""
    if len({name.strip().lower() for name in names}) > 1:
        raise _fault(
            series,
            f"{len(names)} segments or structures would be the column {region}: "
            f"{' and '.join(map(repr, names))}",
            f"Say which are meant by a pattern of their names: --region {region}={names[0]!r}.",
        )


def _image_of(segments: Segmentation, voxels: Sequence[np.ndarray]) -> sitk.Image:
    mask = sitk.GetImageFromArray(np.logical_or.reduce(voxels).astype(np.uint8))
    mask.CopyInformation(segments.grid)
    return mask


def _written(mask: sitk.Image, path: Path) -> Path:
    with atomic(path) as partial:
        sitk.WriteImage(mask, str(partial), useCompression=True)
    return path


def _fault(series: Series, reason: str, remedy: str) -> CaseError:
    return CaseError(
        series.text("PatientID") or "?",
        series.files[0],
        stage="read",
        reason=reason,
        remedy=remedy,
    )
