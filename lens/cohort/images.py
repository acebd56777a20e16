"""Image and mask files as volumes: read and checked, or refused with a reason."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from lens.errors import CaseError

MAX_LABELS = 20
"""More values than this in a mask: it is rather an image, named in the wrong column."""


SPACING_MM = (0.05, 20.0)
"""Smallest and largest voxel edge of a clinical image; beyond it the unit is not mm."""

GZIP = b"\x1f\x8b"
"""How compressed content begins."""


class Mask(NamedTuple):
    """A mask as read: uint8 0/1, the voxel count of each non-zero value, and whether those are
    whole numbers only after a scale factor of the header was undone."""

    image: sitk.Image
    labels: dict[int, int]
    scaled: bool


def read_image(path: Path, patient_id: str) -> sitk.Image:
    """Reads a 3D scalar image.

    Args:
        path: NIfTI, MHA/MHD or NRRD file, or a folder holding one DICOM series.
        patient_id: for the error message.

    Returns:
        The image as float32, in its own geometry (mm, LPS).

    Raises:
        CaseError: unreadable or truncated, not 3D, colour, non-finite or constant, or a folder
            that is not one complete, evenly spaced series.
    """
    image = sitk.Cast(_read_volume(path, patient_id), sitk.sitkFloat32)
    voxels = sitk.GetArrayViewFromImage(image)
    _check_finite(voxels, path, patient_id)
    low, high = float(voxels.min()), float(voxels.max())
    if low == high:
        raise _fault(
            path,
            patient_id,
            f"constant image: every voxel is {low:g}",
            "Export the image again, or leave out this patient.",
        )
    return image


def read_mask(
    path: Path, patient_id: str, *, labels: Sequence[int] | None = None
) -> tuple[sitk.Image, dict[int, int]]:
    """Reads a mask: the region is every voxel above zero, or of the labels asked for.

    Args:
        path: as in `read_image`.
        patient_id: for the error message.
        labels: the values that make the region; every value above zero by default.

    Returns:
        The mask as uint8 0/1 in its own geometry, and the voxel count of each non-zero value found.
        Whole numbers that a scale factor in the header made fractions (a single value of 1/255)
        count as 1.

    Raises:
        CaseError: as in `read_image`, or values that are not whole numbers, or so many of them
            that it cannot be a mask. An empty mask is returned as it is.
    """
    read = load_mask(path, patient_id, labels=labels)
    return read.image, read.labels


def load_mask(path: Path, patient_id: str, *, labels: Sequence[int] | None = None) -> Mask:
    """As `read_mask`, which says whether a scale factor was undone too."""
    image = _read_volume(path, patient_id)
    voxels = sitk.GetArrayFromImage(image)
    _check_finite(voxels, path, patient_id)
    # Most voxels are zero, and sorting them takes the longest.
    values, counts = np.unique(voxels[voxels != 0], return_counts=True)
    scaled = _is_scaled(values)
    if scaled:
        voxels, values = voxels * 255, values * 255
    whole = np.rint(values)
    # Single precision holds a scaled whole number only nearly.
    if np.any(np.abs(values - whole) > 1e-4):
        example = values[np.abs(values - whole) > 1e-4][0]
        raise _fault(
            path,
            patient_id,
            f"a mask with fractional values, such as {example:g}",
            "Give a binary or label mask; a probability map must be thresholded first.",
        )
    if len(values) >= MAX_LABELS:
        raise _fault(
            path,
            patient_id,
            f"{len(values) + 1} different values, which is an image rather than a mask",
            "Check which file the column names.",
        )
    found = {int(v): int(n) for v, n in zip(whole, counts, strict=True)}
    region = voxels > 0.5 if labels is None else np.isin(np.rint(voxels), list(labels))
    mask = sitk.GetImageFromArray(region.astype(np.uint8))
    mask.CopyInformation(image)
    return Mask(mask, found, scaled)


def _is_scaled(values: np.ndarray) -> bool:
    """Whether the values of a mask are 0 and 1/255: ones under a scale factor of the header.

    Image tools store a slope that maps 0 to 255 onto 0 to 1, and write the mask's ones under it. A
    probability map has more values than one; 0.5 alone may mean anything.
    """
    nonzero = values[values != 0]
    return len(nonzero) == 1 and abs(float(nonzero[0]) * 255 - 1) < 1e-3


def _read_volume(path: Path, patient_id: str) -> sitk.Image:
    path = Path(path)
    if path.is_symlink() and not path.exists():
        reason = f"a link to {path.readlink()}, which does not exist"
        raise _fault(path, patient_id, reason, "Fetch the file that the link stands for.")
    if not path.exists():
        raise _fault(path, patient_id, "no such file", "Correct the path.")
    try:
        if path.is_dir():
            with quiet():
                image = sitk.ReadImage(_series_files(path, patient_id))
        else:
            _check_file(path, patient_id)
            with quiet():
                image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise _fault(
            path,
            patient_id,
            f"unreadable image ({_itk_reason(error)})",
            "Give NIfTI, MHA/MHD or NRRD, or a folder with one DICOM series.",
        ) from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if "complex" in image.GetPixelIDTypeAsString():
        raise _fault(path, patient_id, "complex voxels", "Give the magnitude image.")
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise _fault(
            path,
            patient_id,
            f"{image.GetNumberOfComponentsPerPixel()} components per voxel, such as colour",
            "Give a grayscale image.",
        )
    size = " x ".join(str(n) for n in image.GetSize())
    if image.GetDimension() != 3 or min(image.GetSize()) < 2:
        raise _fault(
            path,
            patient_id,
            f"{size} voxels, where a 3D volume of at least two slices is needed",
            "Give one volume: of a 4D file, extract the b-value or time point that is meant.",
        )
    if min(image.GetSpacing()) < SPACING_MM[0] or max(image.GetSpacing()) > SPACING_MM[1]:
        raise _fault(
            path,
            patient_id,
            f"voxels of {' x '.join(f'{mm:.4g}' for mm in image.GetSpacing())} mm, which no "
            "scanner makes",
            "Correct the spacing or its unit in the header.",
        )
    return image


def _check_finite(voxels: np.ndarray, path: Path, patient_id: str) -> None:
    bad = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
    if bad:
        raise _fault(
            path,
            patient_id,
            f"{bad} voxel(s) are NaN or infinite",
            "Export the image again, or replace these voxels knowingly.",
        )


def _check_file(path: Path, patient_id: str) -> None:
    """Refuses what ITK would misread or only hint at: see the reasons."""
    name = path.name.lower()
    with path.open("rb") as stream:
        begin = stream.read(64)
    if not begin:
        raise _fault(path, patient_id, "the file is empty (0 bytes)", "Copy or export it again.")
    if name.endswith(".gz") != begin.startswith(GZIP) and name.endswith((".nii", ".gz")):
        ending = ".nii.gz" if name.endswith(".nii.gz") else path.suffix
        found = (
            "compressed" if begin.startswith(GZIP) else f"not compressed (begins {begin[:18]!r})"
        )
        raise _fault(
            path,
            patient_id,
            f"unreadable image (named {ending} but {found})",
            "Name it after what it is (.nii or .nii.gz), or download it again if it is no image.",
        )
    if name.endswith(".mhd"):
        _check_data_file(path, patient_id)
    if name.endswith((".nii", ".nii.gz")):
        _check_nifti(path, patient_id, compressed=name.endswith(".gz"))


def _check_data_file(path: Path, patient_id: str) -> None:
    match = re.search(r"ElementDataFile\s*=\s*(.+)", path.read_text(encoding="latin-1"))
    if match and match[1].strip() not in ("LOCAL", "LIST") and "%" not in match[1]:
        data = path.parent / match[1].strip()
        if not data.exists():
            raise _fault(
                path,
                patient_id,
                f"unreadable image (its voxels are in {data.name}, which is not there)",
                "Copy both files, the .mhd and the one it names.",
            )


def _check_nifti(path: Path, patient_id: str, *, compressed: bool) -> None:
    """Refuses what ITK reads silently: a missing end as zeros, and a spacing that is not positive.

    It takes a spacing of zero for 1 mm, and mirrors the image of a negative one.
    """
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            header = stream.read(348)
            length = len(header)
            # To the end, so that gzip's checksum is compared too.
            while block := stream.read(1 << 20):
                length += len(block)
    except (EOFError, OSError, zlib.error) as error:
        raise _fault(
            path,
            patient_id,
            f"unreadable image (damaged or cut-off compression: {error})",
            "Copy or export the file again.",
        ) from error
    expected = _nifti_bytes(header)
    if length < expected:
        raise _fault(
            path,
            patient_id,
            f"unreadable image ({length} bytes of content where its header announces {expected})",
            "Copy or export the file again.",
        )
    spacing = _nifti_spacing(header)
    if not all(mm > 0 for mm in spacing):
        raise _fault(
            path,
            patient_id,
            f"a spacing that is not positive: {' x '.join(f'{mm:g}' for mm in spacing)}",
            "Correct pixdim in the header, or convert the image again.",
        )


def _nifti_order(header: bytes) -> str:
    """The byte order of a NIfTI-1 header, or an empty string for anything else."""
    if len(header) < 348:
        return ""
    return next((o for o in "<>" if struct.unpack_from(f"{o}i", header)[0] == 348), "")


def _nifti_spacing(header: bytes) -> tuple[float, ...]:
    """The spacing of up to three axes in a NIfTI-1 header; empty for anything else."""
    order = _nifti_order(header)
    if not order:
        return ()
    axes = struct.unpack_from(f"{order}h", header, 40)[0]
    return struct.unpack_from(f"{order}{min(max(axes, 0), 3)}f", header, 80)


def _nifti_bytes(header: bytes) -> int:
    """Bytes that a NIfTI-1 header announces (header and voxels); 0 for anything else."""
    order = _nifti_order(header)
    if not order:
        return 0
    dim = struct.unpack_from(f"{order}8h", header, 40)
    (bits,) = struct.unpack_from(f"{order}h", header, 72)
    (offset,) = struct.unpack_from(f"{order}f", header, 108)
    voxels = int(np.prod(dim[1 : 1 + max(dim[0], 0)], dtype=np.int64))
    return (int(offset) if np.isfinite(offset) else 0) + voxels * bits // 8


def _series_files(folder: Path, patient_id: str) -> list[str]:
    """The slices of the folder's only DICOM series, in order along their normal."""
    reader = sitk.ImageSeriesReader()
    series = reader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = f"{len(series)} DICOM series" if series else "no DICOM file"
        raise _fault(
            folder,
            patient_id,
            f"the folder holds {found}, where one series is needed",
            "Give each series a folder of its own and name that folder.",
        )
    files = list(reader.GetGDCMSeriesFileNames(str(folder), series[0]))
    if len(files) == 1:
        raise _fault(
            folder,
            patient_id,
            "the folder holds a single DICOM file",
            "A series needs a file per slice; convert a multi-frame file to NIfTI first.",
        )
    reason = _slice_fault([_header(file) for file in files])
    if reason:
        raise _fault(
            folder, patient_id, reason, "Complete or separate the series, or export it again."
        )
    return files


