"""A cohort to its radiomics table: in parallel, resumable, one bad patient at a time."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lens.cohort import CaseFiles, Cohort, read_case
from lens.errors import CaseError, InputError
from lens.files import file_hash, write_json
from lens.radiomics.engine import pyradiomics
from lens.radiomics.extract import extract_case
from lens.radiomics.parameters import Parameters, parameters_for
from lens.radiomics.workers import WorkerDied, each_in_workers

log = logging.getLogger(__name__)

NUMBER = re.compile(r"\d[\d.e-]*")

PACKAGES = ("radiomic-lens", "pyradiomics-bhklab", "SimpleITK", "PyWavelets")
"""Packages whose versions decide whether a cached part is still valid."""


def extract_cohort(
    cohort: Cohort,
    parameters: Mapping[str, Parameters],
    *,
    cache: Path,
    spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0),
    workers: int | None = None,
    progress: bool = True,
) -> tuple[pd.DataFrame, list[CaseError]]:
    """Radiomic features of every case that can be used.

    Each case leaves a part in `cache` as soon as it is done, named by the content of its files,
    the parameters, the spacing and the versions at work: a second run extracts nothing, an
    interrupted one goes on, and only what changed is extracted again.

    Args:
        cohort: from `read_manifest`.
        parameters: by modality, from `load_parameters`.
        cache: folder of the parts, created where it is missing.
        spacing_mm: (x, y, z) of the grid on which features are computed.
        workers: processes; None for one per core. With one, this process does the work.
        progress: show a bar.

    Returns:
        Table with ``patient_id``, ``study_id`` where any case has one, and a column per modality,
        ROI and feature, NaN where a case lacks the ROI; and the errors of the cases set aside,
        those of the manifest first.

    Raises:
        InputError: a modality without parameters, no PyRadiomics, or fewer than one worker.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers {workers}: at least one is needed")
    parts = _parts(cohort.cases, parameters, cache, spacing_mm, progress)
    missing = [index for index, part in enumerate(parts) if not part.is_file()]
    log.info("radiomics: %d of %d cases are cached", len(parts) - len(missing), len(parts))
    failed: dict[int, CaseError] = {}
    if missing:
        pyradiomics()
        items = [(cohort.cases[i], parameters, spacing_mm, parts[i]) for i in missing]
        for position, error in _progress(_run(items, workers), len(items), "radiomics", progress):
            if error is not None:
                failed[missing[position]] = error
    done = [i for i in range(len(parts)) if i not in failed]
    cases, contents = [cohort.cases[i] for i in done], [_read_part(parts[i]) for i in done]
    _say(cases, contents)
    return _table(cases, contents), [*cohort.set_aside, *(failed[i] for i in sorted(failed))]


def extract_part(
    files: CaseFiles,
    parameters: Mapping[str, Parameters],
    spacing_mm: tuple[float, float, float],
    part: Path,
) -> CaseError | None:
    """Reads one case, extracts it and writes its part; gives the error where that fails.

    A part that is there already is left alone.
    """
    if part.is_file():
        return None
    try:
        case = read_case(files, spacing_mm=spacing_mm)
        features = extract_case(case, parameters, files=files.images)
        write_json(part, {"notes": list(case.notes), "features": features})
    except CaseError as error:
        return error
    except InputError:
        raise
    except Exception as error:  # one patient never stops a cohort, whatever is wrong with it
        log.debug("patient %s", files.patient_id, exc_info=True)
        return CaseError(
            files.patient_id,
            "",
            stage="radiomics",
            reason=f"{type(error).__name__}: {error}",
            remedy="Look at this patient's images and masks.",
        )
    return None


def _run(
    items: Sequence[tuple[Any, ...]], workers: int | None
) -> Iterator[tuple[int, CaseError | None]]:
    """The outcome of each item of `extract_part`, as they complete."""
    from dask.system import CPU_COUNT

    workers = min(workers or CPU_COUNT, len(items))
    if workers == 1:
        yield from ((index, extract_part(*item)) for index, item in enumerate(items))
        return
    for index, result in each_in_workers(extract_part, items, workers=workers):
        if isinstance(result, WorkerDied):
            result = CaseError(
                items[index][0].patient_id,
                "",
                stage="radiomics",
                reason=f"{result}, most likely for want of memory",
                remedy="Run again with fewer workers, or with a coarser spacing.",
            )
        yield index, result


def _parts(
    cases: Sequence[CaseFiles],
    parameters: Mapping[str, Parameters],
    cache: Path,
    spacing_mm: tuple[float, float, float],
    progress: bool,
) -> list[Path]:
    """Where the part of each case lies or will lie."""
    shared = {"spacing_mm": list(spacing_mm), "versions": {p: _version(p) for p in PACKAGES}}
    name = partial(_fingerprint, parameters=parameters, shared=shared)
    with ThreadPoolExecutor() as pool:
        names = _progress(pool.map(name, cases), len(cases), "comparing with the cache", progress)
        return [cache / f"{name}.json" for name in names]


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


def _read_part(part: Path) -> dict[str, Any]:
    return json.loads(part.read_text(encoding="utf-8"))


def _table(cases: Sequence[CaseFiles], parts: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A row per case, the union of the columns ordered by modality, ROI and first appearance."""
    features = [part["features"] for part in parts]
    columns = _ordered(features)
    values = np.array([[f.get(c, np.nan) for c in columns] for f in features], dtype=np.float64)
    table = pd.DataFrame(values.reshape(len(cases), len(columns)), columns=columns)
    if any(files.study_id is not None for files in cases):
        table.insert(0, "study_id", [files.study_id for files in cases])
    table.insert(0, "patient_id", [files.patient_id for files in cases])
    return table


def _ordered(features: Sequence[dict[str, float]]) -> list[str]:
    columns = list(dict.fromkeys(column for row in features for column in row))
    region = {column: tuple(column.split(".", 2)[:2]) for column in columns}
    modalities = list(dict.fromkeys(modality for modality, _ in region.values()))
    rois = list(dict.fromkeys(roi for _, roi in region.values()))
    rank = {pair: (modalities.index(pair[0]), rois.index(pair[1])) for pair in region.values()}
    return sorted(columns, key=lambda column: rank[region[column]])


def _say(cases: Sequence[CaseFiles], parts: Sequence[dict[str, Any]]) -> None:
    """Logs what was done to geometry and labels, and what some regions leave undefined.

    One line per kind of note with the first patient's words, for cohorts have a thousand patients.
    """
    told: dict[str, list[tuple[str, str]]] = {}
    for files, part in zip(cases, parts, strict=True):
        for note in [*part["notes"], *_undefined(part["features"])]:
            told.setdefault(NUMBER.sub("#", note), []).append((files.patient_id, note))
    for mentions in told.values():
        patient_id, note = mentions[0]
        others = f" (likewise {len(mentions) - 1} more)" if mentions[1:] else ""
        log.info("patient %s: %s%s", patient_id, note, others)


def _undefined(features: Mapping[str, float]) -> Iterator[str]:
    """A note per region of a modality in which some features are NaN."""
    count: dict[str, int] = {}
    for column, value in features.items():
        if not np.isfinite(value):
            region = ".".join(column.split(".", 2)[:2])
            count[region] = count.get(region, 0) + 1
    for region, number in count.items():
        yield (
            f"{region}: {number} features are undefined and stay NaN, "
            "for the region is too small or made of isolated voxels"
        )


def _progress(iterable: Any, total: int, name: str, show: bool) -> Any:
    from tqdm import tqdm

    return tqdm(iterable, total=total, desc=name, unit="case", disable=not show)
