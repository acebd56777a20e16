"""The doctor's answer: can this cohort show a change? Yes, partly or no, and the sentence why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from lens.study.spectrum import is_collapsed

SMALL = 0.1
"""A cohort that shows losses of this R2 answers the question; beyond, it does so in part."""

NEAR_WHOLE = 0.75
"""Where only losses beyond this share of the typical feature's R2 show, the answer is no. With a
quarter of R2 left, a feature's correlation with its prediction is half of what it was: whatever is
short of that would go unseen."""

_SURE = 0.01
"""p of the false alarms, were each draw called with the family-wise level, below which there are
too many."""


class Rate(NamedTuple):
    """Draws that were called.

    Attributes:
        alarms, draws: called, and all.
        low, high: exact 95% interval of the rate (Clopper and Pearson 1934).
    """

    alarms: int
    draws: int
    low: float
    high: float


def rate(alarms: int, draws: int) -> Rate:
    """The rate of false alarms behind independent draws, with its interval."""
    interval = stats.binomtest(alarms, draws).proportion_ci(0.95, "exact")
    return Rate(alarms, draws, float(interval.low), float(interval.high))


def answer(facts: Mapping[str, Any]) -> tuple[str, str]:
    """``yes``, ``partly`` or ``no``, and the sentence why.

    No, where nothing is explained before fine-tuning, where changes that take nothing away raise
    too many alarms, or where only losses near the typical feature's whole R2 show (`NEAR_WHOLE`).

    Args:
        facts: of `lens.verdicts.doctor_summary`.
    """
    verdict, why = _verdict(facts)
    sentences = [f"With {facts['patients']} patients this cohort {_CAN[verdict]}: {why}"]
    if facts["scores"] == "raw" and facts["explained"]:
        sentences.append("That holds for normal values; skewed features need larger losses.")
    sentences += [
        f"The embeddings {row['embeddings']} have collapsed: {row['leading']:.1%} of their "
        f"variance is in one direction, their effective rank is {row['effective_rank']:.1f}."
        for row in facts["spectrum"]
        if is_collapsed(row["leading"], row["effective_rank"])
    ]
    return verdict, " ".join(sentences)


def too_many(rows: Sequence[Mapping[str, Any]], level: float) -> str:
    """What to say of too many false alarms; an empty text where there are not.

    Over all changes together, and for each by itself, so that a change that is called every time
    does not hide behind others; the latter with Bonferroni's correction.

    Args:
        rows: ``change, alarms, runs`` of each change that takes nothing away.
        level: family-wise level of the verdicts.
    """
    alarms, runs = (sum(row[name] for row in rows) for name in ("alarms", "runs"))
    if runs and stats.binom.sf(alarms - 1, runs, level) < _SURE:
        return f"{alarms} of {runs} changes that take nothing away were called a loss or a gain"
    for row in rows:
        if stats.binom.sf(row["alarms"] - 1, row["runs"], level) < _SURE / len(rows):
            called = f"{row['alarms']} of {row['runs']} times"
            return f"{row['change']}, which takes nothing away, was called {called}"
    return ""


_CAN = {
    "yes": "can answer the question",
    "partly": "can answer the question in part",
    "no": "cannot answer the question",
}


def _verdict(facts: Mapping[str, Any]) -> tuple[str, str]:
    known = f"{facts['explained']} of {facts['tested']} {facts['unit']}"
    if not facts["explained"]:
        return "no", (
            f"the embeddings before fine-tuning explain none of the {facts['tested']} "
            f"{facts['unit']} beyond chance, so that nothing can be seen to be lost."
        )
    if found := too_many(facts["false_alarms"], facts["level"]):
        return "no", f"{found}."
    worst = _worst(facts)
    if worst > NEAR_WHOLE * facts["median_r2"]:
        what = f"only a loss of R2 above {worst:.2f}"
        if np.isinf(worst):
            what = "not even the loss of all that is read of a typical feature"
        return "no", (
            f"{what} shows with 80% power{_where(facts)}, and the median R2 of the explained "
            f"{facts['unit']} ({known}) is {facts['median_r2']:.2f}; {_alarms(facts)}."
        )
    shows = (
        f"it shows losses of R2 of {worst:.2f} or more with 80% power{_where(facts)}, for {known}"
    )
    if worst > SMALL:
        return "partly", f"{shows}, and smaller ones may go unseen; {_alarms(facts)}."
    return "yes", f"{shows}; {_alarms(facts)}."


def _worst(facts: Mapping[str, Any]) -> float:
    """The largest of the smallest losses that show: planted, and in each task."""
    limits = [row["detectable"] for row in facts["tasks"]]
    if facts["form"] == "full":
        limits.append(facts["detectable"])
    return np.inf if None in limits else max(limits)


def _where(facts: Mapping[str, Any]) -> str:
    """The task that shows least, where there are several and the verdicts alone are asked."""
    tasks = facts["tasks"]
    if facts["form"] == "full" or len(tasks) < 2:
        return ""
    least = max(tasks, key=lambda row: np.inf if row["detectable"] is None else row["detectable"])
    return f" on {least['task']}, the task that shows least"


def _alarms(facts: Mapping[str, Any]) -> str:
    if facts["nothing_changed"] is None:
        return "no false-alarm rate was measured"
    found = Rate(**facts["nothing_changed"])
    return (
        f"{found.alarms} of {found.draws} draws in which nothing changed were called "
        f"(95% interval {found.low:.0%} to {found.high:.0%})"
    )
