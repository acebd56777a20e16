"""The result of a task in sentences, written from its table of features."""

from __future__ import annotations

import pandas as pd

from lens.report.words import label
from lens.settings import Rules
from lens.study.study import Study

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
    verdict = features["verdict"]
    changed = [name for name in ("lost", "gained", "moved") if (verdict == name).any()]
    if not changed:
        sentences.append(
            f"No feature was shown to change (family-wise level {rules.level:g}): "
            "that is not to say that none did."
        )
    sentences += [_changed(features, name) for name in changed]
    for name, text in (
        ("kept", "were read before or after, without a change that could be shown"),
        ("absent", "cannot be read from either embedding beyond chance"),
    ):
        if (verdict == name).any():
            sentences.append(f"{(verdict == name).sum()} {text} ({name}).")
    if study.set_aside:
        aside = len({error.patient_id for error in study.set_aside})
        sentences.append(f"{aside} patient(s) were set aside, with their reasons.")
    return sentences


def _changed(features: pd.DataFrame, verdict: str) -> str:
    """How many features have the verdict, by how much they changed, and the largest of them."""
    rows = features[features["verdict"] == verdict]
    clusters = rows["cluster"].nunique()
    change = rows["delta_r2"] if verdict != "moved" else rows["r2_pre_ft"] - rows["r2_pre_pre"]
    largest = rows.loc[change[rows["medoid"]].abs().sort_values(ascending=False).index]
    names = "; ".join(label(row) for row in largest.head(EXAMPLES).to_dict("records"))
    size = f"{change.median():+.2f}".replace("-", "−")
    what = "held-out R2" if verdict != "moved" else "R2 of the frozen MLP"
    return (
        f"{len(rows)} in {clusters} cluster(s) of near copies were {verdict}, with a median change "
        f"of {what} of {size}" + (f" (first: {names})." if names else ".")
    )
