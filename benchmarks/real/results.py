"""What a study found, as one JSON: read off the run folders, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.real.judge import VERSIONS, Study
from lens.files import write_table

VERDICTS = ("lost", "gained", "recoded", "unchanged", "undecided", "absent")

MEDIANS = (
    "r2_ridge_pre", "r2_ridge_ft", "delta_r2", "delta_r2_retrained", "delta_r2_unexposed",
    "delta_r2_exposed", "delta_r2_adjusted", "smallest_loss",
)  # fmt: skip
"""Columns whose medians over the features are told."""

FEATURES = "features.parquet"

SHOWN = 5
"""Features named among those of the largest changes."""


def findings(study: Study, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the text and the figure of a study are made of.

    Args:
        study: judged.
        scores: of the training.
    """
    pools = {pool: _pool(study, pool) for pool in study.pools}
    return {
        "study": study.name,
        "cohort": _cohort(study),
        "training": dict(scores),
        "repeatability": _repeatability(study),
        "pools": pools,
        "paper": _paper(study),
    }


def _cohort(study: Study) -> dict[str, Any]:
    table = pd.read_csv(study.cohort, dtype={"patient_id": str})
    made: dict[str, Any] = {
        "rows": len(table),
        "patients": int(table["patient_id"].nunique()),
        "split": {str(name): int(n) for name, n in table["split"].value_counts().items()},
    }
    for column in ("diagnosis",):
        if column in table:
            made[column] = {str(name): int(n) for name, n in table[column].value_counts().items()}
    if "volume_ml" in table:
        volume = table["volume_ml"]
        made["volume_ml"] = {"mean": float(volume.mean()), "sd": float(volume.std())}
    duplicates = study.folder / "duplicates.json"
    if duplicates.is_file():
        made["duplicates"] = json.loads(duplicates.read_text(encoding="utf-8"))
    failures = study.folder / "failures.csv"
    if failures.is_file():
        made["set_aside"] = pd.read_csv(failures, dtype=str)["patient_id"].tolist()
    return made


def _repeatability(study: Study) -> dict[str, Any]:
    """Median intraclass correlation of each feature class."""
    table = pd.read_csv(study.ceilings)
    classes = table["column"].str.rsplit(".", n=1).str[1].str.split("_").str[1]
    medians = table.groupby(classes)["icc"].median()
    return {
        "patients": int(table["n"].max()),
        "versions": VERSIONS,
        "median_icc": {str(name): float(value) for name, value in medians.items()},
    }


def _pool(study: Study, pool: str) -> dict[str, Any]:
    folders = {task: study.results(pool, task) for task in study.tasks}
    adjusted = bool(study.adjust)
    return {task: _task(path, adjusted) for task, path in folders.items() if _finished(path)}


def _finished(folder: Path) -> bool:
    return (folder / FEATURES).is_file()


def _task(folder: Path, adjusted: bool) -> dict[str, Any]:
    """Verdicts of a task, in all and by region and feature class."""
    features = pd.read_parquet(folder / FEATURES)
    if not adjusted:
        features = features.drop(columns=[name for name in features if "adjusted" in str(name)])
    levels = pd.read_csv(folder / "levels.csv")
    whole = levels[levels["level"] == "task"].iloc[0]
    return {
        "n_features": len(features),
        "verdicts": counts(features["verdict"]),
        "withheld": counts(features["withheld"].replace("", np.nan).dropna(), ()),
        "task_verdict": str(whole["verdict"]),
        "delta_r2": _number(whole["delta_r2_cv"]),
        "delta_r2_low": _number(whole["delta_r2_cv_low"]),
        "delta_r2_high": _number(whole["delta_r2_cv_high"]),
        "median": {name: _median(features, name) for name in MEDIANS},
        "retrained": int(features["retrained"].max()),
        "band_excludes_zero": _band(features),
        "groups": [_group(row, features) for row in _class_rows(levels)],
        "largest": _largest(features),
        "doctor": _doctor(folder.parent / "doctor" / "doctor.json"),
    }


def _doctor(file: Path) -> str:
    """What the doctor says that the cohort can show; an empty text where it was not asked."""
    return json.loads(file.read_text(encoding="utf-8"))["sentence"] if file.is_file() else ""


def counts(verdicts: pd.Series, names: Sequence[str] = VERDICTS) -> dict[str, int]:
    """How often each occurs; those of `names` always."""
    found = verdicts.value_counts()
    return {str(name): int(found.get(name, 0)) for name in dict.fromkeys([*names, *found.index])}


def _class_rows(levels: pd.DataFrame) -> list[pd.Series]:
    """Rows of the feature classes: not of filters, nor of all features."""
    rows = levels[(levels["level"] == "group") & ~levels["group"].isin(["all", "original"])]
    return [row for _, row in rows.iterrows()]


def _group(row: pd.Series, features: pd.DataFrame) -> dict[str, Any]:
    """A feature class of a region."""
    here = features["feature_class"].eq(row["group"]) & features["roi"].eq(row["roi"])
    inside = features[here]
    made = {"roi": str(row["roi"]), "class": str(row["group"]), "n_features": len(inside)}
    for name in ("delta_r2_cv", "delta_r2_cv_low", "delta_r2_cv_high"):
        made[name.replace("_cv", "")] = _number(row[name])
    made["verdict"] = str(row["verdict"])
    for name in ("r2_ridge_pre", "r2_ridge_ft", "r2_adjusted_pre", "r2_adjusted_ft"):
        made[f"{name}_median"] = _median(inside, name)
    if "delta_r2_retrained" in inside:
        made["delta_r2_seeds"] = _number(inside["delta_r2_retrained"].mean())
    made["verdicts"] = counts(inside["verdict"])
    return made


