"""Where the tables of the main job come from: the user's own, a cohort of images, or phantoms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from experiments.main_job.plan import Plan, pairs, parameter_files, retrained_files
from lens.cohort import Cohort, parse_labels, read_manifest
from lens.errors import CaseError, InputError
from lens.files import file_hash, read_failures, write_failures, write_table
from lens.study.split import split_patients

if TYPE_CHECKING:
    from experiments.common.run_record import RunRecord


class Embeddings(NamedTuple):
    """Files of one task's embeddings before and after fine-tuning."""

    pre: Path
    ft: Path


@dataclass(frozen=True)
class Inputs:
    """Tables for the analysis.

    Attributes:
        tasks: task -> its embeddings.
        retrained: task -> embeddings of encoders fine-tuned on it again.
        radiomics, split: files as `lens.study.load.load_study` takes them.
        set_aside: patients lost on the way from images to tables.
        notes: what a reader of the report must know about the input.
    """

    tasks: dict[str, Embeddings]
    radiomics: Path
    split: Path | None = None
    set_aside: tuple[CaseError, ...] = ()
    notes: tuple[str, ...] = field(default=())
    retrained: dict[str, list[Path]] = field(default_factory=dict)


def from_tables(plan: Plan) -> Inputs:
    """The user's own tables."""
    config = plan.config
    assert config.radiomics is not None
    ft = pairs(config.ft, "--ft")
    own = [entry for entry in config.pre if entry.partition("=")[0] in ft]
    common = [Path(entry) for entry in config.pre if entry not in own]
    if len(common) > 1:
        raise InputError(
            f"--pre {common[1]}: {common[0]} is given already; TASK=FILE is for one task"
        )
    pre = pairs(own, "--pre")
    tasks = {}
    for task, file in ft.items():
        if task not in pre and not common:
            raise InputError(f"--pre is missing for task {task!r}: give --pre FILE or {task}=FILE")
        tasks[task] = Embeddings(pre[task] if task in pre else common[0], file)
    retrained = retrained_files(config)
    return Inputs(tasks, config.radiomics, config.split, retrained=retrained)


def from_cohort(plan: Plan, record: RunRecord) -> Inputs:
    """Tables made from the user's images and encoders."""
    config = plan.config
    assert config.cohort is not None
    assert config.encoder_pre is not None
    tuned = pairs(config.encoder_ft, "--encoder-ft")
    return from_images(plan, record, read_manifest(config.cohort), config.encoder_pre, tuned)


def from_images(
    plan: Plan,
    record: RunRecord,
    cohort: Cohort,
    pre: Path,
    tuned: Mapping[str, Path],
    notes: Sequence[str] = (),
) -> Inputs:
    """Radiomics and embeddings of a cohort; finished patients are not done again.

    Args:
        plan, diary: of the run.
        cohort: the patients.
        pre: encoder before fine-tuning.
        tuned: task -> encoder after it.
        notes: what a reader of the report must know about the input.
    """
    images = [
        [f.patient_id, f.study_id, *map(_stamp, (*f.images.values(), *f.masks.values()))]
        for f in cohort.cases
    ]
    radiomics, lost = plan.config.radiomics, list(cohort.set_aside)
    if radiomics is None:
        radiomics, failed = _radiomics(plan, record, cohort, images)
        lost += failed
    made: dict[tuple[Path, tuple[str, ...]], Path] = {}

    def embedded(name: str, checkpoint: Path, channels: tuple[str, ...]) -> Path:
        """The embeddings of an encoder that sees these channels, made once."""
        if (checkpoint, channels) not in made:
            name = "-".join([name, *channels])
            table, failed = _embeddings(plan, record, cohort, images, name, checkpoint, channels)
            made[checkpoint, channels] = table
            lost.extend(failed)
        return made[checkpoint, channels]

    tasks = {}
    for task, checkpoint in tuned.items():
        channels = plan.scope(task).channels
        tasks[task] = Embeddings(
            embedded("pre", pre, channels), embedded(task, checkpoint, channels)
        )
    return Inputs(
        tasks=tasks,
        radiomics=radiomics,
        split=plan.config.split or _write_split(record.folder, cohort, plan.config.seed),
        set_aside=tuple(lost),
        notes=tuple(notes),
    )


