"""The tables of a run folder: written after the analysis, read back for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lens.errors import InputError
from lens.files import read_table, write_arrays, write_table
from lens.paper.shift import Shift
from lens.probes.decoder import Decoder
from lens.probes.mlp import ACTIVATION, Projection
from lens.probes.scaling import MinMax
from lens.study.study import Study


@dataclass(frozen=True)
class TaskTables:
    """Tables of one task: of `lens.paper` and of `lens.verdicts.encoding`."""

    features: pd.DataFrame
    groups: pd.DataFrame
    modalities: pd.DataFrame
    similarity: pd.DataFrame
    encoding: pd.DataFrame


@dataclass(frozen=True)
class Scope:
    """What tasks with the same embeddings before fine-tuning and the same features share.

    Attributes:
        facts: its entry in ``run.json``: regions, modalities, numbers of rows and columns, notes.
        sweep: a row per penalty pair and seed.
        split: ``patient_id, split``.
        dropped: radiomic columns left out, with the reason.
        doctor: of `lens.verdicts.doctor_summary.summary`, None where the doctor was not asked.
        plants: its planted changes; no rows without it.
    """

    facts: dict[str, Any]
    sweep: pd.DataFrame
    split: pd.DataFrame
    dropped: pd.DataFrame
    doctor: dict[str, Any] | None
    plants: pd.DataFrame


@dataclass(frozen=True)
class Results:
    """What a run folder says.

    Attributes:
        run: content of ``run.json``.
        scopes: by name; ``run["tasks"]`` says which is a task's.
        tasks: task name -> tables.
        failures: patients set aside.
    """

    run: dict[str, Any]
    scopes: dict[str, Scope]
    tasks: dict[str, TaskTables]
    failures: pd.DataFrame


def write_projection(folder: Path, projection: Projection, scaling: MinMax) -> None:
    """Writes ``projection.npz``: all that turns embeddings into projected ones, and the scaling."""
    write_arrays(
        folder / "projection.npz",
        activation=np.asarray(ACTIVATION),
        **projection._asdict(),
        **scaling._asdict(),
    )


def read_projection(folder: Path) -> tuple[Projection, MinMax]:
    """Reads what `write_projection` wrote."""
    with np.load(folder / "projection.npz", allow_pickle=False) as content:
        return (
            Projection(*(content[name] for name in Projection._fields)),
            MinMax(*(content[name] for name in MinMax._fields)),
        )


def write_study(folder: Path, study: Study) -> None:
    """Writes ``split.csv`` and ``dropped.csv``."""
    write_table(study.ids.assign(split=study.split), folder / "split.csv")
    write_table(study.dropped, folder / "dropped.csv")


def write_shift(folder: Path, result: Shift) -> None:
    """Writes the decoders and tables of one task into its folder."""
    arrays: dict[str, np.ndarray] = {"columns": result.features["column"].to_numpy(str)}
    for stage, decoder in result.decoders.items():
        arrays |= _decoder_arrays(stage, decoder)
    write_arrays(folder / "decoders.npz", **arrays)
    write_table(result.features, folder / "features.parquet")
    write_table(result.groups, folder / "groups.csv")
    write_table(result.modalities, folder / "modalities.csv")


def read_results(folder: Path) -> Results:
    """Reads a finished run folder.

    Raises:
        InputError: the folder is not that of a finished run.
    """
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: no run.json; this is not the folder of a finished run")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if "tasks" not in run:
        raise InputError(f"{folder}: the run has not finished; start the same command again")
    return Results(
        run=run,
        scopes={name: _read_scope(folder, facts) for name, facts in run["scopes"].items()},
        tasks={task: _read_task(folder / task) for task in run["tasks"]},
        failures=_read_list(folder / "failures.csv", ()),
    )


def _decoder_arrays(stage: str, decoder: Decoder) -> Mapping[str, np.ndarray]:
    return {f"theta_{stage}": decoder.theta, f"intercept_{stage}": decoder.b}


def _read_scope(run: Path, facts: dict[str, Any]) -> Scope:
    folder = run / facts["folder"]
    doctor = folder / "doctor" / "doctor.json"
    found = doctor.is_file()
    return Scope(
        facts=facts,
        sweep=read_table(folder / "sweep.parquet"),
        split=read_table(folder / "split.csv"),
        dropped=_read_list(folder / "dropped.csv", ("column", "reason")),
        doctor=json.loads(doctor.read_text(encoding="utf-8")) if found else None,
        plants=read_table(doctor.with_suffix(".csv")) if found else pd.DataFrame(),
    )


def _read_task(folder: Path) -> TaskTables:
    return TaskTables(
        features=read_table(folder / "features.parquet"),
        groups=read_table(folder / "groups.csv"),
        modalities=read_table(folder / "modalities.csv"),
        similarity=read_table(folder / "similarity.csv"),
        encoding=read_table(folder / "encoding.csv"),
    )


def _read_list(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table that may be absent or without rows."""
    return pd.read_csv(path, dtype=str) if path.is_file() else pd.DataFrame(columns=list(columns))
