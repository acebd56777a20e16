"""Does the lens say what fine-tuning did, where the mechanism is known? On phantoms.

``python -m benchmarks.mechanism --trained T`` reads what `benchmarks.mechanism_train` packed,
measures the radiomic features of the judged phantoms, judges every fine-tuning by the lens, and
compares the verdicts with what happened to the factors that the phantoms were drawn from
(`benchmarks.mechanism_truth`). It writes ``benchmarks/results/mechanism.json`` and the figure
``docs/evidence-mechanism.png``. A run that was cut off goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from benchmarks import harness
from benchmarks.mechanism_features import factors_of, measured
from benchmarks.mechanism_files import unpacked
from benchmarks.mechanism_truth import (
    agreement,
    factor_changes,
    owners,
    rate,
    shares_of_factors,
    squared_errors,
)

KINDS = ("full", "scratch", "frozen", "permuted", "noise")
AT_ONCE = 6
"""Fine-tunings that are judged in one call: they share the fits of the encoder before."""


@dataclass(frozen=True)
class Config:
    """What is judged, and how."""

    trained: Path = Path("runs/mechanism/packed")
    """Folder with mechanism.npz and mechanism.json."""
    folder: Path = Path("runs/mechanism")
    """Images and features of the judged phantoms, and finished verdicts."""
    pool: str = "gland"
    """Over what the embeddings were averaged."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of fine-tunings to judge."""
    folds: int = 5
    """Parts of the cross-validation, once."""
    flips: int = 2000
    """Sign flips of each test."""
    workers: int = 1
    """Processes for the features."""
    out: Path = harness.RESULTS / "mechanism.json"
    """Where the figures go."""
    figure: Path = Path("docs/evidence-mechanism.png")
    """Where the picture goes."""


@dataclass(frozen=True)
class Material:
    """What the judging reads: rows are the judged patients everywhere.

    Attributes:
        embeddings: encoder -> (n, d).
        columns: names of the features.
        r: features (n, k), in their own units.
        patients: ids.
        factors: normal scores, a column per factor.
    """

    embeddings: Mapping[str, np.ndarray]
    columns: list[str]
    r: np.ndarray
    patients: np.ndarray
    factors: pd.DataFrame


def main(config: Config) -> None:
    """Judges what is not judged yet, writes the record and the figure."""
    from benchmarks.mechanism_figure import draw

    about = json.loads((config.trained / "mechanism.json").read_text())
    with np.load(config.trained / "mechanism.npz") as stored:
        embeddings = unpacked(stored)[config.pool]
    material = read_material(config, about["phantoms"], embeddings)
    tasks = [name for name in embeddings if name.count("-") == 2]
    tasks = [name for name in tasks if name.rsplit("-", 1)[1] in config.kinds]
    for before in ("pretrained", "random"):
        ours = [name for name in tasks if (before == "random") == name.endswith("-scratch")]
        judge_all(config, material, before, ours)
    result = summarise(config, material, about, tasks)
    facts = harness.facts(config, "jax", "scikit-learn")
    harness.record(config.out, {**facts, **result})
    draw(result, config.figure)


