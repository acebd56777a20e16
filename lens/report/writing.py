"""What a run writes into its folder, file by file; `lens.report.results` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lens.files import write_arrays, write_json, write_table
from lens.paper.shift import Shift
from lens.probes.decoder import Decoder
from lens.probes.mlp import ACTIVATION, Projection
from lens.probes.scaling import MinMax
from lens.probes.sweep import Sweep
from lens.report.figures import save
from lens.report.power_figure import power_figure
from lens.report.results import AMNESIC_RECORD, made_of, unusable
from lens.rest.table import Rest
from lens.study.study import Study
from lens.verdicts.doctor_summary import Diagnosis
from lens.verdicts.patients import Patients


def write_study(folder: Path, study: Study) -> None:
    """Writes ``split.csv`` and ``dropped.csv`` of a scope."""
    write_table(study.ids.assign(split=study.split), folder / "split.csv")
    write_table(study.dropped, folder / "dropped.csv")


def write_sweep(folder: Path, sweep: Sweep, scaling: MinMax) -> None:
    """Writes ``sweep.parquet`` and ``projection.npz`` of a scope."""
    write_table(sweep.table, folder / "sweep.parquet")
    write_projection(folder, sweep.projection, scaling)


def write_projection(folder: Path, projection: Projection, scaling: MinMax) -> None:
    """Writes ``projection.npz``: all that turns embeddings into projected ones, and the scaling."""
    write_arrays(
        folder / "projection.npz",
        activation=np.asarray(ACTIVATION),
        **projection._asdict(),
        **scaling._asdict(),
    )


def read_projection(folder: Path) -> tuple[Projection, MinMax]:
    """Reads what `write_projection` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = folder / "projection.npz"
    try:
        with np.load(path, allow_pickle=False) as content:
            return (
                Projection(*(content[name] for name in Projection._fields)),
                MinMax(*(content[name] for name in MinMax._fields)),
            )
    except Exception as error:  # a damaged archive fails in many ways, with one remedy
        raise unusable(path, "projection.npz", f"not readable ({error})") from error


def write_shift(folder: Path, result: Shift) -> None:
    """Writes the decoders and tables of one task into its folder."""
    arrays: dict[str, np.ndarray] = {"columns": result.features["column"].to_numpy(str)}
    for stage, decoder in result.decoders.items():
        arrays |= _decoder_arrays(stage, decoder)
    write_arrays(folder / "decoders.npz", **arrays)
    write_table(result.features, folder / "features.parquet")
    write_table(result.groups, folder / "groups.csv")
    write_table(result.modalities, folder / "modalities.csv")


def write_patients(folder: Path, patients: Patients) -> None:
    """Writes the tables of single patients of one task into its folder."""
    write_table(patients.predictions, folder / "patients.parquet")
    write_table(patients.moved, folder / "moved.parquet")


def write_rest(folder: Path, rest: Rest) -> None:
    """Writes what features tell of the change of one task, and of whom not, into its folder."""
    write_table(rest.table, folder / "rest.csv")
    write_table(rest.patients, folder / "rest_patients.parquet")


def write_amnesic(
    folder: Path, table: pd.DataFrame, facts: Mapping[str, Any], run: Mapping[str, Any]
) -> None:
    """Writes ``amnesic.csv`` of a task and, last, what it was made from and how.

    Args:
        folder: of the task.
        table: of `lens.amnesic.table`.
        facts: settings, for ``amnesic.json``.
        run: of ``run.json``, by which a later reader tells whether the table is about this run.
    """
    (folder / AMNESIC_RECORD).unlink(missing_ok=True)
    write_table(table, folder / "amnesic.csv")
    write_json(folder / AMNESIC_RECORD, {**facts, **made_of(run, folder.name)})


def write_diagnosis(folder: Path, diagnosis: Diagnosis, facts: Mapping[str, Any]) -> None:
    """Writes ``doctor.json``; of the full form also its tables and the figure of power.

    Args:
        folder: where to.
        diagnosis: of the doctor.
        facts: what else to keep in ``doctor.json``.
    """
    content, findings = diagnosis.content, diagnosis.findings
    if findings is not None:
        write_table(findings.planted, folder / "doctor.csv")
        write_table(findings.features, folder / "doctor-features.csv")
        save(power_figure(findings.planted, content["detectable"]), folder, "doctor")
    write_json(folder / "doctor.json", {**content, **facts})


def _decoder_arrays(stage: str, decoder: Decoder) -> Mapping[str, np.ndarray]:
    return {f"theta_{stage}": decoder.theta, f"intercept_{stage}": decoder.b}