def _radiomics(
    plan: Plan, record: RunRecord, cohort: Cohort, images: list
) -> tuple[Path, list[CaseError]]:
    from lens.radiomics.cohort_features import extract_cohort
    from lens.radiomics.parameters import load_parameters

    folder = record.folder
    table, failures = folder / "radiomics.parquet", folder / "radiomics-failures.csv"
    parameters = parameter_files(plan.config.parameters)
    labels = parse_labels(plan.config.label)

    def work() -> None:
        features, failed = extract_cohort(
            _with_rois(cohort, plan.roi),
            load_parameters(parameters),
            cache=folder / "radiomics-cache",
            spacing_mm=plan.spacing,
            labels=labels,
            workers=plan.config.workers,
            audit_file=folder / "radiomics-audit.csv",
            gray_level_file=folder / "radiomics-gray-levels.csv",
            geometry_file=folder / "radiomics-geometry.csv",
        )
        write_table(features, table)
        write_failures(failed, failures)

    hashes = {name: file_hash(path) for name, path in parameters.items()}
    depends = [images, plan.spacing, plan.roi, hashes, labels]
    record.stage("radiomics", depends, [table, folder / "radiomics-audit.csv"], work)
    return table, read_failures(failures)


def _embeddings(
    plan: Plan,
    record: RunRecord,
    cohort: Cohort,
    images: list,
    name: str,
    checkpoint: Path,
    channels: tuple[str, ...],
) -> tuple[Path, list[CaseError]]:
    import encoders
    from encoders.cohort_embeddings import EmbeddingSettings, embed_cohort

    folder = record.folder / "embeddings"
    table, failures = folder / f"{name}.npz", folder / f"{name}-failures.csv"

    labels = parse_labels(plan.config.label)

    def work() -> None:
        rows, failed = embed_cohort(
            _with_channels(cohort, channels),
            encoders.load(checkpoint),
            settings=EmbeddingSettings(shape=plan.shape, spacing_mm=plan.spacing, labels=labels),
            cache=record.folder / "embeddings-cache",
            progress=True,
        )
        rows.save(table)
        write_failures(failed, failures)

    depends = [images, plan.spacing, plan.shape, file_hash(checkpoint), labels]
    depends += [channels]
    record.stage(f"embed {name}", depends, [table], work)
    return table, read_failures(failures)


def _write_split(folder: Path, cohort: Cohort, seed: int) -> Path:
    patients = [files.patient_id for files in cohort.cases]
    table = pd.DataFrame({"patient_id": patients, "split": cohort_split(cohort, seed)})
    write_table(table.drop_duplicates(), folder / "cohort-split.csv")
    return folder / "cohort-split.csv"


def _with_rois(cohort: Cohort, rois: Sequence[str]) -> Cohort:
    """The cohort with the masks of `rois` alone, so that no others are extracted; () means all."""
    if not rois:
        return cohort
    cases = (
        dataclasses.replace(
            files, masks={roi: path for roi, path in files.masks.items() if roi in rois}
        )
        for files in cohort.cases
    )
    return dataclasses.replace(cohort, cases=tuple(files for files in cases if files.masks))


def _with_channels(cohort: Cohort, channels: Sequence[str]) -> Cohort:
    """The cohort with these modalities alone, in which the others are zeros; () means all."""
    if not channels:
        return cohort
    cases = []
    for files in cohort.cases:
        images = {name: path for name, path in files.images.items() if name in channels}
        if len(images) < len(channels):
            missing = next(name for name in channels if name not in images)
            raise InputError(
                f"{cohort.path}: patient {files.patient_id} has no {missing}, named in --channels"
            )
        cases.append(dataclasses.replace(files, images=images))
    return dataclasses.replace(cohort, cases=tuple(cases))


def cohort_split(cohort: Cohort, seed: int) -> np.ndarray:
    """The manifest's own split, or 7:1:2 by patient over all patients of the manifest."""
    given = [files.split for files in cohort.cases]
    if all(given):
        return np.array(given)
    if any(given):
        missing = next(files.patient_id for files in cohort.cases if not files.split)
        raise InputError(f"{cohort.path}: patient {missing} has no split, others have; fill in all")
    return split_patients([files.patient_id for files in cohort.cases], seed=seed)


def _stamp(path: Path) -> list[object]:
    """Size and time of a file, or of a folder's files: cheap to ask, changed by any rewrite."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [str(path), *((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)]
