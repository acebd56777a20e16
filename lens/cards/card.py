"""The lens card of a run: settings, hashes and statistics by feature and group, and no patient.

What goes into a card is listed here by name (`SETTINGS`, `FACTS`, `FEATURE_COLUMNS`,
`LEVEL_COLUMNS`); anything else of a run stays where it is. ``card-1.schema.json`` describes the
file, ``docs/cards.md`` explains it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lens.files import write_text
from lens.report.results import Results
from lens.settings import SweepConfig

log = logging.getLogger(__name__)

SCHEMA, VERSION = "radiomic-lens-card", "1.0"
"""Name and version of the format; a card of another first number is refused."""

CARD = "card.json"
"""Name of the file in the run folder."""

FEWEST = 20
"""Patients below which there is no card: so few could be told apart by what is said of all."""

SETTINGS = (
    "mode", "scores", "level", "margin", "equivalence", "flips", "l1", "l2", "seeds", "epochs",
    "batch", "rate", "bootstraps", "seed", "pool_tokens",
)  # fmt: skip
"""Settings of the analysis: numbers, and words out of a fixed list."""

FACTS = ("patients", "scored", "folds", "repeats", "embedding_width", "hidden")
"""Numbers of a task's study."""

TEXTS = ("column", "modality", "roi", "image", "feature_class", "feature")
"""Parts of a feature's name."""

FEATURE_COLUMNS = (
    *TEXTS, "verdict", "withheld", "cluster", "medoid",
    "r2_ridge_pre", "r2_ridge_pre_low", "r2_ridge_pre_high",
    "r2_ridge_ft", "r2_ridge_ft_low", "r2_ridge_ft_high",
    "delta_r2", "delta_r2_low", "delta_r2_high", "delta_r2_one_scale", "delta_r2_leading",
    "p_maxt", "q_bh", "p_unchanged", "p_present_pre", "p_present_ft", "detectable",
    "r2_pre_pre", "r2_pre_ft", "p_recoded",
    "retrained", "delta_r2_retrained", "delta_r2_retrained_low", "delta_r2_retrained_high",
)  # fmt: skip
"""Columns of ``features.parquet`` that a card holds, as far as the run has them."""

LEVEL_COLUMNS = (
    "level", "modality", "roi", "group", "n_features", "delta_r2_cv", "delta_r2_cv_low",
    "delta_r2_cv_high", "p_group", "detectable_group", "verdict",
)  # fmt: skip
"""Columns of ``levels.csv`` that a card holds."""

DIGITS = 6
"""Significant digits of a number."""


class Written(NamedTuple):
    """What became of the card of a run.

    Attributes:
        path: of the card; None where there is none.
        refusal: why there is none, as a sentence; empty where there is one.
    """

    path: Path | None
    refusal: str


def write_card(folder: Path, results: Results) -> Written:
    """Writes the card of a finished run as ``card.json``, or takes away that of an earlier one.

    Args:
        folder: of the run.
        results: its tables.
    """
    path = folder / CARD
    if refusal := too_few(results):
        log.warning("%s", refusal)
        path.unlink(missing_ok=True)
        return Written(None, refusal)
    write_text(path, as_text(card(results)))
    return Written(path, "")


def too_few(results: Results) -> str:
    """Why a run gets no card, as a sentence without its full stop; an empty text where it does."""
    for scope in results.scopes.values():
        fewest = min(scope.facts["patients"], scope.facts["scored"])
        if fewest < FEWEST:
            return (
                f"no lens card is written: its statistics would be of {fewest} patients, and "
                f"those of fewer than {FEWEST} could tell about single ones"
            )
    return ""


def card(results: Results) -> dict[str, Any]:
    """The content of a card, in the order of the schema.

    Args:
        results: of a finished run with enough patients (`too_few`).
    """
    run = results.run
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "date": str(run["started"])[:10],
        "versions": {str(name): str(version) for name, version in run["versions"].items()},
        "settings": _settings(run["config"]),
        "tasks": {task: _task(results, task, scope) for task, scope in run["tasks"].items()},
    }


def as_text(content: Mapping[str, Any]) -> str:
    """JSON that people can read before they pass it on: a row of a table is a line."""
    return _lines(content, "") + "\n"


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: config[name] for name in SETTINGS if name in config}
    grid = SweepConfig(l1=tuple(found.get("l1") or ()), mode=found.get("mode", "default")).l1_grid
    # What a user named is free text; how many columns there were is not.
    found |= {"l1": list(grid), "adjusted_for": len(config.get("adjust") or ())}
    if "spacing" in config and not config.get("pre"):
        found["spacing_mm"] = list(config["spacing"])
    return found


def _task(results: Results, task: str, scope: str) -> dict[str, Any]:
    facts, tables = results.scopes[scope].facts, results.tasks[task]
    prints = facts.get("fingerprints", {})
    after = prints.get("after", {}).get(task)
    aside = results.failures
    return {
        **{name: facts[name] for name in FACTS},
        "rows": {name: facts["rows"][name] for name in ("train", "val", "test")},
        "set_aside": int(aside["patient_id"].nunique()) if len(aside) else 0,
        "columns_left_out": len(results.scopes[scope].dropped),
        "hashes": {
            "features": prints.get("features", {}),
            "before": prints.get("before"),
            "after": after,
        },
        "spectrum": _spectrum(results.scopes[scope].doctor, task),
        "levels": rows(tables.levels, LEVEL_COLUMNS),
        "features": [
            {"n": facts["scored"], **row} for row in rows(tables.features, FEATURE_COLUMNS)
        ],
    }


def _spectrum(doctor: Mapping[str, Any], task: str) -> dict[str, dict[str, Any]]:
    """Directions of the embeddings before and after, as far as the doctor was asked."""
    found = {row["embeddings"]: row for row in doctor.get("spectrum", [])}
    sides = {"before": "before fine-tuning", "after": f"after fine-tuning on {task}"}
    names = ("effective_rank", "leading", "dead")
    return {
        side: {name: plain(found[of][name]) for name in names}
        for side, of in sides.items()
        if of in found
    }


def rows(table: pd.DataFrame, columns: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a table with some of its columns, as JSON takes them: no NaN, no infinity."""
    names = [name for name in columns if name in table]
    cells = [[plain(value) for value in table[name].tolist()] for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]


def plain(value: Any) -> Any:
    """A value of a cell as JSON takes it, numbers to `DIGITS`; None for NaN and infinity."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _lines(value: Any, indent: str) -> str:
    """JSON with a line for what holds no more than numbers and texts."""
    parts = value.values() if isinstance(value, dict) else value
    nested = isinstance(value, dict | list) and any(isinstance(p, dict | list) for p in parts)
    if not nested or not value:
        return json.dumps(value, ensure_ascii=True, allow_nan=False)
    deeper = indent + " "
    if isinstance(value, dict):
        inner = [f"{json.dumps(str(k))}: {_lines(v, deeper)}" for k, v in value.items()]
    else:
        inner = [_lines(each, deeper) for each in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    body = f",\n{deeper}".join(inner)
    return f"{opening}\n{deeper}{body}\n{indent}{closing}"