def _header(file: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return reader


def _slice_fault(slices: Sequence[sitk.ImageFileReader]) -> str | None:
    """Says why these slices do not form one evenly spaced volume; None where they do."""
    if len({(s.GetSize()[:2], s.GetSpacing()[:2]) for s in slices}) > 1:
        return "slices of different sizes or pixel spacings in one series"
    axes = np.array([s.GetDirection() for s in slices]).reshape(-1, 3, 3)
    if np.abs(axes - axes[0]).max() > 1e-3:
        return "slices of different orientations in one series, such as a localizer"
    origins = np.array([s.GetOrigin() for s in slices])
    along = origins @ axes[0, :, 2]
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    # A tenth of a slice is beyond rounding of the header and below any real gap.
    if np.any(gaps < 0.1 * usual) or usual <= 0:
        return "several slices at the same position (b-values, echoes or time points mixed)"
    uneven = np.flatnonzero(np.abs(gaps - usual) > 0.1 * usual)
    if uneven.size:
        first = int(uneven[0])
        return (
            f"slices missing or unevenly spaced: {gaps[first]:.2f} mm between slices {first + 1} "
            f"and {first + 2}, {usual:.2f} mm elsewhere"
        )
    drift = origins - origins[0] - np.outer(along - along[0], axes[0, :, 2])
    if np.abs(drift).max() > 0.25 * min(slices[0].GetSpacing()[:2]):
        return f"slices shifted in their own plane by up to {np.abs(drift).max():.2f} mm"
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps ITK's warnings off the console; what matters in them is checked and raised here."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _itk_reason(error: RuntimeError) -> str:
    """The sentence in an ITK exception that a user understands."""
    text = re.split(r"ERROR:", str(error))[-1]
    text = re.sub(r"\w+\(0x[0-9a-f]+\):", "", text)
    return " ".join(text.split())[:200] or "no reason given"


def _fault(path: Path, patient_id: str, reason: str, remedy: str) -> CaseError:
    return CaseError(patient_id, path, stage="read", reason=reason, remedy=remedy)
