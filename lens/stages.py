"""The stages of the analysis: each a function of a study and settings, in memory.

`lens.compare` runs them one after another; the main job runs the same ones with files around them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lens.allocator import give_back_memory
from lens.context import Context
from lens.errors import InputError
from lens.paper.groups import group_masks, modality_masks
from lens.paper.shift import Shift, shift
from lens.paper.similarity import similarity
from lens.probes.grid_warnings import grid_warnings
from lens.probes.mlp import Projection
from lens.probes.scaling import MinMax, fit_min_max, scale
from lens.probes.sweep import Sweep, sweep
from lens.progress import Bar, silent
from lens.rest import table as rests
from lens.scratch import IN_MEMORY, Scratch
from lens.settings import DoctorForm, Scores, Settings, default_width
from lens.study.embedding_checks import repeated_notes
from lens.study.fingerprints import fingerprints
from lens.study.spectrum import spectrum_notes, spectrum_rows
from lens.study.study import Study
from lens.verdicts import confounds as confounding
from lens.verdicts import doctor, encoding
from lens.verdicts.clusters import cluster_features
from lens.verdicts.doctor_summary import Diagnosis, short_summary, spectra_of, summary
from lens.verdicts.evidence import task_estimates
from lens.verdicts.fold_features import FeatureBlocks
from lens.verdicts.folds import Fold, by_repeat, make_folds, single_fold, times_held_out
from lens.verdicts.held_out import estimate_seconds
from lens.verdicts.judge import Judged, judge_estimates
from lens.verdicts.layers import CONTROLS, Layers, LayerTables, count_fits, layer_profile
from lens.verdicts.levels import Masks, with_levels
from lens.verdicts.nonlinear import nonlinear_columns
from lens.verdicts.patients import Patients, held_out_patients
from lens.verdicts.rules import with_verdicts
from lens.verdicts.variance_partition import partition_by_embedding

log = logging.getLogger(__name__)


class Trained(NamedTuple):
    """The sweep's result, and the range of the features that it was trained on."""

    sweep: Sweep
    scaling: MinMax


def study_folds(study: Study, settings: Settings) -> tuple[Fold, ...]:
    """The folds that the settings ask for; none means the study's own split.

    Raises:
        InputError: too few patients for the number of folds.
    """
    if not settings.settled().folds:
        return single_fold(study.split)
    return folds_of(_patients(study), settings)


def folds_of(patients: np.ndarray, settings: Settings) -> tuple[Fold, ...]:
    """The folds of these patients; of none, where the settings ask for none.

    Args:
        patients: id of each row (n,).
        settings: folds, repeats and seed.

    Raises:
        InputError: too few patients for the number of folds.
    """
    settings = settings.settled()
    if not settings.folds:
        return ()
    try:
        return make_folds(patients, settings.folds, settings.repeats or 1, settings.seed)
    except ValueError as error:
        raise InputError(f"folds {settings.folds}: {error}") from error


def begin(study: Study, settings: Settings) -> Settings:
    """Settings fitted to the study, after saying what should be known before anything is run.

    Raises:
        InputError: too few patients for the number of folds.
    """
    give_back_memory()  # What reading the tables took.
    settings = settings.fitted_to(_fitted_patients(study))
    study_folds(study, settings)
    for warning in warnings_of(study, settings):
        log.warning("%s", warning)
    return settings


def warnings_of(study: Study, settings: Settings) -> list[str]:
    """What comes before all results: collapsed embeddings, rows given twice, too many hidden units.

    Args:
        study: the joined tables.
        settings: of `begin`.
    """
    notes = spectrum_notes(study.x_pre, study.x_ft)
    sides = {"embedding before fine-tuning": study.x_pre}
    sides |= {f"embedding after fine-tuning on {task}": x for task, x in study.x_ft.items()}
    repeated = repeated_notes(sides | {"radiomics": study.r}, study.ids)
    return [*notes, *repeated, *_size_notes(study, settings)]


def train(study: Study, settings: Settings, *, bar: Bar = silent) -> Trained:
    """The shared MLP on the embeddings before fine-tuning, over the grid of penalties."""
    train, val, mlp = study.rows("train"), study.rows("val"), settings.mlp
    scaling = fit_min_max(study.r[train])
    with bar(len(mlp.l1_grid) * len(mlp.l2) * mlp.seeds * mlp.epochs, "sweep", "epoch") as advance:
        result = sweep(
            study.x_pre[train], scale(study.r[train], scaling),
            study.x_pre[val], scale(study.r[val], scaling), mlp,
            seed=settings.seed, on_epochs=advance,
        )  # fmt: skip
    for warning in grid_warnings(result.table):
        log.warning("sweep: %s", warning)
    return Trained(result, scaling)


