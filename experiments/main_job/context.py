"""What stands beside the verdicts: confounds, unique parts of R2, and the encoding direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from experiments.main_job.plan import pairs
from lens.errors import InputError
from lens.files import file_hash, write_table
from lens.study.study import Study
from lens.verdicts.confounds import (
    Confounds,
    confound_columns,
    count_fits,
    read_exposure,
    read_labels,
)
from lens.verdicts.encoding import count_fits as count_encoding_fits
from lens.verdicts.encoding import encoding
from lens.verdicts.folds import Fold, by_repeat, leave_site_out
from lens.verdicts.held_out import HeldOutErrors
from lens.verdicts.variance_partition import partition_by_embedding

if TYPE_CHECKING:
    from experiments.main_job.plan import Plan


def context_columns(
    plan: Plan,
    study: Study,
    confounds: Confounds,
    folds: Sequence[Fold],
    held_out: HeldOutErrors,
    folder: Path,
) -> dict[str, pd.DataFrame]:
    """Columns for every task's features: unique parts of R2, and confounds as far as asked for.

    Writes ``<task>/exposure.csv`` where it is known whom fine-tuning saw.

    Args:
        plan: flags.
        study: the tables.
        confounds: of `read_confounds`.
        folds, held: of the verdicts.
        folder: of the run.
    """
    groups, r = study.ids["patient_id"].to_numpy(), study.observed()
    for task, exposed in confounds.exposed.items():
        flagged = study.ids.assign(split=study.split, exposure=exposed)
        write_table(flagged, folder / task / "exposure.csv")
    fits = count_fits(len(study.x_ft), folds, confounds)
    with tqdm(total=fits, desc="confounds", unit="fit", disable=not fits) as bar:
        tables = confound_columns(
            study.x_pre, study.x_ft, r, groups, folds, held_out, confounds,
            seed=plan.config.seed, on_fit=bar.update,
        )  # fmt: skip
    first = first_repeat(folds)
    with tqdm(total=len(first) * len(study.x_ft), desc="unique R2", unit="fold") as bar:
        for task, x in study.x_ft.items():
            parts = partition_by_embedding(
                study.x_pre, x, study.r, groups, first, on_fit=bar.update
            )
            tables[task] = pd.concat([parts.filter(regex="^unique"), tables[task]], axis=1)
    return tables


def write_encoding(study: Study, folds: Sequence[Fold], folder: Path) -> None:
    """Writes ``<task>/encoding.csv`` for every task, from the first repeat of the folds.

    Missing features are predictors here, imputed as in the study.
    """
    first = first_repeat(folds)
    groups = study.ids["patient_id"].to_numpy()
    with tqdm(
        total=count_encoding_fits(study.features, first), desc="encoding", unit="fold"
    ) as bar:
        tables = encoding(
            study.x_pre, study.x_ft, study.r, study.features, groups, first, on_fit=bar.update
        )
    for task, table in tables.items():
        write_table(table, folder / task / "encoding.csv")


def first_repeat(folds: Sequence[Fold]) -> tuple[Fold, ...]:
    """The folds of the first repeat: enough for context, at a part of the cost."""
    return next(by_repeat(tuple(folds)))


def read_confounds(plan: Plan, study: Study, split: Path | None) -> Confounds:
    """The confounds that the flags name, on the study's rows.

    Args:
        plan: flags.
        study: the tables.
        split: table of the patients' split that fine-tuning used, if known.

    Raises:
        InputError: a table or column cannot be used.
    """
    config, labels = plan.config, labels_file(plan)
    read: Callable[[Sequence[str]], pd.DataFrame] | None = (
        None if labels is None else lambda columns: read_labels(labels, study.ids, columns)
    )
    adjust = read(config.adjust) if read and config.adjust else None
    sites = None
    if read and config.site:
        values = read([config.site])[config.site]
        if values.isna().any():
            patient = study.ids["patient_id"][values.isna()].iloc[0]
            raise InputError(f"{labels}: patient {patient} has no {config.site}")
        sites = values.astype(str).to_numpy(str)
        try:
            leave_site_out(study.ids["patient_id"].to_numpy(), sites, config.seed)
        except ValueError as error:
            raise InputError(f"--site {config.site}: {error}") from error
    exposed = {
        task: read_exposure(path, study.ids)
        for task, path in exposure_files(plan, list(study.x_ft), split).items()
    }
    return Confounds(adjust=adjust, exposed=exposed, sites=sites)


def depends_on(plan: Plan, tasks: Sequence[str], split: Path | None) -> list[Any]:
    """What the columns beside the verdicts depend on, beyond what the verdicts do."""
    config = plan.config
    files = [labels_file(plan), *exposure_files(plan, tasks, split).values()]
    return [config.adjust, config.site, [path and file_hash(path) for path in files]]


def labels_file(plan: Plan) -> Path | None:
    """The table of labels: ``--labels``, else the manifest; none where no column is asked for."""
    if not plan.config.adjust and not plan.config.site:
        return None
    return plan.config.labels or plan.config.cohort


def exposure_files(plan: Plan, tasks: Sequence[str], split: Path | None) -> dict[str, Path]:
    """Task -> table of the patients whom its fine-tuning saw, where that is known."""
    given = plan.config.exposure
    own = pairs([entry for entry in given if entry.partition("=")[0] in tasks], "--exposure")
    common = [entry for entry in given if "=" not in entry]
    everyone = Path(common[0]) if common else split
    return {
        task: path for task in tasks if (path := own.get(task, everyone)) is not None
    }  # fmt: skip
