"""Finished cases on disk, named by the content of everything that decides their features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from lens.cohort import Case, CaseFiles, Placement
from lens.errors import CaseError
from lens.files import file_hash, write_json
from lens.radiomics.extract import Region, columns
from lens.radiomics.parameters import Parameters, parameters_for
from lens.radiomics.perturb import GENERATOR
from lens.radiomics.progress import progress_bar

FORMAT = 3
"""Raised whenever a part holds something new, so that older parts are made again."""

PACKAGES = ("radiomic-lens", "pyradiomics-bhklab", "SimpleITK", "PyWavelets")
"""Packages whose versions decide whether a part is still valid."""


class Reading(NamedTuple):
    """How a case is read: the keyword arguments of `lens.cohort.read_case`.

    Attributes:
        spacing_mm: (x, y, z) of the grid.
        labels: region -> the mask values that make it; None for every value above zero.
    """

    spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0)
    labels: Mapping[str, Sequence[int]] | None = None


def versions() -> dict[str, str]:
    """Versions of `PACKAGES` in this process."""
    return {package: _version(package) for package in PACKAGES}


def part_paths(
    cases: Sequence[CaseFiles],
    parameters: Mapping[str, Parameters],
    cache: Path,
    reading: Reading,
    *,
    progress: bool,
) -> list[Path]:
    """Where the part of each case lies or will lie."""
    labels = {roi: sorted(set(values)) for roi, values in (reading.labels or {}).items()}
    shared = {
        "format": FORMAT,
        "spacing_mm": list(reading.spacing_mm),
        "labels": labels,
        "versions": versions(),
    }
    name = partial(_fingerprint, parameters=parameters, shared=shared)
    with ThreadPoolExecutor() as pool:
        names = pool.map(name, cases)
        named = progress_bar(names, len(cases), "comparing with the cache", progress)
        return [cache / f"{name}.json" for name in named]


def write_part(part: Path, case: Case, regions: Mapping[tuple[str, str], Region]) -> None:
    """Writes the features, gray levels, notes and geometry of a case."""
    bins = {
        ".".join((*region, image)): list(made)
        for region, measured in regions.items()
        for image, made in measured.bins.items()
    }
    voxels = {".".join(region): measured.voxels for region, measured in regions.items()}
    content = {"notes": list(case.notes), "geometry": _rows(case.geometry)}
    content |= {"voxels": voxels, "bins": bins}
    write_json(part, content | {"features": columns(regions)})
    failure_path(part).unlink(missing_ok=True)


def read_part(part: Path) -> dict[str, Any]:
    """``notes``, ``geometry`` per image and mask, ``voxels`` per region, ``bins`` per region and
    image, ``features`` per column.
    """
    return json.loads(part.read_text(encoding="utf-8"))


def failure_path(part: Path) -> Path:
    """Where it is remembered that the same content was refused."""
    return part.with_suffix(".failed.json")


def perturbed_path(part: Path, repeats: int) -> Path:
    """Where the perturbed versions of a case lie."""
    return part.with_suffix(f".perturbed-{GENERATOR}-{repeats}.json")


def write_failure(part: Path, error: CaseError, geometry: Sequence[Placement]) -> None:
    """Remembers that this content was refused, why, and how far its geometry was known."""
    write_json(failure_path(part), error.row() | {"geometry": _rows(geometry)})


def read_failure(part: Path, files: CaseFiles) -> CaseError | None:
    """Why this content was refused before; None where it was not.

    Patient and paths are those of `files`, for the same content may have been another's or lain
    elsewhere.
    """
    try:
        row = json.loads(failure_path(part).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    names = {placement["file"]: placement["name"] for placement in row["geometry"]}
    file = _path_now(files, names.get(row["file"], ""), row["file"])
    return CaseError(
        files.patient_id, file, stage=row["stage"], reason=row["reason"], remedy=row["remedy"]
    )


def read_geometry(part: Path, files: CaseFiles) -> list[Placement]:
    """How the images and masks of a finished or refused case came onto its grid.

    Empty where the outcome left no trace. Paths are those of `files`.
    """
    path = part if part.is_file() else failure_path(part)
    if not path.is_file():
        return []
    placements = []
    for row in json.loads(path.read_text(encoding="utf-8"))["geometry"]:
        row["file"] = _path_now(files, row["name"], row["file"])
        row["labels"] = tuple((value, count) for value, count in row["labels"])
        row["taken"] = tuple(row["taken"])
        placements.append(Placement(**row))
    return placements


def _path_now(files: CaseFiles, name: str, path_then: str) -> str:
    return str((files.images | files.masks).get(name, path_then))


def _rows(geometry: Sequence[Placement]) -> list[dict[str, Any]]:
    return [asdict(placement) for placement in geometry]


def _fingerprint(
    files: CaseFiles, *, parameters: Mapping[str, Parameters], shared: dict[str, Any]
) -> str:
    """Hash of all that decides the features of a case, as 32 hex digits."""
    content = shared | {
        "images": {modality: _content(path) for modality, path in files.images.items()},
        "masks": {roi: _content(path) for roi, path in files.masks.items()},
        "parameters": {name: parameters_for(parameters, name).content for name in files.images},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _content(path: Path) -> str:
    """Hash of a file or folder; of an unreadable one the path: reading tells what is wrong."""
    try:
        return file_hash(path)
    except OSError:
        return f"unreadable: {path}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