def judge_tasks(
    study: Study,
    settings: Settings,
    context: Context,
    *,
    bar: Bar = silent,
    scratch: Scratch = IN_MEMORY,
) -> dict[str, Judged]:
    """Verdicts of every task, from the probes' errors on held-out patients.

    The encoder before fine-tuning is fitted once for all tasks.

    Args:
        study: the joined tables.
        settings: folds, MLP, rules and seed.
        context: what is looked at around the verdicts.
        bar: progress of the fits.
        scratch: where the errors live.

    Returns:
        Task -> verdicts of `lens.verdicts.judge`. The features' table has ``column`` first, and
        ``r2_ceiling`` and the columns of `lens.verdicts.nonlinear`, `lens.verdicts.confounds` and
        `lens.verdicts.variance_partition` last; that of the levels has ``level`` (task, group,
        modality), ``modality, roi, group, n_features`` first.
    """
    patients, folds, r = _patients(study), study_folds(study, settings), study.observed()
    fits = len(folds) * (1 + len(study.x_ft))
    seconds = estimate_seconds(study.x_pre, len(study.x_ft), r, folds, settings.mlp)
    log.info("cross-validation: %d fits, about %s", fits, duration(seconds))
    blocks = FeatureBlocks(
        study.x_pre, study.x_ft, patients, folds, settings.mlp,
        scores=settings.scores, seed=settings.seed, retrained=study.retrained,
        confounds=context.confounds, scratch=scratch,
    )  # fmt: skip
    confounded = confounding.count_fits(len(study.x_ft), folds, context.confounds)
    with (
        bar(blocks.count_fits(r.shape[1]), "cross-validation", "fit") as advance,
        bar(confounded, "confounds", "fit") as further,
    ):
        estimated = blocks.estimate(r, on_fit=advance, on_confound=further)
    give_back_memory()
    unique = _unique_parts(study, first_repeat(folds), settings.scores, bar, scratch.share(0.25))
    give_back_memory()
    clusters = cluster_features(study.r[study.rows("train")])
    give_back_memory()
    names, rows = _rows_of_tables(study)
    judged = {}
    with bar(len(study.x_ft), "verdicts", "task") as advance:
        for task, x in study.x_ft.items():
            each = estimated.pop(task)
            confounds = each.confounds
            found = judge_estimates(
                task_estimates(each.estimates, each.retrained), clusters, settings.rules,
                rows=rows, seed=settings.seed,
                unseen_low=confounding.unseen_low(task, confounds, context.confounds),
            )  # fmt: skip
            del each  # The influences' room is the nonlinear reader's.
            curved = nonlinear_columns(
                study.x_pre, x, r, patients, first_repeat(folds), found.features,
                scores=settings.scores, scratch=scratch,
            )  # fmt: skip
            table = found.features
            table.insert(0, "column", study.features["column"])
            table["r2_ceiling"] = np.nan if context.ceiling is None else context.ceiling
            table = pd.concat([table, curved, unique[task], confounds], axis=1)
            judged[task] = Judged(table, pd.concat([names, found.levels], axis=1))
            advance()
    return judged


def single_patients(
    study: Study, settings: Settings, verdicts: Mapping[str, pd.DataFrame], *, bar: Bar = silent
) -> dict[str, Patients]:
    """What the embeddings told of single patients while these were held out, by task.

    Args:
        study: the joined tables.
        settings: folds, scores and seed, as for `judge_tasks`.
        verdicts: task -> table of the features' verdicts.
        bar: progress of the tasks.
    """
    folds, found = study_folds(study, settings), {}
    with bar(len(study.x_ft), "patients", "task") as advance:
        for task, x in study.x_ft.items():
            found[task] = held_out_patients(
                study.x_pre, x, study.observed(), study.ids, folds, verdicts[task],
                scores=settings.scores,
            )  # fmt: skip
            advance()
    return found


