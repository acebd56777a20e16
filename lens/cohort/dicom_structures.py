"""DICOM RTSTRUCT: structures drawn as contours, as masks on the grid of their image."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from lens.cohort.contours import fill
from lens.cohort.dicom_frames import Segmentation
from lens.cohort.dicom_header import is_dicom
from lens.cohort.headers import COPY, HeaderFault

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


OFF_SLICE = 0.1
"""Largest distance of a contour's points from a slice of the image, in slices."""

OFF_IMAGE = 0.5
"""Largest distance of a contour's points from the centres of the outer voxels, in voxels."""

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""Kinds of contours that hold an area."""


@dataclass(frozen=True)
class Structures:
    """The structures of an RTSTRUCT file.

    Attributes:
        names: ROI number -> name.
        contours: ROI number -> closed planar contours, (points, 3) mm, LPS.
        passed_over: ROI number -> contours that hold no area, such as points and open lines.
    """

    names: dict[int, str]
    contours: dict[int, list[np.ndarray]]
    passed_over: dict[int, int]

    @property
    def listed(self) -> str:
        """The structures in words: ``1 GTV, 2 heart``."""
        return ", ".join(f"{number} {name}".strip() for number, name in self.names.items())


def is_structures(path: Path) -> bool:
    """Whether a file holds structures."""
    if not path.is_file() or not is_dicom(path):
        return False
    import pydicom  # late: other formats do without

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = pydicom.dcmread(path, force=True, specific_tags=["Modality"])
        except Exception:
            return False
    return header.get("Modality") == "RTSTRUCT"


def read_structures(path: Path) -> Structures:
    """The structures of an RTSTRUCT file.

    Raises:
        HeaderFault: unreadable, without structures, or contours whose numbers are no points.
    """
    import pydicom  # late: other formats do without

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _structures(pydicom.dcmread(path, force=True))
        except HeaderFault:
            raise
        except Exception as error:  # a damaged file raises anything
            raise HeaderFault(f"unreadable DICOM structures ({error})", COPY) from error


def _structures(header: Dataset) -> Structures:
    names = {
        int(item.ROINumber): str(item.get("ROIName", ""))
        for item in header.get("StructureSetROISequence") or []
    }
    if not names:
        raise HeaderFault(
            "an RTSTRUCT without a structure",
            "Export the structures again, or leave the cell blank.",
        )
    contours: dict[int, list[np.ndarray]] = {number: [] for number in names}
    passed_over = dict.fromkeys(names, 0)
    for item in header.get("ROIContourSequence") or []:
        number = int(item.ReferencedROINumber)
        if number not in names:
            continue
        for contour in item.get("ContourSequence") or []:
            numbers = np.array(contour.get("ContourData") or [], float)
            if len(numbers) % 3 or not np.isfinite(numbers).all():
                raise HeaderFault(
                    f"a contour of structure {number} {names[number]} of "
                    f"{len(numbers)} numbers, which are no points in space",
                    "Export the structures again.",
                )
            if contour.get("ContourGeometricType") in CLOSED and len(numbers) >= 9:
                contours[number].append(numbers.reshape(-1, 3))
            else:
                passed_over[number] += 1
    return Structures(names, contours, passed_over)


def on_grid(
    found: Structures, numbers: Iterable[int], grids: Mapping[str, sitk.Image]
) -> tuple[Segmentation, tuple[str, ...]]:
    """Structures as segments, and notes.

    Contours are filled slice by slice as `lens.cohort.contours.fill` says. Slices are found by the
    positions of the contours; slices between two others without a contour stay empty.

    Args:
        found: from `read_structures`.
        numbers: of the structures that are filled; those that the file lacks are passed over.
        grids: name -> image; the first on whose slices the contours lie gives the grid.

    Raises:
        HeaderFault: the contours lie on the slices of no image, reach out of it, or hold no area.
    """
    wanted = [number for number in found.names if number in set(numbers)]
    every = [contour for number in wanted for contour in found.contours[number]]
    others = sum(found.passed_over[number] for number in wanted)
    if not every and others:
        raise HeaderFault(
            f"{others} contour(s) that hold no area (points or open lines)",
            "Draw the structure as closed planar contours, or take another one.",
        )
    against = []
    for name, grid in grids.items():
        if reason := _misplaced(every, grid):
            against.append(f"{name}: {reason}")
            continue
        voxels = {number: _filled(found.contours[number], grid) for number in wanted}
        notes = [
            f"{empty} slice(s) of {number} {found.names[number]} between contours have none, and "
            "stay empty"
            for number in wanted
            if (empty := _skipped(voxels[number]))
        ]
        if others:
            notes.append(f"{others} contour(s) without an area (points or open lines) passed over")
        return Segmentation(grid, voxels, found.names), tuple(notes)
    raise HeaderFault(
        f"contours that do not fit the image ({'; '.join(against)})",
        "Name the image on which they were drawn, or give the structure as a mask.",
    )


def _indices(contour: np.ndarray, grid: sitk.Image) -> np.ndarray:
    """(points, 3) column, row and slice of points in mm."""
    axes = np.array(grid.GetDirection()).reshape(3, 3) * np.array(grid.GetSpacing())
    return (contour - np.array(grid.GetOrigin())) @ np.linalg.inv(axes).T


def _misplaced(contours: Sequence[np.ndarray], grid: sitk.Image) -> str:
    """Why contours do not lie on the slices of a grid; an empty text where they do."""
    size = np.array(grid.GetSize())
    for contour in contours:
        index = _indices(contour, grid)
        at = index[:, 2]
        if np.ptp(at) > 2 * OFF_SLICE:
            return f"a contour crosses {np.ptp(at):.1f} slices, as one drawn in another plane does"
        off = float(np.abs(at - np.rint(at.mean())).max())
        if off > OFF_SLICE:
            return f"a contour lies {off:.2f} slices off the nearest slice"
        beyond = max(float((-index).max()), float((index - (size - 1)).max()))
        if beyond > OFF_IMAGE + OFF_SLICE:
            return f"a contour reaches {beyond:.1f} voxels out of the image"
    return ""


def _filled(contours: Sequence[np.ndarray], grid: sitk.Image) -> np.ndarray:
    """(z, y, x) bool, of one structure: even-odd over its contours of each slice."""
    columns, rows, _ = grid.GetSize()
    of_slice: dict[int, list[np.ndarray]] = {}
    for contour in contours:
        index = _indices(contour, grid)
        of_slice.setdefault(round(float(index[:, 2].mean())), []).append(index[:, :2])
    voxels = np.zeros(grid.GetSize()[::-1], bool)
    for place, polygons in of_slice.items():
        voxels[place] = fill(polygons, (columns, rows))
    return voxels


def _skipped(voxels: np.ndarray) -> int:
    """Empty slices between the first and the last that is not."""
    filled = np.flatnonzero(voxels.any(axis=(1, 2)))
    return int(np.ptp(filled)) + 1 - filled.size if filled.size else 0
