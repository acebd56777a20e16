"""The result of a task in sentences, written from its table of features."""

from __future__ import annotations

import pandas as pd

from lens.report.words import label, number
from lens.settings import Rules
from lens.study.study import Study
from lens.verdicts.rules import NO_CHANGE, VERDICTS

EXAMPLES = 3
"""Features named of a verdict."""


def summarise(task: str, features: pd.DataFrame, study: Study, rules: Rules) -> list[str]:
    """What was compared, what changed by how much, and what is not known.

    Args:
        task: its name.
        features: rows of ``features.parquet``.
        study: what was compared.
        rules: of the verdicts.
    """
    patients, count = study.ids["patient_id"].nunique(), len(features)
    sentences = [
        f"{task}: {count} radiomic features of {patients} patients, "
        f"embeddings of {study.x_pre.shape[1]} dimensions before and after fine-tuning."
    ]
    if features["verdict"].isin(NO_CHANGE).all():
        sentences.append(
            f"No feature was shown to change (family-wise level {rules.level:g}): "
            "that is not to say that none did."
        )
    sentences += [_sentence(features, name) for name in VERDICTS]
    if study.set_aside:
        aside = len({error.patient_id for error in study.set_aside})
        sentences.append(f"{aside} patient(s) were set aside, with their reasons.")
    return [sentence for sentence in sentences if sentence]


def _sentence(features: pd.DataFrame, verdict: str) -> str:
    """How many features have the verdict, what it means, and for a change its size and examples."""
    rows = features[features["verdict"] == verdict]
    if rows.empty:
        return ""
    clusters = rows["cluster"].nunique()
    sentence = f"{verdict.capitalize()}: {len(rows)} ({VERDICTS[verdict]})"
    if verdict in NO_CHANGE:
        return f"{sentence}."
    examples = rows[rows["medoid"]]
    order = examples["delta_r2"].abs().sort_values(ascending=False, kind="stable").index
    names = "; ".join(label(row) for row in examples.loc[order].head(EXAMPLES).to_dict("records"))
    return (
        f"{sentence}, in {clusters} cluster(s) of near copies, with a median change of held-out "
        f"R2 of {number(rows['delta_r2'].median())}, such as {names}."
    )
