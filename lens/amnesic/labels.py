"""What a label is: of two values, of a few in order, or a quantity."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.amnesic.scores import Kind
from lens.errors import InputError

FEW = 6
"""Whole numbers of at most so many values are grades in order; more are a quantity."""

LARGEST = 1e100
"""Magnitude of a grade at most: squares of larger ones come near the end of float64."""

LEAST_ROWS = 20
"""Rows with a label; fewer leave nothing to score on."""


class Label(NamedTuple):
    """A label of the task.

    Attributes:
        name: its column.
        kind: ``auc`` of two values, ``concordance`` of up to `FEW` grades, ``r2`` of a quantity.
        values: numbers; of two values 0 and 1, of names in alphabetical order. NaN where missing.
    """

    name: str
    kind: Kind
    values: Float[np.ndarray, " n"]

    @property
    def known(self) -> Bool[np.ndarray, " n"]:
        """Rows that have the label."""
        return np.isfinite(self.values)


def label_of(column: pd.Series, name: str, *, patients: np.ndarray, folds: int) -> Label:
    """The label that a column holds.

    Args:
        column: a value per row of the study; missing ones are left out of the test.
        name: what it is called.
        patients: of the rows.
        folds: each must find every value of two, or every grade, among the fitted patients.

    Raises:
        InputError: names of more than two values, which have no order; a single value; infinite
            ones, or grades beyond `LARGEST`; too few patients with the label, or with one of its
            values.
    """
    known = column.notna()
    if known.sum() < LEAST_ROWS:
        raise InputError(f"label {name}: {int(known.sum())} values, at least {LEAST_ROWS} needed")
    found = np.unique(column[known].to_numpy())
    if len(found) < 2:
        raise InputError(f"label {name}: is {str(found[0])!r} in all rows, nothing to tell apart")
    if pd.api.types.is_bool_dtype(column[known].dtype):
        column = column.astype(float)
    if not pd.api.types.is_numeric_dtype(column):
        if len(found) > 2:
            names = ", ".join(map(repr, found[:4]))
            raise InputError(
                f"label {name}: {len(found)} names ({names}) have no order; give numbers in order, "
                "or a column of two names"
            )
        column = column.map({value: float(at) for at, value in enumerate(found)})
    values = column.to_numpy(np.float64)
    if infinite := int(np.isinf(values[known]).sum()):
        raise InputError(
            f"label {name}: {infinite} value(s) are infinite; leave cells blank where it is not "
            "known, or give a number"
        )
    graded = len(found) <= FEW and bool((np.mod(values[known], 1) == 0).all())
    kind: Kind = "auc" if len(found) == 2 else "concordance" if graded else "r2"
    if kind != "r2":
        if kind == "concordance" and np.abs(values[known]).max() > LARGEST:
            raise InputError(
                f"label {name}: grades as large as {np.abs(values[known]).max():.3g} cannot be "
                "computed with; number them 0, 1, 2"
            )
        for value in np.unique(values[known]):
            count = len(np.unique(patients[values == value]))
            if count < folds:
                raise InputError(
                    f"label {name}: {count} patient(s) with the value {value:g}, fewer than the "
                    f"{folds} folds; join values, or take fewer folds"
                )
    if kind == "auc":
        values = np.where(known, (values == values[known].max()).astype(float), np.nan)
    return Label(name, kind, values)
