"""Who moved most for no radiomic reason: single patients by what the features leave of the change.

Squared lengths of residuals would name whoever is far out in the channel of the largest variance.
Here a residual is seen along its leading axes, each in units of its own spread over the fitted
patients, with no axis counted beyond `CLIP` of them. Axes and spreads are robust: the axes are the
principal ones of residuals brought to length one (Locantore et al., Test 1999), the spread is the
median absolute deviation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.rest.fits import Fit
from lens.verdicts.folds import Fold

CLIP = 4.0
"""Standard deviations along an axis at most: one axis alone makes nobody the first."""

AXES = 0.125
"""Axes at most, of the number of fitted rows: the spread of more would be chance."""

VARIANCE = 0.9
"""Share of the residuals' variance in the axes."""

FAR = 3.0
"""Robust standard deviations beyond the patient in the middle from which one is called far."""


class FoldMoves(NamedTuple):
    """Held-out rows of a fold.

    Attributes:
        rows: their numbers.
        moved: root mean square of the change along the axes, in standard deviations.
        unexplained: of what the features leave of it.
        largest: share of the largest axis in the square of `unexplained`.
    """

    rows: np.ndarray
    moved: Float[np.ndarray, " m"]
    unexplained: Float[np.ndarray, " m"]
    largest: Float[np.ndarray, " m"]


def fold_moves(fit: Fit, y: Float[np.ndarray, "n c"], groups: np.ndarray, fold: Fold) -> FoldMoves:
    """How far the held-out rows moved, with the features' prediction and without.

    Args:
        fit: of the change by all features.
        y: components of the change.
        groups: patient of each row.
        fold: of the fit.
    """
    left = fit.residuals(y, groups, fold)
    fitted = left[fold.fitted]
    axes = robust_axes(fitted, max(1, int(AXES * len(fitted))))
    scores = fitted @ axes
    middle = np.median(scores, axis=0)
    spread = 1.4826 * np.median(np.abs(scores - middle), axis=0)
    known = spread > 1e-12 * max(float(spread.max(initial=0.0)), np.finfo(float).tiny)
    squares = [
        np.square(np.clip((rows @ axes - at)[:, known] / spread[known], -CLIP, CLIP))
        for rows, at in ((y[fold.test], np.median(y[fold.fitted] @ axes, axis=0)),
                         (left[fold.test], middle))
    ]  # fmt: skip
    if not known.any():
        nothing = np.zeros(int(fold.test.sum()))
        return FoldMoves(np.flatnonzero(fold.test), nothing, nothing, nothing)
    moved, unexplained = (np.sqrt(each.mean(axis=1)) for each in squares)
    sums = squares[1].sum(axis=1)
    largest = squares[1].max(axis=1) / np.where(sums > 0, sums, 1.0)
    return FoldMoves(np.flatnonzero(fold.test), moved, unexplained, largest)


def robust_axes(rows: Float[np.ndarray, "m c"], most: int) -> Float[np.ndarray, "c a"]:
    """Principal axes of rows brought to length one about their median; at most `most`."""
    centred = rows - np.median(rows, axis=0)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(length > 0, length, 1.0)
    power, axes = np.linalg.eigh(unit.T @ unit)
    power, axes = np.maximum(power[::-1], 0.0), axes[:, ::-1]
    if not power.sum() > 0:
        return axes[:, :1]
    count = int(np.searchsorted(np.cumsum(power) / power.sum(), VARIANCE)) + 1
    return axes[:, : min(count, most)]


def patients_table(
    ids: pd.DataFrame, moves: list[FoldMoves], rows: np.ndarray | None = None
) -> pd.DataFrame:
    """A row per held-out study, the one that moved most for no radiomic reason first.

    Args:
        ids: ``patient_id`` and perhaps ``study_id`` of each row.
        moves: of the folds of one repeat.
        rows: numbers in `ids` of the rows that the folds number; all if none.

    Returns:
        The ids, ``moved``, ``unexplained``, ``beyond`` (robust standard deviations of
        ``unexplained`` beyond that of the study in the middle), ``largest``.
    """
    at = np.concatenate([each.rows for each in moves])
    table = ids.iloc[at if rows is None else rows[at]].reset_index(drop=True)
    for name in ("moved", "unexplained", "largest"):
        table[name] = np.concatenate([getattr(each, name) for each in moves])
    own = table["unexplained"]
    spread = 1.4826 * (own - own.median()).abs().median()
    table.insert(
        table.columns.get_loc("largest"),
        "beyond",
        (own - own.median()) / spread if spread > 0 else 0.0,
    )
    return table.sort_values("unexplained", ascending=False, kind="stable", ignore_index=True)
