"""The tables of a run folder: which there are, written after the analysis, read for the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

import lens.edits.files as edit_files
from lens.cache import read_record
from lens.errors import FAILURE_COLUMNS, InputError
from lens.files import read_table
from lens.formulas import read_csv
from lens.settings import doctor_form

RUN_FILES = {
    "run.json": "settings, versions, stages and scopes of the run",
    "failures.csv": "patients set aside, with the reason",
}
"""Files of the run folder, with what they hold; absent without a patient set aside: the last."""

SCOPE_FILES = {
    "split.csv": "patients and their split",
    "dropped.csv": "radiomic columns left out, with the reason",
    "sweep.parquet": "losses over the grid of penalties",
    "projection.npz": "the frozen projection and the scaling of the features",
    "doctor/doctor.json": "what the cohort can show",
    "doctor/doctor.csv": "the planted changes",
    "doctor/doctor-features.csv": "the clusters of features of the doctor",
}
"""Files of a scope, in the run folder or in ``scopes/<name>``; those of the doctor are
absent without one, and with its short form all but the first of them."""

TASK_FILES = {
    "verdicts.parquet": "verdict of every feature with its evidence",
    "levels.csv": "verdict of the task as a whole and of each group of features",
    "features.parquet": "verdict, scores and importance of every feature",
    "groups.csv": "scores by feature group, the paper's Table 1",
    "modalities.csv": "scores by modality and class, the paper's Figure 2",
    "decoders.npz": "weights of the decoders before and after fine-tuning",
    "similarity.csv": "similarity of the embeddings as a whole",
    "encoding.csv": "variance of the embeddings explained by each group of features",
    "patients.parquet": "held-out predictions of single patients, for a few features",
    "moved.parquet": "how far the predictions of each patient moved",
    "rest.csv": "what of the embedding's change the features tell",
    "rest_patients.parquet": "how far each patient moved that the features do not tell",
    "layers.csv": "R2 and its change by layer and class of features",
    "layers.parquet": "R2 and its change by layer and feature",
    "exposure.csv": "patients whom fine-tuning saw",
    "amnesic.csv": "what the task loses by the erasure of each cluster of features",
}
"""Files of a task, in ``<task>``; absent without a table of exposure: ``exposure.csv``, without
layers: the two before it. Runs of earlier versions lack the tables of patients. Those of
``experiments.amnesic`` are written by it alone."""

EDIT_FILES = {f"{edit_files.IN_RUN}/{name}": text for name, text in edit_files.FILES.items()}
"""Files of radiomic edits in the run folder, absent unless `experiments.edit` wrote them there."""

FILES = RUN_FILES | SCOPE_FILES | TASK_FILES | EDIT_FILES

AMNESIC_RECORD = "amnesic.json"
"""Beside ``amnesic.csv``: how it was made, and from what."""

PAPER_FILES = {
    "card.json": "the run's lens card, without patients",
    "methods.md": "methods text to paste",
}
"""Files of the run folder that are written with the page; no card of fewer than 20 patients."""

PAPER_FOLDER = "tables"
"""Folder of the tables for a paper, in the run folder."""

COLUMNS = {
    "failures.csv": FAILURE_COLUMNS,
    "dropped.csv": ("column", "reason"),
    "split.csv": ("patient_id", "split"),
    "sweep.parquet": ("l1", "l2", "seed", "val_loss", "selected"),
    "doctor/doctor.csv": ("kind", "detected", "loss"),
    "levels.csv": ("level", "modality", "roi", "group", "delta_r2_cv", "p_group", "verdict"),
    "features.parquet": (
        "column", "modality", "roi", "image", "feature_class", "feature", "verdict", "withheld",
        "cluster", "medoid", "delta_r2", "p_maxt", "q_bh", "detectable", "retrained", "linear_only",
        "delta_r2_split", "delta_importance", "r2_pre", "r2_ft",
    ),
    "groups.csv": ("roi", "group", "stage", "n_features", "r2_median"),
    "modalities.csv": ("modality", "roi", "group", "stage", "n_features", "r2_median"),
    "similarity.csv": ("statistic", "value", "value_low", "value_high"),
    "encoding.csv": ("grouping", "group", "stage", "n_features", "shapley"),
    "patients.parquet": (
        "column", "shown", "patient_id", "repeat", "value", "observed", "predicted_pre",
        "predicted_ft", "value_pre", "value_ft",
    ),
    "moved.parquet": ("patient_id", "n_features", "moved", "error_pre", "error_ft"),
    "rest.csv": (
        "side", "grouping", "group", "n_features", "share", "share_low", "share_high", "p_maxt",
        "unique", "unique_low", "unique_high", "size", "size_low", "size_high", "floor",
        "null_high", "finding",
    ),
    "rest_patients.parquet": ("patient_id", "moved", "unexplained", "beyond", "largest"),
    "layers.csv": (
        "layer", "depth", "group", "n_features", "width", "components", "r2_pre", "r2_ft",
        "delta_r2", "p_maxt", "step_r2", "p_step", "verdict", "r2_shuffled",
    ),
    "amnesic.csv": (
        "label", "score", "patients", "cluster", "stage", "n_features", "rank", "variance_removed",
        "score_before", "score_after", "loss", "loss_low", "loss_high", "null_mean", "null_q05",
        "null_q95", "p_maxt", "p_rank_maxt", "left_linear", "left_nonlinear", "finding",
    ),
    "edits/edits.csv": (
        "task", "edit", "roi", "modality", "stage", "n", "slope", "slope_low", "slope_high",
        "slope_outside", "slope_noise", "head_r2", "p_outside", "p", "p_family", "moves",
        "feature", "feature_change_sd", "off_target_sd",
    ),
}  # fmt: skip
"""Columns without which a table cannot be shown."""

EDITS, SHEET = f"{edit_files.IN_RUN}/edits.csv", f"{edit_files.IN_RUN}/{edit_files.SHEET}"
"""Table and pictures of edits, in the run folder."""

LISTS = ("failures.csv", "dropped.csv")
"""Tables of text that may be without rows."""

PATIENT_TABLES = {
    "patients": "patients.parquet",
    "moved": "moved.parquet",
    "rest_patients": "rest_patients.parquet",
}
"""Of single patients, by their field in `TaskTables`; without rows where nobody was held out."""

REMEDY = "run the same command again"


@dataclass(frozen=True)
class TaskTables:
    """Tables of one task, as its folder holds them.

    Attributes:
        features: a row per radiomic feature, of `lens.paper.shift` and `lens.verdicts.rules`.
        levels: of `lens.verdicts.levels`: the task as a whole, then groups of features.
        groups, modalities: of `lens.paper.groups`.
        similarity: of `lens.paper.similarity`.
        encoding: of `lens.verdicts.encoding`.
        patients, moved: of `lens.verdicts.patients`; no rows in a run of an earlier version.
        rest, rest_patients: of `lens.rest.table`; no rows in a run of an earlier version.
        layers: of `lens.verdicts.layers`, by class; no rows where they were not asked for.
        amnesic: of `lens.amnesic.table`; no rows where it was not asked for, or of another run.
    """

    features: pd.DataFrame
    levels: pd.DataFrame
    groups: pd.DataFrame
    modalities: pd.DataFrame
    similarity: pd.DataFrame
    encoding: pd.DataFrame
    patients: pd.DataFrame = field(default_factory=pd.DataFrame)
    moved: pd.DataFrame = field(default_factory=pd.DataFrame)
    rest: pd.DataFrame = field(default_factory=pd.DataFrame)
    rest_patients: pd.DataFrame = field(default_factory=pd.DataFrame)
    layers: pd.DataFrame = field(default_factory=pd.DataFrame)
    amnesic: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Scope:
    """What tasks with the same embeddings before fine-tuning and the same features share.

    Attributes:
        facts: its entry in ``run.json``: regions, modalities, numbers of rows and columns, notes.
        sweep: a row per penalty pair and seed.
        split: ``patient_id, split``.
        dropped: radiomic columns left out, with the reason.
        doctor: of `lens.verdicts.doctor_summary`; empty where the doctor was not asked.
        planted: the planted changes of its full form; no rows without it.
    """

    facts: dict[str, Any]
    sweep: pd.DataFrame
    split: pd.DataFrame
    dropped: pd.DataFrame
    doctor: dict[str, Any]
    planted: pd.DataFrame


@dataclass(frozen=True)
class Results:
    """The tables of a run folder.

    Attributes:
        run: content of ``run.json``.
        scopes: by name; ``run["tasks"]`` holds the name of each task's scope.
        tasks: task name -> tables.
        failures: patients set aside.
        edits: of `lens.edits.tables`; no rows without any.
        edits_sheet: pictures of edited images (`lens.report.edits_sheet`); empty without any.
    """

    run: dict[str, Any]
    scopes: dict[str, Scope]
    tasks: dict[str, TaskTables]
    failures: pd.DataFrame
    edits: pd.DataFrame = field(default_factory=pd.DataFrame)
    edits_sheet: dict[str, Any] = field(default_factory=dict)

    def tables(self, name: str) -> list[pd.DataFrame]:
        """The tables of a name that have rows: one per scope or task, or the only one of the run.

        Raises:
            KeyError: no table has this name.
        """
        owners = (self, *self.scopes.values(), *self.tasks.values())
        found = [vars(owner)[name] for owner in owners if name in vars(owner)]
        if not all(isinstance(table, pd.DataFrame) for table in found) or not found:
            raise KeyError(f"no table is called {name}")
        return [table for table in found if len(table)]


def read_results(folder: Path) -> Results:
    """Reads a finished run folder.

    Raises:
        InputError: the folder is not that of a finished run, or a file is missing or damaged.
    """
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: no run.json; this is not the folder of a finished run")
    run = _read_json(folder, "run.json")
    if not {"tasks", "scopes"} <= set(run):
        raise InputError(f"{folder}: the run has not finished; {REMEDY}")
    scopes = {name: _read_scope(folder, run, facts) for name, facts in run["scopes"].items()}
    failed = (folder / "failures.csv").is_file()
    return Results(
        run=run,
        scopes=scopes,
        tasks={task: _read_task(folder, task, run) for task in run["tasks"]},
        failures=_read_table(folder, "failures.csv") if failed else pd.DataFrame(),
        edits=_read_table(folder, EDITS) if (folder / EDITS).is_file() else pd.DataFrame(),
        edits_sheet=_read_json(folder, SHEET) if (folder / SHEET).is_file() else {},
    )


def _read_scope(folder: Path, run: dict[str, Any], facts: dict[str, Any]) -> Scope:
    folder = folder / facts["folder"]
    # A run that did not ask for the doctor must not show what an earlier one left in the folder.
    asked = run["config"].get("doctor", (folder / "doctor").is_dir())
    examined = doctor_form(asked) != "off"
    doctor = _read_json(folder, "doctor/doctor.json") if examined else {}
    planted = examined and doctor.get("form") != "short"
    return Scope(
        facts=facts,
        sweep=_read_table(folder, "sweep.parquet"),
        split=_read_table(folder, "split.csv"),
        dropped=_read_table(folder, "dropped.csv"),
        doctor=doctor,
        planted=_read_table(folder, "doctor/doctor.csv") if planted else pd.DataFrame(),
    )


def _read_task(folder: Path, task: str, run: dict[str, Any]) -> TaskTables:
    folder = folder / task
    # As with the doctor: what an earlier run left is not this one's.
    config = run["config"]
    given = any(str(entry).startswith(f"{task}=") for entry in config.get("layers_ft", ()))
    layers = config.get("layers") or given
    return TaskTables(
        features=_read_table(folder, "features.parquet"),
        levels=_read_table(folder, "levels.csv"),
        groups=_read_table(folder, "groups.csv"),
        modalities=_read_table(folder, "modalities.csv"),
        similarity=_read_table(folder, "similarity.csv"),
        encoding=_read_table(folder, "encoding.csv"),
        **{
            name: _read_table(folder, file)
            for name, file in PATIENT_TABLES.items()
            if (folder / file).is_file()
        },
        rest=_read_table(folder, "rest.csv") if (folder / "rest.csv").is_file() else pd.DataFrame(),
        layers=_read_table(folder, "layers.csv") if layers else pd.DataFrame(),
        amnesic=_read_amnesic(folder, run),
    )


def made_of(run: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The tables that a task is about, by their hashes, and which of their features.

    A run of the same tables with other regions or modalities is another one.
    """
    scope = run["scopes"][run["tasks"][task]]
    return {
        "of_inputs": sorted(run.get("inputs", {}).values()),
        "of_features": {name: scope.get(name) for name in ("rois", "modalities")},
    }


