"""PyRadiomics' texture matrices counted with NumPy: the same numbers, several times sooner.

PyRadiomics' C code visits every voxel, asks for every neighbour whether it is inside the image and
the mask, and for run lengths walks every line of the box in 13 directions. Here the gray levels lie
in one flat array, 0 outside the ROI and in a border of one voxel, so that a direction is an offset
into it and a comparison of two slices answers for all voxels at once. The matrices are counts, so
they are equal, not close; the one sum of fractions (NGTDM) adds them in the order of the C code.
Shapes, types and memory layout are those of the C code too, since NumPy's sums depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer

from lens.radiomics.engine import pyradiomics

CLASSES = ("glcm", "glrlm", "glszm", "ngtdm", "gldm")
"""Feature classes with a texture matrix."""

DIRECTIONS = tuple(
    (z, y, x) for z in (1, 0, -1) for y in (1, 0, -1) for x in (1, 0, -1) if (z, y, x) > (0, 0, 0)
)
"""Steps (z, y, x) to one of each pair of opposite neighbours, in PyRadiomics' order."""

Gray = Integer[np.ndarray, "z y x"]
Roi = Bool[np.ndarray, "z y x"]


class Levels(NamedTuple):
    """Gray levels of an ROI in a flat array with a border.

    Attributes:
        flat: level of each voxel of the box and its border, 0 outside the ROI.
        inside: positions of the ROI's voxels in `flat`, in raster order.
        steps: offset in `flat` of each of `DIRECTIONS`, all positive.
    """

    flat: Int[np.ndarray, " m"]
    inside: Int[np.ndarray, " n"]
    steps: tuple[int, ...]


def levels(image: Gray, mask: Roi) -> Levels:
    """The ROI's gray levels (1 and up) as a flat array; what lies outside does not matter."""
    # The sum of 26 neighbours must fit, and half the memory is nearly half the time.
    small = 26 * int(image.max(where=mask, initial=0)) < 2**15
    padded = np.zeros([n + 2 for n in image.shape], np.int16 if small else np.int32)
    np.copyto(padded[1:-1, 1:-1, 1:-1], image, where=mask, casting="unsafe")
    flat = padded.ravel()
    _, rows, columns = padded.shape
    steps = tuple((z * rows + y) * columns + x for z, y, x in DIRECTIONS)
    return Levels(flat, np.flatnonzero(flat), steps)


def glcm(image: Gray, mask: Roi, gray_levels: int) -> np.ndarray:
    """How often each level lies beside each other level, ``(1, levels, levels, directions)``."""
    flat, inside, steps = levels(image, mask)
    here = flat[inside].astype(np.intp) * (gray_levels + 1)
    shape = (gray_levels + 1, gray_levels + 1)
    matrix = np.empty((1, gray_levels, gray_levels, len(steps)))
    for direction, step in enumerate(steps):
        pairs = np.bincount(here + flat[inside + step], minlength=shape[0] * shape[1])
        matrix[0, :, :, direction] = pairs.reshape(shape)[1:, 1:]
    return matrix


def glrlm(image: Gray, mask: Roi, gray_levels: int, longest: int) -> np.ndarray | None:
    """How often each level forms a straight run of each length, ``(1, levels, runs, directions)``.

    None where the ROI has fewer voxels than the box has lines in some direction: the C code leaves
    out a direction in which every line holds one voxel, which cannot happen to a larger ROI.
    """
    flat, inside, steps = levels(image, mask)
    z, y, x = image.shape
    if inside.size <= z * y + z * x + y * x:
        return None
    matrix = np.zeros((1, gray_levels, longest, len(steps)))
    for direction, step in enumerate(steps):
        goes_on = np.zeros(flat.size, bool)
        np.equal(flat[step:], flat[:-step], out=goes_on[:-step])
        last = inside[~goes_on[inside - step]]
        for length in range(longest):
            longer = goes_on[last]
            ended = np.bincount(flat[last[~longer]], minlength=gray_levels + 1)
            matrix[0, :, length, direction] = ended[1:]
            last = last[longer] + step
            if not last.size:
                break
    return matrix


