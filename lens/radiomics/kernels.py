"""Compiled loops over the voxels of an ROI: what NumPy would need many passes for.

A flat array holds the gray levels, 0 outside the ROI and in a border of one voxel, so that a
direction is an offset into it (`lens.radiomics.matrices.levels`). Numba compiles each function once
for one signature, when this module is imported, and keeps the machine code on disk: in
``NUMBA_CACHE_DIR``, beside this file, or in the user's cache folder, whichever can be written.
No loop may reorder sums (``fastmath``): values are those of PyRadiomics to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, no_type_check

import numba
import numpy as np

BLOCK = 2048
"""Voxels whose neighbourhoods are summed at a time, so that the sums stay in the nearest cache."""

LANES = 64
"""Sums over a whole image that go on side by side."""


def compiled(*signatures: str) -> Callable[[Callable[..., Any]], Any]:
    """Numba's ``njit`` for these signatures; without a copy on disk where no folder takes one."""

    def decorate(function: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        try:
            return numba.njit(list(signatures), cache=True, **options)(function)
        except (RuntimeError, OSError):
            return numba.njit(list(signatures), **options)(function)

    return decorate


@compiled("void(int16[::1], uint64[::1], uint64[::1], int64, float64[:, :, ::1])")
@no_type_check
def pairs(flat, inside, steps, gray_levels, matrix):
    """Sets ``matrix (levels, levels, directions)`` to how often two levels are neighbours."""
    width = gray_levels + 1
    # Pairs with the outside, level 0, are counted too and left out below: cheaper than asking.
    count = np.empty(width * width, np.int32)
    for direction in range(steps.size):
        step = steps[direction]
        count[:] = 0
        for voxel in inside:
            count[np.uint64(np.int64(flat[voxel]) * width + flat[voxel + step])] += 1
        for i in range(gray_levels):
            for j in range(gray_levels):
                matrix[i, j, direction] = count[(i + 1) * width + j + 1]


@compiled("void(int16[::1], uint64[::1], uint64[::1], float64[:, :, ::1])")
@no_type_check
def runs(flat, inside, steps, matrix):
    """Sets ``matrix (levels, lengths, directions)`` to the number of straight runs of one level."""
    levels, longest = matrix.shape[0], matrix.shape[1]
    length = np.zeros(flat.size, np.int16)
    reached = np.empty((levels + 1, longest + 2), np.int32)
    for direction in range(steps.size):
        step = steps[direction]
        reached[:] = 0
        # In raster order the voxel before has had its turn. Nothing here depends on a guess of
        # where a run ends: those that reach a length are counted, and their differences taken.
        for voxel in inside:
            level = flat[voxel]
            same = np.int16(flat[voxel - step] == level)
            length[voxel] = length[voxel - step] * same + np.int16(1)
            reached[np.uint64(level), np.uint64(length[voxel])] += 1
        for level in range(levels):
            for k in range(longest):
                matrix[level, k, direction] = reached[level + 1, k + 1] - reached[level + 1, k + 2]


@compiled("uint32(uint32[::1], uint32, uint32)")
@no_type_check
def joined(earlier, first, other):
    """Makes the zones of two voxels one, of which `first` is the first; gives the new first."""
    while earlier[other] != other:
        earlier[other] = earlier[earlier[other]]
        other = earlier[other]
    if other < first:
        earlier[first] = other
        return other
    earlier[other] = first
    return first


@compiled("int64[::1](int16[::1], uint64[::1], uint64[::1])")
@no_type_check
def zones(flat, inside, steps):
    """Size of the connected zone of one level at its first voxel in raster order, 0 elsewhere."""
    # Each voxel points to an earlier one of its zone, the first to itself.
    earlier = np.empty(flat.size, np.uint32)
    for voxel in inside:
        level = flat[voxel]
        first = np.uint32(voxel)
        earlier[voxel] = first
        # Neighbours in a row touch each other: where the middle one is of this level, the other
        # two need no look, nor does any that touches the voxel before this one, if that is.
        before = flat[voxel - steps[12]] == level
        if before:
            first = joined(earlier, first, np.uint32(voxel - steps[12]))
        for row in range(0, 12, 3):
            if flat[voxel - steps[row + 1]] == level:
                if not before:
                    first = joined(earlier, first, np.uint32(voxel - steps[row + 1]))
            else:
                if not before and flat[voxel - steps[row]] == level:
                    first = joined(earlier, first, np.uint32(voxel - steps[row]))
                if flat[voxel - steps[row + 2]] == level:
                    first = joined(earlier, first, np.uint32(voxel - steps[row + 2]))
    size = np.zeros(inside.size, np.int64)
    # Positions give way to ranks, which is safe in raster order: whoever is pointed to came before.
    for rank in range(inside.size):
        voxel = inside[rank]
        first = earlier[voxel]
        earlier[voxel] = np.uint32(rank) if first == voxel else earlier[first]
        size[earlier[voxel]] += 1
    return size


@compiled("void(int16[::1], uint8[::1], uint64[::1], uint64[::1], float64[:, ::1])")
@no_type_check
def distances(flat, neighbours, inside, steps, matrix):
    """Adds voxels and distances to the mean neighbour to columns 0 and 1 of ``matrix (levels, 3)``.

    `neighbours` says how many of its neighbours are in the ROI. Voxel by voxel in raster order,
    since the sum of fractions depends on it.
    """
    total = np.empty(BLOCK, np.int16)
    first, last = np.int64(inside[0]), np.int64(inside[-1]) + 1
    for start in range(first, last, BLOCK):
        size = min(BLOCK, last - start)
        total[:] = 0
        for each in steps:
            step = np.int64(each)
            before = flat[start - step : start - step + size]
            after = flat[start + step : start + step + size]
            for k in range(size):
                total[k] += before[k] + after[k]
        here, count = flat[start : start + size], neighbours[start : start + size]
        for k in range(size):
            if here[k] > 0:
                matrix[here[k] - 1, 0] += 1
                if count[k] > 0:
                    matrix[here[k] - 1, 1] += abs(here[k] - total[k] / count[k])


@compiled("void(int16[::1], uint64[::1], uint64[::1], int16, float64[:, ::1])")
@no_type_check
def alike(flat, inside, steps, most, matrix):
    """Adds voxels to ``matrix (levels, neighbours)`` by neighbours within `most` levels of them."""
    lowest, span = np.empty(BLOCK, np.uint16), np.empty(BLOCK, np.uint16)
    count = np.empty(BLOCK, np.int16)
    first, last = np.int64(inside[0]), np.int64(inside[-1]) + 1
    for start in range(first, last, BLOCK):
        size = min(BLOCK, last - start)
        count[:] = 0
        here = flat[start : start + size]
        for k in range(size):
            lowest[k] = max(here[k] - most, 1)
            span[k] = here[k] + most - lowest[k]
        for each in steps:
            step = np.int64(each)
            before = flat[start - step : start - step + size]
            after = flat[start + step : start + step + size]
            # What is below the lowest level wraps to beyond the highest one.
            for k in range(size):
                near = np.int16(np.uint16(before[k] - lowest[k]) <= span[k])
                far = np.int16(np.uint16(after[k] - lowest[k]) <= span[k])
                count[k] += near + far
        for k in range(size):
            if here[k] > 0:
                matrix[here[k] - 1, count[k]] += 1


@compiled("void(float64[:, ::1], float64[::1], float64[::1], float64, float64[:, ::1])")
@no_type_check
def quotients(p, px, py, eps, q):
    """Sets ``q[i, j]`` to the sum over k, in order, of ``p[i, k] p[j, k] / (px[i] py[k] + eps)``.

    Its second eigenvalue is the square of the maximal correlation of ``p (levels, levels)``.
    """
    size = p.shape[0]
    q[:] = 0
    # By columns, so that neighbours in memory are added at once.
    across = p.T.copy()
    for i in range(size):
        for k in range(size):
            if p[i, k] != 0:
                divisor = px[i] * py[k] + eps
                for j in range(size):
                    q[i, j] += p[i, k] * across[k, j] / divisor


@compiled(
    "void(float64[:, :, ::1], float64[:, :, ::1], int64[::1], float64[::1], float64[:, ::1],"
    " float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1])"
)
@no_type_check
def margins(p, logs, gray, level, px, py, added, apart, means):
    """Adds ``p (directions, levels, levels)`` up by row, column, sum (less 2) and distance.

    Adds to ``means (3, directions)`` the mean level of a row, of a column, and ``p logs``.
    """
    for d in range(p.shape[0]):
        row, column, entropy = 0.0, 0.0, 0.0
        for i in range(gray.size):
            for j in range(gray.size):
                share = p[d, i, j]
                px[d, i] += share
                py[d, j] += share
                added[d, gray[i] + gray[j] - 2] += share
                apart[d, abs(gray[i] - gray[j])] += share
                row += level[i] * share
                column += level[j] * share
                entropy += share * logs[d, i, j]
        means[0, d], means[1, d], means[2, d] = row, column, entropy


@compiled(
    "void(float64[:, :, ::1], float64[:, :, ::1], float64[:, :, ::1], int64[::1], float64[::1],"
    " float64[:, ::1], float64[:, :, ::1], boolean, float64[:, ::1])"
)
@no_type_check
def pair_sums(p, both, logs, gray, level, means, raised, column_first, sums):
    """Sets each row of ``sums (11, directions)`` to a sum over pairs of levels (`pairs`).

    ``both (directions, levels, levels)`` is the product of the margins, `logs` of what it is;
    ``raised (3, directions, sums)`` are powers of the distance of a sum of levels to its mean.
    `column_first` says which of two distances is multiplied first.
    """
    for d in range(p.shape[0]):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = s10 = 0.0
        for i in range(gray.size):
            left = level[i] - means[0, d]
            for j in range(gray.size):
                share, right = p[d, i, j], level[j] - means[1, d]
                distance = abs(level[i] - level[j])
                at = gray[i] + gray[j] - 2
                s0 += share * (level[i] * level[j])
                s1 += share * (distance * distance)
                s2 += share * share
                s3 += share * (left * left)
                s4 += share * (right * right)
                s5 += share * right * left if column_first else share * left * right
                s6 += share * raised[0, d, at]
                s7 += share * raised[1, d, at]
                s8 += share * raised[2, d, at]
                s9 += share * logs[d, i, j]
                s10 += both[d, i, j] * logs[d, i, j]
        sums[:, d] = (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10)


@compiled(
    "void(float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1])"
)
@no_type_check
def level_sums(added, added_logs, apart, apart_logs, sums):
    """Sets each row of ``sums (10, directions)`` to a sum over sums or distances of two levels."""
    count = apart.shape[1]
    for d in range(apart.shape[0]):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = 0.0
        for k in range(added.shape[1]):
            s0 += (k + 2.0) * added[d, k]
            s1 += added[d, k] * added_logs[d, k]
        for k in range(count):
            share, away = apart[d, k], np.float64(k)
            s2 += away * share
            s3 += share * apart_logs[d, k]
            s5 += share / (1.0 + away)
            s6 += share / (1.0 + away * away)
            s7 += share / (1.0 + away / count)
            s8 += share / (1.0 + away * away / (count * count))
            if k > 0:
                s9 += share / (away * away)
        for k in range(count):
            s4 += apart[d, k] * ((k - s2) * (k - s2))
        sums[:, d] = (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9)


@compiled("void(float64[::1], float64[::1], int64[::1])")
@no_type_check
def digitise(values, edges, bins):
    """Sets `bins` to what ``numpy.digitize(values, edges)`` gives: near for edges evenly spaced."""
    last = edges.size - 1
    density = last / (edges[last] - edges[0])
    for k in range(values.size):
        value = values[k]
        guess = min(max((value - edges[0]) * density, 0.0), float(last))
        at = np.int64(guess) if guess == guess else last
        while at > 0 and value < edges[at]:
            at -= 1
        while at < last and not value < edges[at + 1]:
            at += 1
        bins[k] = at if value < edges[at] else at + 1


@compiled(
    "void(float64[:, :, ::1], float64[:, ::1], int64[:, ::1], int64[:, ::1],"
    " float64[:, :, ::1], float64[:, :, ::1])",
    "void(float32[:, :, ::1], float32[:, ::1], int64[:, ::1], int64[:, ::1],"
    " float32[:, :, ::1], float32[:, :, ::1])",
)
@no_type_check
def filtered(lines, filters, taps, sources, low, high):
    """Sets `low` and `high` to ``lines (outer, n, inner)``, filtered along n by ``filters (2, w)``.

    Term t of output i is tap ``taps[i, t]`` times sample ``sources[i, t]``; w is even, n no less.
    """
    outer, size, inner = lines.shape
    width = filters.shape[1]
    low[:] = 0
    high[:] = 0
    first, last = width - 1 - width // 2, size - width // 2
    for o in range(outer):
        if inner > 1:
            for i in range(size):
                smooth, sharp = low[o, i], high[o, i]
                # Two terms at a time, so that sums are written and read half as often.
                for t in range(0, width, 2):
                    one, two = taps[i, t], taps[i, t + 1]
                    a, b, c, d = filters[0, one], filters[0, two], filters[1, one], filters[1, two]
                    x, y = lines[o, sources[i, t]], lines[o, sources[i, t + 1]]
                    for k in range(inner):
                        smooth[k] = smooth[k] + a * x[k] + b * y[k]
                        sharp[k] = sharp[k] + c * x[k] + d * y[k]
            continue
        # Along memory: all but the ends tap by tap, where the samples lie in a row too.
        for i in range(size):
            if i < first or i >= last:
                for t in range(width):
                    low[o, i, 0] += filters[0, taps[i, t]] * lines[o, sources[i, t], 0]
                    high[o, i, 0] += filters[1, taps[i, t]] * lines[o, sources[i, t], 0]
        smooth, sharp = low[o, first:, 0], high[o, first:, 0]
        for t in range(0, width, 2):
            a, b, c, d = filters[0, t], filters[0, t + 1], filters[1, t], filters[1, t + 1]
            x, y = lines[o, width - 1 - t :, 0], lines[o, width - 2 - t :, 0]
            for k in range(last - first):
                smooth[k] = smooth[k] + a * x[k] + b * y[k]
                sharp[k] = sharp[k] + c * x[k] + d * y[k]


@compiled("float64(float64, float64, float64)")
@no_type_check
def lost(a, b, product):
    """What rounding took from ``product = a * b``, exactly."""
    up, across = 134217729.0 * a, 134217729.0 * b
    a_high, b_high = up - (up - a), across - (across - b)
    a_low, b_low = a - a_high, b - b_high
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@compiled("void(float64[::1], boolean, float64[::1], boolean[::1])")
@no_type_check
def negative_powers(values, fourth, powers, doubtful):
    """Sets `powers` of negative `values` to their third or fourth power, correctly rounded.

    `doubtful` says where the exact power lies so near the middle between two numbers that a power
    which errs by up to 0.528 units in the last place may be the other one: glibc states 0.511 for
    its own, and some 4e-5 more per unit of the power's logarithm.
    """
    for k in range(values.size):
        base = abs(values[k])
        # Products in two parts (Dekker 1971), so that nothing but the last addition rounds.
        square = base * base
        rest = lost(base, base, square)
        other = square if fourth else base
        high = square * other
        low = lost(square, other, high) + (rest * 2 * square if fourth else rest * base)
        power = high + low
        off = (high - power) + low
        negative = values[k] < 0
        powers[k] = (power if fourth else -power) if negative else powers[k]
        normal = (base > 1e-30) & (base < 1e30)
        doubtful[k] = negative & ((power + 1.06 * off != power) | (not normal))


@compiled("UniTuple(float64[::1], 4)(Array(float32, 1, 'C', readonly=True))")
@no_type_check
def sums(values):
    """Partial sums of `values`, what rounding took from them, and the same of the squares.

    What lies behind the last multiple of `LANES` is left out.
    """
    total, lost_of_total = np.zeros(LANES), np.zeros(LANES)
    square, lost_of_square = np.zeros(LANES), np.zeros(LANES)
    for start in range(0, values.size // LANES * LANES, LANES):
        part = values[start : start + LANES]
        for k in range(LANES):
            value = np.float64(part[k])
            # An addition in two parts (Knuth): the sum as rounded, and what is missing from it.
            before = total[k]
            after = before + value
            added = after - before
            lost_of_total[k] += (before - (after - added)) + (value - added)
            total[k] = after
            product = value * value
            before = square[k]
            after = before + product
            added = after - before
            lost_of_square[k] += (before - (after - added)) + (product - added)
            square[k] = after
    return total, lost_of_total, square, lost_of_square
