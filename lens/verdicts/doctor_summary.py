"""The doctor's answer: can this cohort show a change? In one sentence, and in figures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lens.verdicts.doctor import Findings
from lens.verdicts.power import detectable_loss

BINS = (0.0, 0.02, 0.05, 0.1, 0.2, np.inf)
"""Edges of the losses of R2 by which power is counted."""

SMALL = 0.1
"""A cohort that shows losses of this R2 answers the question; beyond, it does so in part."""


def summary(findings: Findings) -> dict[str, Any]:
    """The doctor's answer, for a printed table, a file or a section of the report.

    Returns:
        ``answer`` (yes, partly, no), ``sentence``, ``patients``, ``clusters``, ``explained``
        (clusters above chance before fine-tuning), ``median_r2`` (of these), ``false_alarms`` (rows
        ``change, alarms, runs``), ``power`` (rows ``low, high, planted, detected``), ``detectable``
        (loss of R2 with 80% power; None where no planted loss has it), ``tasks`` (rows ``task,
        detectable``: median over the explained clusters), ``level, margin, noise``.
    """
    planted, features = findings.planted, findings.features
    explained = features["p_present"] <= findings.rules.level
    safe = planted[planted["kind"].isin(["harmless", "exchangeable"])]
    alarms = [
        {"change": change, "alarms": int((rows["alarms"] > 0).sum()), "runs": len(rows)}
        for change, rows in safe.groupby("change", sort=False)
    ]
    facts = {
        "patients": findings.patients,
        "clusters": len(features),
        "explained": int(explained.sum()),
        "median_r2": float(features.loc[explained, "r2"].median()) if explained.any() else None,
        "false_alarms": alarms,
        "power": _by_loss(planted),
        "detectable": detectable_loss(planted, findings.rules.margin),
        "tasks": [
            {
                "task": name.removeprefix("detectable_"),
                "detectable": float(features.loc[explained, name].median()),
            }
            for name in map(str, features.columns)
            if name.startswith("detectable_") and explained.any()
        ],
        "level": findings.rules.level,
        "margin": findings.rules.margin,
        "noise": findings.noise,
    }
    answer, sentence = _answer(facts)
    return {"answer": answer, "sentence": sentence, **facts}


def table(content: Mapping[str, Any]) -> pd.DataFrame:
    """The summary's figures as one table: ``question, found``."""
    rows = [
        ("clusters of features explained before fine-tuning, of all",
         f"{content['explained']} of {content['clusters']}"),
        *((f"false alarms: {row['change']}", f"{row['alarms']} of {row['runs']} runs")
          for row in content["false_alarms"]),
        *((f"called lost where R2 falls by {_range(row)}",
           f"{row['detected']} of {row['planted']} ({row['detected'] / row['planted']:.0%})")
          for row in content["power"]),
        ("smallest loss of R2 with 80% power, planted", _number(content["detectable"])),
        *((f"smallest change of R2 with 80% power, {row['task']}", _number(row["detectable"]))
          for row in content["tasks"]),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["question", "found"])


def _by_loss(planted: pd.DataFrame) -> list[dict[str, Any]]:
    erased = planted[planted["kind"] == "erased"]
    rows = []
    for low, high in itertools.pairwise(BINS):
        inside = erased[(erased["loss"] > low) & (erased["loss"] <= high)]
        if len(inside):
            rows.append(
                {"low": low, "high": high if np.isfinite(high) else None,
                 "planted": len(inside), "detected": int(inside["detected"].sum())}
            )  # fmt: skip
    return rows


def _answer(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Whether the cohort can answer the question, and why."""
    size = f"With {facts['patients']} patients"
    if not facts["explained"]:
        return "no", (
            f"{size} this cohort cannot answer the question: the embeddings before fine-tuning "
            f"explain none of the {facts['clusters']} clusters of features beyond chance, so that "
            "nothing can be seen to be lost."
        )
    alarms = sum(row["alarms"] for row in facts["false_alarms"])
    runs = sum(row["runs"] for row in facts["false_alarms"])
    if stats.binom.sf(alarms - 1, runs, facts["level"]) < 0.01:
        return "no", (
            f"{size} this cohort cannot answer the question: {alarms} of {runs} changes that take "
            "nothing away were called a loss or a gain."
        )
    limits = [facts["detectable"], *(row["detectable"] for row in facts["tasks"])]
    worst = np.inf if None in limits else max(limits)
    known = f"{facts['explained']} of {facts['clusters']} clusters of features"
    if worst > facts["median_r2"]:
        what = "no planted loss" if np.isinf(worst) else f"only a loss of R2 above {worst:.2f}"
        return "no", (
            f"{size} this cohort cannot answer the question: {what} shows with 80% power, and the "
            f"median R2 of the explained features ({known}) is {facts['median_r2']:.2f}."
        )
    if worst > SMALL:
        return "partly", (
            f"{size} this cohort can answer the question in part: it shows losses of R2 of "
            f"{worst:.2f} or more with 80% power, for {known}; smaller ones may go unseen."
        )
    return "yes", (
        f"{size} this cohort can answer the question: it shows losses of R2 of {worst:.2f} or more "
        f"with 80% power, for {known}."
    )


def _range(row: Mapping[str, Any]) -> str:
    if row["high"] is None:
        return f"more than {row['low']:g}"
    return f"{row['low']:g} to {row['high']:g}"


def _number(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.3f}"
