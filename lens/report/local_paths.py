"""What a page shows of a run folder: nothing of where it was made, and on request no ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from lens.anonymise import FILE, OPEN, Anonymiser, Names, change_columns
from lens.places import base_name, each_text, replace_paths
from lens.report.results import PATIENT_TABLES, Results, Scope

Shown = Callable[[str], str]


def without_local_paths(results: Results, names: Names = OPEN) -> Results:
    """The results with files by their bare names: a page names no folder, user or host.

    Args:
        results: of `lens.report.results.read_results`.
        names: how patients are called; an `Anonymiser` also drops the names of files.
    """
    known = dict.fromkeys(_known(results))
    if isinstance(names, Anonymiser):
        names = names.knowing(paths=dict.fromkeys(map(Path, known), FILE), ids=_ids(results))
        shown, file, label = names.text, names.file, names.label
    else:
        known = {path: base_name(path) for path in known}
        shown, file, label = _by_name(known), _names_of_files, str
    inputs = results.run.get("inputs", {})
    run = {**results.run, "inputs": {}}
    for path, digest in inputs.items():
        name, there = file(path), run["inputs"]
        # Two files may have the same name, and hidden ones always do.
        there[f"{name} {len(there)}" if name in there else name] = digest
    for entry in ("config", "notes"):
        run[entry] = each_text(results.run.get(entry, []), shown)
    failures = change_columns(results.failures, {"reason": shown, "remedy": shown, "file": file})
    return replace(
        results,
        run=run,
        scopes={name: _scope(scope, shown) for name, scope in results.scopes.items()},
        failures=change_columns(failures, {"patient_id": label}),
        tasks={
            task: replace(
                tables, **{name: names.ids(getattr(tables, name)) for name in PATIENT_TABLES}
            )
            for task, tables in results.tasks.items()
        },
    )


def _known(results: Results) -> Iterator[str]:
    """Paths that the run folder names, and their folders, which a sentence may name by itself."""
    cells = results.failures["file"].dropna() if "file" in results.failures else ()
    files = [part for cell in cells for part in _parts(str(cell))]
    for path in (*results.run.get("inputs", {}), *files, *_flags(results.run["config"])):
        if len(Path(path).parts) > 1:
            yield path
            yield from (str(above) for above in Path(path).parents if len(above.parts) > 1)


def _flags(value: Any) -> Iterator[str]:
    """Texts among the settings, of ``TASK=FILE`` the file: those that are paths among them."""
    if isinstance(value, str):
        yield value.rpartition("=")[2]
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _flags(each)


def _by_name(known: dict[str, str]) -> Shown:
    return lambda text: replace_paths(text, known)


def _names_of_files(cell: str) -> str:
    """The bare names in a cell that names files."""
    return ", ".join(base_name(part) for part in _parts(cell))


def _parts(cell: str) -> list[str]:
    """The files of a cell; a comma is one's own unless each part ends as a table does."""
    parts = cell.split(", ")
    return parts if all(Path(part).suffix for part in parts) else [cell]


def _ids(results: Results) -> pd.DataFrame:
    tables = [scope.split for scope in results.scopes.values()]
    return pd.concat([*tables, results.failures.filter(["patient_id"])])


def _scope(scope: Scope, shown: Shown) -> Scope:
    sentences = {name: scope.facts[name] for name in ("warnings", "notes") if name in scope.facts}
    return replace(
        scope,
        facts=scope.facts | each_text(sentences, shown),
        doctor=each_text(scope.doctor, shown),
        dropped=change_columns(scope.dropped, {"reason": shown}),
    )
