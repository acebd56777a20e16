"""Runs to compare: read from run folders, or from cards that somebody else made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from lens.cards.card import (
    CARD,
    FACTS,
    FEATURE_COLUMNS,
    FEWEST,
    LEVEL_COLUMNS,
    SCHEMA,
    TEXTS,
    VERSION,
    card,
    too_few,
)
from lens.errors import InputError
from lens.report.results import read_results
from lens.study.tasks import task_problem
from lens.verdicts.rules import VERDICTS

LARGEST = 200_000_000
"""Bytes of a card; one of 2,511 features and a task has two million."""

LISTED = 5

OPTIONAL = (
    "r2_pre_pre", "r2_pre_ft", "p_recoded", "delta_r2_retrained", "delta_r2_retrained_low",
    "delta_r2_retrained_high",
)  # fmt: skip
"""Columns of features that a card may lack."""

WORDS = (*TEXTS, "verdict", "withheld", "level", "group")
"""Columns of text; all others hold numbers, but for a level's ``modality`` and ``roi``."""


@dataclass(frozen=True)
class Source:
    """A run as it is compared.

    Attributes:
        label: what the page calls it.
        content: of its card.
        features: task -> a row per feature, with `FEATURE_COLUMNS` and ``n``.
        levels: task -> a row per level, with `LEVEL_COLUMNS`.
        ids: task -> its patients, never written; empty for a card.
    """

    label: str
    content: dict[str, Any]
    features: dict[str, pd.DataFrame]
    levels: dict[str, pd.DataFrame]
    ids: dict[str, frozenset[str]]


def read_sources(paths: Sequence[Path], names: Sequence[str] = ()) -> list[Source]:
    """Reads runs in their order.

    Args:
        paths: run folders, ``card.json`` files, or folders that hold one.
        names: what to call them; by default the names of folders, numbered where they are alike.

    Raises:
        InputError: a path is no run and no card, a card is damaged or of another version, or
            anything is of too few patients.
    """
    labels = list(names) or _labels(paths)
    if len(labels) != len(paths):
        raise InputError(f"--names has {len(labels)} for {len(paths)} runs; give one for each")
    if names and len(set(names)) < len(names):
        raise InputError(f"--names: {', '.join(names)} are not all different")
    return [_read(path, label) for path, label in zip(paths, labels, strict=True)]


def _labels(paths: Sequence[Path]) -> list[str]:
    """The folder of a run or ``card.json``, the stem of another file; numbered where alike.

    The same path keeps its name: its tasks are told apart by theirs.
    """
    places = [path.resolve() for path in paths]
    names = {
        place: (place.name if place.is_dir() else place.parent.name)
        if place.is_dir() or place.name == CARD
        else place.stem
        for place in dict.fromkeys(places)
    }
    seen: dict[str, list[Path]] = {}
    for place, name in names.items():
        seen.setdefault(name, []).append(place)
    return [
        (names[place] or "run")
        + (f" {seen[names[place]].index(place) + 1}" if len(seen[names[place]]) > 1 else "")
        for place in places
    ]


def _read(path: Path, label: str) -> Source:
    if path.is_dir() and (path / "run.json").is_file():
        results = read_results(path)
        if refusal := too_few(results):
            raise InputError(f"{path}: {refusal}. Runs are compared from {FEWEST} patients on")
        ids = {
            task: frozenset(results.scopes[scope].split["patient_id"].astype(str))
            for task, scope in results.run["tasks"].items()
        }
        return _source(path, label, card(results), ids)
    file = path / CARD if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{path}: neither the folder of a finished run (it has no run.json) nor a lens card "
            f"({CARD}); name one of the two"
        )
    return _source(file, label, _read_card(file), {})


def _read_card(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: {path.stat().st_size} bytes, too large for a lens card")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as a lens card ({error}); ask for it again") from (
            error
        )
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"{path}: not a lens card; {CARD} in the folder of a run is one")
    version = str(content.get("version"))
    if version.split(".")[0] != VERSION.split(".")[0]:
        raise InputError(
            f"{path}: a lens card of version {version}, and this program reads {VERSION}; draw it "
            "again with experiments.report of the same version"
        )
    return content


def _source(
    path: Path, label: str, content: dict[str, Any], ids: dict[str, frozenset[str]]
) -> Source:
    tasks, settings = content.get("tasks"), content.get("settings")
    if not isinstance(tasks, dict) or not tasks or not isinstance(settings, dict):
        _damaged(path, "tasks or settings are missing")
    features, levels = {}, {}
    for task, facts in tasks.items():
        # It becomes a folder.
        if problem := task_problem(task):
            _damaged(path, problem)
        if not isinstance(facts, dict) or not _are_hashes(facts.get("hashes")):
            _damaged(path, f"task {task!r} holds no facts, or no hashes")
        for name in FACTS:
            if not isinstance(facts.get(name), int):
                _damaged(path, f"task {task!r} has no number {name!r}")
        if min(facts["patients"], facts["scored"]) < FEWEST:
            raise InputError(
                f"{path}: task {task!r} is of fewer than {FEWEST} patients; such a card is not "
                "written, and not compared"
            )
        wanted = [name for name in FEATURE_COLUMNS if name not in OPTIONAL]
        features[task] = _table(path, facts.get("features"), (*wanted, "n"))
        levels[task] = _table(path, facts.get("levels"), LEVEL_COLUMNS)
        if (features[task]["column"] == "").any():
            _damaged(path, "a feature without a name")
        twice = features[task]["column"].duplicated()
        if twice.any():
            _damaged(path, f"feature {features[task]['column'][twice].iloc[0]!r} is there twice")
        unknown = set(features[task]["verdict"]) - set(VERDICTS)
        if unknown:
            _damaged(path, f"verdict {sorted(unknown)[0]!r} is none")
    return Source(label, content, features, levels, ids)


def _are_hashes(value: Any) -> bool:
    """Whether it is as `lens.study.fingerprints` gives it; each may be unknown."""
    if not isinstance(value, dict) or not isinstance(value.get("features"), dict):
        return False
    texts = (value.get("before"), value.get("after"), *value["features"].values())
    return all(text is None or isinstance(text, str) for text in texts)


def _table(path: Path, rows: Any, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of a card as a table: texts as texts, numbers as numbers."""
    if not isinstance(rows, list) or not rows or not all(isinstance(r, Mapping) for r in rows):
        _damaged(path, "a table has no rows")
    table = pd.DataFrame(rows)
    if missing := [name for name in columns if name not in table]:
        _damaged(path, f"no column {missing[0]!r}")
    for name in map(str, table.columns):
        if name in WORDS or (name in ("modality", "roi") and "level" in table):
            # A level without a modality has None there.
            table[name] = [cell if isinstance(cell, str) else "" for cell in table[name]]
        else:
            try:
                table[name] = pd.to_numeric(table[name]).astype(float)
            except (TypeError, ValueError):
                _damaged(path, f"column {name!r} holds what is no number")
    return table


def _damaged(path: Path, problem: str) -> NoReturn:
    raise InputError(f"{path}: a damaged lens card: {problem}; ask for it again")
