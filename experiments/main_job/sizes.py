"""Sizes of a run from images before any image is read, and what they need of memory and disk."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from experiments.common.check_first import check_encoder, check_parameters
from experiments.common.flags import entries
from experiments.common.outlook import FLOAT, amount, check_room, several
from experiments.common.radiomics_outlook import EXTRACTION_BYTES, extraction_memory
from experiments.main_job.images import embedding_settings, with_rois
from experiments.main_job.plan import Plan
from lens.cohort import CaseFiles, Cohort, parse_labels
from lens.cohort.prostate import MODALITIES
from lens.radiomics.computable import count_columns
from lens.radiomics.parameters import load_parameters, narrowed, parameter_files
from lens.settings import Settings
from lens.stages import folds_of
from lens.study.split import split_patients
from lens.study.study import Study
from lens.study.tables import ID_COLUMNS, read_radiomics
from lens.verdicts.folds import Fold, single_fold

DOUBLE = 8
"""Bytes of a number in a radiomics table."""

MASK = 1
"""Bytes of a voxel of a mask."""


@dataclass(frozen=True)
class Sizes:
    """Rows and columns of the tables.

    Attributes:
        rows: studies of patients.
        features: radiomic ones.
        dimensions: of an embedding.
        tasks: encoders after fine-tuning.
    """

    rows: int
    features: int
    dimensions: int
    tasks: int

    def __str__(self) -> str:
        return (
            f"{several(self.rows, 'row')} (patients, or studies of them), {self.features} features,"
            f" {self.dimensions} dimensions, {several(self.tasks, 'task')}"
        )

    @property
    def in_memory(self) -> float:
        """Bytes of the joined tables: features as read and as used, and the embeddings."""
        features, embeddings = self.features * 2 * DOUBLE, (1 + self.tasks) * self.dimensions
        return self.rows * (features + embeddings * FLOAT)

    def made_up(self) -> tuple[np.ndarray, np.ndarray]:
        """Random embeddings (n, d) and features (n, k) of these sizes, to time a fit on."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(self.rows, self.dimensions)).astype(np.float32)
        return x, rng.normal(size=(self.rows, self.features))

    def folds(self, settings: Settings) -> tuple[Fold, ...]:
        """Folds of so many patients, a row each."""
        patients = np.array([f"{row:07d}" for row in range(self.rows)])
        split = split_patients(patients, seed=settings.seed)
        return folds_of(patients, settings) or single_fold(split)


def sizes_of_study(study: Study) -> Sizes:
    """Sizes of joined tables."""
    return Sizes(len(study.r), study.r.shape[1], study.x_pre.shape[1], len(study.x_ft))


def sizes_of_images(plan: Plan, cohort: Cohort) -> Sizes:
    """Sizes if every patient of the cohort can be used."""
    flags, table = plan.config.images, plan.radiomics
    tasks = len(entries(flags.encoder_ft, "--encoder-ft"))
    assert flags.encoder_pre is not None
    pre, shown = flags.encoder_pre, embedding_settings(plan, cohort)
    header = check_encoder(pre, "--encoder-pre", settings=shown, output=flags.output)
    width = header.config.features
    if table is not None:
        names = read_radiomics(table, id_column=plan.settings.id_column).columns.difference(
            list(ID_COLUMNS)
        )
        return Sizes(len(cohort.cases), len(names), width, tasks)
    files = parameter_files(flags.parameters)
    parameters = load_parameters(files, cohort.kinds, flat=cohort.flat)
    cases = with_rois(cohort, plan.config.roi).cases
    fullest = max(cases, key=lambda files: len(files.regions))
    return Sizes(len(cohort.cases), count_columns(fullest, parameters), width, tasks)


def sizes_of_phantoms(plan: Plan) -> Sizes:
    """Sizes of the embedded default."""
    masks = {roi: Path(roi) for roi in plan.config.roi}
    case = CaseFiles("", None, {name: Path(name) for name in MODALITIES}, masks, {}, None)
    parameters = load_parameters(parameter_files(plan.config.images.parameters))
    if plan.narrowing:
        parameters = narrowed(parameters, *plan.narrowing)
    columns = count_columns(case, parameters)
    return Sizes(plan.phantom.patients, columns, plan.phantom.widths[-1], len(plan.scopes))


def image_needs(
    plan: Plan, cohort: Cohort | None, sizes: Sizes
) -> tuple[list[str], dict[str, float]]:
    """Sentences on memory, and bytes on disk by what is written, before the tables are there."""
    made = plan.radiomics is None
    voxels = prod(plan.shape)
    channels = MODALITIES if cohort is None else plan.channels(cohort)
    volume = f"a volume {amount(voxels * len(channels) * FLOAT)}"
    memory = [f"embed: {volume}, four at a time; what the encoder keeps on top is not known"]
    if cohort is not None and made:
        parameters = check_parameters(
            plan.config.images.parameters, cohort, parse_labels(plan.config.images.label)
        )
        workers = plan.config.images.workers
        memory.insert(0, extraction_memory(workers, cohort.cases, parameters, plan.spacing))
    return memory, disk_needs(plan, cohort, sizes)


def disk_needs(plan: Plan, cohort: Cohort | None, sizes: Sizes) -> dict[str, float]:
    """Bytes on disk by what is written, before the tables are there."""
    disk = {"embeddings": 2.0 * sizes.rows * sizes.dimensions * (1 + sizes.tasks) * FLOAT}
    if plan.radiomics is None:
        disk["radiomics"] = float(sizes.rows * sizes.features * EXTRACTION_BYTES)
    if cohort is None:
        images = len(MODALITIES) * FLOAT + len(plan.config.roi) * MASK
        # The cohort's own volumes are kept where it is trained on.
        copies = 1.0 if plan.phantom.trained else 2.0
        disk["phantoms and their volumes"] = copies * sizes.rows * prod(plan.shape) * images
    return disk


def check_disk(plan: Plan, cohort: Cohort | None) -> None:
    """Refuses a run from images that the disk of the run folder has no room for.

    Raises:
        InputError: names what is needed and what is free.
    """
    sizes = sizes_of_phantoms(plan) if cohort is None else sizes_of_images(plan, cohort)
    need = sum(disk_needs(plan, cohort, sizes).values()) + sizes.in_memory
    check_room([(plan.out, "--out", need)])
