"""Voxel grids in patient space: comparing them, reordering axes and sampling on another grid.

A grid is the geometry of a ``sitk.Image``: voxel index (x, y, z) -> mm by
``origin + direction @ (spacing * index)``, in LPS coordinates.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from jaxtyping import Shaped

SNAP_LIMIT = 0.25
"""Largest displacement, in voxels, that counts as rounding of the header.

Below half a voxel, nearest-neighbour sampling from one grid to the other returns every voxel
unchanged, so that copying the geometry is exactly that resampling. A quarter stays clear of the
half-voxel shift that a true error of convention (voxel centre against corner) causes.
"""


MENTION = 1e-3
"""Displacement in voxels from which a snapped geometry is mentioned."""

PARALLEL_DEGREES = 1.0
"""Largest angle between grids of one study that count as parallel: headers round to far less, and
series planned apart differ by more."""


PLACE_STEP, TURN_STEP = 1 / 9600, 1 / 9600 / 1024
"""Steps to which sampling places are rounded, in voxels and in voxels per voxel. Single precision
moves a place by 1e-6 voxel. The grids of one study often differ by simple fractions: 9600 holds
halves to 128ths, thirds and 25ths exactly, and no decimal of four digits lies between two steps."""


Box = tuple[slice, ...]
"""Part of a grid: a range of indices along z, y and x, as of an array."""


class Order(NamedTuple):
    """How an image lies on a reference grid that needs no interpolation.

    Attributes:
        source: axis (x, y, z) of the image that each axis of the reference is.
        flipped: axes of the reference along which the image counts from the other end.
        displacement_mm: how far the farthest voxel centre has to move, in mm.
        displacement: the same along the worst axis, in voxels of the reference.
    """

    source: tuple[int, ...]
    flipped: tuple[bool, ...]
    displacement_mm: float
    displacement: float

    @property
    def reordered(self) -> bool:
        """Axes are flipped or swapped (an exact operation)."""
        return self.source != (0, 1, 2) or any(self.flipped)


def order_of(image: sitk.Image, reference: sitk.Image) -> Order | None:
    """How an image has to be reordered to lie on the grid of `reference`, from geometry alone.

    The voxels may be stored with flipped or permuted axes, and the geometries may differ by the
    rounding of file headers (`SNAP_LIMIT`); anything else is another grid.

    Returns:
        The order, or None where the grids differ.
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
    in_mm = np.linalg.norm(moved @ _affine(reference)[0].T, axis=1).max()
    return Order(tuple(source.tolist()), tuple(flipped.tolist()), float(in_mm), displacement)


def align(image: sitk.Image, reference: sitk.Image, order: Order) -> sitk.Image:
    """An image on the grid of `reference`, reordered as `order_of` says; itself where it lies there
    as it is."""
    if not order.reordered and same_grid(image, reference):
        return image
    # Arrays are (z, y, x): axis k of the grid is axis 2 - k of the array.
    axes = [2 - axis for axis in order.source[::-1]]
    array = sitk.GetArrayViewFromImage(image).transpose(*axes)
    array = array[tuple(slice(None, None, -1 if f else 1) for f in order.flipped[::-1])]
    aligned = sitk.GetImageFromArray(np.ascontiguousarray(array))
    aligned.CopyInformation(reference)
    return aligned


def same_grid(one: sitk.Image, other: sitk.Image) -> bool:
    """Whether size, spacing, place and axes are the same numbers."""
    asked = ("GetSize", "GetSpacing", "GetOrigin", "GetDirection")
    return all(getattr(one, ask)() == getattr(other, ask)() for ask in asked)


def in_order(image: sitk.Image) -> sitk.Image:
    """A volume with its axes in LPS order (exact); a single slice as it is, in its plane."""
    if image.GetSize()[2] == 1 or stored_order(image) == "LPS":
        return image
    return sitk.DICOMOrient(image, "LPS")


def stored_order(image: sitk.Image) -> str:
    """What the axes x, y and z are nearest to, such as ``LPS``."""
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())


def target_grid(reference: sitk.Image, spacing_mm: tuple[float, float, float]) -> sitk.Image:
    """An empty uint8 image with the axes, centre and extent of `reference` at another spacing.

    The extent is rounded to whole voxels (each side within half a target voxel), and every voxel
    centre lies inside the reference. A single slice keeps its thickness.
    """
    old_size, old_spacing = np.array(reference.GetSize()), np.array(reference.GetSpacing())
    spacing = np.array(spacing_mm, dtype=float)
    if old_size[2] == 1:
        spacing[2] = old_spacing[2]
    size = np.maximum(1, np.rint(old_size * old_spacing / spacing)).astype(int)
    shift_mm = (old_size - 1) * old_spacing / 2 - (size - 1) * spacing / 2
    direction = np.array(reference.GetDirection()).reshape(3, 3)
    grid = sitk.Image(size.tolist(), sitk.sitkUInt8)
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection(reference.GetDirection())
    grid.SetOrigin((np.array(reference.GetOrigin()) + direction @ shift_mm).tolist())
    return grid


