"""From joined tables to a run folder: sweep, shift per task, report. The second half of the job."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from tqdm import tqdm

from experiments.main_job.context import depends_on, read_confounds, write_encoding
from experiments.main_job.cross_validation import cross_validate, run_doctor, study_folds
from experiments.main_job.plan import Plan, Scope
from lens.errors import CaseError
from lens.files import array_hash, file_hash, read_table, write_failures, write_table
from lens.paper.shift import shift
from lens.paper.similarity import similarity
from lens.probes.mlp import Projection
from lens.probes.scaling import MinMax, fit_min_max, scale
from lens.probes.sweep import L1_GRID, L2_GRID, PAPER_L1_GRID, SweepConfig, grid_warnings, sweep
from lens.report.page import write_report
from lens.report.results import (
    read_projection,
    write_projection,
    write_shift,
    write_study,
)
from lens.study.load import load_study
from lens.study.study import Study
from lens.verdicts.folds import times_held_out
from lens.verdicts.rules import with_verdicts

if TYPE_CHECKING:
    from experiments.common.run_record import RunRecord
    from experiments.main_job.inputs import Inputs

log = logging.getLogger(__name__)


def analyse(plan: Plan, inputs: Inputs, record: RunRecord) -> list[CaseError]:
    """Runs the analysis on tables and gives all patients set aside on the way."""
    set_aside, scopes, tasks = list(inputs.set_aside), {}, {}
    for name, part in _parts(plan, inputs, record.folder).items():
        study = load_study(
            part.pre,
            part.ft,
            inputs.radiomics,
            split=inputs.split,
            rois=part.scope.rois,
            modalities=part.scope.modalities,
            seed=plan.config.seed,
            retrained=inputs.retrained,
        )
        set_aside += study.set_aside
        _analyse_part(plan, study, part, record, _exposing_split(plan, inputs))
        scopes[name] = _facts(plan, study, part, record.folder)
        tasks |= dict.fromkeys(part.ft, name)
    set_aside = _once_each(set_aside)
    write_failures(set_aside, record.folder / "failures.csv")
    files = {path for pair in inputs.tasks.values() for path in pair}
    files |= {path for path in (inputs.radiomics, inputs.split) if path is not None}
    files |= {path for paths in inputs.retrained.values() for path in paths}
    record.finish(
        tasks={task: tasks[task] for task in inputs.tasks},
        scopes=scopes,
        inputs={str(path): file_hash(path) for path in sorted(files)},
        device=str(jax.devices()[0]),
        seeds={"first": plan.config.seed, "count": plan.config.seeds},
        notes=list(inputs.notes),
    )
    write_report(record.folder)
    return set_aside


@dataclass(frozen=True)
class Part:
    """The tasks that share embeddings before fine-tuning and scope, hence split and projection.

    Attributes:
        scope: what the tasks are read against.
        pre: embeddings before fine-tuning.
        ft: task -> embeddings after it.
        folder: of the sweep, the projection and the split.
    """

    scope: Scope
    pre: Path
    ft: dict[str, Path]
    folder: Path


def _parts(plan: Plan, inputs: Inputs, folder: Path) -> dict[str, Part]:
    """The parts by name; the first one lives in the run folder itself."""
    parts: dict[tuple[Path, Scope], dict[str, Path]] = {}
    for task, (pre, ft) in inputs.tasks.items():
        scope = replace(plan.scope(task), channels=())
        parts.setdefault((pre, scope), {})[task] = ft
    named: dict[str, Part] = {}
    for (pre, scope), ft in parts.items():
        name = str(scope) if str(scope) not in named else f"{scope}-{pre.stem}"
        named[name] = Part(scope, pre, ft, folder / "scopes" / name if named else folder)
    return named


def _exposing_split(plan: Plan, inputs: Inputs) -> Path | None:
    """The split that fine-tuning used as well: one that is given, or that of the phantoms."""
    own_data = plan.config.pre or plan.config.cohort
    return plan.config.split if own_data else inputs.split


def _analyse_part(
    plan: Plan, study: Study, part: Part, record: RunRecord, split: Path | None
) -> None:
    folder, config = part.folder, plan.config
    where = "" if folder == record.folder else f" {folder.name}"
    confounds = read_confounds(plan, study, split)
    write_study(folder, study)
    scaling = fit_min_max(study.r[study.rows("train")])
    settings = _sweep_config(plan)
    data = array_hash(study.x_pre, study.r, study.split)

    def run_sweep() -> None:
        _sweep(study, scaling, settings, folder)

    outputs = [folder / "sweep.parquet", folder / "projection.npz"]
    record.stage(f"sweep{where}", [data, settings], outputs, run_sweep)
    projection, scaling = read_projection(folder)

    def run_cross_validation() -> None:
        cross_validate(plan, study, settings, confounds, record.folder)

    judged = {task: record.folder / task / "verdicts.parquet" for task in study.x_ft}
    depends = [data, array_hash(study.observed(), *study.x_ft.values()), settings]
    depends += [plan.folds, plan.repeats, config.level, config.margin, config.flips, config.seed]
    depends += [list(judged), config.repeatability and file_hash(config.repeatability)]
    depends += [array_hash(*again) for again in study.retrained.values()]
    depends += depends_on(plan, list(study.x_ft), split)
    name = f"cross-validation{where}"
    record.stage(name, depends, list(judged.values()), run_cross_validation)

    def run_encoding() -> None:
        write_encoding(study, study_folds(plan, study), record.folder)

    depends = [data, array_hash(*study.x_ft.values()), list(judged)]
    depends += [plan.folds, config.seed]
    outputs = [record.folder / task / "encoding.csv" for task in study.x_ft]
    record.stage(f"encoding{where}", depends, outputs, run_encoding)
    if config.doctor:
        depends = [data, array_hash(*study.x_ft.values()), plan.folds, config.level]
        depends += [config.margin, config.flips, config.seed]
        outputs = [folder / "doctor" / "doctor.json"]
        record.stage(f"doctor{where}", depends, outputs, lambda: run_doctor(plan, study, folder))
    intercept = _intercept(plan)
    for task, x_ft in study.x_ft.items():
        depends = [data, array_hash(x_ft, *projection), intercept, config.bootstraps]
        depends += [config.flips, config.seed, file_hash(judged[task])]
        outputs = [record.folder / task / name for name in ("features.parquet", "similarity.csv")]

        def run_shift(task: str = task) -> None:
            _shift(study, projection, scaling, task, plan, record.folder / task)

        record.stage(f"shift {task}", depends, outputs, run_shift)


def _facts(plan: Plan, study: Study, part: Part, folder: Path) -> dict[str, Any]:
    """What the report says of a part."""
    held_out = times_held_out(tuple(study_folds(plan, study))) > 0
    return {
        "folds": plan.folds,
        "repeats": plan.repeats,
        "scored": int(study.ids["patient_id"][held_out].nunique()),
        "folder": str(part.folder.relative_to(folder)),
        "rois": study.features["roi"].unique().tolist(),
        "modalities": study.features["modality"].unique().tolist(),
        "rows": {name: int(study.rows(name).sum()) for name in ("train", "val", "test")},
        "patients": int(study.ids["patient_id"].nunique()),
        "embedding_width": int(study.x_pre.shape[1]),
        "columns": len(study.features),
        "notes": [*study.notes, *_size_notes(study, plan.hidden)],
    }


def _sweep(study: Study, scaling: MinMax, settings: SweepConfig, folder: Path) -> None:
    train, val = study.rows("train"), study.rows("val")
    total = len(settings.l1) * len(settings.l2) * settings.seeds * settings.epochs
    r = scale(study.r, scaling)
    with tqdm(total=total, desc="sweep", unit="epoch", smoothing=0.1) as bar:
        result = sweep(
            study.x_pre[train], r[train], study.x_pre[val], r[val], settings, on_epochs=bar.update
        )
    write_projection(folder, result.projection, scaling)
    write_table(result.table, folder / "sweep.parquet")
    for warning in grid_warnings(result.table):
        log.warning("sweep: %s", warning)


def _shift(
    study: Study,
    projection: Projection,
    scaling: MinMax,
    task: str,
    plan: Plan,
    folder: Path,
) -> None:
    config = plan.config
    result = shift(
        study,
        projection,
        scaling,
        task,
        intercept=_intercept(plan),
        draws=config.bootstraps,
        flips=config.flips,
        seed=config.seed,
        scratch=plan.scratch(),
    )
    verdicts = read_table(folder / "verdicts.parquet")
    write_shift(folder, replace(result, features=with_verdicts(result.features, verdicts)))
    patients = study.ids["patient_id"].to_numpy()
    context = similarity(study.x_pre, study.x_ft[task], patients, seed=config.seed)
    write_table(context, folder / "similarity.csv")


def _intercept(plan: Plan) -> bool:
    return plan.config.mode == "default"


def _sweep_config(plan: Plan) -> SweepConfig:
    config = plan.config
    l1 = PAPER_L1_GRID if config.mode == "paper" else L1_GRID
    return SweepConfig(
        hidden=plan.hidden,
        l1=config.l1 or l1,
        l2=config.l2 or L2_GRID,
        seeds=config.seeds,
        seed=config.seed,
        epochs=config.epochs,
        batch=config.batch,
        mode=config.mode,
    )


def _size_notes(study: Study, hidden: int) -> list[str]:
    """What a reader must know about the sizes."""
    fitted = int(study.rows("train", "val").sum())
    if fitted >= 2 * hidden:
        return []
    return [
        f"{fitted} fitted patients are few for {hidden} hidden units: least squares then follows "
        "noise, and scores on test patients fall. Consider a smaller --hidden"
    ]


def _once_each(errors: list[CaseError]) -> list[CaseError]:
    """Each finding once: every job that reads a bad image reports it, and every table lacks it."""
    found_early = {error.patient_id for error in errors if error.stage != "join"}
    predicted = {
        str(error): error
        for error in errors
        if error.stage != "join" or error.patient_id.split("/")[0] not in found_early
    }
    return list(predicted.values())
