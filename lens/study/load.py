"""A study: embeddings before and after fine-tuning, radiomics and split, joined by id."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lens.anonymise import OPEN, Names
from lens.errors import InputError
from lens.radiomics.findings import default_audit_file, read_findings
from lens.settings import PoolTokens
from lens.study.cleaning import (
    drop_constant,
    drop_missing,
    drop_proportional,
    drop_too_large,
    impute,
    select,
    set_aside_absurd,
    set_aside_incomplete,
    with_sentinels,
    with_spelling,
)
from lens.study.embedding_checks import check_finite, check_usable
from lens.study.join import Rows, join
from lens.study.split import read_split, split_patients
from lens.study.study import Study
from lens.study.tables import (
    EmbeddingSource,
    RadiomicsSource,
    TableSource,
    has_names,
    is_table,
    name_of,
    read_embeddings,
    read_radiomics,
    to_table,
)
from lens.study.tasks import task_problem

log = logging.getLogger(__name__)

MIN_PATIENTS = 10
"""With fewer, a 7:1:2 split leaves a single patient to validate and too few to score."""


def load_study(
    pre: EmbeddingSource,
    ft: Mapping[str, EmbeddingSource],
    radiomics: RadiomicsSource,
    *,
    split: TableSource | None = None,
    rois: Sequence[str] = (),
    modalities: Sequence[str] = (),
    seed: int = 0,
    audit: str | Path | None = None,
    retrained: Mapping[str, Sequence[EmbeddingSource]] | None = None,
    allow_partial: bool = False,
    any_columns: bool = False,
    id_column: str | None = None,
    pool_tokens: PoolTokens | None = None,
    names: Names = OPEN,
) -> Study:
    """Joins a user's tables on ``patient_id`` (and ``study_id`` where all tables carry it).

    Each table may be a path or in memory: a `pandas.DataFrame` with ``patient_id`` as a column or
    index, or a mapping of its columns; embeddings also ``(ids, array)`` or a mapping of
    ``patient_id``, ``embeddings`` and perhaps ``study_id``, with an array (n, d) of NumPy, of
    torch, or nested lists. The user's objects stay as they are.

    Tables may list patients in any order. Dimensions with names go by these, see
    `lens.study.dimensions`. Patients that are not in every table, whose embedding is
    not finite, who lack more than a fifth of the features, or who have an absurd value (1e20 among
    ones, see `lens.study.absurd`) are set aside; radiomic columns that are missing in more than a
    fifth of the patients, absurd in more than a twentieth, constant over the train patients, or by
    the audit proportional to another column, are dropped. A feature that is still missing takes the
    median over the train patients. All is listed in the result, with the audit's reasons.

    Args:
        pre: embeddings before fine-tuning.
        ft: task name -> embeddings after fine-tuning.
        radiomics: radiomic features, in their own units; or ``<modality>.<roi>`` -> a table of
            each, whose columns then need no such prefix.
        split: table with ``patient_id`` and ``split``; without it, 7:1:2 by patient from `seed`.
        rois: regions of interest to analyse; none means all. Patients who have features of other
            regions alone (no lesion, say) have no part in the study; a note counts them.
        modalities: modalities to analyse; none means all.
        seed: of the split.
        audit: findings about the radiomics table, as ``experiments.radiomics`` writes them;
            without it ``R-audit.csv`` beside ``R.parquet``, where there is one.
        retrained: task name -> embeddings after fine-tuning from other seeds.
        allow_partial: go on where fewer than half of the patients are in all tables.
        any_columns: take every column of an embedding table as a dimension, also one that breaks
            the run of names (a label, say).
        id_column: column of patients in embeddings and radiomics where it is not ``patient_id``.
        pool_tokens: how embeddings of tokens (n, tokens, d) become one per patient.
        names: under which patients enter the study, see `lens.anonymise`.

    Raises:
        InputError: a table is unusable as a whole, or too few patients remain.
    """
    given, seeds = _embeddings(pre, ft, retrained or {})
    everything = given | {"radiomics": radiomics}
    sources = {n: n if names.hides else name_of(source, n) for n, source in everything.items()}
    tables = {
        name: names.ids(
            read_embeddings(
                source, name, any_columns=any_columns, id_column=id_column, pool_tokens=pool_tokens
            )
        )
        for name, source in given.items()
    }
    named = [name for name, source in given.items() if has_names(source)]
    features = names.ids(read_radiomics(radiomics, id_column=id_column))
    joined = join(tables, features, sources, named=named, allow_partial=allow_partial)
    joined = with_sentinels(with_spelling(joined))
    for note in joined.notes:
        log.warning("%s", note)
    for name, x in joined.x.items():
        check_finite(x, sources[name])
    findings = names.table(read_findings(_audit_file(audit, radiomics)))

    rows = select(joined, rois=rois, modalities=modalities)
    rows = drop_missing(rows, findings)
    rows = drop_too_large(rows)
    rows = set_aside_absurd(rows)
    rows = drop_proportional(rows, findings)
    rows = set_aside_incomplete(rows)
    _check_patients(rows)
    for name, x in rows.x.items():
        check_usable(x, sources[name])
    patients = rows.ids["patient_id"].tolist()
    if split is None:
        assigned = split_patients(patients, seed=seed)
    else:
        assigned = read_split(names.source(split, "split", to_table), patients)
    train = assigned == "train"
    rows = impute(rows, train, findings)
    rows = drop_constant(rows, train)
    return _study(rows, assigned, seeds)


def _embeddings(
    pre: Any, ft: Any, retrained: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """All embeddings by the name that messages use, and the names of each task's other seeds."""
    if is_table(ft):
        raise InputError(
            "ft: one table where tasks are expected; name the task, as in {'cls': embeddings}"
        )
    if not ft:
        raise InputError("no fine-tuned embeddings given; at least one task is needed")
    for task in ft:
        if problem := task_problem(task):
            raise InputError(problem)
    if unknown := sorted(set(retrained) - set(ft)):
        raise InputError(f"retrained names task {unknown[0]!r}; the tasks are {sorted(ft)}")
    given = {"pre": pre} | {_ft_name(task): source for task, source in ft.items()}
    seeds: dict[str, list[str]] = {}
    for task in ft:
        again = {f"retrained[{task!r}][{i}]": s for i, s in enumerate(retrained.get(task, ()))}
        seeds[task] = list(again)
        given |= again
    return given, seeds


