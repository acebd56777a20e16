"""A folder whose files follow a naming rule, such as BIDS."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path

from lens.cohort.prepared import Note, Prepared, one_of, plain_id
from lens.errors import CaseError, InputError

Study = tuple[str, str]


def prepare_patterns(root: Path, patterns: Mapping[str, str]) -> Prepared:
    """Finds the studies whose files follow the patterns; no image is opened.

    A pattern is a path below `root` (or an absolute one) with ``{patient}`` and, where there are
    several studies of a patient, ``{study}``; both stand for a part of a name and take as little
    as they can. ``*``, ``?``, ``[abc]`` and ``**`` (any folders) are as in a shell:
    ``sub-{patient}/ses-{study}/anat/*_T2w.nii.gz``. A folder that fits is a DICOM series.

    Args:
        root: where relative patterns start.
        patterns: file column -> pattern; ``gland`` and an image at least.

    Returns:
        A row per study for which every pattern but that of ``lesion`` and ``zones`` fits one
        file. A study is set aside where several files fit, or none.

    Raises:
        InputError: no folder, a pattern without ``{patient}``, or one that fits nothing.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    found = {name: find(root, name, pattern) for name, pattern in patterns.items()}
    studies = sorted({study for files in found.values() for study in files})
    several = _with_studies(studies)
    rows, set_aside, notes = [], [], []
    for study in studies:
        # A pattern without {study} has found its file under the patient alone.
        if not study[1] and study[0] in several:
            continue
        try:
            row = _row(study, found, patterns, several)
        except CaseError as error:
            set_aside.append(error)
            continue
        if "lesion" in patterns and "lesion" not in row:
            notes.append(Note(*study, "lesion", f"nothing fits {patterns['lesion']}", "no lesion"))
        rows.append(row)
    return Prepared(tuple(rows), tuple(set_aside), tuple(notes))


def find(root: Path, name: str, pattern: str) -> dict[Study, list[Path]]:
    """Files by (patient, study) that fit one pattern; the study is empty without ``{study}``.

    Raises:
        InputError: a pattern without ``{patient}``, with an unknown placeholder, or that fits
            nothing.
    """
    unknown = set(re.findall(r"\{(\w*)\}", pattern)) - {"patient", "study"}
    if "{patient}" not in pattern or unknown:
        raise InputError(
            f"the pattern of {name}, {pattern!r}, "
            + (f"has {{{unknown.pop()}}}" if unknown else "has no {patient}")
            + ". Write {patient} where the patient's id stands, and {study} for a study's"
        )
    start = pattern if Path(pattern).is_absolute() else f"{glob.escape(str(root))}/{pattern}"
    regex = re.compile(_regex(pattern))
    found: dict[Study, list[Path]] = {}
    for text in _glob(re.sub(r"\{\w+\}", "*", start)):
        place = text if Path(pattern).is_absolute() else str(Path(text).relative_to(root))
        if match := regex.fullmatch(place):
            parts = match.groupdict()
            study = plain_id(parts["patient"]), plain_id(parts.get("study") or "")
            found.setdefault(study, []).append(Path(text))
    if not found:
        raise InputError(f"{root}: nothing fits the pattern of {name}, {pattern!r}. Correct it")
    return found


def resolve(root: Path, pattern: str, patient: str, study: str) -> list[Path]:
    """Files that fit a pattern for a patient and study known beforehand."""
    filled = pattern.replace("{patient}", glob.escape(patient))
    filled = filled.replace("{study}", glob.escape(study))
    start = filled if Path(pattern).is_absolute() else f"{glob.escape(str(root))}/{filled}"
    return [Path(text) for text in _glob(start)]


def _glob(pattern: str) -> list[str]:
    # Path.glob does not follow links to folders under **, by which archives are often mounted.
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207


def _regex(pattern: str) -> str:
    """The pattern as a regular expression with the groups ``patient`` and ``study``."""
    out, seen = "", set()
    for token in re.split(r"(\{\w+\}|\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern):
        if token in ("{patient}", "{study}"):
            name = token[1:-1]
            out += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)"
            seen.add(name)
        elif token.startswith("[") and len(token) > 1:
            inverse, inside = token[1] == "!", token[1:-1]
            inside = re.sub(r"([\\\[&~|^])", r"\\\1", inside[1:] if inverse else inside)
            out += f"[^{inside}]" if inverse else f"[{inside}]"
        else:
            out += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(
                token, re.escape(token)
            )
    return out


def _with_studies(studies: list[Study]) -> dict[str, list[str]]:
    """Patient -> studies, of the patients for whom a pattern tells studies apart."""
    several: dict[str, list[str]] = {}
    for patient, study in studies:
        if study:
            several.setdefault(patient, []).append(study)
    return several


def _row(
    study: Study,
    found: Mapping[str, dict[Study, list[Path]]],
    patterns: Mapping[str, str],
    several: Mapping[str, list[str]],
) -> dict[str, str | Path]:
    patient, name_of_study = study
    row: dict[str, str | Path] = {"patient_id": patient}
    if name_of_study:
        row["study_id"] = name_of_study
    for name, pattern in patterns.items():
        candidates = found[name].get(study, [])
        if name_of_study and "{study}" not in pattern:
            candidates = found[name].get((patient, ""), [])
            if candidates and len(several[patient]) > 1:
                raise CaseError(
                    patient,
                    candidates[0],
                    stage="read",
                    reason=f"one {name} file for {len(several[patient])} studies of the patient "
                    f"({', '.join(several[patient])})",
                    remedy=f"Tell the studies apart in the pattern of {name} with {{study}}.",
                )
        file = one_of(
            candidates, patient, name, remedy="Narrow the pattern, or remove all but one."
        )
        if file is not None:
            row[name] = file
        elif name not in ("lesion", "zones"):
            what = f" of study {name_of_study}" if name_of_study else ""
            raise CaseError(
                patient,
                "",
                stage="read",
                reason=f"no {name} file{what}: nothing fits {pattern!r}",
                remedy="Add the file, or correct the pattern.",
            )
    return row