def read_material(
    config: Config, phantoms: Mapping[str, Any], embeddings: Mapping[str, np.ndarray]
) -> Material:
    """Features and factors of the judged phantoms, measured where they are not yet."""
    table = measured(config.folder, phantoms, config.workers)
    factors = factors_of(config.folder, table["patient_id"])
    values = table.drop(columns="patient_id")
    usable = values.columns[values.notna().all() & (values.nunique() > len(values) // 4)]
    return Material(
        embeddings, list(usable), values[usable].to_numpy(), table["patient_id"].to_numpy(), factors
    )


def judge_all(config: Config, material: Material, before: str, tasks: Sequence[str]) -> None:
    """Verdicts of each task, from a file where they are there; equal embeddings are judged once."""
    folder = config.folder / f"verdicts-{config.pool}"
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{_key(config, material, before, name)}.csv" for name in tasks}
    todo = {path: name for name, path in files.items() if not path.is_file()}
    names = list(todo.values())
    for at in range(0, len(names), AT_ONCE):
        part = names[at : at + AT_ONCE]
        sides = {name: material.embeddings[name] for name in part}
        tables = verdicts(config, material, material.embeddings[before], sides)
        for name, table in tables.items():
            partial = files[name].with_suffix(".part")
            table.to_csv(partial, index=False)
            partial.replace(files[name])
            counts = table["verdict"].value_counts().to_dict()
            print(f"{before} -> {name}: {counts}", flush=True)


def verdicts(
    config: Config, material: Material, before: np.ndarray, sides: Mapping[str, np.ndarray]
) -> dict[str, pd.DataFrame]:
    """The lens's verdicts on each side, without the MLP and thus without ``recoded``."""
    from lens.settings import Rules
    from lens.verdicts.clusters import cluster_features
    from lens.verdicts.estimates import r2_score
    from lens.verdicts.folds import make_folds
    from lens.verdicts.held_out import PRE, RIDGE_VIEWS, held_out_errors
    from lens.verdicts.judge import judge

    groups, r = material.patients, material.r
    folds = make_folds(groups, config.folds, 1, 0)
    held_out = held_out_errors(before, dict(sides), r, groups, folds, None, back=False)
    clusters = cluster_features(r)
    rules = Rules(flips=config.flips)
    found = {side: judge(held_out, side, clusters, groups, rules).features for side in sides}
    errors = held_out.probes[RIDGE_VIEWS[0]][PRE]
    r2_before = r2_score(errors, held_out.baseline, groups).value
    for table in found.values():
        table.insert(0, "column", material.columns)
        table["r2_before"] = r2_before
    return found


def summarise(
    config: Config, material: Material, about: Mapping[str, Any], tasks: Sequence[str]
) -> dict[str, Any]:
    """Rows of every fine-tuning, and over them how far verdicts and factors agree."""
    shares = shares_of_factors(material.r, material.factors)
    owner = owners(shares)
    folder = config.folder / f"verdicts-{config.pool}"
    scores = {f"{r['label']}-{r['seed']}-{r['kind']}": r for r in about.get("runs", [])}
    errors: dict[str, np.ndarray] = {}

    def errors_of(name: str) -> np.ndarray:
        x = material.embeddings[name]
        key = hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()
        if key not in errors:
            errors[key] = squared_errors(x.astype(float), material.factors.to_numpy())
        return errors[key]

    rows = []
    for name in tasks:
        label, seed, kind = name.split("-")
        before = "random" if kind == "scratch" else "pretrained"
        table = pd.read_csv(folder / f"{_key(config, material, before, name)}.csv")
        changes = factor_changes(errors_of(before), errors_of(name), material.factors)
        rows.append(row_of(table, changes, owner, shares) | {
            "label": label, "seed": int(seed), "kind": kind, "before": before,
            "same_encoder": bool(
                np.array_equal(material.embeddings[name], material.embeddings[before])
            ),
            "score": scores.get(name, {}).get("score"),
            "seconds": scores.get(name, {}).get("seconds"),
            "score_name": scores.get(name, {}).get("score_name"),
        })  # fmt: skip
    counted = {factor: int((owner == factor).sum()) for factor in material.factors}
    return {
        "trained": {name: value for name, value in about.items() if name != "runs"},
        "patients": len(material.r),
        "features": len(material.columns),
        "features_by_factor": counted,
        "summary": summary(rows),
        "runs": rows,
    }


def row_of(
    table: pd.DataFrame, changes: pd.DataFrame, owner: np.ndarray, shares: pd.DataFrame
) -> dict[str, Any]:
    """One fine-tuning: verdicts in numbers, changes of the factors, and how they go together."""
    called = table["verdict"].isin(["lost", "gained"]).to_numpy()
    readable = (table["verdict"] != "absent").to_numpy()
    before = table["r2_before"].to_numpy()
    expected = shares.to_numpy() @ changes["change"].to_numpy()
    moved = table["delta_r2"].to_numpy()
    by_factor = []
    for change in changes.to_dict("records"):
        own = owner == change["factor"]
        verdict = table["verdict"][own]
        by_factor.append({
            **{key: round(v, 4) if isinstance(v, float) else v for key, v in change.items()},
            "features": int(own.sum()),
            "lost": int((verdict == "lost").sum()),
            "gained": int((verdict == "gained").sum()),
            "median_delta_r2": round(float(np.median(moved[own])), 4) if own.any() else None,
        })  # fmt: skip
    return {
        "features": len(table),
        "called": int(called.sum()),
        "lost": int((table["verdict"] == "lost").sum()),
        "gained": int((table["verdict"] == "gained").sum()),
        "median_r2_before": round(float(np.median(before[readable])), 4),
        "correlation_with_expected": _correlation(expected, moved),
        **{f"owned_{k}": v for k, v in agreement(list(table["verdict"]), owner, changes).items()},
        "factors": by_factor,
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares over fine-tunings, by kind."""
    found: dict[str, Any] = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        correlations = [r["correlation_with_expected"] for r in own]
        known = [value for value in correlations if value is not None]
        found[kind] = {
            "runs": len(own),
            "same_encoder": sum(row["same_encoder"] for row in own),
            "median_r2_before": float(np.median([row["median_r2_before"] for row in own])),
            "called": rate(own, "called", "features"),
            "called_of_moved": rate(
                [row for row in own if not row["same_encoder"]], "called", "features"
            ),
            "sensitivity": rate(own, "owned_found", "owned_changed"),
            "false_alarms": rate(own, "owned_wrong", "owned_called"),
            "alarms_of_small_changes": rate(own, "owned_small", "owned_called"),
            "stayed_called": rate(own, "owned_stayed_called", "owned_stayed"),
            "correlation_with_expected": float(np.median(known)) if known else None,
        }
    return found


def _correlation(expected: np.ndarray, moved: np.ndarray) -> float | None:
    if np.ptp(expected) < 1e-9 or np.ptp(moved) < 1e-9:
        return None
    return round(float(np.corrcoef(expected, moved)[0, 1]), 4)


def _key(config: Config, material: Material, before: str, name: str) -> str:
    """What tells a comparison: the embeddings, the features and the settings."""
    digest = hashlib.sha256(f"{config.folds} {config.flips} {material.columns}".encode())
    for values in (material.embeddings[before], material.embeddings[name], material.r):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:24]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main(tyro.cli(Config, description=__doc__))
