"""What is compared: one task of each run, on the features that all of them have.

Runs are refused where a comparison would say nothing: other scores, other levels or margins behind
the verdicts, no common feature. What merely has to be known is a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from lens.cards.reading import Source
from lens.errors import InputError

Patients = Literal["auto", "same", "different"]
"""Whether runs are of the same patients; ``auto`` looks at hashes, and at ids in run folders."""

MUST_AGREE = {
    "scores": "R2 is of normal scores in one and of values in the other",
    "level": "their verdicts allow false alarms at different rates",
    "margin": "a change counts from different sizes on",
    "equivalence": "unchanged means different things",
}
"""Settings without which numbers or verdicts are not comparable, with what differs then."""

TOLD = ("mode", "flips", "pool_tokens", "adjusted_for", "spacing_mm")
"""Settings that may differ, and are told."""

TOLD_FACTS = ("folds", "repeats", "embedding_width")
"""Numbers of the task that may differ, and are told."""

KEYS = ("level", "modality", "roi", "group")
"""Columns that name a level."""


@dataclass(frozen=True)
class Entry:
    """A task of a run.

    Attributes:
        label: of the run, with the task where the tasks differ.
        task: its name.
        settings, facts: of the card; facts without its tables.
        version: of the program.
        features: a row per common feature, in one order for all entries.
        levels: a row per common level, in one order for all entries.
        ids: of the patients; None where they are not known.
    """

    label: str
    task: str
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    version: str
    features: pd.DataFrame
    levels: pd.DataFrame
    ids: frozenset[str] | None

    @property
    def patients(self) -> int:
        """Patients that were held out."""
        return int(self.facts["scored"])


@dataclass(frozen=True)
class Relation:
    """What is known of the patients of two entries.

    Attributes:
        kind: ``same`` (at least some), ``different``, or ``not known``.
        reason: how that is known, for people.
    """

    kind: str
    reason: str


@dataclass(frozen=True)
class Comparable:
    """Entries on common features.

    Attributes:
        entries: two or more.
        relations: of each pair of entries, by their places.
        left_out: features that some entries lack.
        other_groups: levels that are left out, since they are not of the same features.
        notes: what has to be known, as sentences without a full stop.
    """

    entries: list[Entry]
    relations: dict[tuple[int, int], Relation]
    left_out: int
    other_groups: int
    notes: list[str]

    @property
    def independent(self) -> bool:
        """Whether no two entries are known to share patients."""
        return all(relation.kind != "same" for relation in self.relations.values())


def choose(
    sources: Sequence[Source], tasks: Sequence[str] = (), patients: Patients = "auto"
) -> list[Comparable]:
    """What to compare: a block for each task that is asked for, or that all runs have.

    Args:
        sources: two runs or more.
        tasks: one for all runs, or one for each run in their order; none takes every task of the
            same name, and without any the only one of each run.
        patients: as `Patients`.

    Raises:
        InputError: a single run, a task that a run does not have, or runs that are not comparable.
    """
    if len(sources) < 2:
        raise InputError("a single run: name two or more to compare")
    blocks = [
        [
            _entry(source, task, several=len(set(names)) > 1)
            for source, task in zip(sources, names, strict=True)
        ]
        for names in _tasks(sources, tasks)
    ]
    return [comparable(entries, patients) for entries in blocks]


def comparable(entries: Sequence[Entry], patients: Patients = "auto") -> Comparable:
    """Entries cut down to their common features and levels.

    Raises:
        InputError: settings that must agree differ, or no feature is in all.
    """
    labels = [entry.label for entry in entries]
    if len(set(labels)) < len(labels):
        raise InputError(
            f"{', '.join(labels)}: a run and task are named twice; name each once, or another task "
            "with --task"
        )
    _check_settings(entries)
    tables = [entry.features.set_index("column", drop=False) for entry in entries]
    common = [c for c in tables[0].index if all(c in table.index for table in tables[1:])]
    if not common:
        shown = "; ".join(f"{e.label}: {', '.join(e.features['column'][:2])}, ..." for e in entries)
        raise InputError(
            f"no feature is in all runs ({shown}). Features are the same by their whole name: run "
            "again with the same names of modalities and regions, and the same images and classes"
        )
    several = {column for table in tables for column in table.index}
    keys, others = _common_levels(entries)
    cut = [
        Entry(
            **{**vars(entry), "features": table.loc[common].reset_index(drop=True),
               "levels": entry.levels.set_index(list(KEYS)).loc[keys].reset_index()}
        )
        for entry, table in zip(entries, tables, strict=True)
    ]  # fmt: skip
    pairs = combinations(range(len(entries)), 2)
    relations = {(a, b): relation(entries[a], entries[b], patients) for a, b in pairs}
    return Comparable(cut, relations, len(several) - len(common), others, _notes(entries))


def relation(a: Entry, b: Entry, patients: Patients = "auto") -> Relation:
    """What is known of the patients of two entries."""
    if patients != "auto":
        return Relation(patients, f"as told by --patients {patients}")
    one, other = (entry.facts.get("hashes", {}) for entry in (a, b))
    prints = [set((hashes.get("features") or {}).values()) for hashes in (one, other)]
    if prints[0] & prints[1]:
        return Relation("same", "the same table of features, by its hash")
    if one.get("before") and one.get("before") == other.get("before"):
        return Relation("same", "the same embeddings before fine-tuning, by their hash")
    if a.ids is None or b.ids is None:
        return Relation("not known", "their tables have different hashes, and a card names no ids")
    if shared := len(a.ids & b.ids):
        return Relation("same", f"they share {shared} of {min(len(a.ids), len(b.ids))} ids")
    return Relation("different", "they share no id")


def _tasks(sources: Sequence[Source], asked: Sequence[str]) -> list[list[str]]:
    """The task of each run, for every block."""
    there = [list(source.features) for source in sources]
    if asked:
        names = list(asked) * len(sources) if len(asked) == 1 else list(asked)
        if len(names) != len(sources):
            raise InputError(
                f"--task has {len(names)} for {len(sources)} runs: give one for all, or one each"
            )
        for source, name, known in zip(sources, names, there, strict=True):
            if name not in known:
                raise InputError(
                    f"--task: {source.label} has no task {name!r}; it has {', '.join(known)}"
                )
        return [names]
    common = [task for task in there[0] if all(task in each for each in there[1:])]
    if common:
        return [[task] * len(sources) for task in common]
    if all(len(each) == 1 for each in there):
        return [[each[0] for each in there]]
    listed = "; ".join(
        f"{s.label}: {', '.join(each)}" for s, each in zip(sources, there, strict=True)
    )
    raise InputError(f"no task is in all runs ({listed}); say which with --task, one for each run")


def _entry(source: Source, task: str, *, several: bool) -> Entry:
    facts = source.content["tasks"][task]
    return Entry(
        label=f"{source.label} ({task})" if several else source.label,
        task=task,
        settings=source.content["settings"],
        facts={name: value for name, value in facts.items() if name not in ("features", "levels")},
        version=str(source.content.get("versions", {}).get("radiomic-lens", "")),
        features=source.features[task],
        levels=source.levels[task],
        ids=source.ids.get(task),
    )


def _check_settings(entries: Sequence[Entry]) -> None:
    for name, meaning in MUST_AGREE.items():
        values = [entry.settings.get(name) for entry in entries]
        if any(value != values[0] for value in values):
            each = ", ".join(f"{v} in {e.label}" for v, e in zip(values, entries, strict=True))
            raise InputError(
                f"--{name} differs: {each}; {meaning}. Run them again with the same --{name}"
            )


def _notes(entries: Sequence[Entry]) -> list[str]:
    found = [(name, [entry.settings.get(name) for entry in entries]) for name in TOLD]
    found += [(name, [entry.facts.get(name) for entry in entries]) for name in TOLD_FACTS]
    found.append(("version of radiomic-lens", [entry.version for entry in entries]))
    return [
        f"{name.replace('_', ' ')} differs: "
        + ", ".join(f"{_told(v)} in {e.label}" for v, e in zip(values, entries, strict=True))
        for name, values in found
        if any(value != values[0] for value in values)
    ]


def _told(value: Any) -> str:
    return "none" if value is None else str(value)


def _common_levels(entries: Sequence[Entry]) -> tuple[list[tuple[str, ...]], int]:
    """Levels that are of the same features in all entries, and the count of all others."""
    members = [_members(entry) for entry in entries]
    every = {key for each in members for key in each}
    same = [
        key for key, columns in members[0].items()
        if all(each.get(key) == columns for each in members[1:])
    ]  # fmt: skip
    return same, len(every) - len(same)


def _members(entry: Entry) -> dict[tuple[str, ...], frozenset[str]]:
    """Level -> its features, by the rule of `lens.paper.groups`."""
    table, found = entry.features, {}
    family = table["image"].str.split("-").str[0]
    whole = np.ones(len(table), bool)
    for level, modality, roi, group in entry.levels[list(KEYS)].itertuples(index=False):
        mask = whole
        if level != "task":
            mask = whole & (table["roi"] == roi).to_numpy()
        if level == "modality":
            mask = mask & (table["modality"] == modality).to_numpy()
        if group != "all":
            of_class, of_filter = table["feature_class"] == group, family == group
            mask = mask & (of_class | (of_filter if level == "group" else False)).to_numpy()
        found[level, modality, roi, group] = frozenset(table["column"][mask])
    return found