def _study(rows: Rows, split: np.ndarray, seeds: Mapping[str, Sequence[str]]) -> Study:
    """The clean rows as a study; `seeds` names each task's embeddings from other seeds."""
    return Study(
        ids=rows.ids,
        x_pre=rows.x["pre"],
        x_ft={task: rows.x[_ft_name(task)] for task in seeds},
        retrained={task: [rows.x[name] for name in names] for task, names in seeds.items()},
        r=rows.r,
        features=rows.features,
        split=split,
        dropped=rows.dropped,
        set_aside=rows.set_aside,
        notes=rows.notes,
        imputed=rows.imputed,
    )


def _ft_name(task: str) -> str:
    return f"ft[{task!r}]"


def _audit_file(audit: str | Path | None, radiomics: RadiomicsSource) -> Path | None:
    if audit is not None:
        return Path(audit)
    return default_audit_file(Path(radiomics)) if isinstance(radiomics, str | Path) else None


def _check_patients(rows: Rows) -> None:
    patients = rows.ids["patient_id"].nunique()
    if patients < MIN_PATIENTS:
        tables = ", ".join(dict.fromkeys(rows.sources.values()))
        finding = f"; first finding: {rows.set_aside[0]}" if rows.set_aside else ""
        raise InputError(
            f"{patients} patient(s) are complete in {tables}, at least {MIN_PATIENTS} are needed"
            f"{finding}"
        )
