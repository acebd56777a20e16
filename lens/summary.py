"""The result in sentences: a paragraph per task, and one of what to bear in mind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from lens.report.verdicts_section import WITHHELD, answer, detectable, exposure
from lens.report.words import label, number
from lens.settings import Settings
from lens.study.study import Study
from lens.verdicts.rules import NO_CHANGE, VERDICTS

EXAMPLES = 3
"""Features named of a verdict."""


class Answered(NamedTuple):
    """The tables of a task that its sentences are written from.

    Attributes:
        features: rows of ``features.parquet``.
        levels: rows of ``levels.csv``.
    """

    features: pd.DataFrame
    levels: pd.DataFrame


def summarise(tasks: Mapping[str, Answered], study: Study, settings: Settings) -> list[str]:
    """What was compared, what changed by how much, and what is not known.

    Args:
        tasks: task -> its tables.
        study: what was compared.
        settings: as used.

    Returns:
        A paragraph per task, then one about all of them.
    """
    paragraphs = [" ".join(_task(name, *tables, study, settings)) for name, tables in tasks.items()]
    return [*paragraphs, " ".join(_caveats(tasks, study, settings))]


def _task(
    task: str, features: pd.DataFrame, levels: pd.DataFrame, study: Study, settings: Settings
) -> list[str]:
    patients = study.ids["patient_id"].nunique()
    sentences = [
        f"{task}: {len(features)} radiomic features of {patients} patients, "
        f"embeddings of {study.x_pre.shape[1]} dimensions before and after fine-tuning.",
        f"Did anything change? {answer(features, levels, settings.rules.level)}",
    ]
    sentences += [_verdict(features, name, settings) for name in VERDICTS]
    counts = features["withheld"].value_counts()
    if reasons := [f"{counts[name]} ({name})" for name in WITHHELD if name in counts]:
        sentences.append(f"Changed in these patients, but not called: {', '.join(reasons)}.")
    return [sentence for sentence in sentences if sentence]


def _verdict(features: pd.DataFrame, verdict: str, settings: Settings) -> str:
    """How many features have the verdict, what it means, and for a change its size and examples."""
    rows = features[features["verdict"] == verdict]
    if rows.empty:
        return ""
    sentence = f"{verdict.capitalize()}: {len(rows)}"
    if verdict == "unchanged":
        margin = settings.rules.equivalence
        return f"{sentence} (a change of R2 of {margin:g} or more is ruled out)."
    sentence = f"{sentence} ({VERDICTS[verdict]})"
    if verdict == "undecided":
        return f"{sentence}; {detectable(features)}."
    if verdict in NO_CHANGE:
        return f"{sentence}."
    return f"{sentence}, {_size(rows)}{_linear(rows, verdict)}."


def _size(rows: pd.DataFrame) -> str:
    clusters = rows["cluster"].nunique()
    order = rows["delta_r2"].abs().sort_values(ascending=False, kind="stable").index
    examples = rows.loc[order].drop_duplicates("cluster").head(EXAMPLES).to_dict("records")
    return (
        f"in {clusters} cluster(s) of near copies, with a median change of held-out R2 of "
        f"{number(rows['delta_r2'].median())}, such as {'; '.join(map(label, examples))}"
    )


def _linear(rows: pd.DataFrame, verdict: str) -> str:
    count = int(rows["linear_only"].sum())
    if not count:
        return ""
    when = "still reads them after" if verdict == "lost" else "read them before"
    return f"; {count} of them to a linear reader only, a nonlinear one {when} fine-tuning"


def _caveats(tasks: Mapping[str, Answered], study: Study, settings: Settings) -> list[str]:
    scores = (
        "each feature's normal scores" if settings.scores == "normal" else "the features' values"
    )
    sentences = [f"R2 is that of {scores} in patients held out."]
    if unknown := [
        name for name, tables in tasks.items() if exposure(tables.features) == "unknown"
    ]:
        sentences.append(
            f"Whom fine-tuning saw is not known ({', '.join(unknown)}): "
            "a gain may be memory of these patients."
        )
    if study.set_aside:
        aside = len({error.patient_id for error in study.set_aside})
        sentences.append(f"{aside} patient(s) were set aside, with their reasons.")
    return sentences