def cut(image: sitk.Image, box: Box) -> sitk.Image:
    """The part of an image in a box, where it lies."""
    if all(part == slice(0, n) for part, n in zip(box, image.GetSize()[::-1], strict=True)):
        return image
    size, start = [[part.stop - part.start for part in box], [part.start for part in box]]
    return sitk.RegionOfInterest(image, size[::-1], start[::-1])


def whole(image: sitk.Image) -> Box:
    """The box of a whole image."""
    return tuple(slice(0, n) for n in image.GetSize()[::-1])


def box_of(inside: Shaped[np.ndarray, "z y x"]) -> Box:
    """The smallest box about all that is true or not zero, of which there is some."""
    z = np.flatnonzero(np.any(inside, axis=(1, 2)))
    # Slices without any are not looked at again.
    plane = np.any(inside[z[0] : z[-1] + 1], axis=0)
    rows, columns = (np.flatnonzero(np.any(plane, axis=axis)) for axis in (1, 0))
    return tuple(slice(int(axis[0]), int(axis[-1]) + 1) for axis in (z, rows, columns))


def box_with_margin(
    shape: Sequence[int], masks: Iterable[Shaped[np.ndarray, "z y x"]], margin: Sequence[int]
) -> Box:
    """The smallest box about all regions, widened as far as the image reaches; all of it without a
    region.

    Args:
        shape: (z, y, x) of the image in voxels.
        masks: true, or above zero, in a region.
        margin: voxels (z, y, x) on every side.
    """
    boxes = [box_of(mask) for mask in masks if mask.any()]
    if not boxes:
        return tuple(slice(0, size) for size in shape)
    return tuple(
        slice(max(min(p.start for p in parts) - more, 0), min(max(p.stop for p in parts) + more, n))
        for parts, more, n in zip(zip(*boxes, strict=True), margin, shape, strict=True)
    )


def sample(
    image: sitk.Image,
    grid: sitk.Image,
    *,
    padding: float | None = None,
    box: Box | None = None,
) -> sitk.Image:
    """Trilinear values of `image` at the voxel centres of `grid`, zero outside the image.

    The places are rounded to about a ten-thousandth of a voxel (`PLACE_STEP`), far below what a
    header promises: formats that keep geometry in single and in double precision give the same
    values to the last bit.

    Args:
        image: the values.
        grid: where they are wanted.
        padding: values no higher are no measurement: they take no part in an average, and stand
            where less than half of its weight is measured, and outside the image.
        box: part of the grid that is wanted, with the values that it has on the whole; None for
            all of it.
    """
    box = whole(grid) if box is None else box
    if padding is None:
        return _interpolated(image, grid, box)
    voxels = sitk.GetArrayViewFromImage(image)
    measured = voxels > padding
    parts = []
    for values in (np.where(measured, voxels, 0), measured):
        part = sitk.GetImageFromArray(values.astype(np.float32))
        part.CopyInformation(image)
        parts.append(_interpolated(part, grid, box))
    total, weight = map(sitk.GetArrayViewFromImage, parts)
    kept = weight >= 0.5
    out = np.full(total.shape, np.float32(padding))
    np.divide(total, weight, out=out, where=kept)
    sampled = sitk.GetImageFromArray(out)
    sampled.CopyInformation(cut(grid, box))
    return sampled


