"""The tables of a finished run, joined again: what a job that goes on from a run folder needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.common.flags import common_and_own, pairs
from lens.errors import InputError

if TYPE_CHECKING:
    from lens.anonymise import Names
    from lens.report.results import Results
    from lens.study.study import Study

EMBEDDINGS = "embeddings"
"""Folder of the embeddings that a run from images made, in the run folder."""


@dataclass(frozen=True)
class Given:
    """Tables that a flag names in place of those that the run recorded.

    Attributes:
        pre: embeddings before fine-tuning.
        ft: task -> embeddings after it.
        radiomics: the radiomics table.
    """

    pre: Path | None = None
    ft: Mapping[str, Path] = field(default_factory=dict)
    radiomics: Path | None = None


class FinishedScope(NamedTuple):
    """Tasks that share embeddings before fine-tuning and features.

    Attributes:
        name: of the scope.
        tasks: of the scope that are looked at.
        study: its tables, as the run had them.
    """

    name: str
    tasks: tuple[str, ...]
    study: Study


def finished_scopes(
    folder: Path, results: Results, tasks: Sequence[str], names: Names, given: Given | None = None
) -> list[FinishedScope]:
    """The studies of a finished run.

    Args:
        folder: of the run.
        results: what it holds.
        tasks: to look at; none means all.
        names: under which patients enter.
        given: tables to use in place of the recorded ones.

    Raises:
        InputError: a task that the run does not have, or a table that is not where it was, or not
            what it was.
    """
    from lens.study.load import load_study

    run, given = results.run, given or Given()
    if unknown := [task for task in [*tasks, *given.ft] if task not in run["tasks"]]:
        raise InputError(f"task {unknown[0]}: the run has {', '.join(run['tasks'])}")
    config = run["config"]
    radiomics = given.radiomics or _radiomics(folder, config)
    found = []
    for name, facts in run["scopes"].items():
        own = [t for t in run["tasks"] if run["tasks"][t] == name and (not tasks or t in tasks)]
        if not own:
            continue
        pre, ft = _embeddings(folder, run, own, given)
        first, after = _embeddings(folder, run, own, Given())
        _check([pre], [first], run)
        for task, path in ft.items():
            _check([path], [after[task]], run)
        _check(_paths(radiomics), _paths(_radiomics(folder, config)), run)
        study = load_study(
            pre,
            ft,
            radiomics,
            rois=facts["rois"],
            modalities=facts["modalities"],
            seed=config.get("seed", 0),
            allow_partial=config.get("allow_partial", False),
            any_columns=config.get("any_columns", False),
            id_column=config.get("id_column"),
            pool_tokens=config.get("pool_tokens"),
            names=names,
        )
        found.append(FinishedScope(name, tuple(own), study))
    return found


def _radiomics(folder: Path, config: Mapping[str, Any]) -> Path | dict[str, Path]:
    entries = [entry for group in config.get("radiomics") or () for entry in _listed(group)]
    if not entries:
        return folder / "radiomics.parquet"
    if len(entries) == 1 and "=" not in entries[0]:
        return Path(entries[0])
    return {part: Path(file) for part, _, file in (entry.partition("=") for entry in entries)}


def _listed(group: Any) -> list[str]:
    return [group] if isinstance(group, str) else [*group]


def _embeddings(
    folder: Path, run: Mapping[str, Any], tasks: Sequence[str], given: Given
) -> tuple[Path, dict[str, Path]]:
    """Files of the embeddings before fine-tuning, and after it by task."""
    config, made = run["config"], folder / EMBEDDINGS
    recorded = pairs(config["ft"], "--ft") if config.get("ft") else {}
    ft, endings = {}, {""}
    for task in tasks:
        if task in given.ft or task in recorded:
            ft[task] = given.ft.get(task) or recorded[task]
            continue
        # Encoders that see some channels alone have these in the name of their file.
        names = sorted(p.stem for p in made.glob("*.npz") if p.stem.startswith(f"{task}-"))
        stem = task if (made / f"{task}.npz").is_file() or not names else names[0]
        ft[task] = made / f"{stem}.npz"
        endings.add(stem.removeprefix(task))
    if given.pre is not None:
        return given.pre, ft
    if config.get("pre"):
        common, own = common_and_own(config["pre"], list(run["tasks"]), "--pre")
        pre = own.get(tasks[0], common)
        assert pre is not None, "every task of a finished run has embeddings before it"
        return pre, ft
    return made / f"pre{max(endings, key=len)}.npz", ft


def _paths(tables: Path | Mapping[str, Path]) -> list[Path]:
    return [tables] if isinstance(tables, Path) else [*tables.values()]


def _check(paths: Sequence[Path], recorded: Sequence[Path], run: Mapping[str, Any]) -> None:
    """Refuses tables that are gone, or that are not those which the run read.

    Args:
        paths: of the tables.
        recorded: where the run had them.
        run: of ``run.json``; under ``--anonymise`` it knows contents, but not whose they are.
    """
    from lens.files import file_hash
    from lens.study.located import stored_files

    inputs = run.get("inputs", {})
    own = {inputs.get(str(file)) for path in recorded for file in stored_files(path)} - {None}
    known = own or set(inputs.values())
    for file in (file for path in paths for file in stored_files(path)):
        if not file.exists():
            raise InputError(
                f"{file}: the run's table is not there any more; name it with --pre, --ft "
                "TASK=FILE or --radiomics"
            )
        if known and file_hash(file) not in known:
            raise InputError(
                f"{file}: "
                + ("has changed since the run" if file in recorded else "is not what the run read")
                + "; run experiments.sweep again, or name the run's own table"
            )
