"""The stage that decides: probes on both sides in every fold, a verdict per feature and task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments.main_job.context import context_columns, first_repeat
from lens.errors import InputError
from lens.files import read_table, write_table
from lens.probes.sweep import SweepConfig
from lens.report.power import write_findings
from lens.study.study import Study
from lens.verdicts.clusters import cluster_features
from lens.verdicts.confounds import Confounds
from lens.verdicts.doctor import Settings, count_fits, examine
from lens.verdicts.folds import Fold, make_folds, single_fold
from lens.verdicts.held_out import estimate_seconds, held_out_errors
from lens.verdicts.rules import Rules, judge

if TYPE_CHECKING:
    from experiments.main_job.plan import Plan

log = logging.getLogger(__name__)


def cross_validate(
    plan: Plan, study: Study, settings: SweepConfig, confounds: Confounds, folder: Path
) -> None:
    """Writes ``<task>/verdicts.parquet`` for every task of the study below `folder`.

    The side before fine-tuning is fitted once for all tasks.

    Args:
        plan: flags.
        study: the tables.
        settings: of the MLP.
        confounds: to look at beside the verdicts.
        folder: of the run.
    """
    config, groups = plan.config, study.ids["patient_id"].to_numpy()
    folds = study_folds(plan, study)
    r = study.observed()
    fits = len(folds) * (1 + len(study.x_ft))
    seconds = estimate_seconds(study.x_pre, len(study.x_ft), r, folds, settings)
    log.info("cross-validation: %d fits, about %s", fits, _duration(seconds))
    with tqdm(total=fits, desc="cross-validation", unit="fit") as bar:
        held_out = held_out_errors(
            study.x_pre,
            study.x_ft,
            r,
            folds,
            settings,
            on_fit=bar.update,
            scratch=plan.scratch(),
        )
    clusters = cluster_features(study.r[study.rows("train")])
    more = context_columns(plan, study, confounds, folds, held_out, folder)
    rules = Rules(config.level, config.margin, config.flips, config.seed)
    ceiling = _ceiling(config.repeatability, study.features["column"])
    for task in tqdm(study.x_ft, desc="verdicts", unit="task"):
        # The verdict's rule on seeds asks the ridge probe alone.
        again = [
            held_out_errors(study.x_pre, {task: x}, r, folds, None)
            for x in study.retrained.get(task, ())
        ]
        table = judge(held_out, task, clusters, groups, rules, again)
        table.insert(0, "column", study.features["column"])
        table = pd.concat([table.assign(r2_ceiling=ceiling), more[task]], axis=1)
        write_table(table, folder / task / "verdicts.parquet")


def run_doctor(plan: Plan, study: Study, folder: Path) -> None:
    """Writes the doctor's findings on the study into ``<folder>/doctor``.

    One repeat of the folds, since every planted change is fitted anew.
    """
    config, groups = plan.config, study.ids["patient_id"].to_numpy(str)
    folds = first_repeat(study_folds(plan, study))
    rules = Rules(config.level, config.margin, config.flips, config.seed)
    settings = Settings(rules=rules, seed=config.seed)
    clusters = len(cluster_features(study.r).medoids)
    fits = count_fits(len(study.x_ft), clusters, folds, settings)
    with tqdm(total=fits, desc="doctor", unit="fit") as bar:
        findings = examine(
            study.x_pre,
            study.x_ft,
            study.r,
            study.features["column"].tolist(),
            groups,
            folds,
            settings,
            None,
            on_fit=bar.update,
        )
    write_findings(folder / "doctor", findings, {"notes": study.notes})


def study_folds(plan: Plan, study: Study) -> Sequence[Fold]:
    """The folds that the flags ask for; none means the study's own split."""
    if plan.folds == 0:
        return single_fold(study.split)
    try:
        return make_folds(
            study.ids["patient_id"].to_numpy(), plan.folds, plan.repeats, plan.config.seed
        )
    except ValueError as error:
        raise InputError(f"--folds {plan.folds}: {error}") from error


def _ceiling(path: Path | None, columns: pd.Series) -> np.ndarray:
    """Intraclass correlations of a repeatability table in the order of `columns`, else NaN."""
    if path is None:
        return np.full(len(columns), np.nan)
    table = read_table(path)
    if not {"column", "icc"} <= set(table.columns):
        raise InputError(f"{path}: columns column and icc are needed, as from --perturb")
    known = table.drop_duplicates("column").set_index("column")["icc"]
    if not columns.isin(known.index).any():
        raise InputError(f"{path}: has none of the {len(columns)} features, such as {columns[0]}")
    return known.reindex(columns).to_numpy(np.float64)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
