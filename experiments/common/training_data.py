"""A cohort to train on: its volumes, its split, and the table of its patients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.common.training_flags import TrainingConfig
from lens.anonymise import OPEN, Names
from lens.errors import CaseError, InputError
from lens.names import check_names

if TYPE_CHECKING:
    from encoders.volumes import CachedCohort
    from lens.cohort import CaseFiles, Cohort

MOST_CLASSES, FEW_CLASSES = 0.5, 10
"""Classes a case, and classes in all, above both of which a label is no class."""


@dataclass(frozen=True)
class TrainingData:
    """The cohort as read.

    Attributes:
        cached: usable cases.
        split: of each, ``train``, ``val`` or ``test``.
        set_aside: one error per case that cannot be used.
    """

    cached: CachedCohort
    split: np.ndarray
    set_aside: tuple[CaseError, ...]

    def rows(self, name: str) -> np.ndarray:
        """The cases of a part of the split."""
        return np.flatnonzero(self.split == name)

    def sizes(self) -> dict[str, int]:
        """Numbers of cases that are trained on and validated on, as metrics state them."""
        return {"n_train": len(self.rows("train")), "n_val": len(self.rows("val"))}


def read_data(
    config: TrainingConfig, label: str | None = None, names: Names = OPEN
) -> TrainingData:
    """The cases of a cohort that have a label and can be read, with their volumes in the cache.

    Args:
        config: of the run.
        label: column that every case must have a value in; None for none.
        names: under which patients are written; the split is drawn over them.

    Raises:
        InputError: no patient is left to train on, or no case has the label.
    """
    from encoders.volumes import cache_cohort
    from lens.cohort import parse_labels

    config.check()
    manifest = config.cohort(told=False)
    names, cohort = names.of_cohort(manifest), names.cohort(manifest)
    split = cohort_split_of(cohort, config.run.seed)
    usable, unlabelled = labelled(cohort, label)
    cached, failed = cache_cohort(
        dataclasses.replace(cohort, cases=usable),
        config.volumes,
        shape=config.images.shape,
        spacing_mm=config.images.spacing,
        labels=parse_labels(config.region_labels),
    )
    data = TrainingData(
        cached,
        np.array([split[id(files)] for files in cached.cases]),
        tuple(names.errors((*unlabelled, *failed))),
    )
    if len(data.rows("train")) < 2:
        raise InputError(f"{cohort.path}: fewer than 2 patients to train on")
    return data


def labels_of(cases: Sequence[CaseFiles], cohort: Path, label: str, *, numbers: bool) -> np.ndarray:
    """The label of each case (n,): numbers, or classes by number or name.

    Args:
        cases: all have the label.
        cohort: the manifest, for messages.
        label: its column.
        numbers: refuse a value that is no number, as a regression must.

    Raises:
        InputError: a value is no number (names the patient), or nearly every patient has a class of
            his own.
    """
    values = [files.labels[label] for files in cases]
    if numbers:
        wrong = [i for i, value in enumerate(values) if not _is_finite(value)]
        if wrong:
            raise InputError(
                f"{cohort}: {label}: {len(values) - len(wrong)} of {len(values)} values are "
                f"numbers, patient {cases[wrong[0]].patient_id} has {values[wrong[0]]!r}; write a "
                "number, or leave the cell blank where there is none"
            )
        return np.array([float(value) for value in values])
    classes = len(set(values))
    if classes > MOST_CLASSES * len(values) and classes > FEW_CLASSES:
        raise InputError(
            f"{cohort}: {label} has {classes} different values in {len(values)} cases, the first "
            f"is {values[0]!r}, which are no classes; give a column of classes, or "
            "train a regression"
        )
    return np.array(values)


def _is_finite(value: str | float) -> bool:
    """Whether a label is a number; those of a column with text in it are text as well."""
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def cohort_split_of(cohort: Cohort, seed: int) -> dict[int, str]:
    """The part of each case, by its ``id``.

    Drawn before any case is set aside: a patient's part must not depend on another's file.

    Args:
        cohort: as the manifest tells.
        seed: of the draw, where the manifest has no split.
    """
    from experiments.main_job.images import cohort_split

    return dict(zip(map(id, cohort.cases), cohort_split(cohort, seed).tolist(), strict=True))


def labelled(
    cohort: Cohort, label: str | None
) -> tuple[tuple[CaseFiles, ...], Sequence[CaseError]]:
    """The cases with the label, and an error for each of the others.

    Args:
        cohort: the cases.
        label: column that a case must have a value in; None for none.

    Raises:
        InputError: no case has it.
    """
    missing = [files for files in cohort.cases if label and label not in files.labels]
    if label and len(missing) == len(cohort.cases):
        known = sorted({name for files in cohort.cases for name in files.labels})
        check_names([label], known, "label with values", f"--label, {cohort.path}")
    errors = [
        CaseError(
            files.patient_id,
            cohort.path,
            stage="read",
            reason=f"no {label} is given",
            remedy="Fill the cell, or train without this patient.",
        )
        for files in missing
    ]
    return tuple(files for files in cohort.cases if files not in missing), errors


def write_patients(path: Path, data: TrainingData, **columns: Any) -> None:
    """Writes ``patients.csv``: ``patient_id, split, used``, a row per case of the manifest.

    Used are the patients on whom the weights depend (train) or the choice of the epoch (val).

    Args:
        path: of the table.
        data: of the run.
        columns: further ones, a value per usable case.
    """
    import pandas as pd

    from lens.files import write_table

    cases = data.cached.cases
    table = pd.DataFrame(
        {
            "patient_id": [files.patient_id for files in cases],
            "study_id": [files.study_id or "" for files in cases],
            "split": data.split,
            "used": data.split != "test",
            **columns,
        }
    )
    lost = sorted({e.patient_id for e in data.set_aside} - set(table["patient_id"]))
    aside = pd.DataFrame({"patient_id": lost, "split": "", "used": False})
    write_table(pd.concat([table, aside]) if lost else table, path)
