"""The doctor's findings in figures, with its answer: planted (full), or from the verdicts (short).

The **full** form counts what became of planted changes (`lens.verdicts.doctor`). The **short** form
plants nothing: it reads off the verdicts how small a change would have shown, in no time at all,
and knows no rate of false alarms. Both answer in the same way (`lens.verdicts.doctor_answer`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.settings import Rules, Scores
from lens.study.spectrum import Spectrum, spectrum
from lens.verdicts.doctor import Findings
from lens.verdicts.doctor_answer import answer, rate
from lens.verdicts.power import detectable_loss

BINS = (0.0, 0.02, 0.05, 0.1, 0.2, np.inf)
"""Edges of the losses of R2 by which power is counted."""

SAFE = ("harmless", "exchangeable")
"""Kinds of planted changes that take nothing away."""


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor says of a cohort.

    Attributes:
        content: of `summary` or `short_summary`.
        findings: the planted changes; None in the short form.
    """

    content: dict[str, Any]
    findings: Findings | None = None


def summary(findings: Findings, spectra: Mapping[str, Spectrum] | None = None) -> dict[str, Any]:
    """The full doctor's answer, for a printed table, a file or a section of the report.

    Args:
        findings: of `lens.verdicts.doctor.examine`.
        spectra: of `spectra_of`; an embedding that has collapsed is said in the answer.

    Returns:
        ``answer`` (yes, partly, no), ``sentence``, ``form`` (full, short), ``patients``, ``unit``
        (what is counted), ``tested``, ``explained`` (of these above chance before fine-tuning),
        ``median_r2`` (of the explained), ``false_alarms`` (rows ``change, alarms, runs``),
        ``nothing_changed`` (`lens.verdicts.doctor_answer.Rate` over the exchangeable draws),
        ``power`` (rows ``low, high, planted, detected``), ``detectable`` (planted loss of R2 with
        80% power; None where none has it), ``tasks`` (rows ``task, detectable``: the smallest
        loss with 80% power there, median over the explained; None where not even the loss of the
        whole R2 has it), ``level, margin, noise, scores``, ``spectrum`` (rows ``embeddings,
        effective_rank, leading, dead``).
    """
    planted, features = findings.planted, findings.features
    explained = features["p_present"] <= findings.rules.level
    safe = planted[planted["kind"].isin(SAFE)]
    draws = planted[planted["kind"] == "exchangeable"]
    tasks = [name for name in map(str, features.columns) if name.startswith("detectable_")]
    facts = {
        "form": "full",
        "patients": findings.patients,
        "unit": "clusters of features",
        "tested": len(features),
        "explained": int(explained.sum()),
        "median_r2": _median(features.loc[explained, "r2"]),
        "false_alarms": [
            {"change": change, "alarms": int((rows["alarms"] > 0).sum()), "runs": len(rows)}
            for change, rows in safe.groupby("change", sort=False)
        ],
        "nothing_changed": rate(int((draws["alarms"] > 0).sum()), len(draws))._asdict(),
        "power": _by_loss(planted),
        "detectable": detectable_loss(planted, findings.rules.margin),
        "tasks": [
            {
                "task": name.removeprefix("detectable_"),
                "detectable": _median(features.loc[explained, name]),
            }
            for name in tasks
        ],
        "level": findings.rules.level,
        "margin": findings.rules.margin,
        "noise": findings.noise,
        "scores": findings.scores,
        "spectrum": _rows(spectra or {}),
    }
    return _answered(facts)