def glszm(image: Gray, mask: Roi, gray_levels: int) -> np.ndarray:
    """How often each level forms a connected zone of each size, ``(1, levels, sizes)``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    flat, inside, steps = levels(image, mask)
    index = np.zeros(flat.size, np.int32)
    index[inside] = np.arange(inside.size, dtype=np.int32)
    starts, ends = [], []
    for step in steps:
        start = np.flatnonzero((flat[step:] == flat[:-step]) & (flat[:-step] > 0))
        starts.append(index[start])
        ends.append(index[start + step])
    edge = np.concatenate(starts), np.concatenate(ends)
    graph = coo_array((np.ones(edge[0].size, np.int8), edge), shape=(inside.size,) * 2)
    count, zone = connected_components(graph, directed=False)
    size = np.bincount(zone, minlength=count)
    level = np.empty(count, np.intp)
    level[zone] = flat[inside]
    largest = int(size.max())
    cells = np.bincount((level - 1) * largest + size - 1, minlength=gray_levels * largest)
    return cells.reshape(1, gray_levels, largest).astype(np.float64)


def ngtdm(image: Gray, mask: Roi, gray_levels: int) -> np.ndarray:
    """Per level: voxels, their summed distance to the mean of the neighbours, and the level."""
    flat, inside, steps = levels(image, mask)
    total, count = np.zeros_like(flat), np.zeros(flat.size, np.uint8)
    present = (flat > 0).view(np.uint8)
    for step in steps:
        total[:-step] += flat[step:]
        total[step:] += flat[:-step]
        count[:-step] += present[step:]
        count[step:] += present[:-step]
    level, neighbours = flat[inside].astype(np.intp), count[inside]
    distance = np.abs(level - total[inside] / np.maximum(neighbours, 1))
    distance[neighbours == 0] = 0
    matrix = np.empty((1, gray_levels, 3))
    matrix[0, :, 0] = np.bincount(level, minlength=gray_levels + 1)[1:]
    matrix[0, :, 1] = np.bincount(level, weights=distance, minlength=gray_levels + 1)[1:]
    matrix[0, :, 2] = np.arange(1, gray_levels + 1)
    return matrix


def gldm(image: Gray, mask: Roi, gray_levels: int, most: int) -> np.ndarray:
    """How often each level has each number of neighbours within `most` levels of it."""
    flat, inside, steps = levels(image, mask)
    # Further from every level than any two levels are alike.
    apart = np.where(flat > 0, flat, -1 - most).astype(flat.dtype)
    count = np.zeros(flat.size, np.uint8)
    for step in steps:
        alike = np.abs(apart[step:] - apart[:-step]) <= most
        count[:-step] += alike
        count[step:] += alike
    sizes = 2 * 2 * len(steps) + 1
    cells = (flat[inside].astype(np.intp) - 1) * sizes + count[inside]
    matrix = np.bincount(cells, minlength=gray_levels * sizes)
    return matrix.reshape(1, gray_levels, sizes).astype(np.float64)


@contextmanager
def counted_by_numpy() -> Iterator[None]:
    """PyRadiomics takes its texture matrices from this module inside the block.

    Only for what this module counts: three dimensions, neighbours at distance 1, a whole ROI.
    Everything else goes to the C code as before, which is back after the block.
    """
    package = pyradiomics().__name__
    modules: list[Any] = [import_module(f"{package}.{name}") for name in CLASSES]
    original = modules[0].cMatrices
    stand_in = SimpleNamespace(
        calculate_glcm=_or_c(original.calculate_glcm, _glcm),
        calculate_glrlm=_or_c(original.calculate_glrlm, _glrlm),
        calculate_glszm=_or_c(original.calculate_glszm, _glszm),
        calculate_ngtdm=_or_c(original.calculate_ngtdm, _ngtdm),
        calculate_gldm=_or_c(original.calculate_gldm, _gldm),
    )
    for module in modules:
        module.cMatrices = stand_in
    try:
        yield
    finally:
        for module in modules:
            module.cMatrices = original


def _or_c(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """`ours` with the arguments of the C function, which answers where `ours` gives None."""

    def calculate(image: np.ndarray, mask: np.ndarray, *rest: Any) -> Any:
        # Along an axis of one voxel there are no neighbours, hence other directions.
        ordinary = image.ndim == 3 and min(image.shape) > 1 and mask.any()
        made = ours(image, mask, *rest) if ordinary else None
        return original(image, mask, *rest) if made is None else made

    return calculate


def _angles() -> np.ndarray:
    return np.array(DIRECTIONS, np.int32)


def _near(distances: np.ndarray) -> bool:
    return list(distances) == [1]


def _glcm(image, mask, distances, gray_levels, force_2d, dimension, *kernel):
    if force_2d or kernel or not _near(distances):
        return None
    return glcm(image, mask, gray_levels), _angles()


def _glrlm(image, mask, gray_levels, longest, force_2d, dimension, *kernel):
    if force_2d or kernel:
        return None
    matrix = glrlm(image, mask, gray_levels, int(longest))
    return None if matrix is None else (matrix, _angles())


def _glszm(image, mask, gray_levels, voxels, force_2d, dimension, *kernel):
    return None if force_2d or kernel else glszm(image, mask, gray_levels)


def _ngtdm(image, mask, distances, gray_levels, force_2d, dimension, *kernel):
    if force_2d or kernel or not _near(distances):
        return None
    return ngtdm(image, mask, gray_levels)


def _gldm(image, mask, distances, gray_levels, most, force_2d, dimension, *kernel):
    # Beyond 1,000 levels apart the numbers would not fit.
    if force_2d or kernel or not _near(distances) or not 0 <= most <= 1000:
        return None
    return gldm(image, mask, gray_levels, most)