def encode(study: Study, settings: Settings, *, bar: Bar = silent) -> dict[str, pd.DataFrame]:
    """How much of the embeddings' variance each group of features explains, by task.

    Missing features are predictors here, imputed as in the study.
    """
    folds = first_repeat(study_folds(study, settings))
    with bar(encoding.count_fits(study.features, folds), "encoding", "fold") as advance:
        return encoding.encoding(
            study.x_pre, study.x_ft, study.r, study.features, _patients(study), folds,
            on_fit=advance,
        )  # fmt: skip


def rest_of_change(study: Study, settings: Settings, *, bar: Bar = silent) -> dict[str, rests.Rest]:
    """What of the embeddings' change the features tell and who moved without them, by task.

    On the first repeat of the folds.
    """
    folds, found = first_repeat(study_folds(study, settings)), {}
    cohort = rests.Cohort(
        study.observed(), study.features, study.ids, folds,
        settings.scores, settings.rules.flips, settings.seed,
    )  # fmt: skip
    with bar(len(study.x_ft) * len(folds), "rest", "fold") as advance:
        for task, x in study.x_ft.items():
            again = study.retrained.get(task, ())
            found[task] = rests.rest(study.x_pre, x, cohort, again=again, on_fold=advance)
    return found


def by_layer(
    study: Study,
    settings: Settings,
    layers: Mapping[str, Mapping[str, Layers]],
    *,
    bar: Bar = silent,
) -> dict[str, LayerTables]:
    """R2 by depth before and after fine-tuning and its change, by task, on the first repeat.

    Args:
        study: the joined tables.
        settings: folds, rules, scores and seed.
        layers: task -> ``pre, ft`` and perhaps ``random, permuted`` -> layer -> embeddings.
        bar: progress of the fits.
    """
    folds = first_repeat(study_folds(study, settings))
    total = sum(count_fits(len(each["pre"]), len(each) - 2, folds) for each in layers.values())
    found = {}
    with bar(total, "layers", "fit") as advance:
        for task, each in layers.items():
            controls = {name: x for name, x in each.items() if name in CONTROLS}
            found[task] = layer_profile(
                each["pre"], each["ft"], study.observed(), study.features, _patients(study), folds,
                settings.rules, controls=controls, scores=settings.scores, seed=settings.seed,
                on_fit=advance,
            )  # fmt: skip
    return found


def compare_single_split(
    study: Study,
    trained: tuple[Projection, MinMax],
    task: str,
    verdicts: Judged,
    settings: Settings,
    *,
    scratch: Scratch = IN_MEMORY,
) -> tuple[Shift, pd.DataFrame]:
    """The paper's analysis of a task with the verdicts' columns, and the embeddings' similarity.

    Args:
        study: the joined tables.
        trained: frozen projection and the scaling of the features.
        task: key of `study.x_ft`.
        verdicts: of the task, from `judge_tasks`.
        settings: bootstraps, flips, seed, and whether the decoders have an intercept.
        scratch: where the bootstrap samples live.
    """
    result = shift(
        study, *trained, task,
        intercept=settings.intercept, draws=settings.bootstraps, flips=settings.rules.flips,
        seed=settings.seed, complete=settings.mlp.mode == "paper", scratch=scratch,
    )  # fmt: skip
    result = replace(
        result,
        features=with_verdicts(result.features, verdicts.features),
        groups=with_levels(result.groups, verdicts.levels, "group", ["roi", "group"]),
        modalities=with_levels(
            result.modalities, verdicts.levels, "modality", ["modality", "roi", "group"]
        ),
    )
    context = similarity(study.x_pre, study.x_ft[task], _patients(study), seed=settings.seed)
    return result, context


def diagnose(
    study: Study,
    verdicts: Mapping[str, pd.DataFrame],
    settings: Settings,
    form: DoctorForm,
    *,
    bar: Bar = silent,
) -> Diagnosis:
    """What this cohort can show.

    Args:
        study: the joined tables.
        verdicts: task -> table of the features' verdicts, for the short form.
        settings: folds, rules, scores and seed.
        form: ``short`` reads the answer off the verdicts, ``full`` plants known changes in the
            embeddings before fine-tuning, each judged on one repeat of the folds.
        bar: progress of the fits.
    """
    spectra = spectra_of(study.x_pre, study.x_ft)
    if form == "short":
        patients = study.ids["patient_id"].nunique()
        content = short_summary(
            verdicts, patients, settings.rules, settings.scores, spectra=spectra
        )
        return Diagnosis(content)
    findings = _plant(study, settings, bar)
    return Diagnosis(summary(findings, spectra), findings)


