"""A tree of DICOM folders: series are told apart by their headers, never by folder names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from lens.cohort.dicom_enhanced import is_enhanced, read_enhanced
from lens.cohort.headers import HeaderFault
from lens.cohort.patterns import resolve
from lens.cohort.prepared import Note, Prepared, one_of, plain_id, walk
from lens.cohort.reading import quiet
from lens.errors import CaseError, InputError
from lens.openable import folder_fault

SEGMENTATION = "segmentation"
"""In place of a modality: the series holds masks (DICOM SEG)."""

RECOGNISED = ("t2", "dwi", "adc")
"""Modalities that `classify` tells apart by the headers."""

T2_ECHO_MS = 60.0
"""Shortest echo time of a T2-weighted spin echo; proton density and T1 lie below 40."""

Repeated = Literal["refuse", "first", "last"]


@dataclass(frozen=True)
class Series:
    """One DICOM series in one folder.

    Attributes:
        folder: where its files lie.
        uid: SeriesInstanceUID.
        patient_id: PatientID.
        study: StudyInstanceUID.
        date: of the study, as in the header (YYYYMMDD).
        number: SeriesNumber, or 0.
        description: SeriesDescription.
        modality: ``t2``, ``dwi``, ``adc``, or an empty string for anything else.
        b_value: of a diffusion image in s/mm2; infinite for a computed one (its b-value is not in
            the header and is high by purpose), None where the header does not say.
        files: number of files.
        positions: number of different slice positions.
        alone: no other series lies in this folder.
        frames_of: the file, where the series is an enhanced multi-frame one.
        fault: why its frames are no volume, and what to do.
    """

    folder: Path
    uid: str
    patient_id: str
    study: str
    date: str
    number: int
    description: str
    modality: str
    b_value: float | None
    files: int
    positions: int
    alone: bool
    frames_of: Path | None = None
    fault: HeaderFault | None = None

    @property
    def place(self) -> Path:
        """What a manifest names: the folder, or the multi-frame file itself."""
        return self.frames_of or self.folder

    @property
    def named(self) -> str:
        """For messages: number, description and folder."""
        return f"series {self.number} {self.description!r} in {self.place}"


def prepare_dicom(
    root: Path,
    masks: Mapping[str, str],
    *,
    mask_root: Path | None = None,
    modalities: Sequence[str] = RECOGNISED,
    repeated: Repeated = "refuse",
    progress: bool = True,
) -> Prepared:
    """Finds the studies of a DICOM tree.

    Args:
        root: any folder structure with one series per folder.
        masks: ``gland`` and optionally ``zones`` and ``lesion`` -> pattern with ``{patient}`` (the
            PatientID) and, for several studies of a patient, ``{study}`` (StudyInstanceUID).
        mask_root: where relative patterns start; `root` by default.
        modalities: what a study must have to be used.
        repeated: which of several series of one kind to take, by series number, with a note;
            ``refuse`` sets the study aside.
        progress: show a progress bar.

    Returns:
        Studies with a folder, or an enhanced multi-frame file, per modality, ``study_id``
        (StudyInstanceUID) and ``study_date``; a note on every segmentation that is no mask of one.

    Raises:
        InputError: no folder, no MR series below it, or a pattern without ``{patient}``.
    """
    for name, pattern in masks.items():
        if "{patient}" not in pattern:
            raise InputError(
                f"the pattern of {name}, {pattern!r}, has no {{patient}}. Write {{patient}} where "
                "the patient's id stands"
            )
    everything = read_tree(root, progress=progress)
    found = [series for series in everything if series.modality != SEGMENTATION]
    if not found:
        raise InputError(f"{root}: no DICOM series of MR. Give the folder with the DICOM files")
    studies: dict[tuple[str, str], list[Series]] = {}
    for series in found:
        studies.setdefault((plain_id(series.patient_id), series.study), []).append(series)
    of_patient: dict[str, int] = {}
    for patient, _ in studies:
        of_patient[patient] = of_patient.get(patient, 0) + 1
    rows, set_aside, notes = [], [], []
    for (patient, study), members in sorted(studies.items()):
        row: dict[str, str | Path] = {"patient_id": patient, "study_id": study}
        try:
            for name in modalities:
                row[name] = _choose(members, name, repeated, notes).place
            row |= _masks(masks, mask_root or root, patient, study, of_patient[patient] > 1)
        except CaseError as error:
            set_aside.append(error)
            continue
        if members[0].date:
            row["study_date"] = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", members[0].date)
        rows.append(row)
    named = {path.resolve() for row in rows for path in row.values() if isinstance(path, Path)}
    for series in everything:
        if series.modality == SEGMENTATION and series.place.resolve() not in named:
            notes.append(
                Note(
                    series.patient_id,
                    series.study,
                    "gland",
                    f"a DICOM segmentation, {series.named}",
                    "not taken, since no pattern of a mask names it",
                )
            )
    return Prepared(tuple(rows), tuple(set_aside), tuple(notes))


def read_tree(root: Path, *, progress: bool = True) -> list[Series]:
    """Every series of MR or of segments below a folder; files of anything else are passed over."""
    out: list[Series] = []
    with quiet():
        for folder, files in tqdm(
            walk(root), desc="DICOM folders", unit="folder", disable=not progress
        ):
            if not files:
                continue
            if fault := folder_fault(folder):
                raise InputError(f"{folder}: {fault}. Take it out, or give the folder below")
            uids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
            for uid in uids:
                series = _series(folder, uid, alone=len(uids) == 1)
                if series is not None:
                    out.append(series)
    return out


def classify(header: Mapping[str, str]) -> str:
    """What an MR image shows, from its header: ``t2``, ``dwi``, ``adc`` or an empty string.

    Args:
        header: DICOM tag such as ``0018|0081`` -> value, of one slice.

    Returns:
        ADC where the image type or the description says so; a diffusion image by image type,
        b-value or an echo-planar sequence; T2 for a spin echo with a long echo time. All of them
        axial, and none of them a localizer or a reformatted image.
    """
    kind = {part.strip().upper() for part in header.get("0008|0008", "").split("\\")}
    said = header.get("0008|103e", "").strip().lower()
    if kind & {"LOCALIZER", "MPR", "SCREEN SAVE"} or re.search("localizer|scout|survey", said):
        return ""
    if not _is_axial(header):
        return ""
    if kind & {"EADC", "FA", "TENSOR"} or re.search(r"eadc|exponential|exp[_ ]?adc", said):
        return ""
    if "ADC" in kind or re.search(r"(?<![a-z])adc|apparent.?diff", said):
        return "adc"
    sequence = header.get("0018|0020", "").upper()
    if "DIFFUSION" in kind or "EP" in sequence.split("\\") or b_value(header) is not None:
        return "dwi"
    if "SE" in sequence.split("\\") and _number(header.get("0018|0081", "")) >= T2_ECHO_MS:
        return "t2"
    return ""


def b_value(header: Mapping[str, str]) -> float | None:
    """The b-value in s/mm2 as the standard or a vendor writes it; infinite for a computed image."""
    said = header.get("0008|103e", "").strip().lower()
    if re.search(r"calc[_ ]?b|computed|synth", said):
        return np.inf
    for tag in ("0018|9087", "0019|100c", "0043|1039"):
        first = header.get(tag, "").split("\\")[0].strip()
        if re.fullmatch(r"\d+(\.\d+)?", first):
            # One vendor adds a thousand million to the value.
            return float(first) % 1e6
    name = re.search(r"ep_b(\d+)t?$", header.get("0018|0024", "").strip().lower())
    named = name or re.search(r"(?<![a-z])b[-_ =]?(\d{2,4})(?!\d)", said)
    return float(named[1]) if named else None


def _series(folder: Path, uid: str, *, alone: bool) -> Series | None:
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
    try:
        header = _header(files[0])
    except RuntimeError:
        # DICOM without pixels, such as a report or a segmentation object.
        return None
    kind = header.get("0008|0060", "").strip()
    if kind not in ("MR", "SEG"):
        return None
    count, fault, frames_of = len(files), None, Path(files[0]) if kind == "SEG" else None
    if kind == "MR" and is_enhanced(header):
        header, count, fault = read_enhanced(Path(files[0]), header)
        frames_of = Path(files[0])
        if len(files) > 1:
            fault = HeaderFault(
                f"{len(files)} multi-frame files of one series",
                "Give each file that is a volume a SeriesInstanceUID of its own, or convert the "
                "one that is meant to NIfTI.",
            )
    modality = SEGMENTATION if kind == "SEG" else classify(header)
    positions = count
    if modality == "dwi" and frames_of is None:
        positions = len({_header(file).get("0020|0032", file) for file in files})
    return Series(
        folder=folder,
        uid=uid,
        patient_id=header.get("0010|0020", "").strip(),
        study=header.get("0020|000d", "").strip("\0 "),
        date=header.get("0008|0020", "").strip(),
        number=int(_number(header.get("0020|0011", ""))),
        description=header.get("0008|103e", "").strip(),
        modality=modality,
        b_value=b_value(header) if modality == "dwi" else None,
        files=count,
        positions=positions,
        alone=alone,
        frames_of=frames_of,
        fault=fault,
    )


def _header(file: str) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(file)
    reader.LoadPrivateTagsOn()
    reader.ReadImageInformation()
    # Single bytes that are no text come as surrogates, which no file can hold.
    return {
        key: reader.GetMetaData(key).encode("utf-8", "replace").decode("utf-8")
        for key in reader.GetMetaDataKeys()
    }


def _is_axial(header: Mapping[str, str]) -> bool:
    cosines = [_number(text) for text in header.get("0020|0037", "").split("\\")]
    if len(cosines) != 6:
        return False
    normal = np.cross(cosines[:3], cosines[3:])
    return int(np.abs(normal).argmax()) == 2


def _number(text: str) -> float:
    try:
        return float(text.strip("\0 "))
    except ValueError:
        return 0.0


def _choose(members: Sequence[Series], name: str, repeated: Repeated, notes: list[Note]) -> Series:
    """The one series of a study that shows a modality."""
    first = members[0]
    if not first.patient_id:
        raise _fault(first, "the header holds no PatientID", "Put one in, or sort by hand.")
    candidates = _without_copies([s for s in members if s.modality == name], notes)
    if name == "dwi":
        candidates = _highest_b(candidates)
    if not candidates:
        listed = ", ".join(f"{s.number} {s.description!r}" for s in members)
        raise _fault(
            first,
            f"no {name} series, judged by the headers of {listed}",
            "Add it, do not ask for this modality, or use the glob command with folder names.",
        )
    if len(candidates) > 1:
        ordered = sorted(candidates, key=lambda s: (s.number, str(s.folder)))
        listed = " and ".join(s.named for s in ordered)
        if repeated == "refuse":
            raise _fault(
                ordered[0],
                f"{len(candidates)} series could be the {name}: {listed}",
                "Remove all but one, or say which of repeated series to take (--repeated last).",
            )
        candidates = [ordered[0 if repeated == "first" else -1]]
        found = f"{len(ordered)} series could be meant: {listed}"
        taken = f"took the {repeated}, series {candidates[0].number}"
        notes.append(Note(first.patient_id, first.study, name, found, taken))
    chosen = candidates[0]
    if chosen.fault is not None:
        raise _fault(chosen, f"{name}: {chosen.fault.reason}", chosen.fault.remedy)
    if not chosen.alone and chosen.frames_of is None:
        raise _fault(
            chosen,
            f"the folder of the {name} series holds other series too",
            "Sort the files into a folder per series.",
        )
    return chosen


def _without_copies(candidates: Sequence[Series], notes: list[Note]) -> list[Series]:
    """One of each series that lies in several folders, the one with most files."""
    kept: dict[str, Series] = {}
    for series in sorted(candidates, key=lambda s: (-s.files, str(s.folder))):
        other = kept.setdefault(series.uid, series)
        if other is not series:
            found = f"series {series.number} lies in {other.place} and in {series.place}"
            note = Note(
                series.patient_id, series.study, series.modality, found, f"took {other.place}"
            )
            if note not in notes:
                notes.append(note)
    return list(kept.values())


def _highest_b(candidates: Sequence[Series]) -> list[Series]:
    """The diffusion series with the highest b-value, of those with one image per position."""
    if not candidates:
        return []
    # Several b-values in one file are told with its own fault, where no other series can be meant.
    single = [s for s in candidates if s.files == s.positions and s.fault is None]
    single = single or [s for s in candidates if s.fault is not None]
    if not single:
        mixed = candidates[0]
        raise _fault(
            mixed,
            f"the diffusion {mixed.named} has {mixed.files} images at {mixed.positions} positions "
            "(b-values mixed)",
            "Put the images of the highest b-value into a folder of their own.",
        )
    if len(single) == 1:
        return single
    top = max(-1.0 if s.b_value is None else s.b_value for s in single)
    return [s for s in single if (-1.0 if s.b_value is None else s.b_value) == top]


def _masks(
    patterns: Mapping[str, str], root: Path, patient: str, study: str, several: bool
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, pattern in patterns.items():
        candidates = resolve(root, pattern, patient, study)
        if candidates and several and "{study}" not in pattern:
            raise CaseError(
                patient,
                candidates[0],
                stage="read",
                reason=f"one {name} file for several studies of the patient",
                remedy=f"Tell the studies apart in the pattern of {name} with {{study}}.",
            )
        file = one_of(
            candidates, patient, name, remedy="Narrow the pattern, or remove all but one."
        )
        if file is not None:
            found[name] = file
        elif name == "gland":
            raise CaseError(
                patient,
                "",
                stage="read",
                reason=f"no gland mask: nothing fits {pattern!r} below {root}",
                remedy="Add the file, or correct the pattern.",
            )
    return found


def _fault(series: Series, reason: str, remedy: str) -> CaseError:
    return CaseError(
        series.patient_id or "?", series.place, stage="read", reason=reason, remedy=remedy
    )
