"""From joined tables to a run folder: sweep, shift per task, report. The second half of the job."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from tqdm import tqdm

from lens.errors import CaseError
from lens.files import array_hash, file_hash, write_failures, write_table
from lens.projection import Projection
from lens.radiomics.scaling import MinMax, fit_min_max, scale
from lens.report.page import write_report
from lens.report.results import (
    read_projection,
    write_projection,
    write_shift,
    write_study,
)
from lens.shifts import shift
from lens.similarity import similarity
from lens.study import Study, load_study
from lens.sweeps import L1_GRID, L2_GRID, PAPER_L1_GRID, SweepConfig, grid_warnings, sweep

if TYPE_CHECKING:
    from experiments.inputs import Inputs
    from experiments.plan import Plan
    from experiments.run_folder import RunFolder

log = logging.getLogger(__name__)


def analyse(plan: Plan, inputs: Inputs, diary: RunFolder) -> list[CaseError]:
    """Runs the analysis on tables and gives all patients set aside on the way."""
    folder, config = diary.folder, plan.config
    study = load_study(
        inputs.pre,
        inputs.ft,
        inputs.radiomics,
        split=inputs.split,
        rois=plan.roi,
        seed=config.seed,
    )
    set_aside = _once_each([*inputs.set_aside, *study.set_aside])
    write_study(folder, study)
    write_failures(set_aside, folder / "failures.csv")

    scaling = fit_min_max(study.r[study.rows("train")])
    settings = _sweep_config(plan)
    data = array_hash(study.x_pre, study.r, study.split)
    notes = [*inputs.notes, *study.notes, *_size_notes(study, plan.hidden)]

    def run_sweep() -> None:
        _sweep(study, scaling, settings, diary)

    diary.stage(
        "sweep", [data, settings], [folder / "sweep.parquet", folder / "projection.npz"], run_sweep
    )
    projection, scaling = read_projection(folder)
    intercept = _intercept(plan)
    for task, x_ft in study.x_ft.items():
        depends = [data, array_hash(x_ft, *projection), intercept, config.bootstraps]
        depends += [config.flips, config.seed]
        outputs = [folder / task / name for name in ("features.parquet", "similarity.csv")]

        def run_shift(task: str = task) -> None:
            _shift(study, projection, scaling, task, plan, folder / task)

        diary.stage(f"shift {task}", depends, outputs, run_shift)
    counts = {name: int(study.rows(name).sum()) for name in ("train", "val", "test")}
    diary.finish(
        tasks=list(study.x_ft),
        inputs={
            str(path): file_hash(path)
            for path in (inputs.pre, *inputs.ft.values(), inputs.radiomics, inputs.split)
            if path is not None
        },
        device=str(jax.devices()[0]),
        rows=counts,
        patients=int(study.ids["patient_id"].nunique()),
        embedding_width=int(study.x_pre.shape[1]),
        columns=len(study.features),
        seeds={"first": config.seed, "count": config.seeds},
        notes=notes,
    )
    write_report(folder)
    return set_aside


def _sweep(study: Study, scaling: MinMax, settings: SweepConfig, diary: RunFolder) -> None:
    train, val = study.rows("train"), study.rows("val")
    total = len(settings.l1) * len(settings.l2) * settings.seeds * settings.epochs
    r = scale(study.r, scaling)
    with tqdm(total=total, desc="sweep", unit="epoch", smoothing=0.1) as bar:
        result = sweep(
            study.x_pre[train], r[train], study.x_pre[val], r[val], settings, on_epochs=bar.update
        )
    write_projection(diary.folder, result.projection, scaling)
    write_table(result.table, diary.folder / "sweep.parquet")
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
    )
    write_shift(folder, result)
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
    told = {
        str(error): error
        for error in errors
        if error.stage != "join" or error.patient_id.split("/")[0] not in found_early
    }
    return list(told.values())
