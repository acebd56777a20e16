"""What to bear in mind of an answer: collapse, exposure, seeds, few patients, patients left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from lens.report.results import Results
from lens.report.statements import Statement
from lens.report.words import literal
from lens.study.spectrum import collapse_sentence
from lens.verdicts.retraining import MIN_ENCODERS
from lens.verdicts.rules import VERDICTS

FEW = 150
"""Patients below which they are few. On planted cohorts hardly any loss up to an R2 of 0.3 is
called with 100 patients, and most losses of 0.3 are with 200 (docs/benchmarks.md)."""

MANY_LEFT_OUT = 0.2
"""Share of the patients left out from which the rest may be other patients than those meant."""

WITHHELD = {
    "learning curve": "the embedding with less of the feature also needs more patients to be read, "
    "and with very many of them the change is not shown",
    "unseen patients": "the gain is not shown in patients whom fine-tuning did not see",
    "other seeds": "encoders fine-tuned from other seeds differ by as much",
}
"""Reasons of `lens.verdicts.rules.withheld`, for people."""


def exposure(features: pd.DataFrame) -> str:
    """Whom fine-tuning saw: ``unknown``; ``all``; ``none``; or ``some`` of the patients.

    Args:
        features: rows of ``features.parquet``.
    """
    seen, unseen = (f"r2_{name}_pre" in features for name in ("exposed", "unexposed"))
    return {(True, True): "some", (True, False): "all", (False, True): "none"}.get(
        (seen, unseen), "unknown"
    )


def caveats(
    task: str, features: pd.DataFrame, facts: Mapping[str, Any], tasks: list[str]
) -> Iterator[Statement]:
    """What to bear in mind of one task, reasons to look first.

    Args:
        task: its name.
        features: rows of ``features.parquet``.
        facts: of its scope, as in ``run.json``.
        tasks: all tasks of the scope, told apart in recorded warnings by their names.
    """
    found = [
        *_same(task, facts),
        *_collapse(task, facts),
        *_recorded(task, facts, tasks),
        *_few(facts),
        *_exposure(features, facts),
        *_withheld(features),
        *_seeds(features),
    ]
    yield from sorted(found, key=lambda statement: not statement.warns)


def left_out(results: Results) -> tuple[Statement, ...]:
    """How many patients of the run were left out, and how many in joining; nothing without any.

    Args:
        results: of a finished run.
    """
    failures = results.failures
    if not len(failures):
        return ()
    several = any("study_id" in scope.split for scope in results.scopes.values())
    kept = {str(each) for scope in results.scopes.values() for each in scope.split["patient_id"]}
    who = failures["patient_id"].astype(str)
    who = who.str.partition("/")[0] if several else who
    out = set(who) - kept
    if not out:
        return (
            Statement(
                "left out",
                f"Left out of patients who are analysed: {len(failures)} "
                f"{'row' if len(failures) == 1 else 'rows'}, each with its reason.",
                {"rows": len(failures)},
            ),
        )
    join = len(set(who[failures["stage"] == "join"]) & out)
    everyone = len(out | kept)
    percent = len(out) / everyone
    share = f"{percent:.0%}" if percent >= 0.005 else "under 1%"
    numbers = {"out": len(out), "everyone": everyone, "join": join, "share": percent}
    text = f"{len(out)} of {everyone} patients ({share}) were left out"
    if join:
        text += f", {join} of them because a table lacks them"
    return (
        Statement(
            "left out", f"{text}; each has its reason.", numbers, numbers["share"] >= MANY_LEFT_OUT
        ),
    )


def notes(results: Results) -> tuple[Statement, ...]:
    """Notes of the run and on its tables, word for word; warnings are told with their tasks."""
    said = dict.fromkeys(map(str, results.run.get("notes", [])))
    for name, scope in results.scopes.items():
        where = f"{literal(name)}: " if len(results.scopes) > 1 else ""
        warnings = scope.facts.get("warnings", [])
        own = [text for text in scope.facts.get("notes", []) if text not in warnings]
        said |= dict.fromkeys(f"{where}{text}" for text in own)
    return tuple(Statement("note", f"{literal(text)}.") for text in said)


def withheld_in_words(features: pd.DataFrame) -> list[dict[str, Any]]:
    """Changes that were shown and not called: ``count``, ``reason`` and the ``verdicts`` instead.

    Args:
        features: rows of ``features.parquet``.
    """
    rows = []
    for reason, found in features[features["withheld"].isin([*WITHHELD])].groupby("withheld"):
        counts = found["verdict"].value_counts()
        rows.append(
            {
                "count": len(found),
                "reason": WITHHELD[str(reason)],
                "verdicts": ", ".join(f"{counts[v]} {v}" for v in VERDICTS if v in counts),
            }
        )
    return rows


def _same(task: str, facts: Mapping[str, Any]) -> Iterator[Statement]:
    """The embeddings of the two sides are equal."""
    hashes = facts.get("fingerprints", {})
    if hashes and hashes["after"].get(task) == hashes["before"]:
        text = "The embeddings after fine-tuning are those before: nothing can have changed."
        yield Statement("same", text)


def _collapse(task: str, facts: Mapping[str, Any]) -> Iterator[Statement]:
    """Each side of the task whose embeddings have collapsed."""
    for row in facts.get("spectrum", []):
        if row["collapsed"] and row["task"] in ("", task):
            text = (
                f"The embeddings {_side(row['task'])} have collapsed: one direction holds "
                f"{row['leading']:.1%} of their variance, and their effective rank is "
                f"{row['effective_rank']:.1f} of {row['width']} dimensions. Look at the training "
                "before the verdicts."
            )
            names = ("leading", "effective_rank", "width")
            yield Statement("collapse", text, {name: row[name] for name in names}, warns=True)


def _side(task: str) -> str:
    return f"after fine-tuning on {literal(task)}" if task else "before fine-tuning"


def _recorded(task: str, facts: Mapping[str, Any], tasks: list[str]) -> Iterator[Statement]:
    """Warnings of the run word for word, but for a collapse, which is told from its numbers."""
    told = [collapse_sentence(row) for row in facts.get("spectrum", []) if row["collapsed"]]
    for text in facts.get("warnings", []):
        about = [name for name in tasks if f"fine-tuning on {name} " in text]
        if text not in told and (not about or task in about):
            yield Statement("warning", f"{literal(text)}.", warns=True)


def _few(facts: Mapping[str, Any]) -> Iterator[Statement]:
    scored = facts["scored"]
    if scored < FEW:
        what = "patients" if facts["folds"] else "test patients"
        text = (
            f"{scored} {what} are few: large losses of single features can go unseen, "
            "and a feature that is read well can count as absent."
        )
        yield Statement("few patients", text, {"scored": scored}, warns=True)


def _exposure(features: pd.DataFrame, facts: Mapping[str, Any]) -> Iterator[Statement]:
    gained = int((features["verdict"] == "gained").sum())
    match exposure(features):
        case "all":
            text = (
                f"Fine-tuning saw all {facts['patients']} patients: a gain could be memory of "
                "them, and none is called."
            )
            yield Statement("exposure", text, {"patients": facts["patients"]}, warns=True)
        case "some":
            text = (
                "Fine-tuning saw some of these patients: a gain is called only where the others "
                "show it too."
            )
            yield Statement("exposure", text)
        case "unknown":
            text = (
                "Whom fine-tuning saw is not known: a gain may be memory of these patients "
                "(--exposure tells the two apart)."
            )
            yield Statement("exposure", text, warns=gained > 0)


def _withheld(features: pd.DataFrame) -> Iterator[Statement]:
    for row in withheld_in_words(features):
        one = row["count"] == 1
        text = (
            f"{row['count']} {'feature differs' if one else 'features differ'} in these patients "
            f"beyond chance and {'is' if one else 'are'} not called lost or gained: "
            f"{row['reason']}. Counted instead: {row['verdicts']}."
        )
        yield Statement("withheld", text, {"count": row["count"], "verdicts": row["verdicts"]})


def _seeds(features: pd.DataFrame) -> Iterator[Statement]:
    encoders = int(features["retrained"].iloc[0])
    numbers = {"encoders": encoders, "needed": MIN_ENCODERS}
    if encoders >= MIN_ENCODERS:
        text = (
            "A change is called only where it holds for another seed of fine-tuning too, judged by "
            f"{encoders} encoders."
        )
    elif encoders > 1:
        text = (
            f"{encoders} encoders fine-tuned from different seeds are too few to tell how far "
            f"seeds differ ({MIN_ENCODERS} are needed): the verdicts are about the first one."
        )
    else:
        text = (
            "One fine-tuned encoder was compared: the intervals cover other patients, not another "
            f"fine-tuning ({MIN_ENCODERS} seeds would)."
        )
    yield Statement("seeds", text, numbers)
