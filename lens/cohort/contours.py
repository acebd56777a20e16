"""Contours as voxels: planar polygons on the slices of an image's grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

SNAP = 1e-3
"""Voxels within which a coordinate is that of a voxel's centre: decimal text holds no more."""


def fill(
    contours: Sequence[Float[np.ndarray, "points 2"]], size: tuple[int, int]
) -> Bool[np.ndarray, "rows columns"]:
    """Voxels of one slice that lie within closed contours.

    A voxel belongs where its centre lies within an odd number of contours (so that a contour within
    another is a hole, and one within that an island), or on one of them.  The area is exact but for
    the voxels that a contour cuts.

    Args:
        contours: (column, row) of each vertex in voxels, 0 at the centre of the first voxel; the
            last vertex is joined to the first.
        size: (columns, rows) of the slice.
    """
    columns, rows = size
    within = np.zeros((rows, columns), bool)
    edge = np.zeros((rows, columns), bool)
    for contour in contours:
        start = _snapped(np.asarray(contour, float))
        end = np.roll(start, -1, axis=0)
        row, at = _crossings(start, end, rows)
        count = np.zeros((rows, columns + 1), np.int64)
        np.add.at(count, (row, np.clip(np.ceil(at), 0, columns).astype(int)), 1)
        within ^= count.cumsum(axis=1)[:, :columns] % 2 == 1
        _mark(edge, row, at)
        _mark(edge, start[:, 1], start[:, 0])
        for (x0, y0), (x1, y1) in zip(start, end, strict=True):
            if y0 == y1:
                between = np.arange(np.ceil(min(x0, x1)), np.floor(max(x0, x1)) + 1)
                _mark(edge, np.full(len(between), y0), between)
    return within | edge


def _snapped(points: np.ndarray) -> np.ndarray:
    whole = np.rint(points)
    return np.where(np.abs(points - whole) < SNAP, whole, points)


def _crossings(start: np.ndarray, end: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose line of centres an edge crosses, and the columns where it does.

    An edge holds its lower end and not its upper one, so that a vertex on the line counts once.
    """
    low, high = np.sort([start[:, 1], end[:, 1]], axis=0)
    lines = np.arange(rows)[:, None]
    row, edge = np.nonzero((low <= lines) & (lines < high))
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    at = start[edge, 0] + (row - start[edge, 1]) * slope
    return row, _snapped(at)


def _mark(voxels: np.ndarray, row: np.ndarray, column: np.ndarray) -> None:
    """Marks the places that are centres of voxels."""
    rows, columns = voxels.shape
    there = (row == np.rint(row)) & (column == np.rint(column))
    there &= (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    voxels[row[there].astype(int), column[there].astype(int)] = True
