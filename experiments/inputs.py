"""Where the tables of the main job come from: the user's own, a cohort of images, or phantoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.plan import Plan, pairs, parameter_files
from lens.cohort import Cohort, read_manifest, split_patients
from lens.errors import CaseError, InputError
from lens.files import file_hash, read_failures, write_failures, write_table

if TYPE_CHECKING:
    from experiments.run_folder import RunFolder


@dataclass(frozen=True)
class Inputs:
    """Tables for the analysis.

    Attributes:
        pre, ft, radiomics, split: files as `lens.study.load_study` takes them.
        set_aside: patients lost on the way from images to tables.
        notes: what a reader of the report must know about the input.
    """

    pre: Path
    ft: dict[str, Path]
    radiomics: Path
    split: Path | None = None
    set_aside: tuple[CaseError, ...] = ()
    notes: tuple[str, ...] = field(default=())


def from_tables(plan: Plan) -> Inputs:
    """The user's own tables."""
    config = plan.config
    assert config.pre is not None
    assert config.radiomics is not None
    return Inputs(config.pre, pairs(config.ft, "--ft"), config.radiomics, config.split)


def from_cohort(plan: Plan, diary: RunFolder) -> Inputs:
    """Tables made from the user's images and encoders."""
    config = plan.config
    assert config.cohort is not None
    assert config.encoder_pre is not None
    checkpoints = {"pre": config.encoder_pre, **pairs(config.encoder_ft, "--encoder-ft")}
    return from_images(plan, diary, read_manifest(config.cohort), checkpoints)


def from_images(
    plan: Plan,
    diary: RunFolder,
    cohort: Cohort,
    checkpoints: Mapping[str, Path],
    notes: Sequence[str] = (),
) -> Inputs:
    """Radiomics and embeddings of a cohort; finished patients are not done again."""
    import encoders
    from encoders.cohort import EmbeddingSettings, embed_cohort
    from lens.radiomics.cohort import extract_cohort
    from lens.radiomics.parameters import load_parameters

    folder, config = diary.folder, plan.config
    errors: list[CaseError] = list(cohort.set_aside)
    radiomics = config.radiomics or folder / "radiomics.parquet"
    images = [
        [
            files.patient_id,
            files.study_id,
            *map(_stamp, (*files.images.values(), *files.masks.values())),
        ]
        for files in cohort.cases
    ]

    def run_radiomics() -> None:
        table, failed = extract_cohort(
            cohort,
            load_parameters(parameters),
            cache=folder / "radiomics-cache",
            spacing_mm=plan.spacing,
            workers=config.workers,
        )
        write_table(table, radiomics)
        write_failures(failed, folder / "radiomics-failures.csv")

    if config.radiomics is None:
        parameters = parameter_files(config.parameters)
        depends = [images, plan.spacing, {k: file_hash(v) for k, v in parameters.items()}]
        diary.stage("radiomics", depends, [radiomics], run_radiomics)
        errors += read_failures(folder / "radiomics-failures.csv")

    embeddings = {name: folder / "embeddings" / f"{name}.npz" for name in checkpoints}
    for name, checkpoint in checkpoints.items():

        def run_embedding(name: str = name, checkpoint: Path = checkpoint) -> None:
            rows, failed = embed_cohort(
                cohort,
                encoders.load(checkpoint),
                settings=EmbeddingSettings(shape=plan.shape, spacing_mm=plan.spacing),
                cache=folder / "embeddings-cache",
                progress=True,
            )
            rows.save(embeddings[name])
            write_failures(failed, folder / "embeddings" / f"{name}-failures.csv")

        depends = [images, plan.spacing, plan.shape, file_hash(checkpoint)]
        diary.stage(f"embed {name}", depends, [embeddings[name]], run_embedding)
        errors += read_failures(folder / "embeddings" / f"{name}-failures.csv")

    split = config.split
    if split is None:
        split = folder / "cohort-split.csv"
        patients = [files.patient_id for files in cohort.cases]
        table = pd.DataFrame({"patient_id": patients, "split": cohort_split(cohort, config.seed)})
        write_table(table.drop_duplicates(), split)
    pre, *_ = checkpoints
    return Inputs(
        pre=embeddings[pre],
        ft={task: path for task, path in embeddings.items() if task != pre},
        radiomics=radiomics,
        split=split,
        set_aside=tuple(errors),
        notes=tuple(notes),
    )


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