def _interpolated(image: sitk.Image, grid: sitk.Image, box: Box) -> sitk.Image:
    """Trilinear values, zero outside."""
    linear, offset = _index_map(grid, image)
    matrix, shift = np.rint(linear / TURN_STEP) * TURN_STEP, np.rint(offset / PLACE_STEP)
    to_image = sitk.AffineTransform(3)
    to_image.SetMatrix(matrix.ravel().tolist())
    to_image.SetTranslation((shift * PLACE_STEP).tolist())
    here = cut(grid, box)
    if np.array_equal(matrix, np.eye(3)) and not shift.any() and image.GetSize() == grid.GetSize():
        # Every place is that of a voxel, whose value it has.
        sampled = cut(image, box)
        if sampled.GetPixelID() == sitk.sitkFloat32:
            return sampled if same_grid(sampled, here) else _on_grid(sampled, here)
    # Whole lines along x: ITK finds places along a line from its ends, in this way always the same.
    z, y, x = box
    # In voxel indices, where neither file's millimetres play a part.
    sampled = sitk.Resample(
        _without_geometry(image),
        (grid.GetSize()[0], y.stop - y.start, z.stop - z.start),
        to_image,
        sitk.sitkLinear,
        (0.0, float(y.start), float(z.start)),
        (1.0, 1.0, 1.0),
        np.eye(3).ravel().tolist(),
        0.0,
        sitk.sitkFloat32,
    )
    if (x.start, x.stop) != (0, grid.GetSize()[0]):
        sampled = sampled[x.start : x.stop]
    sampled.CopyInformation(here)
    return sampled


