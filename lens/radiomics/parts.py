"""Finished cases on disk, named by the content of everything that decides their features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lens.cohort import Case, CaseFiles
from lens.errors import CaseError
from lens.files import file_hash, write_json
from lens.radiomics.extract import Region, columns
from lens.radiomics.parameters import Parameters, parameters_for
from lens.radiomics.perturb import GENERATOR
from lens.radiomics.progress import progress_bar

FORMAT = 2
"""Raised whenever a part holds something new, so that older parts are made again."""

PACKAGES = ("radiomic-lens", "pyradiomics-bhklab", "SimpleITK", "PyWavelets")
"""Packages whose versions decide whether a part is still valid."""


def versions() -> dict[str, str]:
    """Versions of `PACKAGES` in this process."""
    return {package: _version(package) for package in PACKAGES}


def part_paths(
    cases: Sequence[CaseFiles],
    parameters: Mapping[str, Parameters],
    cache: Path,
    spacing_mm: tuple[float, float, float],
    *,
    progress: bool,
) -> list[Path]:
    """Where the part of each case lies or will lie."""
    shared = {"format": FORMAT, "spacing_mm": list(spacing_mm), "versions": versions()}
    name = partial(_fingerprint, parameters=parameters, shared=shared)
    with ThreadPoolExecutor() as pool:
        names = pool.map(name, cases)
        named = progress_bar(names, len(cases), "comparing with the cache", progress)
        return [cache / f"{name}.json" for name in named]


def write_part(part: Path, case: Case, regions: Mapping[tuple[str, str], Region]) -> None:
    """Writes the features, gray levels and notes of a case."""
    bins = {
        ".".join((*region, image)): list(made)
        for region, measured in regions.items()
        for image, made in measured.bins.items()
    }
    voxels = {".".join(region): measured.voxels for region, measured in regions.items()}
    content = {"notes": list(case.notes), "voxels": voxels, "bins": bins}
    write_json(part, content | {"features": columns(regions)})
    failure_path(part).unlink(missing_ok=True)


def read_part(part: Path) -> dict[str, Any]:
    """``notes``, ``voxels`` per region, ``bins`` per region and image, ``features`` per column."""
    return json.loads(part.read_text(encoding="utf-8"))


def failure_path(part: Path) -> Path:
    """Where it is remembered that the same content was refused."""
    return part.with_suffix(".failed.json")


def perturbed_path(part: Path, repeats: int) -> Path:
    """Where the perturbed versions of a case lie."""
    return part.with_suffix(f".perturbed-{GENERATOR}-{repeats}.json")


def write_failure(part: Path, error: CaseError) -> None:
    """Remembers that this content was refused, and why."""
    write_json(failure_path(part), error.row())


def read_failure(part: Path) -> CaseError | None:
    """Why this content was refused before; None where it was not."""
    try:
        row = json.loads(failure_path(part).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return CaseError(row.pop("patient_id"), row.pop("file"), **row)


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
