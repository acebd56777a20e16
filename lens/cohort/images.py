"""Image and mask files as volumes: read and checked, or refused with a reason."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from lens.cohort.dicom_frames import (
    Segmentation,
    is_segmentation,
    read_frames,
    read_segmentation,
)
from lens.cohort.dicom_header import frame_count, is_dicom, read_header
from lens.cohort.dicom_series import read_series, series_files
from lens.cohort.dicom_structures import is_structures, on_grid, read_structures
from lens.cohort.flat import (
    as_volume,
    gray,
    picture,
    picture_header,
    read_slice,
    single_slice,
)
from lens.cohort.headers import Header, HeaderFault, check_axes, check_header
from lens.cohort.nifti_header import GZIP, needs_rounding, nifti_header, placed
from lens.cohort.text_headers import meta_header, nrrd_header
from lens.errors import CaseError
from lens.openable import special
from lens.settings import NiftiForm

MAX_LABELS = 20
"""More values than this in a mask: it is rather an image, named in the wrong column."""

NEAR_WHOLE = 1e-3
"""Largest distance of a mask value from a whole number that counts as rounding."""

SPACING_MM = (0.05, 20.0)
"""Smallest and largest voxel edge of a clinical image; beyond it the unit is not mm."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Ends of names of pictures."""

FORMATS = "Give NIfTI-1, MHA/MHD or NRRD, a multi-frame DICOM file, or a folder with one series."

OTHER_KINDS = {
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"\x89HDF": "an HDF5 file",
    b"CDF": "a NetCDF file",
    b"PK\x03\x04": "a zip archive",
    b"%PDF": "a PDF",
    b"# vtk": "a VTK file",
}
"""First bytes -> what a file is that is no image of a supported format."""


class Loaded(NamedTuple):
    """An image as read, and what the user must know about it, a sentence each."""

    image: sitk.Image
    notes: tuple[str, ...]


class Mask(NamedTuple):
    """A mask as read: uint8 0/1, the voxel count of each non-zero value, whether those are whole
    numbers only after a scale factor of the header was undone, and notes as in `Loaded`."""

    image: sitk.Image
    labels: dict[int, int]
    scaled: bool
    notes: tuple[str, ...] = ()


def read_image(
    path: Path,
    patient_id: str,
    *,
    nifti_form: NiftiForm | None = None,
    flat: bool = False,
    pixel_mm: float | None = None,
) -> sitk.Image:
    """Reads a scalar image: a volume, or a single slice.

    Args:
        path: NIfTI-1 (alone or .hdr and .img), MHA/MHD, NRRD or multi-frame DICOM file, or a folder
            holding one DICOM series; a single slice also as PNG, JPEG or a DICOM file.
        patient_id: for the error message.
        nifti_form: which placement of a NIfTI header to use; by default a header with two that
            disagree is refused.
        flat: a single slice is wanted, given as a volume of one; otherwise a volume is.
        pixel_mm: edge of a pixel, for a picture, whose header does not say; 1 by default.

    Returns:
        The image as float32, in its own geometry (mm, LPS).

    Raises:
        CaseError: no file that can be read to an end, unreadable or truncated, without spacing,
            sheared, not 3D, colour, non-finite or constant, or DICOM that is not one complete,
            evenly spaced volume.
    """
    return load_image(path, patient_id, nifti_form=nifti_form, flat=flat, pixel_mm=pixel_mm).image


def load_image(
    path: Path,
    patient_id: str,
    *,
    nifti_form: NiftiForm | None = None,
    flat: bool = False,
    pixel_mm: float | None = None,
) -> Loaded:
    """As `read_image`, with what the user must know about the image."""
    read = _read(path, patient_id, nifti_form, flat, pixel_mm)
    if isinstance(read, Segmentation):
        raise _fault(
            path,
            patient_id,
            f"a segmentation ({read.listed}), no image",
            "Check which file the column names.",
        )
    image = sitk.Cast(read.image, sitk.sitkFloat32)
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
    return Loaded(image, read.notes)


