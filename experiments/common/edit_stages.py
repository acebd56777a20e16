"""The stages of ``experiments.edit``: check, embed originals, edit and embed, put together."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from encoders.channels import check_channels
from encoders.cohort_embeddings import (
    CohortEmbeddings,
    EmbeddingSettings,
    check_pool,
    check_settings,
    embed_cohort,
)
from encoders.edited_embeddings import EditedCase, EditSettings, embed_edits
from encoders.settings import INPUT_SHAPE, SPACING_MM, grid_problem
from encoders.sources import open_encoder
from experiments.common.check_first import (
    check_encoder,
    check_output,
    check_parameters,
    check_regions,
)
from experiments.common.cohorts import read_cohort, shape_of, spacing_of
from experiments.common.flags import as_flag, entries, pairs
from experiments.common.outlook import Outlook, Step, several
from lens.cohort import CaseFiles, Cohort, parse_labels, read_case
from lens.edits.catalogue import parse_doses, parse_edits, targets
from lens.edits.features import measure_again
from lens.edits.files import SHEET
from lens.edits.responses import LEVEL, Settings
from lens.edits.tables import Effects, Originals, Tables, assemble
from lens.edits.versions import Editable, editable
from lens.errors import CaseError, InputError
from lens.files import write_json
from lens.names import check_names
from lens.ranges import COUNT, SEED, Check, Range, first_problem
from lens.settings import flat

if TYPE_CHECKING:
    from experiments.edit import Config
    from lens.anonymise import Names
    from lens.radiomics.parameters import Parameters

log = logging.getLogger(__name__)

PRE = "pre"
"""Name of the encoder before fine-tuning."""

FEWEST = 20
"""Patients with a label that heads can be fitted to."""

Measured = list[tuple[dict[str, float], dict[str, float]]]
"""Features before and after one edit, patient by patient."""

MOST_CLASSES = 10
"""Of a label that is text."""


@dataclass(frozen=True)
class Plan:
    """What is to be done, checked.

    Attributes:
        config: the flags.
        cohort: a study per patient, with a label of some task.
        labels: task -> values of the manifest's label, by task of the encoders.
        settings: edits, grid and channels.
        sources: name -> encoder.
        parameters: of radiomics by modality; none where features are not measured.
    """

    config: Config
    cohort: Cohort
    labels: Mapping[str, str]
    settings: EditSettings
    sources: Mapping[str, Path]
    parameters: Mapping[str, Parameters]


def check(config: Config, names: Names, cache: Path) -> Plan:
    """Refuses, before an image is read, what could not be done.

    Raises:
        InputError: as said.
    """
    if problem := _problem(config):
        raise InputError(as_flag(problem))
    check_output(config.out, "--out", folder=True)
    check_output(cache, "--cache", folder=True)
    manifest = read_cohort(config, label=config.label, only=False)
    cohort = names.of_cohort(manifest).cohort(manifest)
    sources = pairs(config.encoder_ft, "--encoder-ft")
    if not sources:
        raise InputError("--encoder-ft: give TASK=ENCODER, once or more")
    labels = {task: task for task in sources} | entries(config.labels, "--labels", "TASK=COLUMN")
    check_names(labels, list(sources), "task of --encoder-ft", "--labels")
    known = sorted({name for files in cohort.cases for name in files.labels})
    check_names(labels.values(), known, "label column", f"--labels, {config.cohort}")
    embedding = EmbeddingSettings(
        shape=shape_of(cohort, config.shape),
        spacing_mm=spacing_of(cohort, config.spacing),
        modalities=config.modalities or cohort.channels,
        pool=config.pool,
        tokens=config.tokens,
        labels=parse_labels(config.label),
    )
    check_channels(embedding.modalities, cohort, "--modalities")
    check_pool(embedding, cohort)
    check_regions(list(embedding.labels or {}), cohort, "--label")
    seen = [name for name in embedding.modalities if name in cohort.modalities]
    check_names(config.images, seen, "modality of the encoders", "--images")
    regions = config.region or cohort.rois[-1:]
    if not regions:
        raise InputError(f"{config.cohort}: no column of masks, and an edit needs a region")
    check_regions(list(regions), cohort, "--region")
    edits = parse_edits(config.edits, parse_doses(config.doses), flat=cohort.flat)
    for name, source in {PRE: config.encoder_pre, **sources}.items():
        flag = "--encoder-pre" if name == PRE else f"--encoder-ft {name}"
        header = check_encoder(source, flag, settings=embedding, output=config.output)
        check_settings(header.config, embedding)
    few = _one_study_each(cohort, list(labels.values()), config)
    for task, column in labels.items():
        given = [files.labels[column] for files in few.cases if column in files.labels]
        _numbers(cohort.path, task, column, given)
    wanted = check_parameters(config.parameters, cohort, embedding.labels or {})
    return Plan(
        config,
        few,
        labels,
        EditSettings(
            targets(edits, regions, config.images or seen),
            embedding,
            config.edge,
            config.seed,
            config.standardise == "edited",
        ),
        {PRE: config.encoder_pre, **sources},
        wanted if config.features else {},
    )


def outlook(plan: Plan, cache: Path) -> Outlook:
    """What would be done."""
    config = plan.config
    count = min(config.patients, len(plan.cohort.cases))
    per_patient = plan.settings.versions() * len(plan.sources)
    return Outlook(
        steps=[Step("originals"), Step("edits"), Step("features", note="none asked for")]
        if not plan.parameters
        else [Step("originals"), Step("edits"), Step("features")],
        sizes=[
            f"{several(len(plan.cohort.cases), 'patient')} with a label, {count} of them edited",
            f"{len(plan.settings.targets)} edits in all regions and images, {per_patient} "
            "embeddings of edited images per patient",
        ],
        out=cache,
    )


def embed_originals(plan: Plan, cache: Path) -> tuple[dict[str, CohortEmbeddings], list[CaseError]]:
    """Embeddings of the original images by every encoder, and who was set aside."""
    found, errors = {}, {}
    for name, source in plan.sources.items():
        encoder = open_encoder(source, output=plan.config.output)
        found[name], failed = embed_cohort(
            plan.cohort,
            encoder,
            settings=plan.settings.embedding,
            batch_size=plan.config.batch_size,
            cache=cache,
            progress=True,
            told=name == PRE,
        )
        errors |= {error.patient_id: error for error in failed}
    return found, list(errors.values())


def edit(
    plan: Plan, originals: Mapping[str, CohortEmbeddings], cache: Path
) -> tuple[dict[str, EditedCase], list[Measured], list[CaseError]]:
    """What edits do to embeddings and features of the chosen patients.

    Returns:
        Patient -> embeddings; per target a list of features before and after; who was set aside, or
        left out of some edit.
    """
    chosen = _chosen(plan, set(originals[PRE].patient_id))
    encoders = {
        name: open_encoder(path, output=plan.config.output) for name, path in plan.sources.items()
    }
    done, errors = embed_edits(
        chosen,
        encoders,
        plan.settings,
        batch_size=plan.config.batch_size,
        cache=cache,
        progress=True,
    )
    if not done:
        raise InputError(f"{plan.cohort.path}: no patient could be edited; the first: {errors[0]}")
    measured, more = _measure(plan, [chosen[at] for at in done])
    return {chosen[at].patient_id: made for at, made in done.items()}, measured, [*errors, *more]


def tables(
    plan: Plan,
    originals: Mapping[str, CohortEmbeddings],
    effects: Mapping[str, EditedCase],
    measured: Sequence[Measured],
) -> Tables:
    """The tables of all tasks."""
    config = plan.config
    settings = Settings(folds=config.folds, flips=config.flips, seed=config.seed)
    features = [([before for before, _ in each], [after for _, after in each]) for each in measured]
    made = []
    for task, column in plan.labels.items():
        known, rows = _rows(plan, originals, task, column)
        edited = [patient for patient in known if patient in effects]
        at = {patient: place for place, patient in enumerate(known)}
        every = [effects[patient] for patient in edited]
        count = range(len(plan.settings.targets))
        made.append(assemble(
            plan.settings.targets,
            Originals(np.array(known), *rows),
            Effects(
                np.array([at[patient] for patient in edited], int),
                [np.stack([e.change[PRE][t] for e in every]) for t in count],
                [np.stack([e.change[task][t] for e in every]) for t in count],
                [np.stack([e.rms[t] for e in every]) for t in count],
                [np.stack([e.clipped[t] for e in every]) for t in count],
                [np.array([e.found[t] for e in every]) for t in count],
            ),
            settings,
            features,
        ))  # fmt: skip
    return Tables.together(made)


def facts(plan: Plan, names: Names, made: Tables) -> dict[str, Any]:
    """What is recorded beside the tables."""
    family = made.edits.groupby("task").size()
    return {
        "config": {name: names.setting(value) for name, value in flat(plan.config).items()},
        "level": LEVEL,
        "patients": len(plan.cohort.cases),
        "edited": int(made.patients["patient_id"].nunique()),
        "family": {str(task): int(count) for task, count in family.items()},
        "pool": plan.settings.embedding.pool,
    }


def write_sheet(plan: Plan, effects: Mapping[str, EditedCase], names: Names) -> None:
    """Writes pictures of the edits of one patient, or removes those of an earlier run."""
    path = plan.config.out / SHEET
    if names.hides or not plan.config.sheet:
        path.unlink(missing_ok=True)
        return
    from lens.report.edits_sheet import sheet

    files = next(each for each in plan.cohort.cases if each.patient_id in effects)
    write_json(path, sheet(_editable(plan, files), plan.settings.targets))


def tell(made: Tables, out: Path) -> None:
    """Prints which edits move the score."""
    for task, rows in made.edits.groupby("task", sort=False):
        for stage, text in (("pre", "before"), ("ft", "after"), ("change", "change")):
            own = rows[rows["stage"] == stage]
            moving = own[own["moves"]]
            named = [f"{r['edit']} of {r['modality']} in {r['roi']}" for _, r in moving.iterrows()]
            print(f"{task}, {text}: {len(moving)} of {len(own)} edits move the score"
                  + (f": {', '.join(named)}" if named else ""))  # fmt: skip
    print(f"written: {out / 'edits.csv'}")


def _one_study_each(cohort: Cohort, columns: Sequence[str], config: Config) -> Cohort:
    """The first study of every patient who has a label, in the part of the split."""
    split = config.part != "all"
    if split and not any(files.split for files in cohort.cases):
        raise InputError(f"--part {config.part}: {config.cohort} has no column split")
    found: dict[str, CaseFiles] = {}
    for files in cohort.cases:
        if any(name in files.labels for name in columns) and (
            not split or files.split == config.part
        ):
            found.setdefault(files.patient_id, files)
    if len(found) < FEWEST:
        raise InputError(
            f"{config.cohort}: {len(found)} patients with a label, and heads need {FEWEST}"
        )
    if len(found) < len(cohort.cases):
        log.info("%d of %d studies are used: one per patient, with a label", len(found),
                 len(cohort.cases))  # fmt: skip
    return dataclasses.replace(cohort, cases=tuple(found.values()))


def _chosen(plan: Plan, embedded: set[str]) -> list[CaseFiles]:
    """The patients that are edited, in the manifest's order."""
    cases = [files for files in plan.cohort.cases if files.patient_id in embedded]
    order = np.random.default_rng([plan.config.seed, 4]).permutation(len(cases))
    return [cases[at] for at in sorted(order[: plan.config.patients])]


