"""Values that no measurement of a column can have: overflow, a corrupt cell, an unscaled unit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

FACTOR = 1e6
"""How many times the usual magnitude a value may be. Heavy tails stay far below: the largest of 850
values is 1e4 times the usual one for a lognormal of sigma 3, and 1e2 times for t with 2 degrees of
freedom, while overflow and corrupt cells are 1e10 times and more."""

USUAL = 0.9
"""Quantile of the magnitudes that is called usual: high, so that a tail counts as part of the
column, and below the maximum, so that an absurd value is not its own measure."""

FEWEST_VALUES = 10
"""Values other than zero from which what is usual can be told."""

SMALLEST, LARGEST = 1.0, 1e9
"""Usual magnitudes that radiomics is judged by. The first where a column's own is smaller: where
textures are flat that is rounding (1e-16 beside a rare 0.5), and PyRadiomics itself writes 1e6 for
the coarseness of a flat region. The second, the energy of a large region, where too few values are
not zero to tell."""

MAX_PATIENTS = 0.05
"""Where a larger share of the patients (and more than one) is absurd in a column, the column is to
blame: so many corrupt cells do not fall on one column by chance."""

MAX_COLUMNS = 0.2
"""A patient who is absurd in a larger share of the columns is to blame, and no column is."""


FAR = 3.0
"""Times the range of all other values by which a value that repeats lies outside them, and then
seems to stand for a missing one."""

NINES = (-99.0, -999.0, -9999.0, -99999.0)
"""What stands for a missing value in many programs; nothing else of a column that is nowhere else
negative."""


class Blame(NamedTuple):
    """Where absurd values come from.

    Attributes:
        columns: columns that are to blame as a whole.
        rows: rows that are to blame: they have an absurd value in another column.
    """

    columns: Bool[np.ndarray, " k"]
    rows: Bool[np.ndarray, " n"]


def usual_magnitudes(values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Usual magnitude of each column: the 0.9 quantile of its magnitudes, in the column's unit.

    Of the finite values that are not zero, so that a column of many zeros is judged by the others.
    NaN where fewer than `FEWEST_VALUES` are left. The quantile is an order statistic (NumPy's
    ``method="lower"``), below the largest value from two values on.
    """
    if not len(values):
        return np.full(values.shape[1], np.nan)
    magnitudes = np.abs(values.T)
    magnitudes = np.where(np.isfinite(magnitudes) & (magnitudes > 0), magnitudes, np.nan)
    count = np.isfinite(magnitudes).sum(axis=1)
    # NaN sorts last.
    ordered = np.sort(magnitudes, axis=1)
    at = np.floor(USUAL * np.maximum(count - 1, 0)).astype(int)
    found = np.take_along_axis(ordered, at[:, None], axis=1)[:, 0].astype(np.float64)
    return np.where(count >= FEWEST_VALUES, found, np.nan)


def absurd_features(values: Float[np.ndarray, "n k"]) -> Bool[np.ndarray, "n k"]:
    """Whether each radiomic value is beyond `FACTOR` times the usual magnitude of its column.

    The usual magnitude is taken as `SMALLEST` where it is below, and as `LARGEST` where the column
    has too few values other than zero to tell.
    """
    usual = usual_magnitudes(values)
    return _beyond(values, np.where(np.isnan(usual), LARGEST, np.maximum(usual, SMALLEST)))


def absurd_embeddings(values: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, "n d"]:
    """Whether each value is beyond `FACTOR` times the largest usual magnitude of the dimensions.

    The dimensions have one unit, and some are near zero in almost all patients (behind a ReLU, a
    GELU or a softmax), so that no dimension is judged by itself.
    """
    known = usual_magnitudes(values)
    known = known[~np.isnan(known)]
    return _beyond(values, np.full(values.shape[1], known.max() if known.size else np.inf))


def sentinels(values: Float[np.ndarray, "n k"]) -> Bool[np.ndarray, "n k"]:
    """Whether each value seems to stand for a missing one, as -999 does.

    It is the least or the largest of its column and of two patients or more, but of fewer than
    half, and lies `FAR` ranges of all others outside them; or it is one of `NINES`, and no other
    value is negative. Columns with fewer than `FEWEST_VALUES` different others are not judged.
    """
    found = np.zeros(values.shape, bool)
    known = np.isfinite(values)
    for least in (True, False):
        ends = np.where(known, values, np.inf if least else -np.inf)
        end = ends.min(axis=0, initial=np.inf) if least else ends.max(axis=0, initial=-np.inf)
        at = known & (values == end)
        count = at.sum(axis=0)
        for column in np.flatnonzero((count > 1) & (2 * count < known.sum(axis=0))):
            others = np.unique(values[known[:, column] & ~at[:, column], column])
            if len(others) < FEWEST_VALUES:
                continue
            gap = others[0] - end[column] if least else end[column] - others[-1]
            far = gap > FAR * (others[-1] - others[0])
            found[:, column] |= at[:, column] & (far or (end[column] in NINES and others[0] >= 0))
    return found


def blame(absurd: Bool[np.ndarray, "n k"]) -> Blame:
    """Whether patients or columns are to blame for absurd values.

    A single absurd value always is the patient's.
    """
    corrupt = absurd.sum(axis=1) > MAX_COLUMNS * absurd.shape[1]
    counts = (absurd & ~corrupt[:, None]).sum(axis=0)
    columns = counts > max(1.0, MAX_PATIENTS * len(absurd))
    return Blame(columns, (absurd & ~columns).any(axis=1))


def _beyond(values: np.ndarray, usual: np.ndarray) -> np.ndarray:
    return np.isfinite(values) & (np.abs(values) > FACTOR * usual)