def facts(study: Study, settings: Settings) -> dict[str, Any]:
    """What a report says of a study: sizes, folds, spectra, hashes of its tables and notes."""
    settings = settings.settled()
    held_out = times_held_out(study_folds(study, settings)) > 0
    warnings = warnings_of(study, settings)
    return {
        "folds": settings.folds,
        "repeats": settings.repeats,
        "scored": int(study.ids["patient_id"][held_out].nunique()),
        "rois": study.features["roi"].unique().tolist(),
        "modalities": study.features["modality"].unique().tolist(),
        "rows": {name: int(study.rows(name).sum()) for name in ("train", "val", "test")},
        "patients": int(study.ids["patient_id"].nunique()),
        "embedding_width": int(study.x_pre.shape[1]),
        "columns": len(study.features),
        "hidden": settings.mlp.width(_fitted_patients(study)),
        "spectrum": spectrum_rows(study.x_pre, study.x_ft),
        "fingerprints": fingerprints(study),
        "warnings": warnings,
        "notes": [*warnings, *study.notes],
    }


def first_repeat(folds: Sequence[Fold]) -> tuple[Fold, ...]:
    """The folds of the first repeat: enough for context, at a part of the cost."""
    return next(by_repeat(tuple(folds)))


def scratch_of(settings: Settings, folder: Path | None = None) -> Scratch:
    """A place for a stage's large arrays, within the bound on memory."""
    return Scratch(settings.bound, folder)


def _plant(study: Study, settings: Settings, bar: Bar) -> doctor.Findings:
    """Verdicts on planted changes, each from one repeat of the folds."""
    folds = first_repeat(study_folds(study, settings))
    planted = doctor.Settings(rules=settings.rules, seed=settings.seed, scores=settings.scores)
    clusters = len(cluster_features(study.r).medoids)
    with bar(
        doctor.count_fits(len(study.x_ft), clusters, folds, planted), "doctor", "fit"
    ) as advance:
        return doctor.examine(
            study.x_pre, study.x_ft, study.observed(), study.features["column"].tolist(),
            _patients(study), folds, planted, None, on_fit=advance,
        )  # fmt: skip


def _rows_of_tables(study: Study) -> tuple[pd.DataFrame, Masks]:
    """What gets a verdict above the feature: names of all rows, and features of all but the first.

    The first row is the task; then follow the rows of the paper's Table 1 and of its Figure 2.
    """
    by_group, by_modality = group_masks(study.features), modality_masks(study.features)
    rows = {("group", "", *names): mask for names, mask in by_group.items()}
    rows |= {("modality", *names): mask for names, mask in by_modality.items()}
    names = pd.DataFrame(
        [("task", "", "", "all"), *rows], columns=["level", "modality", "roi", "group"]
    )
    names["n_features"] = [len(study.features), *(int(mask.sum()) for mask in rows.values())]
    return names, rows


def _unique_parts(
    study: Study, folds: tuple[Fold, ...], scores: Scores, bar: Bar, scratch: Scratch
) -> dict[str, pd.DataFrame]:
    tables = {}
    with bar(len(folds) * len(study.x_ft), "unique R2", "fold") as advance:
        for task, x in study.x_ft.items():
            parts = partition_by_embedding(
                study.x_pre, x, study.observed(), _patients(study), folds,
                scores=scores, on_fit=advance, scratch=scratch,
            )  # fmt: skip
            tables[task] = parts.filter(regex="^unique")
    return tables


def _patients(study: Study) -> np.ndarray:
    return study.ids["patient_id"].to_numpy()


def _size_notes(study: Study, settings: Settings) -> list[str]:
    """What a reader must know about the sizes."""
    fitted = _fitted_patients(study)
    hidden = settings.mlp.width(fitted)
    if fitted >= 2 * hidden:
        return []
    return [
        f"{hidden} hidden units for {fitted} fitted patients are too many: least squares follows "
        "the noise, and scores on test patients fall, far below zero even. By default it would be "
        f"{default_width(fitted)} (--hidden {default_width(fitted)})"
    ]


def _fitted_patients(study: Study) -> int:
    return int(study.ids["patient_id"][study.rows("train", "val")].nunique())


def duration(seconds: float) -> str:
    """Seconds in words: in minutes from a minute and a half on."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
