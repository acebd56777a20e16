"""What a task rests on, in sentences that are written from the table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from lens.report.words import modality_name, number, short

STAGES = {"pre": "before fine-tuning", "ft": "after it"}

SCORES = {"auc": "AUC", "concordance": "concordance", "r2": "R2"}
"""Names of the scores."""

CHANCE = {"auc": 0.5, "concordance": 0.5, "r2": 0.0}
"""What a head without any information scores."""

NAMED = 3
"""Clusters named in a sentence."""

Row = Mapping[Hashable, Any]


def cluster_name(name: str) -> str:
    """A cluster as it is read: ``T2 gland glcm`` for ``t2 gland glcm``, a column as it stands."""
    modality, blank, rest = name.partition(" ")
    return f"{short(modality_name(modality))} {short(rest)}" if blank else short(name)


def sentences(table: pd.DataFrame) -> list[str]:
    """A few sentences for every label of a task.

    Args:
        table: rows of ``amnesic.csv``.
    """
    return [
        " ".join(_of_label(str(label), rows)) for label, rows in table.groupby("label", sort=False)
    ]


def _of_label(label: str, rows: pd.DataFrame) -> list[str]:
    stages = {stage: rows[rows["stage"] == stage] for stage in STAGES}
    score = str(rows["score"].iloc[0])
    said = [_read(short(label), score, stages)]
    for stage, part in stages.items():
        said += _rests(STAGES[stage], score, part)
    return said


def _read(label: str, score: str, stages: Mapping[str, pd.DataFrame]) -> str:
    parts = [
        f"{number(part['score_before'].iloc[0])} [{number(part['score_before_low'].iloc[0])}, "
        f"{number(part['score_before_high'].iloc[0])}] {STAGES[stage]}"
        for stage, part in stages.items()
    ]
    return (
        f"{label} is predicted for held-out patients with {_article(score)} of {parts[0]} and "
        f"{parts[1]}."
    )


def _article(score: str) -> str:
    return f"{'an' if score in ('auc', 'r2') else 'a'} {SCORES[score]}"


def _rests(when: str, score: str, part: pd.DataFrame) -> list[str]:
    """What is said of one stage."""
    if not part["score_before_low"].iloc[0] > CHANCE[score]:
        return [f"{when.capitalize()} it is not read better than by chance: nothing can be lost."]
    said = []
    ordered = part.sort_values("loss", ascending=False, kind="stable")
    rests, large = (ordered[ordered["finding"] == name] for name in ("rests", "large part"))
    if len(rests):
        said.append(
            f"{when.capitalize()} it rests on {_names(rests)}: more than random "
            "parts of the embedding of that size cost."
        )
    if len(large):
        also = "also " if len(rests) else ""
        said.append(
            f"{when.capitalize()} the erasure of {_names(large)} {also}costs it, beyond random "
            "parts of the same rank but not beyond such as take as much of the variance: "
            "its size alone may be what costs."
        )
    if not len(rests) and not len(large):
        said.append(f"{when.capitalize()} it is not shown to rest on any cluster.")
    return said


def _names(rows: pd.DataFrame) -> str:
    named = [_with_loss(row) for row in rows.head(NAMED).to_dict("records")]
    more = len(rows) - len(named)
    if more > 0:
        named.append(f"{more} more")
    return ", ".join(named[:-1]) + " and " + named[-1] if len(named) > 1 else named[0]


def _with_loss(row: Row) -> str:
    low, high = number(row["loss_low"]), number(row["loss_high"])
    return f"{cluster_name(str(row['cluster']))} (loss {number(row['loss'])} [{low}, {high}])"
