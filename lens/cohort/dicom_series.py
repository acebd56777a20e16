"""A DICOM series: a folder with a file per slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lens.cohort.dicom_header import (
    Plane,
    frame_count,
    is_companion,
    is_dicom,
    plane,
    read_header,
    scale,
    without_padding,
)
from lens.cohort.headers import HeaderFault, check_voxels
from lens.openable import folder_fault


def series_files(folder: Path) -> list[Path]:
    """The files of the folder's only DICOM series, in order along the normal of its slices.

    Raises:
        HeaderFault: what is no file in the folder, or not exactly one series.
    """
    if fault := folder_fault(folder):
        raise HeaderFault(fault, "Give each series a folder of its own and name that folder.")
    reader = sitk.ImageSeriesReader()
    series = reader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = f"{len(series)} DICOM series" if series else "no DICOM file"
        raise HeaderFault(
            f"the folder holds {found}, where one series is needed",
            "Give each series a folder of its own and name that folder.",
        )
    files = [Path(file) for file in reader.GetGDCMSeriesFileNames(str(folder), series[0])]
    _check_passed_over(folder, files)
    return files


def _check_passed_over(folder: Path, files: Sequence[Path]) -> None:
    """Refuses DICOM files that the series is without: what cannot be read is left out in silence,
    and a volume without its last slice looks whole."""
    taken = {file.name for file in files}
    for file in sorted(folder.iterdir()):
        if file.name in taken or file.name == "DICOMDIR" or not file.is_file():
            continue
        if is_companion(file):
            continue
        if is_dicom(file):
            try:
                read_header(file)
            except HeaderFault as fault:
                raise HeaderFault(f"{file.name}: {fault.reason}", fault.remedy) from None
            raise HeaderFault(
                f"{file.name}: a DICOM file that belongs to no series",
                "Copy or export it again, or take it out of the folder.",
            )


def read_series(files: Sequence[Path]) -> tuple[sitk.Image, tuple[str, ...]]:
    """One volume from a file per slice, and notes.

    Each slice is read with its own slope and intercept, into real numbers: the pixel type that one
    slice would need rules no other.

    Args:
        files: in order along the normal.

    Returns:
        The volume as float32, in its own geometry (mm, LPS).

    Raises:
        HeaderFault: a slice is unusable, or the slices are no complete, evenly spaced volume.
        RuntimeError: the reader cannot decode the pixels.
    """
    headers = []
    for file in files:
        try:
            header = read_header(file)
            headers.append((plane(header), scale(header)))
        except HeaderFault as fault:
            raise HeaderFault(f"{file.name}: {fault.reason}", fault.remedy) from None
        if frame_count(header) > 1:
            raise HeaderFault(
                f"{file.name}: a multi-frame file among {len(files)} files of one series",
                "Name the multi-frame file itself, or give it a folder of its own.",
            )
    if len(files) == 1:
        raise HeaderFault(
            "the folder holds a single DICOM file of one slice",
            "Give the folder that holds all slices of the series.",
        )
    planes = [each for each, _ in headers]
    check_planes(planes)
    check_voxels((*planes[0].size, len(planes)))
    image = sitk.ReadImage([str(file) for file in files], sitk.sitkFloat32)
    voxels, notes = without_padding(sitk.GetArrayViewFromImage(image), [s for _, s in headers])
    if not notes:
        return image, ()
    filled = sitk.GetImageFromArray(voxels)
    filled.CopyInformation(image)
    return filled, notes


def check_planes(planes: Sequence[Plane]) -> None:
    """Refuses slices that do not form one evenly spaced volume.

    Args:
        planes: at least two, in order along their normal.

    Raises:
        HeaderFault: sizes, spacings or orientations differ, or positions repeat, are missing or
            drift sideways.
    """
    if reason := _plane_fault(planes):
        raise HeaderFault(reason, "Complete or separate the series, or export it again.")


def _plane_fault(planes: Sequence[Plane]) -> str | None:
    first = planes[0]
    if len({(p.size, p.spacing) for p in planes}) > 1:
        return "slices of different sizes or pixel spacings in one series"
    axes = np.array([p.axes for p in planes])
    if np.abs(axes - axes[0]).max() > 1e-3:
        return "slices of different orientations in one series, such as a localizer"
    origins = np.array([p.position for p in planes])
    along = origins @ first.normal
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    # A tenth of a slice is beyond rounding of the header and below any real gap.
    if np.any(gaps < 0.1 * usual) or usual <= 0:
        return "several slices at the same position (b-values, echoes or time points mixed)"
    uneven = np.flatnonzero(np.abs(gaps - usual) > 0.1 * usual)
    if uneven.size:
        place = int(uneven[0])
        return (
            f"slices missing or unevenly spaced: {gaps[place]:.2f} mm between slices {place + 1} "
            f"and {place + 2}, {usual:.2f} mm elsewhere"
        )
    drift = origins - origins[0] - np.outer(along - along[0], first.normal)
    if np.abs(drift).max() > 0.25 * min(first.spacing):
        return f"slices shifted in their own plane by up to {np.abs(drift).max():.2f} mm"
    return None
