"""PyRadiomics' texture matrices by compiled loops over the ROI's voxels: the same numbers, sooner.

PyRadiomics' C code visits every voxel, asks for every neighbour whether it is inside the image and
the mask, and for run lengths walks every line of the box in 13 directions. Here the gray levels lie
in one flat array, 0 outside the ROI and in a border of one voxel, made once an image for all five
matrices, and `lens.radiomics.kernels` reads neighbours at an offset. The matrices are counts, so
they are equal, not close; the one sum of fractions (NGTDM) adds them in the order of the C code.
Shapes, types and memory layout are those of the C code too, since NumPy's sums depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int16, Integer, UInt8, UInt64

from lens.radiomics.engine import pyradiomics

CLASSES = ("glcm", "glrlm", "glszm", "ngtdm", "gldm")
"""Feature classes with a texture matrix."""

DIRECTIONS = tuple(
    (z, y, x) for z in (1, 0, -1) for y in (1, 0, -1) for x in (1, 0, -1) if (z, y, x) > (0, 0, 0)
)
"""Steps (z, y, x) to one of each pair of opposite neighbours, in PyRadiomics' order."""

MOST_LEVELS = 1259
"""The highest level that is counted here: 26 neighbours of it add up to no more than 16 bits."""

Gray = Integer[np.ndarray, "z y x"]
Roi = Bool[np.ndarray, "z y x"]


class Levels(NamedTuple):
    """Gray levels of an ROI in a flat array with a border.

    Attributes:
        flat: level of each voxel of the box and its border, 0 outside the ROI.
        inside: positions of the ROI's voxels in `flat`, in raster order.
        steps: offset in `flat` of each of `DIRECTIONS`, all positive.
        neighbours: of each position in `flat`, how many of the 26 are in the ROI.
        lines: of the box, at most, in the direction that has most of them.
    """

    flat: Int16[np.ndarray, " m"]
    inside: UInt64[np.ndarray, " n"]
    steps: UInt64[np.ndarray, " d"]
    neighbours: UInt8[np.ndarray, " m"]
    lines: int


def levels(image: Gray, mask: Roi, like: Levels | None = None) -> Levels:
    """The ROI's gray levels (1 to `MOST_LEVELS`) as a flat array; what is outside does not matter.

    Args:
        image: box of the ROI.
        mask: of the same shape.
        like: the levels of another image in the same mask, which saves looking for its voxels.
    """
    padded = np.zeros([n + 2 for n in image.shape], np.int16)
    np.copyto(padded[1:-1, 1:-1, 1:-1], image, where=mask, casting="unsafe")
    flat = padded.ravel()
    if like is not None:
        return like._replace(flat=flat)
    _, rows, columns = padded.shape
    steps = np.array([(z * rows + y) * columns + x for z, y, x in DIRECTIONS], np.uint64)
    inside = np.flatnonzero(flat).astype(np.uint64)
    z, y, x = image.shape
    return Levels(flat, inside, steps, _neighbours(flat > 0, steps), z * y + z * x + y * x)


def _neighbours(roi: Bool[np.ndarray, " m"], steps: np.ndarray) -> UInt8[np.ndarray, " m"]:
    """How many neighbours of each position of a flat array are in the ROI."""
    ones, count = roi.view(np.uint8), np.zeros(roi.size, np.uint8)
    for step in steps.tolist():
        count[step:] += ones[:-step]
        count[:-step] += ones[step:]
    return count


def glcm(ours: Levels, gray_levels: int) -> np.ndarray:
    """How often each level lies beside each other level, ``(1, levels, levels, directions)``."""
    matrix = np.empty((1, gray_levels, gray_levels, len(ours.steps)))
    _kernels().pairs(ours.flat, ours.inside, ours.steps, gray_levels, matrix[0])
    return matrix


def glrlm(ours: Levels, gray_levels: int, longest: int) -> np.ndarray | None:
    """How often each level forms a straight run of each length, ``(1, levels, runs, directions)``.

    None where the ROI has fewer voxels than the box has lines in some direction: the C code leaves
    out a direction in which every line holds one voxel, which cannot happen to a larger ROI.
    """
    if ours.inside.size <= ours.lines:
        return None
    matrix = np.empty((1, gray_levels, longest, len(ours.steps)))
    _kernels().runs(ours.flat, ours.inside, ours.steps, matrix[0])
    return matrix