def read_mask(
    path: Path,
    patient_id: str,
    *,
    labels: Sequence[int] | None = None,
    nifti_form: NiftiForm | None = None,
    flat: bool = False,
    pixel_mm: float | None = None,
) -> tuple[sitk.Image, dict[int, int]]:
    """Reads a mask: the region is every voxel above zero, or of the labels asked for.

    Args:
        path: as in `read_image`, or a DICOM SEG file, whose labels are the segment numbers.
        patient_id: for the error message.
        labels: the values that make the region; every value above zero by default.
        nifti_form, flat, pixel_mm: as in `read_image`.

    Returns:
        The mask as uint8 0/1 in its own geometry, and the voxel count of each non-zero value found.
        Values within 1e-3 of whole numbers count as those; whole numbers that a scale factor in the
        header made fractions (a single value of 1/255) count as 1.

    Raises:
        CaseError: as in `read_image`, or values that are not whole numbers, or so many of them
            that it cannot be a mask, or several segments of which none is asked for. An empty mask
            is returned as it is.
    """
    read = load_mask(
        path, patient_id, labels=labels, nifti_form=nifti_form, flat=flat, pixel_mm=pixel_mm
    )
    return read.image, read.labels


def load_mask(
    path: Path,
    patient_id: str,
    *,
    labels: Sequence[int] | None = None,
    nifti_form: NiftiForm | None = None,
    flat: bool = False,
    pixel_mm: float | None = None,
    drawn_on: Mapping[str, sitk.Image] | None = None,
) -> Mask:
    """As `read_mask`, which says whether a scale factor was undone too, and has notes.

    With `drawn_on`, images by name, structures of a DICOM RTSTRUCT file are a mask on the grid of
    the first whose slices hold them; their labels are the ROI numbers.
    """
    if drawn_on and is_structures(path):
        return _of_structures(path, patient_id, labels, drawn_on)
    read = _read(path, patient_id, nifti_form, flat, pixel_mm)
    if isinstance(read, Segmentation):
        return _of_segments(read, path, patient_id, labels)
    voxels, rounded = _whole(sitk.GetArrayFromImage(read.image), path, patient_id)
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
    mask.CopyInformation(read.image)
    return Mask(mask, found, scaled, (*read.notes, *rounded))


def is_flat(path: Path) -> bool | None:
    """Whether a file or folder holds a single slice; None where it cannot be read."""
    try:
        if path.is_dir():
            return len(series_files(path)) == 1
        if is_dicom(path):
            header = read_header(path)
            return not is_segmentation(header) and frame_count(header) == 1
        return single_slice(_header(path, "qform").size)
    except (HeaderFault, OSError):
        return None


def looks_like_mask(path: Path) -> bool | None:
    """Whether the voxels of a file are the few whole numbers of a mask rather than an image's; None
    where it cannot be read."""
    if is_structures(path):
        return True
    try:
        read = _read(path, "", "qform", is_flat(path) or False, None)
    except CaseError:
        return None
    if isinstance(read, Segmentation):
        return True
    values = np.unique(sitk.GetArrayViewFromImage(read.image))
    nonzero = values[values != 0]
    whole = np.all(np.abs(nonzero - np.rint(nonzero)) < NEAR_WHOLE) or _is_scaled(nonzero)
    return bool(whole and len(nonzero) < MAX_LABELS and np.all(nonzero > 0))


def _is_scaled(values: np.ndarray) -> bool:
    """Whether the values of a mask are 0 and 1/255: ones under a scale factor of the header.

    Image tools store a slope that maps 0 to 255 onto 0 to 1, and write the mask's ones under it. A
    probability map has more values than one; 0.5 alone may mean anything.
    """
    nonzero = values[values != 0]
    return len(nonzero) == 1 and abs(float(nonzero[0]) * 255 - 1) < 1e-3


