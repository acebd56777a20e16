"""Which radiomic information does a task rest on? Erases it from the embeddings and scores again.

python -m experiments.amnesic RUN --label cohort.csv:grade
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

from experiments.common.anonymous import Hidden
from experiments.common.cli import DONE, alone, run
from lens.lock import of_folder

if TYPE_CHECKING:
    import pandas as pd

    from experiments.common.finished import FinishedScope
    from experiments.common.outlook import Outlook
    from lens.amnesic.clusters import Cluster
    from lens.amnesic.labels import Label
    from lens.amnesic.losses import Settings
    from lens.anonymise import Names

FEW = 19
"""Random parts of each kind in what a dry run times."""

Labels = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class Config:
    """What a task loses when a cluster of features is erased from the embeddings.

    What is linearly read of a cluster is erased before and after fine-tuning (LEACE, fitted on the
    fitted patients of each fold), the task's head is fitted again, and held-out patients are
    scored. Writes TASK/amnesic.csv and TASK/amnesic.json into the run folder and draws its page
    again.
    """

    folder: tyro.conf.Positional[Path]
    """Run folder written by experiments.sweep."""
    label: Labels = ()
    """FILE:COLUMN, a label of the task, or TASK=FILE:COLUMN for one task alone: two values or names
    are scored by AUC, up to six whole numbers as grades, other numbers by R2. May be repeated."""
    task: tuple[str, ...] = ()
    """Tasks of the run; default all."""
    by: Literal["group", "copies"] = "group"
    """What is erased together: a modality, region and class of features (group), or near copies of
    each other, of which there may be hundreds (copies)."""
    folds: int = 5
    """Parts of the cross-validation by patient."""
    draws: int = 200
    """Random subspaces of each kind that a cluster is compared with."""
    bootstraps: int = 1000
    """Redrawings of the patients for the intervals."""
    share: float = 0.25
    """Principal components of the embedding that are read, relative to the fitted patients."""
    seed: int = 0
    """Seed of folds, subspaces and redrawings."""
    pre: Path | None = None
    """Embeddings before fine-tuning, where the run's are not where they were."""
    ft: Labels = ()
    """TASK=FILE, embeddings after fine-tuning, likewise."""
    radiomics: Path | None = None
    """Radiomics table, likewise."""
    page: bool = True
    """Draw the run's figures and page again; --no-page leaves that to experiments.report."""
    dry_run: bool = False
    """Check everything, print stages, sizes and what they need, and write nothing."""
    anonymise: bool = False
    """Name no patient and no file in messages, nor on the page."""
    salt: Path | None = None
    """File of the salt, for --anonymise; by default your own, ~/.config/radiomic-lens/salt."""


def hidden(config: Config) -> Hidden:
    """What is asked to be hidden; the ids are those of the run's own tables."""
    tables = {name: config.folder / name for name in ("split.csv", "failures.csv")}
    for at, entry in enumerate(config.label):
        path = _parted(entry)[0]
        # TASK=FILE: which of the two an equals sign is, the file tells.
        own = path if path.exists() else _parted(entry.partition("=")[2] or entry)[0]
        tables[f"--label {at}"] = own
    return Hidden(config.anonymise, config.salt, config.folder, tables)


@alone(lambda config: of_folder(config.folder), hidden)
def job(config: Config, names: Names) -> int:
    """Checks everything, erases, writes the tables and the page; gives the exit code."""
    from experiments.common.finished import Given, finished_scopes
    from experiments.common.flags import as_flag, pairs
    from lens.errors import InputError
    from lens.report.results import read_results

    if problem := _problem(config):
        raise InputError(as_flag(problem))
    if not config.label:
        raise InputError("--label is missing: name a table and its column, as cohort.csv:grade")
    results = read_results(config.folder)
    given = Given(config.pre, pairs(config.ft, "--ft"), config.radiomics)
    scopes = finished_scopes(config.folder, results, config.task, names, given)
    tasks = [task for scope in scopes for task in scope.tasks]
    work = [_work(config, scope, tasks, names) for scope in scopes]
    if config.dry_run:
        print(_outlook(config, work))
        return DONE
    found = [table for each in work for table in _carry_out(config, each)]
    for table in found:
        _write(config, results.run, table)
        for line in table.lines():
            print(line)
    if config.page:
        from experiments.common.album import album_of
        from lens.report.page import write_report

        album = album_of(config.folder, hidden=names.hides)
        print(f"report: {write_report(config.folder, names=names, album=album)}")
    return DONE


class _Work(NamedTuple):
    """Labels of a scope, read and checked, and what is erased."""

    scope: FinishedScope
    clusters: list[Cluster]
    labels: list[tuple[tuple[str, ...], Label]]


class _Table(NamedTuple):
    """The result of a task."""

    task: str
    rows: pd.DataFrame
    seconds: float

    def lines(self) -> list[str]:
        """The answer in words."""
        from lens.report.amnesic_text import sentences

        return [f"{self.task}: {line}" for line in sentences(self.rows)]