def zone_sizes(ours: Levels) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Level and size of each connected zone of one level."""
    size = _kernels().zones(ours.flat, ours.inside, ours.steps)
    first = np.flatnonzero(size)
    return ours.flat[ours.inside[first]].astype(np.int64), size[first]


def glszm(ours: Levels, gray_levels: int) -> np.ndarray:
    """How often each level forms a connected zone of each size, ``(1, levels, sizes)``."""
    level, size = zone_sizes(ours)
    largest = int(size.max())
    cells = np.bincount((level - 1) * largest + size - 1, minlength=gray_levels * largest)
    return cells.reshape(1, gray_levels, largest).astype(np.float64)


def ngtdm(ours: Levels, gray_levels: int) -> np.ndarray:
    """Per level: voxels, their summed distance to the mean of the neighbours, and the level."""
    matrix = np.zeros((1, gray_levels, 3))
    _kernels().distances(ours.flat, ours.neighbours, ours.inside, ours.steps, matrix[0])
    matrix[0, :, 2] = np.arange(1, gray_levels + 1)
    return matrix


def gldm(ours: Levels, gray_levels: int, most: int) -> np.ndarray:
    """How often each level has each number of neighbours within `most` levels of it."""
    matrix = np.zeros((1, gray_levels, 2 * 2 * len(ours.steps) + 1))
    _kernels().alike(ours.flat, ours.inside, ours.steps, min(most, gray_levels), matrix[0])
    return matrix


@contextmanager
def counted_here() -> Iterator[Seen]:
    """PyRadiomics takes its texture matrices from this module inside the block.

    Only for what this module counts: three dimensions, neighbours at distance 1, a whole ROI.
    Everything else goes to the C code as before, which is back after the block.

    Yields:
        The levels of the image at hand.
    """
    package = pyradiomics().__name__
    modules: list[Any] = [import_module(f"{package}.{name}") for name in CLASSES]
    original = modules[0].cMatrices
    seen = Seen()
    stand_in = SimpleNamespace(
        calculate_glcm=_or_c(original.calculate_glcm, _glcm, seen),
        calculate_glrlm=_or_c(original.calculate_glrlm, _glrlm, seen),
        calculate_glszm=_or_c(original.calculate_glszm, _glszm, seen),
        calculate_ngtdm=_or_c(original.calculate_ngtdm, _ngtdm, seen),
        calculate_gldm=_or_c(original.calculate_gldm, _gldm, seen),
    )
    for module in modules:
        module.cMatrices = stand_in
    try:
        yield seen
    finally:
        for module in modules:
            module.cMatrices = original


class Seen:
    """The levels of the last image, for the feature classes that come with the same one."""

    def __init__(self) -> None:
        self._of: tuple[np.ndarray, np.ndarray] | None = None
        self._levels: Levels | None = None

    def levels(self, image: np.ndarray, mask: np.ndarray) -> Levels:
        """Those of an image in a mask: the last ones, where both are the same objects."""
        # Held, so that no other array can be taken for them; what may be written to may change.
        held = self._levels if self._of and not mask.flags.writeable else None
        if held is None or self._of is None or self._of[1] is not mask:
            made = levels(image, mask)
        elif self._of[0] is image and not image.flags.writeable:
            return held
        else:
            made = levels(image, mask, held)
        self._of, self._levels = (image, mask), made
        return made


def _kernels() -> ModuleType:
    """Imported late: a job whose workers do the counting need not wait for the compiler."""
    return import_module("lens.radiomics.kernels")


def _or_c(original: Callable[..., Any], ours: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    """`ours` with the arguments of the C function, which answers where `ours` gives None."""

    def calculate(image: np.ndarray, mask: np.ndarray, *rest: Any) -> Any:
        # Along an axis of one voxel there are no neighbours, hence other directions.
        ordinary = image.ndim == 3 and min(image.shape) > 1 and mask.any()
        made = ours(lambda: seen.levels(image, mask), *rest) if ordinary else None
        return original(image, mask, *rest) if made is None else made

    return calculate


def _angles() -> np.ndarray:
    return np.array(DIRECTIONS, np.int32)


def _other(gray_levels: int, force_2d: bool, kernel: Sequence[Any]) -> bool:
    """Whether only the C code counts so: in planes, by voxel, or so many levels."""
    return force_2d or bool(kernel) or gray_levels > MOST_LEVELS


def _near(distances: np.ndarray) -> bool:
    return list(distances) == [1]


def _glcm(found, distances, gray_levels, force_2d, dimension, *kernel):
    if _other(gray_levels, force_2d, kernel) or not _near(distances):
        return None
    return glcm(found(), gray_levels), _angles()


def _glrlm(found, gray_levels, longest, force_2d, dimension, *kernel):
    if _other(gray_levels, force_2d, kernel):
        return None
    matrix = glrlm(found(), gray_levels, int(longest))
    return None if matrix is None else (matrix, _angles())


def _glszm(found, gray_levels, voxels, force_2d, dimension, *kernel):
    return None if _other(gray_levels, force_2d, kernel) else glszm(found(), gray_levels)


def _ngtdm(found, distances, gray_levels, force_2d, dimension, *kernel):
    if _other(gray_levels, force_2d, kernel) or not _near(distances):
        return None
    return ngtdm(found(), gray_levels)


def _gldm(found, distances, gray_levels, most, force_2d, dimension, *kernel):
    if _other(gray_levels, force_2d, kernel) or not _near(distances) or most < 0:
        return None
    return gldm(found(), gray_levels, most)