def _whole(voxels: np.ndarray, path: Path, patient_id: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Voxels of a mask without the residue of resampling or of a scale factor, and a note on it."""
    _check_finite(voxels, path, patient_id)
    if voxels.dtype.kind != "f":
        return voxels, ()
    whole = np.rint(voxels)
    residue = float(np.abs(voxels - whole).max())
    # A mask whose values are all this small is not empty: a scale factor made it so.
    vanished = residue > 1e-5 and not whole.any()
    if residue == 0 or residue > NEAR_WHOLE or vanished:
        return voxels, ()
    return whole, (f"mask values up to {residue:.2g} off whole numbers; rounded",)


def _of_segments(
    found: Segmentation, path: Path, patient_id: str, labels: Sequence[int] | None
) -> Mask:
    """The union of the segments asked for; of the only one where none is."""
    if labels is None and len(found.names) > 1:
        raise _fault(
            path,
            patient_id,
            f"a DICOM segmentation of {len(found.names)} segments: {found.listed}",
            "Say by number which make the region, such as --label gland=1 or --label gland=1,2.",
        )
    counts = {number: int(voxels.sum()) for number, voxels in sorted(found.voxels.items())}
    counts = {number: count for number, count in counts.items() if count}
    region = np.zeros(found.grid.GetSize()[::-1], bool)
    for number in counts if labels is None else set(labels) & counts.keys():
        region |= found.voxels[number]
    mask = sitk.GetImageFromArray(region.astype(np.uint8))
    mask.CopyInformation(found.grid)
    return Mask(mask, counts, False)


def _of_structures(
    path: Path,
    patient_id: str,
    labels: Sequence[int] | None,
    drawn_on: Mapping[str, sitk.Image],
) -> Mask:
    """The union of the structures asked for; of the only one where none is."""
    try:
        structures = read_structures(path)
        some = structures.names if labels is None or len(structures.names) < 2 else labels
        segments, notes = on_grid(structures, some, drawn_on)
    except HeaderFault as fault:
        raise _fault(path, patient_id, fault.reason, fault.remedy) from fault
    return _of_segments(segments, path, patient_id, labels)._replace(notes=notes)


def _read(
    path: Path, patient_id: str, form: NiftiForm | None, flat: bool, pixel_mm: float | None
) -> Loaded | Segmentation:
    """A file or series of any format, checked; what is refused names patient and file."""
    path = Path(path)
    if path.is_symlink() and not path.exists():
        reason = f"a link to {path.readlink()}, which does not exist"
        raise _fault(path, patient_id, reason, "Fetch the file that the link stands for.")
    if not path.exists():
        raise _fault(path, patient_id, "no such file", "Correct the path.")
    try:
        if kind := special(path):
            raise HeaderFault(f"{kind}, no image file", "Name a file, or the folder of a series.")
        with quiet():
            dicom = path.is_dir() or is_dicom(path)
            if dicom:
                read = _read_dicom(path, flat, pixel_mm)
            else:
                read = _read_file(path, form, flat, pixel_mm)
        return read if isinstance(read, Segmentation) else _checked(read, flat)
    except HeaderFault as fault:
        raise _fault(path, patient_id, fault.reason, fault.remedy) from fault
    except RuntimeError as error:
        reason = f"unreadable image ({_itk_reason(error)})"
        raise _fault(path, patient_id, reason, FORMATS) from error
    except OSError as error:
        reason = f"unreadable image ({error.strerror or error})"
        raise _fault(path, patient_id, reason, "Check the file and its permissions.") from error


def _read_dicom(path: Path, flat: bool, pixel_mm: float | None) -> Loaded | Segmentation:
    files = series_files(path) if path.is_dir() else [path]
    if len(files) == 1:
        header = read_header(files[0])
        if is_segmentation(header):
            return read_segmentation(files[0], header)
        if frame_count(header) > 1:
            return Loaded(*read_frames(files[0], header))
        if flat:
            return Loaded(*read_slice(files[0], header, pixel_mm))
        if not path.is_dir():
            raise HeaderFault(
                "a single slice of DICOM, where a volume is needed",
                "Name the folder that holds all slices of the series.",
            )
    return Loaded(*read_series(files))


def _read_file(path: Path, form: NiftiForm | None, flat: bool, pixel_mm: float | None) -> Loaded:
    header = _header(path, form)
    if header.form == "picture" and not flat:
        raise HeaderFault(f"unreadable image ({picture(_begin(path))})", FORMATS)
    check_header(header)
    with _rounding_axes() if needs_rounding(header) else nullcontext():
        image = sitk.ReadImage(str(path))
    if header.form == "picture":
        edge = pixel_mm or 1.0
        image.SetSpacing([edge] * image.GetDimension())
        notes = () if pixel_mm else header.notes
        return Loaded(gray(image), notes)
    if header.form == "NIfTI" and image.GetDimension() == 3:
        image = placed(image, path, form)
    return Loaded(image, header.notes)


def _header(path: Path, form: NiftiForm | None) -> Header:
    """The header by the format that the content or the name tells."""
    begin, name = _begin(path), path.name.lower()
    if not begin:
        raise HeaderFault("the file is empty (0 bytes)", "Copy or export it again.")
    _check_packing(path, begin)
    if begin.startswith(b"NRRD"):
        return nrrd_header(path)
    if name.endswith((".nii", ".hdr", ".img", ".mgh", ".mgz", ".gz")):
        return nifti_header(path, form)
    if picture(begin):
        return picture_header(path)
    kind = next((kind for first, kind in OTHER_KINDS.items() if begin.startswith(first)), None)
    if kind is None and name.endswith((".mha", ".mhd")):
        return meta_header(path)
    found = kind or f"it begins {begin[:18]!r}, as no image does that is read"
    raise HeaderFault(f"unreadable image ({found})", FORMATS)


def _begin(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(132)


def _check_packing(path: Path, begin: bytes) -> None:
    """Refuses a name that says compressed where the content is not, and the other way round."""
    name, packed = path.name.lower(), begin.startswith(GZIP)
    if name.endswith((".nii", ".gz")) and name.endswith(".gz") != packed:
        ending = ".nii.gz" if name.endswith(".nii.gz") else path.suffix
        found = "compressed" if packed else f"not compressed (begins {begin[:18]!r})"
        raise HeaderFault(
            f"unreadable image (named {ending} but {found})",
            "Name it after what it is (.nii or .nii.gz), or download it again if it is no image.",
        )


def _checked(read: Loaded, flat: bool) -> Loaded:
    """One volume, or one slice as a volume, of numbers in mm, whatever the format, or refused."""
    image, notes = read
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if "complex" in image.GetPixelIDTypeAsString():
        raise HeaderFault("complex voxels", "Give the magnitude image.")
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise HeaderFault(
            f"{image.GetNumberOfComponentsPerPixel()} components per voxel, such as colour",
            "Give a grayscale image.",
        )
    size = " x ".join(str(n) for n in image.GetSize())
    if flat:
        if not single_slice(image.GetSize()):
            raise HeaderFault(
                f"{size} voxels, where the cohort is of single slices",
                "Keep volumes and single slices in cohorts of their own.",
            )
        image = as_volume(image)
    elif image.GetDimension() != 3 or min(image.GetSize()) < 2:
        raise HeaderFault(
            f"{size} voxels, where a 3D volume of at least two slices is needed",
            "Give one volume: of a 4D file, extract the b-value or time point that is meant.",
        )
    if min(image.GetSpacing()) < SPACING_MM[0] or max(image.GetSpacing()) > SPACING_MM[1]:
        raise HeaderFault(
            f"voxels of {' x '.join(f'{mm:.4g}' for mm in image.GetSpacing())} mm, which no "
            "scanner makes",
            "Correct the spacing or its unit in the header.",
        )
    check_axes(np.array(image.GetDirection()).reshape(3, 3))
    if not flat and _is_identity(image):
        notes = ("the affine is the identity (1 x 1 x 1 mm, at zero): voxel size and place may be "
                 "lost",)  # fmt: skip
    return Loaded(image, notes)


def _is_identity(image: sitk.Image) -> bool:
    direction = np.abs(np.array(image.GetDirection()).reshape(3, 3))
    affine = [*image.GetSpacing(), *image.GetOrigin()]
    return bool(np.array_equal(direction, np.eye(3)) and np.array_equal(affine, [1, 1, 1, 0, 0, 0]))


def _check_finite(voxels: np.ndarray, path: Path, patient_id: str) -> None:
    bad = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
    if bad:
        raise _fault(
            path,
            patient_id,
            f"{bad} voxel(s) are NaN or infinite",
            "Export the image again, or replace these voxels knowingly.",
        )


@contextmanager
def _rounding_axes() -> Iterator[None]:
    """Lets ITK read axes that are at right angles but for rounding, as other formats' readers do;
    how much rounding is `lens.cohort.headers.SHEAR`."""
    name = "ITK_NIFTI_SFORM_PERMISSIVE"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


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