def _read_amnesic(folder: Path, run: dict[str, Any]) -> pd.DataFrame:
    """The table of an erasure that was made from this very run's tables; else no rows."""
    record = read_record(folder / AMNESIC_RECORD)
    made = made_of(run, folder.name)
    # Records of earlier versions do not tell the features.
    made["of_features"] = made["of_features"] if "of_features" in record else None
    same = all(record.get(key) == value for key, value in made.items())
    return _read_table(folder, "amnesic.csv") if record and same else pd.DataFrame()


def _read_table(folder: Path, name: str) -> pd.DataFrame:
    path = folder / name
    try:
        table = _reader(name)(path)
    except (OSError, ValueError) as error:  # `InputError` is a `ValueError`
        raise unusable(path, name, str(error).removeprefix(f"{path}: ")) from error
    if missing := [column for column in COLUMNS[name] if column not in table]:
        raise unusable(path, name, f"no column {missing[0]}")
    return table


def _reader(name: str) -> Callable[[Path], pd.DataFrame]:
    """How a table is read: those that may be without rows are not refused for it."""
    if name in LISTS:
        return partial(read_csv, dtype=str)
    return pd.read_parquet if name in PATIENT_TABLES.values() else read_table


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(folder / name, name, f"not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise unusable(folder / name, name, "not a JSON object")
    return content


def unusable(path: Path, name: str, problem: str) -> InputError:
    """The error for one of the `FILES`: what it holds, what is wrong with it, what to do."""
    return InputError(f"{path} ({FILES.get(name, name)}): {problem}; {REMEDY}")