def _on_grid(image: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """A copy with the geometry of another image."""
    placed = sitk.Image(image)
    placed.CopyInformation(grid)
    return placed


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
    voxels = sitk.GetArrayViewFromImage(mask)
    array = np.zeros(grid.GetSize()[::-1], np.uint8)
    if voxels.any():
        # Looked at where there is a region alone: in most of an image there is none.
        near = [
            np.flatnonzero((pick >= part.start) & (pick < part.stop))
            for pick, part in zip(picks[::-1], box_of(voxels), strict=True)
        ]
        if all(map(len, near)):
            chosen = (pick[at] for pick, at in zip(picks[::-1], near, strict=True))
            array[tuple(slice(at[0], at[-1] + 1) for at in near)] = voxels[np.ix_(*chosen)]
    sampled = sitk.GetImageFromArray(array)
    sampled.CopyInformation(grid)
    return sampled


def nearest(mask: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Nearest-neighbour values of `mask` at the voxel centres of any `grid`, as uint8 0/1.

    The general form of `sample_mask`, for axes that are not shared; ties are decided alike. Zero
    outside the mask's field of view.
    """
    out = np.zeros(grid.GetSize()[::-1], np.uint8)
    voxels = sitk.GetArrayViewFromImage(mask)
    if voxels.any():
        inside = box_of(voxels)[::-1]
        low, high = (np.array([getattr(part, end) for part in inside]) for end in ("start", "stop"))
        box = _box(mask, grid, low, high - 1)
        out[tuple(slice(low, high) for low, high in box[::-1])] = _pick(mask, grid, box)
    image = sitk.GetImageFromArray(out)
    image.CopyInformation(grid)
    return image


def dice(first: sitk.Image, second: sitk.Image) -> float:
    """Overlap of two masks on one grid, ``2 |A and B| / (|A| + |B|)``; 1 where both are empty."""
    a, b = (sitk.GetArrayViewFromImage(mask) > 0 for mask in (first, second))
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def volume_mm3(mask: sitk.Image) -> float:
    """Volume of the voxels above zero."""
    count = np.count_nonzero(sitk.GetArrayViewFromImage(mask))
    return float(count * np.prod(mask.GetSpacing()))


def another_space(mask: sitk.Image, image: sitk.Image) -> str | None:
    """Says why two grids were not laid over the same anatomy; None where they can have been.

    Scanner coordinates alone cannot tell, since every prostate lies near the centre of the magnet.
    What one study's grids share, and a stranger's rarely do, is the slab: parallel axes, and along
    each of them one field of view within the other (a crop, a margin, another spacing of the same
    slab).
    """
    angle = _angle(mask, image)
    if angle > PARALLEL_DEGREES:
        return f"its axes are turned by {angle:.1f} degrees"
    linear, offset = _index_map(mask, image)
    source = np.abs(linear).argmax(axis=1)
    steps = np.abs(linear[np.arange(3), source])
    # The centres of the first and last voxel along each axis, halfway along the others.
    middle = (np.array(mask.GetSize()) - 1) / 2
    shifts = []
    for axis, (from_axis, step) in enumerate(zip(source, steps, strict=True)):
        ends = np.tile(middle, (2, 1))
        ends[:, from_axis] = -0.5, mask.GetSize()[from_axis] - 0.5
        low, high = np.sort((ends @ linear.T + offset)[:, axis])
        first, last = -0.5, image.GetSize()[axis] - 0.5
        same = abs(step - 1) < 1e-3
        shifts.append(abs(low - first - round(low - first)) if same else 0.0)
        slack = SNAP_LIMIT if same else max(1.0, step)
        within = low >= first - slack and high <= last + slack
        around = low <= first + slack and high >= last - slack
        if not within and not around:
            mm = np.array([low, high, first, last]) * image.GetSpacing()[axis]
            return (
                f"along {'xyz'[axis]} it reaches from {mm[0] - mm[2]:.1f} to "
                f"{mm[1] - mm[2]:.1f} mm, where the image reaches from 0 to {mm[3] - mm[2]:.1f} mm"
            )
    if np.all(np.abs(steps - 1) < 1e-3) and max(shifts) > SNAP_LIMIT:
        return (
            f"its voxels are of the same size but lie {max(shifts):.2f} voxel beside those of the "
            "image, as after an error in the header"
        )
    return None


def outside(image: sitk.Image, mask: sitk.Image) -> int:
    """Number of voxels of `mask` whose centre lies outside the field of view of `image`."""
    linear, offset = _index_map(mask, image)
    last = np.array(image.GetSize()) - 0.5
    voxels = sitk.GetArrayViewFromImage(mask)
    if not voxels.any():
        return 0
    box = box_of(voxels)
    corners = np.array(list(itertools.product(*[(part.start, part.stop - 1) for part in box])))
    reached = corners[:, ::-1] @ linear.T + offset
    # Within a box that lies within by more than rounding, every voxel does.
    if np.all((reached > -0.5 + 1e-6) & (reached < last - 1e-6)):
        return 0
    inside = np.argwhere(voxels[box] > 0) + [part.start for part in box]
    index = inside[:, ::-1] @ linear.T + offset
    return int(np.count_nonzero(np.any((index < -0.5) | (index > last), axis=1)))


def mismatch(image: sitk.Image, reference: sitk.Image) -> str:
    """How two grids differ, in words: size, spacing, orientation and position."""
    parts = []
    if image.GetSize() != reference.GetSize():
        parts.append(f"size {voxels(image)} against {voxels(reference)}")
    if not np.allclose(image.GetSpacing(), reference.GetSpacing(), rtol=1e-3):
        parts.append(f"spacing {spacing(image)} against {spacing(reference)}")
    angle = _angle(image, reference)
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


def _without_geometry(image: sitk.Image) -> sitk.Image:
    plain = sitk.Image(image)
    plain.SetOrigin((0.0, 0.0, 0.0))
    plain.SetSpacing((1.0, 1.0, 1.0))
    plain.SetDirection(np.eye(3).ravel().tolist())
    return plain


def _angle(image: sitk.Image, reference: sitk.Image) -> float:
    """Degrees between the closest axes; stored axis order and sign are no rotation."""
    turn = np.array(image.GetDirection()).reshape(3, 3).T @ np.array(
        reference.GetDirection()
    ).reshape(3, 3)
    return float(np.degrees(np.arccos(np.clip(np.abs(turn).max(axis=1).min(), -1, 1))))


def _box(
    mask: sitk.Image, grid: sitk.Image, low: np.ndarray, high: np.ndarray
) -> list[tuple[int, int]]:
    """First and past-the-last index of `grid` per axis (x, y, z) around an index box of `mask`."""
    linear, offset = _index_map(mask, grid)
    corners = np.array(list(itertools.product(*zip(low - 1.0, high + 1.0, strict=True))))
    reached = corners @ linear.T + offset
    first = np.clip(np.floor(reached.min(axis=0)), 0, grid.GetSize()).astype(int)
    last = np.clip(np.ceil(reached.max(axis=0)) + 1, first, grid.GetSize()).astype(int)
    return list(zip(first.tolist(), last.tolist(), strict=True))


def _pick(mask: sitk.Image, grid: sitk.Image, box: list[tuple[int, int]]) -> np.ndarray:
    """(z, y, x) values of the voxel of `mask` nearest to each voxel centre of `grid` in `box`."""
    linear, offset = _index_map(grid, mask)
    x, y, z = (np.arange(low, high) for low, high in box)
    inside: np.ndarray = np.ones((len(z), len(y), len(x)), bool)
    picks = []
    for axis in (2, 1, 0):
        position = (
            linear[axis, 2] * z[:, None, None]
            + linear[axis, 1] * y[:, None]
            + (linear[axis, 0] * x + offset[axis])
        )
        # The same margin as in `sample_mask`.
        index = np.floor(position + 0.5 + 1e-4).astype(np.int32)
        inside &= (index >= 0) & (index < mask.GetSize()[axis])
        picks.append(np.clip(index, 0, mask.GetSize()[axis] - 1))
    values = sitk.GetArrayViewFromImage(mask)[tuple(picks)]
    return ((values > 0) & inside).astype(np.uint8)


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