def short_summary(
    verdicts: Mapping[str, pd.DataFrame],
    patients: int,
    rules: Rules,
    scores: Scores,
    *,
    spectra: Mapping[str, Spectrum] | None = None,
) -> dict[str, Any]:
    """The short doctor's answer: how small a change would have shown in the tasks at hand.

    Args:
        verdicts: task -> features' table of `lens.verdicts.judge`, at least one.
        patients: in the cohort.
        rules: of the verdicts.
        scores: whether normal scores of the features were judged or their values.
        spectra: of `spectra_of`; an embedding that has collapsed is said in the answer.

    Returns:
        As `summary`; ``tested``, ``explained`` and ``median_r2`` are of the task that shows least,
        ``nothing_changed`` and ``detectable`` are None, ``false_alarms`` and ``power`` are empty.
    """
    explained = {task: table["p_present_pre"] <= rules.level for task, table in verdicts.items()}
    losses = {task: table["smallest_loss"] for task, table in verdicts.items()}
    # A task in which nothing is explained shows nothing, and is the worst of all.
    typical = {task: each[explained[task]].median() for task, each in losses.items()}
    worst = max(typical, key=lambda task: (not explained[task].any(), typical[task]))
    facts = {
        "form": "short",
        "patients": patients,
        "unit": "features",
        "tested": len(verdicts[worst]),
        "explained": int(explained[worst].sum()),
        "median_r2": _median(verdicts[worst].loc[explained[worst], "r2_ridge_pre"]),
        "false_alarms": [],
        "nothing_changed": None,
        "power": [],
        "detectable": None,
        "tasks": [
            {"task": task, "detectable": _median(each[explained[task]])}
            for task, each in losses.items()
        ],
        "level": rules.level,
        "margin": rules.margin,
        "noise": None,
        "scores": scores,
        "spectrum": _rows(spectra or {}),
    }
    return _answered(facts)


def spectra_of(
    x_pre: Float[np.ndarray, "n d"], x_ft: Mapping[str, Float[np.ndarray, "n e"]]
) -> dict[str, Spectrum]:
    """How many directions the embeddings use, by name: before, and after fine-tuning per task."""
    sides = {f"after fine-tuning on {task}": x for task, x in x_ft.items()}
    return {name: spectrum(x) for name, x in ({"before fine-tuning": x_pre} | sides).items()}


def table(content: Mapping[str, Any]) -> pd.DataFrame:
    """The summary's figures as one table: ``question, found``."""
    rows = [
        (f"{content['unit']} explained before fine-tuning, of all",
         f"{content['explained']} of {content['tested']}"),
        *(("draws in which nothing changed, called",
           f"{found['alarms']} of {found['draws']} (95% interval {found['low']:.0%} to "
           f"{found['high']:.0%})") for found in (content["nothing_changed"],) if found),
        *((f"false alarms: {row['change']}", f"{row['alarms']} of {row['runs']} runs")
          for row in content["false_alarms"]),
        *((f"called lost where R2 falls by {_range(row)}",
           f"{row['detected']} of {row['planted']} ({row['detected'] / row['planted']:.0%})")
          for row in content["power"]),
        *([("smallest loss of R2 with 80% power, planted", _number(content["detectable"]))]
          if content["form"] == "full" else []),
        *((f"smallest loss of R2 with 80% power, {row['task']}", _number(row["detectable"]))
          for row in content["tasks"]),
        *((f"embeddings {row['embeddings']}",
           f"effective rank {row['effective_rank']:.1f}, {row['leading']:.0%} of the variance in "
           "one direction") for row in content["spectrum"]),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["question", "found"])


def _answered(facts: dict[str, Any]) -> dict[str, Any]:
    verdict, sentence = answer(facts)
    return {"answer": verdict, "sentence": sentence, **facts}


def _rows(spectra: Mapping[str, Spectrum]) -> list[dict[str, Any]]:
    return [{"embeddings": name} | each._asdict() for name, each in spectra.items()]


def _median(values: pd.Series) -> float | None:
    """None without any, and where it is infinite."""
    median = float(values.median()) if len(values) else np.inf
    return median if np.isfinite(median) else None


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


def _range(row: Mapping[str, Any]) -> str:
    if row["high"] is None:
        return f"more than {row['low']:g}"
    return f"{row['low']:g} to {row['high']:g}"


def _number(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.3f}"