def _editable(plan: Plan, files: CaseFiles) -> dict[str, Editable]:
    seen = plan.settings.embedding
    case = read_case(files, spacing_mm=seen.spacing_mm, labels=seen.labels)
    return {
        roi: editable(case, roi, edge_mm=plan.settings.edge_mm, seed=plan.settings.seed)
        for roi in dict.fromkeys(target.roi for target in plan.settings.targets)
    }


def _measure(plan: Plan, cases: Sequence[CaseFiles]) -> tuple[list[Measured], list[CaseError]]:
    every = plan.settings.targets
    out: list[Measured] = [[] for _ in every]
    errors: list[CaseError] = []
    if not plan.parameters:
        return out, errors
    for files in tqdm(cases, desc="measure", unit="case"):
        ready = _editable(plan, files)
        for at, target in enumerate(every):
            try:
                out[at].append(
                    measure_again(
                        ready[target.roi], target, plan.parameters, anew=plan.settings.anew
                    )
                )
            except CaseError as error:
                if error.stage != "edit":  # those are told by the embeddings already
                    errors.append(error)
    return out, errors


def _rows(
    plan: Plan, originals: Mapping[str, CohortEmbeddings], task: str, column: str
) -> tuple[list[str], tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """Patients with embeddings by both encoders, these, and the labels of the task."""
    before = dict(zip(originals[PRE].patient_id, originals[PRE].embeddings, strict=True))
    after = dict(zip(originals[task].patient_id, originals[task].embeddings, strict=True))
    values = {files.patient_id: files.labels.get(column) for files in plan.cohort.cases}
    known = [patient for patient in before if patient in after and values.get(patient) is not None]
    x = np.stack([before[p] for p in known]), np.stack([after[p] for p in known])
    return known, (*x, _numbers(plan.cohort.path, task, column, [values[p] for p in known]))


def _numbers(
    manifest: Path, task: str, column: str, values: Sequence[Any]
) -> dict[str, np.ndarray]:
    """The label as numbers: one task, or one per class."""
    if len(values) < FEWEST:
        raise InputError(f"{manifest}: {column}: fewer than {FEWEST} patients have it")
    if len(set(values)) < 2:
        raise InputError(f"{manifest}: {column} is the same for all patients")
    if not any(isinstance(value, str) for value in values):
        return {task: np.array(values, float)}
    classes = sorted({str(value) for value in values})
    if len(classes) > MOST_CLASSES:
        raise InputError(
            f"{manifest}: {column} has {len(classes)} different names; give a column of "
            f"numbers, or of at most {MOST_CLASSES} classes"
        )
    given = np.array([str(value) for value in values])
    if len(classes) == 2:
        return {task: (given == classes[1]).astype(float)}
    return {f"{task}: {name}": (given == name).astype(float) for name in classes}


def _problem(config: Config) -> str:
    """What is out of range; an empty text where nothing is."""
    shape, spacing = config.shape or INPUT_SHAPE, config.spacing or SPACING_MM
    return grid_problem(shape, spacing) or first_problem([
        Check("edge", config.edge, Range(0, 1000)),
        Check("patients", config.patients, Range(8, whole=True)),
        Check("folds", config.folds, Range(2, 100, whole=True)),
        Check("flips", config.flips, Range(99, 1_000_000, whole=True)),
        Check("seed", config.seed, SEED),
        Check("batch_size", config.batch_size, COUNT),
    ])  # fmt: skip