def _work(config: Config, scope: FinishedScope, tasks: list[str], names: Names) -> _Work:
    """Reads the labels of a scope's tasks and refuses what the test would refuse."""
    from lens.amnesic.clusters import clusters_of
    from lens.amnesic.labels import label_of
    from lens.context import read_labels
    from lens.errors import InputError
    from lens.study.tables import to_table
    from lens.verdicts.folds import make_folds

    study, found = scope.study, []
    patients = study.ids["patient_id"].to_numpy(str)
    for entry in config.label:
        only, path, column = _of_task(entry, tasks)
        own = tuple(task for task in scope.tasks if only in ("", task))
        if not own:
            continue
        table = names.source(path, "labels", to_table)
        try:
            values = read_labels(table, study.ids, [column])[column]
            label = label_of(values, column, patients=patients, folds=config.folds)
            make_folds(patients[label.known], config.folds, 1, config.seed)
        except InputError as error:
            raise InputError(f"--label {entry}: {error}") from error
        except ValueError as error:
            raise InputError(f"--folds {config.folds}: {error}") from error
        if any(label.name == other.name and set(own) & set(t) for t, other in found):
            raise InputError(f"--label {entry}: another label of the task is called {column}")
        found.append((own, label))
    return _Work(scope, clusters_of(study.features, study.r, config.by), found)


def _outlook(config: Config, work: list[_Work]) -> Outlook:
    """The erasures and, from one cluster timed here with few draws, how long they take."""
    from dataclasses import replace

    from experiments.common.outlook import Outlook, Step, amount, several
    from lens.amnesic.table import amnesic
    from lens.stages import duration

    few = replace(_settings(config), draws=FEW)
    seconds, steps, sizes = 0.0, [], []
    for scope, clusters, labels in work:
        study = scope.study
        patients = study.ids["patient_id"].to_numpy(str)
        for tasks, label in labels:
            erasures = (1 + len(tasks)) * len(clusters)
            start = time.perf_counter()
            args = study.x_pre, {}, study.observed(), label, clusters[:1], patients
            amnesic(*args, folds=config.folds, settings=few)
            one = time.perf_counter() - start
            # All but the reading of the features grows with the draws.
            seconds += one * erasures * max(1.0, config.draws / FEW)
            steps.append(Step(f"erasing, {label.name}", note=several(erasures, "erasure")))
            sizes.append(
                f"{', '.join(tasks)}, {label.name} ({label.kind}): "
                f"{several(int(label.known.sum()), 'row')} with a label, "
                f"{several(len(clusters), 'cluster')}, {config.draws} random parts of each kind"
            )
    told = f"at most about {duration(seconds)}, from one cluster timed here"
    tables = sum(e.scope.study.r.nbytes for e in work) * (1 + config.folds)
    return Outlook(
        steps=steps,
        sizes=sizes,
        out=config.folder,
        time=[told],
        memory=[f"normal scores of the features in {config.folds} folds {amount(tables)}"],
    )


def _carry_out(config: Config, work: _Work) -> list[_Table]:
    """The tables of a scope's tasks, with a bar over the erasures."""
    import pandas as pd

    from lens.amnesic.table import amnesic
    from lens.progress import tqdm_bar

    study, tables = work.scope.study, {}
    seconds = dict.fromkeys(work.scope.tasks, 0.0)
    total = sum((1 + len(tasks)) * len(work.clusters) for tasks, _ in work.labels)
    with tqdm_bar(total, "erasing", "cluster") as advance:
        for tasks, label in work.labels:
            start = time.perf_counter()
            found = amnesic(
                study.x_pre,
                {task: study.x_ft[task] for task in tasks},
                study.observed(),
                label,
                work.clusters,
                study.ids["patient_id"].to_numpy(str),
                folds=config.folds,
                settings=_settings(config),
                on_cluster=advance,
            )
            for task, table in found.items():
                tables.setdefault(task, []).append(table)
                seconds[task] += time.perf_counter() - start
    return [
        _Table(task, pd.concat(rows, ignore_index=True), seconds[task])
        for task, rows in tables.items()
    ]


def _write(config: Config, run: dict[str, Any], table: _Table) -> None:
    """``amnesic.csv`` and, last, ``amnesic.json``, without which the table is not shown."""
    from dataclasses import asdict

    from lens.report.writing import write_amnesic

    facts = {
        "by": config.by,
        "folds": config.folds,
        **asdict(_settings(config)),
        "labels": list(dict.fromkeys(table.rows["label"])),
        "seconds": round(table.seconds, 1),
    }
    write_amnesic(config.folder / table.task, table.rows, facts, run)
    print(f"written: {config.folder / table.task / 'amnesic.csv'}")


def _settings(config: Config) -> Settings:
    from lens.amnesic.losses import Settings

    return Settings(config.draws, config.bootstraps, config.share, config.seed)


def _parted(entry: str) -> tuple[Path, str]:
    """File and column of ``FILE:COLUMN``; either may hold colons: which file there is, tells."""
    ends = [at for at, letter in enumerate(entry) if letter == ":"]
    at = next((at for at in reversed(ends) if Path(entry[:at]).is_file()), max(ends, default=0))
    return Path(entry[:at]), entry[at + 1 :]


def _of_task(entry: str, tasks: list[str]) -> tuple[str, Path, str]:
    """Task, or an empty text for all, file and column of a label."""
    from lens.errors import InputError

    task, equals, rest = entry.partition("=")
    known = bool(equals) and task in tasks
    path, column = _parted(rest if known else entry)
    if not path.name or not column:
        raise InputError(f"--label {entry}: expected FILE:COLUMN or TASK=FILE:COLUMN")
    return (task if known else ""), path, column


def _problem(config: Config) -> str:
    """What is out of range; an empty text where nothing is."""
    if not 0 < config.share <= 1:
        return f"share {config.share}: a number above 0, at most 1"
    least = {"folds": 2, "draws": 19, "bootstraps": 20, "seed": 0}
    for name, low in least.items():
        if getattr(config, name) < low:
            return f"{name} {getattr(config, name)}: at least {low}"
    return ""


if __name__ == "__main__":
    run(Config, job, description=__doc__)
