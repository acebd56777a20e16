"""A cohort to its radiomics table: in parallel, resumable, one bad patient at a time.

Each case leaves a part in a folder as soon as it is done, named by everything that determines it
(`lens.radiomics.parts`): a second run extracts nothing, an interrupted one goes on, only what
changed is extracted again, and a damaged part is made anew. That a case was refused is remembered
in the same way, so that a hopeless one costs its time once. What a part does not settle, for
example a worker that ran out of memory, is tried again in every run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from lens.allocator import freed_memory_kept
from lens.anonymise import OPEN, Names
from lens.cohort.case_notes import log_notes
from lens.cohort.manifest import CaseFiles, Cohort
from lens.cohort.placement import geometry_table
from lens.cohort.regions import check_labels
from lens.errors import CaseError, InputError
from lens.files import check_writable, write_table
from lens.machine import cpu_count
from lens.names import check_names
from lens.radiomics import audit
from lens.radiomics.compiled import compile_once, load, load_alone
from lens.radiomics.computable import check_computable
from lens.radiomics.engine import pyradiomics
from lens.radiomics.extract_part import extract_part
from lens.radiomics.memory import affordable_workers
from lens.radiomics.parameters import Parameters
from lens.radiomics.parts import (
    Part,
    Reading,
    forget_failure,
    parts_of,
    read_failure,
    read_geometry,
    versions,
)
from lens.radiomics.perturb_part import perturb_part
from lens.radiomics.processes import WorkerDied
from lens.radiomics.workers import Cluster, each_in_workers

log = logging.getLogger(__name__)


def extract_cohort(
    cohort: Cohort,
    parameters: Mapping[str, Parameters],
    *,
    cache: Path,
    spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0),
    labels: Mapping[str, Sequence[int]] | None = None,
    workers: int | None = None,
    progress: bool = True,
    scheduler: str | None = None,
    retry_failed: bool = False,
    audit_file: Path | None = None,
    gray_level_file: Path | None = None,
    geometry_file: Path | None = None,
    names: Names = OPEN,
) -> tuple[pd.DataFrame, list[CaseError]]:
    """Radiomic features of every case that can be used.

    Args:
        cohort: from `read_manifest`.
        parameters: by modality, from `load_parameters`.
        cache: folder of the parts, created where it is missing.
        spacing_mm: (x, y, z) of the grid on which features are computed.
        labels: region -> the mask values that make it; every value above zero by default.
        workers: processes; None for one per core. With one, this process does the work. Fewer are
            started where the memory would not do, which is then logged.
        progress: show a bar.
        scheduler: address of a running Dask scheduler (``tls://host:8786``) whose workers do the
            work instead; they must see the same files.
        retry_failed: try cases again that were refused before with the same content.
        audit_file: table of what is wrong with the values (``.csv``), see `audit.audit`.
        gray_level_file: table of gray levels per patient, modality, ROI and image (``.csv``).
        geometry_file: table of how each image and mask came onto its grid (``.csv``), see
            `lens.cohort.geometry_table`.
        names: how the side tables call patients and files.

    Returns:
        Table with ``patient_id``, ``study_id`` where any case has one, and a column per modality,
        ROI and feature, NaN where a case lacks the ROI or the audit took a value out; and the
        errors of the cases set aside, those of the manifest first.

    Raises:
        InputError: a modality without parameters, no PyRadiomics, parameters that ask for what
            cannot be computed here or for another label, fewer than one worker, labels of what is
            no region, a cache that cannot be written, a scheduler that is not there or whose
            workers do not fit, or not a single feature.
    """
    _check(workers, labels, cohort)
    if workers == 1:
        load()  # which this process needs, and what follows sooner with it
    check_computable(cohort, parameters, labels or {})
    check_writable(cache)
    reading = Reading(spacing_mm, labels)
    parts = parts_of(cohort.cases, parameters, cache, reading, progress=progress)
    failed = _failed_before(cohort.cases, parts, retry_failed)
    missing = [i for i, part in enumerate(parts) if i not in failed and not part.finished()]
    _log_known(len(parts), len(missing), len(failed))
    items = [(cohort.cases[i], parameters, reading, parts[i]) for i in missing]
    errors = _run(extract_part, items, workers, scheduler, "radiomics", progress)
    failed |= {missing[position]: error for position, error in errors.items()}
    done = [i for i in range(len(parts)) if i not in failed]
    cases, contents = [cohort.cases[i] for i in done], [parts[i].read() for i in done]
    names_of = (files.patient_id for files in cases)
    log_notes(zip(names_of, (part["notes"] for part in contents), strict=True))
    if geometry_file is not None:
        write_table(names.table(_geometry(cohort.cases, parts)), geometry_file)
    table = _audited(cases, contents, audit_file, gray_level_file)
    if cases and set(table.columns) <= set(audit.KEYS):
        raise InputError("the parameter files ask for no feature; name classes in featureClass")
    _warn_of_absent(cohort, cases, contents)
    return table, [*cohort.set_aside, *(failed[i] for i in sorted(failed))]


def extract_perturbed(
    cohort: Cohort,
    parameters: Mapping[str, Parameters],
    *,
    cache: Path,
    repeats: int,
    spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0),
    labels: Mapping[str, Sequence[int]] | None = None,
    workers: int | None = None,
    progress: bool = True,
    scheduler: str | None = None,
) -> pd.DataFrame:
    """Features of `repeats` perturbed versions of every case, for `repeatability`.

    Each case is seeded by the content of its images and masks, so that a version is the same in
    every run and cohort. Cases are cached as in `extract_cohort`, whose arguments these are. Cases
    that were refused there, and versions that are, are left out.

    Returns:
        Table with ``patient_id``, ``study_id`` where any case has one, ``repeat`` from 0, and the
        columns of the radiomics table.

    Raises:
        InputError: fewer than two repeats, or as `extract_cohort`.
    """
    if repeats < 2:
        raise InputError(f"perturb {repeats}: at least two versions are needed to compare them")
    _check(workers, labels, cohort)
    reading = Reading(spacing_mm, labels)
    wholes = parts_of(cohort.cases, parameters, cache, reading, progress=progress)
    usable = [index for index, part in enumerate(wholes) if part.finished()]
    parts = {i: wholes[i].perturbed(repeats) for i in usable}
    missing = [i for i in usable if not parts[i].finished()]
    items = [(cohort.cases[i], parameters, reading, parts[i], repeats) for i in missing]
    errors = _run(perturb_part, items, workers, scheduler, "perturbed versions", progress)
    for error in errors.values():
        log.warning("perturbed versions: %s", error)
    done = [i for i in usable if parts[i].finished()]
    versions_of = [parts[i].read()["versions"] for i in done]
    cases = [cohort.cases[i] for i, made in zip(done, versions_of, strict=True) for _ in made]
    table = _table(cases, [{"features": features} for made in versions_of for features in made])
    table.insert(1, "repeat", [repeat for made in versions_of for repeat in range(len(made))])
    return table


def _check(workers: int | None, labels: Mapping[str, Sequence[int]] | None, cohort: Cohort) -> None:
    if workers is not None and workers < 1:
        raise InputError(f"workers {workers}: at least one is needed")
    check_labels(labels or {})
    check_names(labels or {}, cohort.rois, "region", "label")


def _failed_before(
    cases: Sequence[CaseFiles], parts: Sequence[Part], retry: bool
) -> dict[int, CaseError]:
    """The refusals that are remembered, by position; with `retry` they are forgotten."""
    if retry:
        for part in parts:
            forget_failure(part)
    pairs = enumerate(zip(parts, cases, strict=True))
    refused = {index: read_failure(part, files) for index, (part, files) in pairs}
    return {index: error for index, error in refused.items() if error is not None}


def _log_known(total: int, missing: int, failed: int) -> None:
    log.info("radiomics: %d of %d cases are cached", total - missing - failed, total)
    if failed:
        log.info(
            "radiomics: %d case(s) were refused before with the same files, parameters and "
            "versions, and are not tried again; --retry-failed tries them",
            failed,
        )


def _run(
    function: Callable[..., CaseError | None],
    items: Sequence[tuple[Any, ...]],
    workers: int | None,
    scheduler: str | None,
    title: str,
    progress: bool,
) -> dict[int, CaseError]:
    """The errors of `function` over the items, by position, with a bar."""
    if not items:
        return {}
    pyradiomics()
    outcomes = _outcomes(function, items, workers, scheduler)
    shown = tqdm(outcomes, title, len(items), unit="case", disable=not progress)
    return {position: error for position, error in shown if error is not None}


def _outcomes(
    function: Callable[..., CaseError | None],
    items: Sequence[tuple[Any, ...]],
    workers: int | None,
    scheduler: str | None,
) -> Iterator[tuple[int, CaseError | None]]:
    """The outcome of `function` for each item, as they complete."""
    if scheduler is None:
        workers = min(workers or cpu_count(), len(items))
        cases, (_, parameters, reading, *_) = [item[0] for item in items], items[0]
        workers = affordable_workers(workers, cases, parameters, reading.spacing_mm)
        if workers == 1:
            with freed_memory_kept():
                yield from ((index, function(*item)) for index, item in enumerate(items))
            return
        compile_once()
    else:
        items = [_absolute(*item) for item in items]
    cluster = Cluster(workers, scheduler, _paths(items), versions(), load_alone)
    for index, result in each_in_workers(function, items, cluster=cluster):
        if isinstance(result, WorkerDied):
            result = CaseError(
                items[index][0].patient_id,
                "",
                stage="radiomics",
                reason=f"{result}, most likely for want of memory",
                remedy="Run again with fewer workers (--workers), or with a coarser --spacing.",
            )
        yield index, result


def _absolute(
    files: CaseFiles, parameters: Any, reading: Reading, part: Part, *rest: Any
) -> tuple[Any, ...]:
    """An item whose paths mean the same in a process that runs in another folder."""
    images = {name: path.absolute() for name, path in files.images.items()}
    masks = {name: path.absolute() for name, path in files.masks.items()}
    here = replace(files, images=images, masks=masks)
    return here, parameters, reading, replace(part, path=part.path.absolute()), *rest


def _paths(items: Sequence[tuple[Any, ...]]) -> tuple[Path, ...]:
    """What a worker must see: the folder of the parts, and the first case's files."""
    files, _, _, part, *_ = items[0]
    folder = part.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    return (folder, *files.images.values(), *files.masks.values())


def _audited(
    cases: Sequence[CaseFiles],
    parts: Sequence[dict[str, Any]],
    audit_file: Path | None,
    gray_level_file: Path | None,
) -> pd.DataFrame:
    """The table without its bad values; writes the side tables."""
    levels = audit.gray_levels(cases, parts)
    table, findings = audit.audit(_table(cases, parts), levels)
    audit.log_findings(findings)
    if audit_file is not None:
        write_table(findings, audit_file)
    if gray_level_file is not None:
        write_table(levels, gray_level_file)
    return table


def _geometry(cases: Sequence[CaseFiles], parts: Sequence[Part]) -> pd.DataFrame:
    """The geometry report, from what finished and refused cases left."""
    return geometry_table(
        (files.patient_id, files.study_id, read_geometry(part, files))
        for files, part in zip(cases, parts, strict=True)
    )


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


def _wants(files: CaseFiles, roi: str) -> bool:
    return files.extracted is None or roi in files.extracted


def _warn_of_absent(
    cohort: Cohort, cases: Sequence[CaseFiles], parts: Sequence[dict[str, Any]]
) -> None:
    """Names the regions that no case has, of which the table has no column.

    A blank cell or an empty mask is the answer for one patient; for all of them it is rather a
    wrong label or an empty column.
    """
    measured = {region.rpartition(".")[2] for part in parts for region in part["voxels"]}
    wanted = [roi for roi in cohort.rois if any(_wants(files, roi) for files in cases)]
    for roi in wanted:
        if roi in measured:
            continue
        rows = [row for part in parts for row in part["geometry"] if row["name"] == roi]
        values = sorted({int(value) for row in rows for value, _ in row["labels"]})
        held = (
            f"their masks hold {', '.join(map(str, values)) or 'nothing'}"
            if rows
            else "no cell names one"
        )
        log.warning(
            "region %s: none of the %d patients has it (%s), so that the table has no column of "
            "it. Correct its masks or --label, or leave it out: --rois names the others",
            roi, len(cases), held,
        )  # fmt: skip
