"""Pictures of a patient for the page: slices of every image about its regions, with contours.

A picture is a strip: the slices side by side, 8-bit, cut to the regions and their surroundings. The
contour is the border of the region's voxels, as lines that are drawn over it, so that it stays
sharp and can be told from the image. Volumes are seen as radiologists see them: from the feet, the
patient's right on the left, anterior above.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image

from lens.cohort.case import Case
from lens.cohort.intensities import (
    BONE_HU,
    GRAY,
    UNIT_SCALES,
    WINDOW_HU,
    Kind,
    box_about,
    kind_of,
    scaling,
)

SLICES = 11
"""Most slices of a picture, spread evenly over the region."""

EDGE = 144
"""Longest side of a slice, in pixels."""

QUALITY = 70
"""Of WebP, from 0 to 100."""

LOOKS = (("#ffe14d", ""), ("#5ce1ff", "4 3"), ("#ff8cf0", "1.5 2.5"))
"""Colour and dashes of the contour of each region in turn: none is seen in gray images."""

SOFT_TISSUE_HU = (-160.0, 240.0)
"""Usual window of soft tissue on CT."""

SPREAD = (-2.0, 3.0)
"""Window of an image in arbitrary units, in standard deviations about the mean of the regions'
surroundings; also of a map with a scale of its own."""


class Line(NamedTuple):
    """A straight piece of a contour, in voxels from the corner of a slice.

    Attributes:
        slice: its place in the strip.
        x, y: where it starts.
        dx, dy: how far it goes, in one of the two directions.
    """

    slice: int
    x: int
    y: int
    dx: int
    dy: int


@dataclass(frozen=True)
class Picture:
    """The images of one study, cut to its regions.

    Attributes:
        strips: modality -> WebP, the slices side by side from the feet to the head.
        windows: modality -> values shown black and white, in the image's own unit.
        contours: region -> lines between its voxels and others.
        size: (columns, rows) of a slice in voxels.
        spacing_mm: (x, y) of a voxel.
        slices: how many, from the feet to the head.
        flat: a single slice, with the axes of its file.
    """

    strips: Mapping[str, bytes]
    windows: Mapping[str, tuple[float, float]]
    contours: Mapping[str, tuple[Line, ...]]
    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    slices: int
    flat: bool

    @property
    def middle(self) -> int:
        """Place of the middle slice in the strip."""
        return self.slices // 2

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of a slice."""
        return self.size[0] * self.spacing_mm[0], self.size[1] * self.spacing_mm[1]

    @property
    def bytes(self) -> int:
        """Characters that it takes on a page."""
        coded = sum(4 * -(-len(strip) // 3) for strip in self.strips.values())
        return coded + sum(len(self.path(region)) for region in self.contours)

    def path(self, region: str) -> str:
        """The contour of a region on the strip as a path of SVG, in voxels."""
        width = self.size[0]
        return "".join(
            f"M{line.slice * width + line.x} {line.y}"
            + (f"h{line.dx}" if line.dx else f"v{line.dy}")
            for line in self.contours[region]
        )

    def uri(self, modality: str) -> str:
        """A strip as a data URI."""
        return "data:image/webp;base64," + base64.b64encode(self.strips[modality]).decode()


def picture(case: Case, rois: Sequence[str] = ()) -> Picture:
    """Pictures of all images of a case.

    Args:
        case: of `lens.cohort.read_case`.
        rois: regions to cut to and to draw; all if none is named, or the case has none of these.
    """
    images = case.images
    regions = {roi: case.masks[roi] for roi in rois if roi in case.masks} or case.masks
    masks = {roi: sitk.GetArrayViewFromImage(mask) > 0 for roi, mask in regions.items()}
    first = next(iter(images.values()))
    shape, spacing = first.GetSize()[::-1], first.GetSpacing()
    rows, columns = box_about(shape, spacing, masks.values())[1:]
    slices = _slices(shape[0], [*masks.values()])
    strips, windows = {}, {}
    for name, image in images.items():
        low, high = window(image, name, kind_of(name, case.kinds), case.masks)
        voxels = sitk.GetArrayViewFromImage(image)[slices, rows, columns]
        strips[name], windows[name] = _encoded(eight_bit(voxels, low, high)), (low, high)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    step = max(1, -(-max(size) // EDGE))
    return Picture(
        strips=strips,
        windows=windows,
        contours={
            roi: contour(inside[slices, rows, columns], step) for roi, inside in masks.items()
        },
        size=size,
        spacing_mm=spacing[:2],
        slices=len(slices),
        flat=shape[0] == 1,
    )


def window(
    image: sitk.Image, modality: str, kind: Kind, masks: Mapping[str, sitk.Image]
) -> tuple[float, float]:
    """Values shown black and white, by the kind of modality (`lens.cohort.intensities`).

    Arbitrary units, and maps without a fixed scale: about the mean of the regions' surroundings,
    over which such an image is standardised. Maps with one (`UNIT_SCALES`): on it, the same for all
    patients. 8-bit: all gray values. CT: soft tissue, or air to bone where the regions are not.
    """
    if kind == "8-bit":
        return 0.0, GRAY
    if kind == "ct":
        voxels = sitk.GetArrayViewFromImage(image)
        inside = [voxels[sitk.GetArrayViewFromImage(mask) > 0] for mask in masks.values()]
        middle = float(np.median(np.concatenate(inside))) if inside else 0.0
        return SOFT_TISSUE_HU if SOFT_TISSUE_HU[0] < middle < BONE_HU / 2 else WINDOW_HU
    fixed = UNIT_SCALES.get(modality) if kind == "units" else None
    mean, sd = fixed or scaling(image, masks.values())
    low, high = mean + SPREAD[0] * sd, mean + SPREAD[1] * sd
    if fixed:
        return low, high
    voxels = sitk.GetArrayViewFromImage(image)
    return max(low, float(voxels.min())), min(high, float(voxels.max()))


def eight_bit(
    voxels: Shaped[np.ndarray, "d h w"], low: float, high: float
) -> UInt8[np.ndarray, "d h w"]:
    """Gray values from 0 at `low` to 255 at `high`."""
    share = (voxels.astype(np.float64) - low) / ((high - low) or 1.0)
    return np.rint(GRAY * np.clip(share, 0.0, 1.0)).astype(np.uint8)


def contour(inside: Bool[np.ndarray, "d h w"], step: int = 1) -> tuple[Line, ...]:
    """The border between voxels in and out of a region, slice by slice.

    Args:
        inside: slices of the region.
        step: side of the squares in which the border is drawn, in voxels; each is in where its
            first voxel is.
    """
    coarse = np.pad(inside[:, ::step, ::step], ((0, 0), (1, 1), (1, 1)))
    lines = []
    for at, each in enumerate(coarse):
        rows = each[1:, 1:-1] != each[:-1, 1:-1]
        columns = (each[1:-1, 1:] != each[1:-1, :-1]).T
        lines += [Line(at, x * step, y * step, n * step, 0) for y, x, n in _runs(rows)]
        lines += [Line(at, x * step, y * step, 0, n * step) for x, y, n in _runs(columns)]
    return tuple(lines)


def _runs(lines: Bool[np.ndarray, "l p"]) -> list[tuple[int, int, int]]:
    """(line, start, length) of every run of True."""
    edges = np.diff(np.pad(lines.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    return [
        (int(line), int(start), int(end - start))
        for (line, start), end in zip(starts, ends[:, 1], strict=True)
    ]


def _slices(depth: int, masks: list[np.ndarray]) -> np.ndarray:
    """Up to `SLICES` of the slices that hold a region; of all where there is none."""
    held = (
        np.flatnonzero(np.any([mask.any(axis=(1, 2)) for mask in masks], axis=0)) if masks else []
    )
    low, high = (held[0], held[-1]) if len(held) else (0, depth - 1)
    return np.rint(np.linspace(low, high, min(SLICES, high - low + 1))).astype(int)


def _encoded(slices: UInt8[np.ndarray, "d h w"]) -> bytes:
    """Slices side by side as WebP, none with a side longer than `EDGE`."""
    depth, rows, columns = slices.shape
    share = min(1.0, EDGE / max(rows, columns))
    size = (max(1, round(share * columns)), max(1, round(share * rows)))
    strip = Image.new("L", (depth * size[0], size[1]))
    for at, each in enumerate(slices):
        tile = Image.fromarray(np.ascontiguousarray(each))
        tile = tile if tile.size == size else tile.resize(size, Image.Resampling.BOX)
        strip.paste(tile, (at * size[0], 0))
    with io.BytesIO() as stream:
        strip.save(stream, "WEBP", quality=QUALITY, method=4)
        return stream.getvalue()
