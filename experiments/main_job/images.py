"""Tables made from a cohort of images: radiomics, and embeddings by each encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from encoders.source_names import is_called
from encoders.state_dicts import source_hash
from experiments.common.anonymous import private_cache
from experiments.common.cohorts import read_cohort
from experiments.common.flags import pairs
from experiments.common.run_record import RunRecord
from experiments.main_job.inputs import Embeddings, Inputs
from experiments.main_job.layers import SUFFIX, LayerFiles, layer_files
from experiments.main_job.plan import Plan
from lens.anonymise import OPEN, Names
from lens.cohort import Cohort, parse_labels
from lens.cohort.contents import image_stamp
from lens.errors import CaseError, InputError
from lens.files import file_hash, read_failures, write_failures, write_table
from lens.study.split import split_patients

if TYPE_CHECKING:
    from encoders.cohort_embeddings import EmbeddingSettings


def from_cohort(plan: Plan, record: RunRecord, names: Names = OPEN) -> Inputs:
    """Tables made from the user's images and encoders; `names` are those of the patients."""
    flags = plan.config.images
    assert flags.cohort is not None
    assert flags.encoder_pre is not None
    tuned = pairs(flags.encoder_ft, "--encoder-ft")
    cohort = read_cohort(flags, label=flags.label, told=False)
    record.record["columns"] = cohort.record()
    names = names.of_cohort(cohort)
    return from_images(plan, record, names.cohort(cohort), flags.encoder_pre, tuned, names=names)


