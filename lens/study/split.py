"""Patient-level train, validation and test split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lens.errors import InputError
from lens.study.id_causes import probable_cause
from lens.study.study import SPLITS
from lens.study.tables import TableSource, name_of, to_table

MIN_PATIENTS = {"train": 1, "val": 1, "test": 2}
"""R2 on the test patients needs two of them; the others need one."""
FEWEST_GIVEN = {"train": 2, "val": 1, "test": 2}
"""Fewest rows of each part in a split that the user gives."""


def split_patients(
    patient_ids: Sequence[str] | np.ndarray,
    *,
    seed: int,
    ratio: tuple[float | int, float | int, float | int] = (7, 1, 2),
) -> np.ndarray:
    """Draws a split in which all rows of a patient fall on the same side.

    The draw depends on the seed and on the set of patients, not on the order or number of rows.

    Args:
        patient_ids: one per row (n,); several studies of a patient repeat the id.
        seed: of the draw.
        ratio: parts of train, val and test, in patients; rounded, with the rest to train.

    Returns:
        ``"train"``, ``"val"`` or ``"test"`` per row, (n,) text.

    Raises:
        InputError: too few patients for one in train and val and two in test, or a part that is
            not positive.
    """
    if min(ratio) <= 0:
        raise InputError(f"split ratio {ratio}: every part must be positive, such as (7, 1, 2)")
    patients = sorted({str(patient) for patient in patient_ids})
    n = len(patients)
    n_val, n_test = (
        max(MIN_PATIENTS[name], round(n * part / sum(ratio)))
        for name, part in zip(("val", "test"), ratio[1:], strict=True)
    )
    n_train = n - n_val - n_test
    if n_train < MIN_PATIENTS["train"]:
        raise InputError(
            f"{n} patient(s) cannot be split {':'.join(f'{part:g}' for part in ratio)}: at least "
            f"{sum(MIN_PATIENTS.values())} are needed (1 to train, 1 to validate, 2 to test). "
            "Add patients"
        )
    names = np.repeat(["train", "val", "test"], [n_train, n_val, n_test])
    order = np.random.default_rng(seed).permutation(n)
    of_patient = {patients[index]: name for index, name in zip(order, names, strict=True)}
    return np.array([of_patient[str(patient)] for patient in patient_ids])


def read_split(source: TableSource, patient_ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """The split that a table gives, ``"train"``, ``"val"`` or ``"test"`` per row, (n,) text.

    Args:
        source: a file, or a table in memory, with ``patient_id`` and ``split``.
        patient_ids: one per row (n,).

    Raises:
        InputError: no such columns, a patient in two parts or in none, another name than these
            three, or a part with too few rows.
    """
    path = name_of(source, "split")
    table = to_table(source, "split")
    if not {"patient_id", "split"} <= set(table.columns):
        raise InputError(f"{path}: columns patient_id and split are needed")
    unknown = set(table["split"].unique()) - set(SPLITS)
    if unknown:
        first = table[table["split"].isin(unknown) | table["split"].isna()].iloc[0]
        found = "no split" if pd.isna(first["split"]) else f"split {str(first['split'])!r}"
        raise InputError(
            f"{path}: {found} (patient {first['patient_id']}); use {', '.join(SPLITS)}"
        )
    by_patient = table.drop_duplicates(["patient_id", "split"]).set_index("patient_id")["split"]
    twice = by_patient.index[by_patient.index.duplicated()]
    if len(twice):
        raise InputError(f"{path}: patient {twice[0]} is in two splits; a patient belongs to one")
    missing = [patient for patient in patient_ids if patient not in by_patient.index]
    if missing:
        own = sorted(set(by_patient.index.dropna()) - set(patient_ids))
        cause = probable_cause(missing, own, ("the study", path))
        raise InputError(
            f"{path}: no split for patient {missing[0]} and {len(missing) - 1} more"
            + (f": {cause}" if cause else "")
        )
    assigned = by_patient.loc[list(patient_ids)].to_numpy(str)
    for name, least in FEWEST_GIVEN.items():
        count = int((assigned == name).sum())
        if count < least:
            raise InputError(f"{path}: {count} patient(s) in {name}, at least {least} are needed")
    return assigned
