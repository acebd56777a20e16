"""Where the control edit goes: a region of the same size outside of the edited one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from scipy.signal import fftconvolve

Found = Literal["copy", "shell"]


class Place(NamedTuple):
    """A control region.

    Attributes:
        region: on the grid of the image.
        found: ``copy``: the region itself, moved without turning; ``shell``: as many of the nearest
            voxels outside, where no copy fits.
    """

    region: Bool[np.ndarray, "z y x"]
    found: Found


def place(
    region: Bool[np.ndarray, "z y x"],
    body: Bool[np.ndarray, "z y x"],
    spacing_mm: Sequence[float],
    *,
    hosts: Sequence[Bool[np.ndarray, "z y x"]] = (),
    gap_mm: float = 0.0,
    shell: bool = True,
) -> Place | None:
    """A region of the same number of voxels in the body, apart from the given one.

    A copy of the region in the host that holds all of it (the organ of a lesion), else anywhere in
    the body; of all places the nearest. Where there is none, a shell.

    Args:
        region: the edited one, with voxels.
        body: where there is tissue.
        spacing_mm: edges of a voxel along z, y, x.
        hosts: other regions of the case.
        gap_mm: to be kept from the region beside the next voxel.
        shell: whether a shell will do.

    Returns:
        The place; None where the body has no room.
    """
    away = np.asarray(distance_transform_edt(~region, sampling=spacing_mm))
    # The longest edge: not even the corner of a voxel is shared.
    free = body & (away > max(spacing_mm) * np.sqrt(3) * 0.999 + gap_mm)
    holding = [host for host in hosts if not np.any(region & ~host) and host.sum() > region.sum()]
    for host in [*sorted(holding, key=np.count_nonzero), None]:
        allowed = free if host is None else free & host
        if (copy := _nearest_copy(region, allowed, spacing_mm)) is not None:
            return Place(copy, "copy")
    count = int(region.sum())
    near = np.flatnonzero(free)
    if not shell or len(near) < count:
        return None
    order = np.argsort(away.ravel()[near], kind="stable")[:count]
    out = np.zeros(region.size, bool)
    out[near[order]] = True
    return Place(out.reshape(region.shape), "shell")


def _nearest_copy(
    region: Bool[np.ndarray, "z y x"],
    allowed: Bool[np.ndarray, "z y x"],
    spacing_mm: Sequence[float],
) -> Bool[np.ndarray, "z y x"] | None:
    """The region moved by whole voxels into what is allowed, as little as possible."""
    if allowed.sum() < region.sum():
        return None
    box = _box(region)
    kernel = region[box].astype(np.float32)
    # Voxels of the copy that would lie where they may not, for every place of its box.
    hits = fftconvolve((~allowed).astype(np.float32), kernel[::-1, ::-1, ::-1], mode="valid")
    fits = np.argwhere(hits < 0.5)
    if not len(fits):
        return None
    start = np.array([part.start for part in box])
    far: Float[np.ndarray, " f"] = np.linalg.norm((fits - start) * np.array(spacing_mm), axis=1)
    corner = fits[int(np.argmin(far))]
    out = np.zeros_like(region)
    inner = tuple(slice(int(a), int(a) + n) for a, n in zip(corner, kernel.shape, strict=True))
    out[inner] = region[box]
    return out


def _box(region: Bool[np.ndarray, "z y x"]) -> tuple[slice, ...]:
    occupied = [np.flatnonzero(region.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(axis[0]), int(axis[-1]) + 1) for axis in occupied)
