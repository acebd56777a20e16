"""Who moved most for no radiomic reason: single patients by what the features leave of the change.

Squared lengths of residuals would name whoever is far out in the channel of the largest variance.
Here no channel counts beyond `CLIP` of its spreads over the fitted patients; then a residual is
seen along its leading axes, each in units of its own spread, with no axis beyond as many. Axes and
spreads are robust: the axes are the principal ones of residuals brought to length one (Locantore et
al., Test 1999), the spread is the median absolute deviation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.rest.fits import Fit
from lens.verdicts.folds import Fold

CLIP = 4.0
"""Standard deviations of a channel, and along an axis, at most: no one of them names a patient."""

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


def fold_moves(
    fit: Fit,
    y: Float[np.ndarray, "n c"],
    channels: Float[np.ndarray, "c d"],
    groups: np.ndarray,
    fold: Fold,
) -> FoldMoves:
    """How far the held-out rows moved, with the features' prediction and without.

    Args:
        fit: of the change by all features.
        y: components of the change.
        channels: from the components to channels.
        groups: patient of each row.
        fold: of the fit.
    """
    left, change = (
        _clipped(rows @ channels, fold.fitted) for rows in (fit.residuals(y, groups, fold), y)
    )
    fitted = left[fold.fitted]
    axes = robust_axes(fitted, max(1, int(AXES * len(fitted))))
    middle, spread = _middle(fitted @ axes)
    known = spread > 1e-12 * max(float(spread.max(initial=0.0)), np.finfo(float).tiny)
    if not known.any():
        nothing = np.zeros(int(fold.test.sum()))
        return FoldMoves(np.flatnonzero(fold.test), nothing, nothing, nothing)
    squares = [
        np.square(np.clip((rows[fold.test] @ axes - at)[:, known] / spread[known], -CLIP, CLIP))
        for rows, at in ((change, np.median(change[fold.fitted] @ axes, axis=0)), (left, middle))
    ]
    moved, unexplained = (np.sqrt(each.mean(axis=1)) for each in squares)
    sums = squares[1].sum(axis=1)
    largest = squares[1].max(axis=1) / np.where(sums > 0, sums, 1.0)
    return FoldMoves(np.flatnonzero(fold.test), moved, unexplained, largest)


def _clipped(rows: Float[np.ndarray, "n d"], fitted: np.ndarray) -> Float[np.ndarray, "n d"]:
    """Channels about their median over the fitted rows, none beyond `CLIP` of its spreads."""
    middle, spread = _middle(rows[fitted])
    return np.clip(rows - middle, -CLIP * spread, CLIP * spread)


def _middle(rows: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, np.ndarray]:
    """Median and robust standard deviation of each column."""
    middle = np.median(rows, axis=0)
    return middle, 1.4826 * np.median(np.abs(rows - middle), axis=0)


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
    for name in ("moved", "unexplained"):
        table[name] = np.concatenate([getattr(each, name) for each in moves])
    own = table["unexplained"]
    spread = 1.4826 * (own - own.median()).abs().median()
    table["beyond"] = (own - own.median()) / spread if spread > 0 else 0.0
    table["largest"] = np.concatenate([each.largest for each in moves])
    return table.sort_values("unexplained", ascending=False, kind="stable", ignore_index=True)
