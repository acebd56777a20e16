"""Voxel grids in patient space: comparing them, reordering axes and sampling on another grid.

A grid is the geometry of a ``sitk.Image``: voxel index (x, y, z) -> mm by
``origin + direction @ (spacing * index)``, in LPS coordinates.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

SNAP_LIMIT = 0.25
"""Largest displacement, in voxels, that counts as rounding of the header.

Below half a voxel, nearest-neighbour sampling from one grid to the other returns every voxel
unchanged, so that copying the geometry is exactly that resampling. A quarter stays clear of the
half-voxel shift that a true error of convention (voxel centre against corner) causes.
"""


class Aligned(NamedTuple):
    """An image brought onto the index order of a reference grid.

    Attributes:
        image: same size and geometry as the reference.
        displacement_mm: how far the farthest voxel centre had to move, in mm.
        displacement: the same along the worst axis, in voxels of the reference.
        reordered: axes were flipped or swapped (an exact operation).
    """

    image: sitk.Image
    displacement_mm: float
    displacement: float
    reordered: bool


def align(image: sitk.Image, reference: sitk.Image) -> Aligned | None:
    """Puts an image on the grid of `reference` where no interpolation is needed for that.

    The voxels may be stored with flipped or permuted axes, and the geometries may differ by the
    rounding of file headers (`SNAP_LIMIT`); anything else is another grid.

    Returns:
        The aligned image, or None where the grids differ.
    """
    linear, offset = _index_map(image, reference)
    permutation = np.rint(linear)
    if not np.array_equal(np.abs(permutation) @ np.ones(3), np.ones(3)) or not np.array_equal(
        np.ones(3) @ np.abs(permutation), np.ones(3)
    ):
        return None
    size = np.array(image.GetSize())
    if not np.array_equal(np.abs(permutation) @ size, reference.GetSize()):
        return None
    # A flipped axis counts from the other end.
    start = np.where(permutation.sum(axis=1) < 0, np.array(reference.GetSize()) - 1, 0)
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in size])))
    moved = corners @ linear.T + offset - (corners @ permutation.T + start)
    displacement = float(np.abs(moved).max())
    if displacement > SNAP_LIMIT:
        return None
    source = np.abs(permutation).argmax(axis=1)
    flipped = permutation.sum(axis=1) < 0
    # Arrays are (z, y, x): axis k of the grid is axis 2 - k of the array.
    array = sitk.GetArrayFromImage(image).transpose(*(2 - source[::-1]))
    array = array[tuple(slice(None, None, -1 if f else 1) for f in flipped[::-1])]
    aligned = sitk.GetImageFromArray(np.ascontiguousarray(array))
    aligned.CopyInformation(reference)
    in_mm = np.linalg.norm(moved @ _affine(reference)[0].T, axis=1).max()
    return Aligned(aligned, float(in_mm), displacement, not np.array_equal(permutation, np.eye(3)))


def target_grid(reference: sitk.Image, spacing_mm: tuple[float, float, float]) -> sitk.Image:
    """An empty float32 image with the axes, centre and extent of `reference` at another spacing.

    The extent is rounded to whole voxels (each side within half a target voxel), and every voxel
    centre lies inside the reference.
    """
    old_size, old_spacing = np.array(reference.GetSize()), np.array(reference.GetSpacing())
    spacing = np.array(spacing_mm, dtype=float)
    size = np.maximum(1, np.rint(old_size * old_spacing / spacing)).astype(int)
    shift_mm = (old_size - 1) * old_spacing / 2 - (size - 1) * spacing / 2
    direction = np.array(reference.GetDirection()).reshape(3, 3)
    grid = sitk.Image(size.tolist(), sitk.sitkFloat32)
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection(reference.GetDirection())
    grid.SetOrigin((np.array(reference.GetOrigin()) + direction @ shift_mm).tolist())
    return grid


def sample(image: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Trilinear values of `image` at the voxel centres of `grid`, zero outside the image."""
    return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)


def sample_mask(mask: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Nearest-neighbour values of `mask` at the voxel centres of `grid`, as uint8.

    Both share their axes (`grid` comes from `target_grid` of the mask's own grid), so that the
    neighbour is chosen per axis. A centre halfway between two voxels takes the upper one, decided
    with a margin: rounding in the header must not decide, or the same mask beside a DICOM and a
    NIfTI copy of an image would differ.
    """
    linear, offset = _index_map(grid, mask)
    picks = []
    for axis in range(3):
        position = np.arange(grid.GetSize()[axis]) * linear[axis, axis] + offset[axis]
        index = np.floor(position + 0.5 + 1e-4).astype(int)
        picks.append(np.clip(index, 0, mask.GetSize()[axis] - 1))
    array = sitk.GetArrayViewFromImage(mask)[np.ix_(picks[2], picks[1], picks[0])]
    sampled = sitk.GetImageFromArray(array.astype(np.uint8))
    sampled.CopyInformation(grid)
    return sampled


def outside(image: sitk.Image, mask: sitk.Image) -> int:
    """Number of voxels of `mask` whose centre lies outside the field of view of `image`."""
    linear, offset = _index_map(mask, image)
    inside_mask = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0)[:, ::-1]
    index = inside_mask @ linear.T + offset
    last = np.array(image.GetSize()) - 0.5
    return int(np.count_nonzero(np.any((index < -0.5) | (index > last), axis=1)))


def mismatch(image: sitk.Image, reference: sitk.Image) -> str:
    """How two grids differ, in words: size, spacing, orientation and position."""
    parts = []
    if image.GetSize() != reference.GetSize():
        parts.append(f"size {voxels(image)} against {voxels(reference)}")
    if not np.allclose(image.GetSpacing(), reference.GetSpacing(), rtol=1e-3):
        parts.append(f"spacing {spacing(image)} against {spacing(reference)}")
    turn = np.array(image.GetDirection()).reshape(3, 3).T @ np.array(
        reference.GetDirection()
    ).reshape(3, 3)
    # Stored axis order and sign are no rotation; the closest axes are compared.
    angle = np.degrees(np.arccos(np.clip(np.abs(turn).max(axis=1).min(), -1, 1)))
    if angle > 0.1:
        parts.append(f"axes turned by {angle:.1f} degrees")
    apart = np.linalg.norm(_centre(image) - _centre(reference))
    parts.append(f"centres {apart:.2f} mm apart")
    return ", ".join(parts)


def voxels(image: sitk.Image) -> str:
    """The size in words: ``384 x 384 x 19``."""
    return " x ".join(str(n) for n in image.GetSize())


def spacing(image: sitk.Image) -> str:
    """The spacing in words: ``0.5 x 0.5 x 3 mm``."""
    return " x ".join(f"{mm:.4g}" for mm in image.GetSpacing()) + " mm"


def _affine(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return direction * np.array(image.GetSpacing()), np.array(image.GetOrigin())


def _index_map(source: sitk.Image, target: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """(3, 3) and (3,): the index in `target` of a voxel index in `source`, in (x, y, z) order."""
    to_mm, origin = _affine(source)
    target_to_mm, target_origin = _affine(target)
    to_index = np.linalg.inv(target_to_mm)
    return to_index @ to_mm, to_index @ (origin - target_origin)


def _centre(image: sitk.Image) -> np.ndarray:
    to_mm, origin = _affine(image)
    return origin + to_mm @ ((np.array(image.GetSize()) - 1) / 2)