def _band(features: pd.DataFrame) -> dict[str, int] | None:
    """Features whose next seed's change is shown to be a gain, or a loss; None without seeds."""
    if "delta_r2_retrained_low" not in features or features["delta_r2_retrained_low"].isna().all():
        return None
    return {
        "gain": int((features["delta_r2_retrained_low"] > 0).sum()),
        "loss": int((features["delta_r2_retrained_high"] < 0).sum()),
    }


def _largest(features: pd.DataFrame) -> list[dict[str, Any]]:
    """Features of the largest loss or gain that was called, else of the largest change."""
    called = features[features["verdict"].isin(["lost", "gained"])]
    some = called if len(called) else features
    some = some.reindex(some["delta_r2"].abs().sort_values(ascending=False).index).head(SHOWN)
    wanted = ("delta_r2", "delta_r2_low", "delta_r2_high", "r2_ridge_pre", "r2_ridge_ft")
    return [
        {
            "feature": f"{row['roi']} {row['feature_class']} {row['feature']}",
            "verdict": str(row["verdict"]),
            **{name: _number(row[name]) for name in wanted},
        }
        for _, row in some.iterrows()
    ]


def _paper(study: Study) -> dict[str, Any]:
    """The paper's scores beside the verdicts' changes, for its tasks."""
    pool, tasks = study.paper
    both = {t: [study.results(pool, t, paper=paper) for paper in (True, False)] for t in tasks}
    tasks = [task for task, folders in both.items() if all(map(_finished, folders))]
    scored = {task: pd.read_parquet(both[task][0] / FEATURES) for task in tasks}
    judged = {task: pd.read_parquet(both[task][1] / FEATURES) for task in tasks}
    made = {
        task: compared(scored[task], judged[task])
        | beyond_zero(pd.read_csv(both[task][0] / "groups.csv"))
        for task in tasks
    }
    return {"pool": pool, "tasks": made}


def beyond_zero(groups: pd.DataFrame) -> dict[str, Any]:
    """Groups of features whose change of the median R2 has an interval without zero.

    Args:
        groups: ``groups.csv`` of the paper's run.
    """
    rows = groups[(groups["stage"] == "delta") & (groups["n_features"] > 0)]
    shown = rows[(rows["r2_median_low"] > 0) | (rows["r2_median_high"] < 0)]
    return {
        "r2_groups_seen": len(rows),
        "r2_groups": [
            {
                "roi": str(row["roi"]),
                "group": str(row["group"]),
                "value": _number(row["r2_median"]),
                "low": _number(row["r2_median_low"]),
                "high": _number(row["r2_median_high"]),
            }
            for _, row in shown.iterrows()
        ],
    }


def compared(paper: pd.DataFrame, judged: pd.DataFrame) -> dict[str, Any]:
    """Signs of the paper's change of importance beside the change of cross-validated R2.

    Args:
        paper, judged: ``features.parquet`` of the paper's run and of the verdicts'.

    Returns:
        Numbers of features, and the same by feature class.
    """
    wanted = judged[["column", "delta_r2", "verdict"]].rename(columns={"delta_r2": "delta_cv"})
    columns = [
        "column", "feature_class", "delta_importance", "delta_importance_low",
        "delta_importance_high", "delta_r2_split", "r2_pre", "r2_ft",
    ]  # fmt: skip
    table = paper[columns].merge(wanted, on="column")
    opposite = np.sign(table["delta_importance"]) != np.sign(table["delta_cv"])
    table = table.assign(
        opposite=opposite,
        up=table["delta_importance_low"] > 0,
        down=table["delta_importance_high"] < 0,
        called=table["verdict"].isin(["lost", "gained"]),
        readable=table["verdict"] != "absent",
    )
    groups = table.groupby("feature_class", sort=True)
    return {
        **_signs(table),
        "by_class": {str(name): _signs(group) for name, group in groups},
    }


def _signs(table: pd.DataFrame) -> dict[str, Any]:
    """Numbers of a group of features."""
    means = ("delta_importance", "delta_r2_split", "delta_cv", "r2_pre", "r2_ft")
    return {
        "n_features": len(table),
        "opposite_signs": int(table["opposite"].sum()),
        "readable": int(table["readable"].sum()),
        "readable_opposite": int((table["opposite"] & table["readable"]).sum()),
        "importance_up": int(table["up"].sum()),
        "importance_down": int(table["down"].sum()),
        "moved_and_called": int((table["called"] & (table["up"] | table["down"])).sum()),
        **{f"{name}_median": _number(table[name].median()) for name in means},
    }


def write_tables(study: Study, beside: Path) -> None:
    """The paper's Table 1 of the first task, before, after and change, beside the results.

    Args:
        study: judged.
        beside: the results; the tables are called ``<its name>-table1.csv`` and ``-figure2.csv``.
    """
    pool, tasks = study.paper
    folder = study.results(pool, tasks[0], paper=True)
    for name, file in (("table1", "groups.csv"), ("figure2", "modalities.csv")):
        table = pd.read_csv(folder / file)
        keys = [key for key in ("modality", "roi", "group", "stage") if key in table]
        scores = ["r2_median", "r2_median_low", "r2_median_high", "mse_median"]
        small = table[[*keys, "n_features", *scores]].round(4)
        write_table(small, beside.with_name(f"{beside.stem}-{name}.csv"))


def _median(features: pd.DataFrame, name: str) -> float | None:
    """Over the features that have a value; None where the column is absent."""
    return _number(features[name].median()) if name in features else None


def _number(value: Any) -> float | None:
    """A number to four decimals; None for NaN."""
    return round(float(value), 4) if np.isfinite(value) else None