def from_images(
    plan: Plan,
    record: RunRecord,
    cohort: Cohort,
    pre: Path,
    tuned: Mapping[str, Path],
    notes: Sequence[str] = (),
    names: Names = OPEN,
) -> Inputs:
    """Radiomics and embeddings of a cohort; finished patients are not done again.

    Args:
        plan, record: of the run.
        cohort: the patients.
        pre: encoder before fine-tuning.
        tuned: task -> encoder after it.
        notes: what a reader of the report must know about the input.
        names: under which the cohort's patients are written.
    """
    maker = _Maker(plan, record, cohort, names)
    radiomics, lost = plan.radiomics, list(cohort.set_aside)
    if radiomics is None:
        radiomics, failed = maker.radiomics()
        lost += failed
    made: dict[tuple[Path, tuple[str, ...], bool], Path] = {}

    def embedded(
        name: str, checkpoint: Path, channels: tuple[str, ...], *, layers: bool = False
    ) -> Path:
        """The embeddings of an encoder that sees these channels, made once."""
        if (checkpoint, channels, layers) not in made:
            stem = "-".join([name, *channels])
            table, failed = maker.embeddings(stem, checkpoint, channels, layers=layers)
            made[checkpoint, channels, layers] = table
            lost.extend(failed)
        return made[checkpoint, channels, layers]

    tasks, of_tasks = {}, {}
    for task, checkpoint in tuned.items():
        channels = plan.scope(task).channels
        tasks[task] = Embeddings(
            embedded("pre", pre, channels), embedded(task, checkpoint, channels)
        )
    for task, checkpoint in tuned.items() if plan.config.layers.layers else ():
        channels = plan.scope(task).channels
        of_tasks[task] = LayerFiles(
            embedded("pre", pre, channels, layers=True),
            embedded(task, checkpoint, channels, layers=True),
        )
    return Inputs(
        tasks=tasks,
        radiomics=radiomics,
        split=plan.config.tables.split or _write_split(record, cohort, plan.settings.seed),
        set_aside=tuple(lost),
        notes=tuple(notes),
        names=names,
        layers=layer_files(plan.config.layers, list(tasks), of_tasks),
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


@dataclass(frozen=True)
class _Maker:
    """Makes the tables of one cohort."""

    plan: Plan
    record: RunRecord
    cohort: Cohort
    names: Names

    def radiomics(self) -> tuple[Path, list[CaseError]]:
        """The radiomics table, and the patients set aside."""
        from lens.radiomics.cohort_features import extract_cohort
        from lens.radiomics.parameters import load_parameters, narrowed, parameter_files

        flags, folder = self.plan.config.images, self.record.folder
        table, failures = folder / "radiomics.parquet", folder / "radiomics-failures.csv"
        names = ("audit", "gray-levels", "geometry")
        audit, gray_levels, geometry = (folder / f"radiomics-{name}.csv" for name in names)
        files = parameter_files(flags.parameters)
        labels, narrowing = parse_labels(flags.label), self.plan.narrowing

        def work() -> None:
            parameters = load_parameters(files, self.cohort.kinds, flat=self.cohort.flat)
            features, failed = extract_cohort(
                with_rois(self.cohort, self.plan.config.roi),
                narrowed(parameters, *narrowing) if narrowing else parameters,
                cache=self._cache("radiomics-cache"),
                spacing_mm=self.plan.spacing,
                labels=labels,
                workers=flags.workers,
                audit_file=audit,
                gray_level_file=gray_levels,
                geometry_file=geometry,
                names=self.names,
            )
            write_table(features, table)
            write_failures(self.names.errors(failed), failures)

        hashes = {name: file_hash(path) for name, path in files.items()}
        depends = [self._images(), self.plan.spacing, self.plan.config.roi, hashes, labels]
        depends += [narrowing]
        code = (__name__, "lens.radiomics.cohort_features")
        outputs = [table, failures, audit, gray_levels, geometry]
        self.record.stage("radiomics", code, depends, outputs, work, lasting=True)
        return table, read_failures(failures)

    def embeddings(
        self, name: str, checkpoint: Path, channels: tuple[str, ...], *, layers: bool = False
    ) -> tuple[Path, list[CaseError]]:
        """An encoder's embeddings of the cohort, or its layers', and the patients set aside."""
        from encoders.cohort_embeddings import embed_cohort
        from encoders.sources import content_hash, open_encoder

        plan, folder = self.plan, self.record.folder / "embeddings"
        name = f"{name}-{SUFFIX}" if layers else name
        table, failures = folder / f"{name}.npz", folder / f"{name}-failures.csv"
        settings = embedding_settings(plan, self.cohort)
        settings = of_layers(settings) if layers else settings
        output = plan.config.images.output

        def work() -> None:
            rows, failed = embed_cohort(
                with_channels(self.cohort, channels),
                open_encoder(checkpoint, output=output),
                settings=settings,
                cache=self._cache("embeddings-cache"),
                progress=True,
                # The radiomics of this run tell them, or else the first of the encoders.
                told=plan.radiomics is not None and checkpoint == plan.config.images.encoder_pre,
            )
            rows.save(table)
            write_failures(self.names.errors(failed), failures)

        if is_called(checkpoint):
            content = content_hash(checkpoint, output)
        else:
            content = self.record.content(checkpoint, source_hash)
        depends = [self._images(), settings, content, channels]
        code = (__name__, "encoders.cohort_embeddings", "encoders.sources")
        self.record.stage(f"embed {name}", code, depends, [table, failures], work, lasting=True)
        return table, read_failures(failures)

    def _cache(self, name: str) -> Path:
        """Folder of finished cases; what is kept there names files, so it may not stay here."""
        return private_cache() if self.names.hides else self.record.folder / name

    def _images(self) -> list[object]:
        """What tells that an image changed, without reading all of them."""
        return [
            [case.patient_id, case.study_id, case.nifti_form, dict(case.kinds)]
            + [case.flat, case.pixel_mm]
            + [
                [name, image_stamp(path)]
                for each in (case.images, case.masks)
                for name, path in each.items()
            ]
            for case in self.cohort.cases
        ]


def embedding_settings(plan: Plan, cohort: Cohort) -> EmbeddingSettings:
    """How the run's encoders are shown the images of its cohort."""
    from encoders.cohort_embeddings import EmbeddingSettings

    flags = plan.config.images
    return EmbeddingSettings(
        shape=plan.shape,
        spacing_mm=plan.spacing,
        modalities=plan.channels(cohort),
        pool=plan.pool,
        tokens=flags.tokens,
        labels=parse_labels(flags.label),
    )


def of_layers(settings: EmbeddingSettings) -> EmbeddingSettings:
    """The settings for every stage: the same images, maps averaged, no class token."""
    return dataclasses.replace(settings, layers="stages", tokens=None)


def check_different_encoders(
    pre: Path, tuned: Mapping[str, Path], output: str | None = None
) -> None:
    """Refuses an encoder compared with itself.

    Args:
        pre: checkpoint before fine-tuning.
        tuned: task -> checkpoint after it.
        output: of ONNX files, which.

    Raises:
        InputError: two are the same file, or the same function, by content.
    """
    from encoders.sources import content_hash

    first = content_hash(pre, output)
    for task, checkpoint in tuned.items():
        if content_hash(checkpoint, output) == first:
            raise InputError(
                f"--encoder-pre {pre} and --encoder-ft {task}={checkpoint} are the same encoder; "
                "check the files, or allow it (--identical)"
            )


def _write_split(record: RunRecord, cohort: Cohort, seed: int) -> Path:
    patients = [files.patient_id for files in cohort.cases]
    table = pd.DataFrame({"patient_id": patients, "split": cohort_split(cohort, seed)})
    path = record.folder / "cohort-split.csv"
    record.write_table(table.drop_duplicates(), path)
    return path


def with_rois(cohort: Cohort, rois: Sequence[str]) -> Cohort:
    """The cohort of which features of `rois` alone are wanted; () means all."""
    if not rois:
        return cohort
    cases = (dataclasses.replace(files, extracted=tuple(rois)) for files in cohort.cases)
    return dataclasses.replace(cohort, cases=tuple(files for files in cases if files.regions))


def with_channels(cohort: Cohort, channels: Sequence[str]) -> Cohort:
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
