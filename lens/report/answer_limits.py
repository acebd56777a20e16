"""What the cohort cannot tell of a task: which losses of single features may go unseen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lens.report.statements import Statement
from lens.report.words import number
from lens.verdicts.doctor_answer import NEAR_WHOLE, too_many
from lens.verdicts.power import POWER


@dataclass(frozen=True)
class Limit:
    """How small a loss of one feature these patients show.

    Attributes:
        loss: smallest loss of R2 with `POWER`, median over the explained; infinite where not even
            the loss of the whole R2 has it.
        median_r2: of the explained, before fine-tuning; NaN without any.
        explained, of: features that the embeddings before fine-tuning explain, and all.
        unit: what is counted.
        alarms: what is to be said of too many false alarms; an empty text where there are not.
        draws: the doctor's draws in which nothing changed (`lens.verdicts.doctor_answer.Rate`);
            None where none were made.
    """

    loss: float
    median_r2: float
    explained: int
    of: int
    unit: str = "features"
    alarms: str = ""
    draws: Mapping[str, Any] | None = None

    @property
    def told(self) -> bool:
        """Whether large losses would be seen: up to `NEAR_WHOLE` of the typical feature's R2."""
        shows = self.explained > 0 and self.loss <= NEAR_WHOLE * self.median_r2
        return shows and not self.alarms


def limit(task: str, features: pd.DataFrame, doctor: Mapping[str, Any], level: float) -> Limit:
    """The limit of a task: of the full doctor where it was asked, else read off the verdicts.

    Args:
        task: its name.
        features: rows of ``features.parquet``.
        doctor: of `lens.verdicts.doctor_summary`; empty without one.
        level: family-wise, of the verdicts.
    """
    if doctor.get("form") == "full":
        losses = [row["detectable"] for row in doctor["tasks"] if row["task"] == task]
        losses.append(doctor["detectable"])
        return Limit(
            loss=np.inf if None in losses else max(losses),
            median_r2=np.nan if doctor["median_r2"] is None else doctor["median_r2"],
            explained=doctor["explained"],
            of=doctor["tested"],
            unit=doctor["unit"],
            alarms=too_many(doctor["false_alarms"], doctor["level"]),
            draws=doctor["nothing_changed"],
        )
    explained = features["p_present_pre"] <= level
    losses = features.loc[explained, "smallest_loss"]
    return Limit(
        loss=float(losses.median()) if len(losses) else np.inf,
        median_r2=float(features.loc[explained, "r2_ridge_pre"].median()),
        explained=int(explained.sum()),
        of=len(features),
    )


def limit_statement(found: Limit, scores: str) -> Statement:
    """What may go unseen, in a sentence.

    Args:
        found: of the task.
        scores: whether normal scores of the features were judged or their values.
    """
    numbers = {
        "loss": found.loss, "median_r2": found.median_r2, "explained": found.explained,
        "of": found.of,
    }  # fmt: skip
    text = _seen(found)
    if scores == "raw" and found.explained:
        text += " That holds for normal values; skewed features need larger losses."
    if found.alarms:
        text += f" Mind the false alarms: {found.alarms}."
    if found.draws:
        drawn = found.draws
        numbers |= dict(drawn)
        text += (
            f" {drawn['alarms']} of {drawn['draws']} draws in which nothing changed were called "
            f"(95% interval {drawn['low']:.0%} to {drawn['high']:.0%})."
        )
    return Statement("limit", text, numbers, warns=not found.told)


def _seen(found: Limit) -> str:
    one = "feature" if found.unit == "features" else "cluster of features"
    if not found.explained:
        return (
            f"What these patients cannot tell: losses. The embeddings before fine-tuning explain "
            f"none of the {found.of} {found.unit} beyond chance, so that none can be seen to be "
            "lost."
        )
    known = (
        f"median over the {found.explained} of {found.of} {found.unit} explained before fine-tuning"
    )
    if np.isinf(found.loss):
        return (
            f"What these patients cannot tell: of a typical {one}, not even the loss of all "
            f"that is read, R2 {number(found.median_r2)}, would be seen with {POWER:.0%} power "
            f"({known})."
        )
    if found.loss > NEAR_WHOLE * found.median_r2:
        return (
            f"What these patients cannot tell: of a typical {one}, a loss of R2 below "
            f"{number(found.loss)} may go unseen, and all that is read is "
            f"{number(found.median_r2)} ({POWER:.0%} power; {known})."
        )
    return (
        f"What these patients cannot tell: of a typical {one}, a loss of R2 below "
        f"{number(found.loss)} may go unseen ({POWER:.0%} power; {known})."
    )
