"""A comparison in sentences, each from the tables beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from lens.cards.agreement import verdict_in_all
from lens.cards.entries import Comparable, Entry
from lens.cards.tables import Tables
from lens.report.words import modality_name, number

FEW = 3
"""Cohorts up to which a pooled value comes with a caution."""


def sentences(comparable: Comparable, tables: Tables) -> list[str]:
    """Paragraphs: what was compared, what agrees and what differs, whether patients are shared.

    Args:
        comparable: the runs.
        tables: of `lens.cards.tables.tables_of`.
    """
    parts = [
        _compared(comparable),
        _groups(comparable.entries),
        _features(comparable.entries),
        _together(tables),
        _whole(comparable, tables),
        _heterogeneity(tables, comparable.entries[0].settings["level"]),
        _patients(comparable),
    ]
    return [part for part in parts if part]


def _compared(comparable: Comparable) -> str:
    entries, left = comparable.entries, comparable.left_out
    count = len(entries[0].features)
    on = f" on task {entries[0].task}" if len({e.task for e in entries}) == 1 else ""
    runs = [f"{e.label} ({e.patients} patients)" for e in entries]
    said = f"{len(runs)} runs{on}: {', '.join(runs[:-1])} and {runs[-1]}. "
    said += f"{_count(count, 'radiomic feature')} {_is(count)} in all of them"
    if left:
        said += f"; {left} more {_is(left)} in some only and {_is(left)} left out"
    if others := comparable.other_groups:
        said += (
            f", and {_count(others, 'group')} of features {_is(others)} not compared, "
            "as the runs have different features in there"
        )
    return f"{said}."


def _patients(comparable: Comparable) -> str:
    kinds = {relation.kind for relation in comparable.relations.values()}
    if "same" in kinds:
        labels = [entry.label for entry in comparable.entries]
        pairs = [
            f"{labels[a]} and {labels[b]} ({relation.reason})"
            for (a, b), relation in comparable.relations.items()
            if relation.kind == "same"
        ]
        rest = f" and {len(pairs) - 3} more pairs" if len(pairs) > 3 else ""
        return (
            f"The same patients, at least in part: {'; '.join(pairs[:3])}{rest}. Their errors are "
            "not independent: changes stand side by side, with neither a pooled value nor a test "
            "of their difference. If these are other people, give --patients different."
        )
    if "not known" in kinds:
        return (
            "Nothing shows that the runs share patients, and cards cannot rule it out. They are "
            "taken to be independent; if they are not, give --patients same."
        )
    how = next(iter(comparable.relations.values())).reason
    return f"The runs are of different patients ({how}), so that their changes can be pooled."


def _whole(comparable: Comparable, tables: Tables) -> str:
    rows = tables.groups[tables.groups["level"] == "task"]
    if rows.empty:
        return ""
    level = comparable.entries[0].settings["level"]
    each = []
    for row in rows.to_dict("records"):
        shown = "some change is shown" if row["p_group"] <= level else "none is shown"
        each.append(
            f"by {_interval(row, 'delta_r2_cv')} in {row['run']} ({shown}, {_p(row['p_group'])})"
        )
    said = f"On average over the features R2 changed {'; '.join(each)}."
    if len(tables.pooled):
        row = tables.pooled[tables.pooled["kind"] == "task"].iloc[0]
        if np.isfinite(row["delta_r2"]):
            said += f" Averaged over these cohorts: {_interval(row, 'delta_r2')}"
            said += f" ({_p(row['p_change'])}); they {_differ(row, level)}. For cohorts of their "
            said += f"kind (random effects): {_interval(row, 'delta_r2_random')}"
            said += f", which {row['runs']} cohorts can hardly tell." if row["runs"] <= FEW else "."
            if np.isfinite(row["next_low"]):
                low, high = number(row["next_low"]), number(row["next_high"])
                said += f" Of another cohort a change within [{low}, {high}] is expected."
    return said


def _groups(entries: Sequence[Entry]) -> str:
    """Modalities and regions by what their verdicts have in common."""
    tables = [e.levels[(e.levels["level"] == "modality") & (e.levels["group"] == "all")]
              for e in entries]  # fmt: skip
    alike: dict[str, list[str]] = {}
    apart, opposite = [], []
    for at in range(len(tables[0])):
        rows = [table.iloc[at] for table in tables]
        name = f"{modality_name(str(rows[0]['modality']))} {rows[0]['roi']}"
        verdicts = [str(row["verdict"]) for row in rows]
        if len(set(verdicts)) == 1:
            alike.setdefault(verdicts[0], []).append(name)
            continue
        each = ", ".join(f"{v} in {e.label}" for v, e in zip(verdicts, entries, strict=True))
        (opposite if {"lost", "gained"} <= set(verdicts) else apart).append(f"{name} ({each})")
    said = [f"{verdict.capitalize()} in all: {', '.join(names)}." for verdict, names in
            sorted(alike.items(), key=lambda item: _place(item[0]))]  # fmt: skip
    if opposite:
        said.append(f"In opposite directions: {'; '.join(opposite)}.")
    if apart:
        said.append(f"Not alike: {'; '.join(apart)}.")
    return " ".join(said)


def _features(entries: Sequence[Entry]) -> str:
    shared = verdict_in_all(entries)
    counts = shared[shared != ""].value_counts()
    called = pd.DataFrame({at: e.features["verdict"] for at, e in enumerate(entries)})
    lost, gained = ((called == verdict).any(axis=1) for verdict in ("lost", "gained"))
    opposite = int((lost & gained).sum())
    each = [f"{counts[v]} {v}" for v in sorted(counts.index, key=_place)]
    said = f"{int(counts.sum())} of {len(shared)} features have the same verdict in all runs"
    said += f" ({', '.join(each)})" if each else ""
    return f"{said}; {opposite or 'none'} {_is(opposite)} lost in one and gained in another."


def _heterogeneity(tables: Tables, level: float) -> str:
    if not len(tables.pooled):
        return ""
    rows = tables.pooled[tables.pooled["kind"] == "feature"]
    known = rows["p_differ"].notna()
    if not known.any():
        return "No feature can be pooled: in some run its change has no spread."
    found = int((rows["q_differ"] <= level).sum())
    changed = int((rows["q_change"] <= level).sum())
    return (
        f"For {found or 'none'} of {int(known.sum())} features the runs differ beyond chance "
        f"(Cochran's Q, false discovery rate {level:.0%}); the median I2 is "
        f"{rows.loc[known, 'i2'].median():.0%}. Averaged over these cohorts, a change of "
        f"{changed or 'none'} of them is shown (false discovery rate {level:.0%}); a verdict asks "
        "for more, two further views of the embedding among it."
    )


def _together(tables: Tables) -> str:
    known = tables.pairs[tables.pairs["correlation"].notna()]
    if known.empty:
        return ""
    if len(known) == 1:
        row = known.iloc[0]
        return (
            f"The changes of {row['run_a']} and {row['run_b']} correlate by "
            f"{number(row['correlation'])} over {row['features']} features "
            f"(ranks: {number(row['rank_correlation'])})."
        )
    low, high = known["correlation"].min(), known["correlation"].max()
    return (
        f"Over the features, the changes of two runs correlate by {number(low)} to {number(high)} "
        f"(median of {len(known)} pairs: {number(known['correlation'].median())})."
    )


def _differ(row: pd.Series, level: float) -> str:
    """What Cochran's Q says; a large p is no proof that cohorts are alike."""
    verb = "differ" if row["p_differ"] <= level else "are not shown to differ"
    return f"{verb} (Q p = {number(row['p_differ'], 3)}, I2 {row['i2']:.0%})"


def _place(verdict: str) -> tuple[int, str]:
    from lens.verdicts.rules import VERDICTS

    order = [*VERDICTS]
    return (order.index(verdict) if verdict in order else len(order), verdict)


def _interval(row: dict | pd.Series, name: str) -> str:
    return f"{number(row[name])} [{number(row[f'{name}_low'])}, {number(row[f'{name}_high'])}]"


def _p(value: float) -> str:
    return "p below 0.001" if value < 0.001 else f"p = {number(value, 3)}"


def _count(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def joined(parts: Iterable[str]) -> str:
    """Paragraphs for a terminal."""
    return "\n\n".join(parts)
