"""The answer of a run, in sentences written from its tables.

One source for the first screen of the page, for the lines that end a run, and for
`lens.comparison.Comparison.summary`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from lens.report.answer_caveats import caveats, left_out, notes
from lens.report.answer_groups import CHANGES, change, groups
from lens.report.answer_limits import limit, limit_statement
from lens.report.badges import badge
from lens.report.results import Results, TaskTables
from lens.report.statements import Answer, Group, Statement, TaskAnswer
from lens.report.words import label, literal, p_told, short
from lens.verdicts.rules import NO_CHANGE, VERDICTS

NAMED = 3
"""Groups named in a headline."""

EXAMPLES = 2
"""Features named of the largest losses, and of the largest gains."""


def answer(results: Results) -> Answer:
    """What a run found, by task; tasks without a verdict of their own are left out.

    Args:
        results: of a finished run.
    """
    about_all = (*left_out(results), *notes(results))
    tasks = tuple(
        _task(results, name, tables, about_all)
        for name, tables in results.tasks.items()
        if tables.levels["verdict"].isin([*VERDICTS]).any()
    )
    return Answer(tasks, about_all)


def whole_test(features: pd.DataFrame, levels: pd.DataFrame, level: float) -> Statement:
    """The test of the task as a whole, in one sentence.

    Args:
        features: rows of ``features.parquet``.
        levels: rows of ``levels.csv``, that of the task first.
        level: family-wise, of the verdicts.
    """
    p = float(levels["p_group"].iloc[0])
    chance = f"one test of all {len(features)} features together, {p_told(p)}"
    counts = features["verdict"].value_counts()
    called = int(counts.get("lost", 0) + counts.get("gained", 0))
    recoded = int(counts.get("recoded", 0))
    numbers = {"features": len(features), "p": p, "called": called, "recoded": recoded}
    if p <= level:
        alone = "" if called else "; no single feature can be called lost or gained, though"
        text = f"Yes: a change of R2 is shown ({chance}){alone}."
        return Statement("whole", text, numbers)
    also = [
        f"{called} {_of(called)} shown to change by {_own(called)}" if called else "",
        f"{recoded} {_of(recoded)} read differently, with the information still there"
        if recoded
        else "",
    ]
    single = "; ".join(part for part in also if part)
    ending = f"; {single}" if single else ", which is not to say that there is none"
    text = f"Not as a whole: no change of R2 is shown ({chance}){ending}."
    return Statement("whole", text, numbers)


def _task(
    results: Results, name: str, tables: TaskTables, about_all: Sequence[Statement]
) -> TaskAnswer:
    features, levels, config = tables.features, tables.levels, results.run["config"]
    scope_name = results.run["tasks"][name]
    scope = results.scopes[scope_name]
    beside = [task for task, other in results.run["tasks"].items() if other == scope_name]
    whole = whole_test(features, levels, config["level"])
    rows = groups(features, levels)
    found = limit(name, features, scope.doctor, config["level"])
    warned = tuple(caveats(name, features, scope.facts, beside))
    shown = (
        whole.numbers["p"] <= config["level"]
        or any(row.verdict in CHANGES for row in rows)
        or bool(features["verdict"].isin([*CHANGES]).any())
    )
    return TaskAnswer(
        task=literal(name),
        badge=badge(shown, found, [*warned, *about_all]),
        headline=_headline(whole, rows, features, config["level"], told=found.told),
        whole=whole,
        groups=rows,
        more=(
            *(each for each in warned if each.warns),
            _compared(features, scope.facts),
            _each(features),
            *_largest(features),
            *_nonlinear(features),
            limit_statement(found, config["scores"]),
            *(each for each in warned if not each.warns),
        ),
    )


def _headline(
    whole: Statement, rows: Sequence[Group], features: pd.DataFrame, level: float, *, told: bool
) -> Statement:
    """The answer in a few words: of the groups, else of single features, else what is ruled out.

    Args:
        whole: the test of the task.
        rows: the groups.
        features: rows of ``features.parquet``.
        level: family-wise, of the verdicts.
        told: whether the patients would have shown a large loss.
    """
    by_verdict = {v: [row.name for row in rows if row.verdict == v] for v in VERDICTS}
    by_verdict = {verdict: names for verdict, names in by_verdict.items() if names}
    counts = features["verdict"].value_counts()
    single = {v: int(counts[v]) for v in CHANGES if v in counts}
    if {"lost", "gained"} & set(by_verdict):
        parts = [f"{_few(names, verdict)} {verdict}" for verdict, names in by_verdict.items()]
        return Statement("headline", f"{'; '.join(parts)}.", {"groups": by_verdict})
    numbers = {"features": len(features), "single": single, "groups": by_verdict}
    listed = ", ".join(f"{count} {verdict}" for verdict, count in single.items())
    of = f"of {len(features)} features {listed}"
    if whole.numbers["p"] <= level:
        return Statement(
            "headline",
            f"Something changed{f': {of}' if single else '; in what, cannot be told'}.",
            numbers,
        )
    if single:
        return Statement("headline", f"No change as a whole; {of}.", numbers)
    if not told:
        return Statement("headline", "No change is shown.", numbers)
    if by_verdict:
        parts = [f"{_few(names, verdict)} {verdict}" for verdict, names in by_verdict.items()]
        return Statement("headline", f"No change is shown: {'; '.join(parts)}.", numbers)
    return Statement("headline", "No change is shown.", numbers)


def _few(names: Sequence[str], verdict: str) -> str:
    """A few names, and how many more there are; of many without a change only how many."""
    if len(names) <= NAMED:
        return ", ".join(names)
    if verdict in NO_CHANGE:
        return f"{len(names)} groups"
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def _compared(features: pd.DataFrame, facts: Mapping[str, Any]) -> Statement:
    numbers = {"features": len(features)}
    numbers |= {name: facts[name] for name in ("patients", "embedding_width", "scored")}
    text = (
        f"Compared: {len(features)} radiomic features of {facts['patients']} patients, embeddings "
        f"of {facts['embedding_width']} dimensions before and after fine-tuning"
    )
    if facts["scored"] < facts["patients"]:
        text += f"; scored on {facts['scored']} patients"
    return Statement("compared", f"{text}.", numbers)


def _each(features: pd.DataFrame) -> Statement:
    counts = features["verdict"].value_counts()
    numbers = {verdict: int(counts[verdict]) for verdict in VERDICTS if verdict in counts}
    listed = ", ".join(f"{count} {verdict}" for verdict, count in numbers.items())
    return Statement("each", f"Each feature by itself: {listed}.", numbers)


def _largest(features: pd.DataFrame) -> Iterator[Statement]:
    """The largest losses and gains, one of each cluster of near copies."""
    for verdict, what in (("lost", "losses"), ("gained", "gains")):
        rows = features[features["verdict"] == verdict]
        order = rows["delta_r2"].abs().sort_values(ascending=False, kind="stable").index
        found = rows.loc[order].drop_duplicates("cluster").head(EXAMPLES).to_dict("records")
        if found:
            listed = "; ".join(f"{short(label(row))} {change(row, 'delta_r2')}" for row in found)
            numbers = {str(row["column"]): row["delta_r2"] for row in found}
            yield Statement("largest", f"Largest {what}: {listed}.", numbers)


def _nonlinear(features: pd.DataFrame) -> Iterator[Statement]:
    for verdict, when in (("lost", "still reads {} after"), ("gained", "read {} before")):
        rows = features[features["verdict"] == verdict]
        count = int(rows["linear_only"].sum())
        if count:
            text = (
                f"Of the {len(rows)} {verdict}, {count} to a linear reader only: a nonlinear one "
                f"{when.format('it' if count == 1 else 'them')} fine-tuning."
            )
            numbers = {"count": count, "of": len(rows), "verdict": verdict}
            yield Statement("nonlinear", text, numbers)


def _of(count: int) -> str:
    return "feature is" if count == 1 else "features are"


def _own(count: int) -> str:
    return "itself" if count == 1 else "themselves"
