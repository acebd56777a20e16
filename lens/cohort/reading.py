"""Image files of every format: one volume, or slice, in mm of one number per voxel, checked, or
refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
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
from lens.cohort.flat import (
    as_volume,
    picture,
    picture_header,
    read_picture,
    read_slice,
    single_slice,
)
from lens.cohort.headers import (
    Header,
    HeaderFault,
    check_announced,
    check_axes,
    check_content,
)
from lens.cohort.nifti_header import (
    GZIP,
    apart,
    needs_rounding,
    nifti_header,
    not_finite,
    placed,
)
from lens.cohort.packed import read_packed
from lens.cohort.text_headers import meta_header, nrrd_header
from lens.errors import CaseError
from lens.openable import special
from lens.settings import NiftiForm

SPACING_MM = (0.05, 20.0)
"""Smallest and largest voxel edge of a clinical image; beyond it the unit is not mm."""

LOSSY_SUFFIXES = (".jpg", ".jpeg")
PICTURE_SUFFIXES = (".png", *LOSSY_SUFFIXES)
"""Ends of names of pictures."""

FORMATS = (
    "Give NIfTI-1, MHA/MHD or NRRD, a multi-frame DICOM file, or a folder with one series; a "
    "single slice may be a PNG."
)

AS_PNG = "Save it as PNG; a stack of slices, which has a spacing, as NIfTI."
"""The way out for pictures of other kinds."""

IN_VOLUMES = (
    "a single slice where a 3D volume is needed",
    "Keep volumes and single slices in cohorts of their own; the first files of the first image "
    "column say which a cohort is of.",
)
"""What is said of a single slice in a cohort of volumes: reason and remedy."""

OTHER_KINDS = {
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"BM": "a BMP picture",
    b"GIF8": "a GIF picture",
    b"\x89HDF": "an HDF5 file",
    b"CDF": "a NetCDF file",
    b"PK\x03\x04": "a zip archive",
    b"%PDF": "a PDF",
    b"# vtk": "a VTK file",
}
"""First bytes -> what a file is that is no image of a supported format."""


class Loaded(NamedTuple):
    """An image as read, what the user must know about it, a sentence each, and whether its file
    says where in space it lies, as pictures do not."""

    image: sitk.Image
    notes: tuple[str, ...]
    placed: bool = True


def read(
    path: Path,
    patient_id: str,
    form: NiftiForm | None,
    *,
    flat: bool = False,
    pixel_mm: float | None = None,
) -> Loaded | Segmentation:
    """A file or series of any format, checked.

    Args:
        path: as in `lens.cohort.read_image`.
        patient_id: for the error message.
        form: which placement of a NIfTI header to use.
        flat, pixel_mm: as in `lens.cohort.read_image`.

    Raises:
        CaseError: what is refused, with patient and file.
    """
    path = Path(path)
    if path.is_symlink() and not path.exists():
        reason = f"a link to {path.readlink()}, which does not exist"
        raise fault(path, patient_id, reason, "Fetch the file that the link stands for.")
    if not path.exists():
        raise fault(path, patient_id, "no such file", "Correct the path.")
    with told(path, patient_id):
        if kind := special(path):
            raise HeaderFault(f"{kind}, no image file", "Name a file, or the folder of a series.")
        with quiet():
            if path.is_dir() or is_dicom(path):
                found = _read_dicom(path, flat, pixel_mm)
            else:
                found = _read_file(path, form, flat, pixel_mm)
        return found if isinstance(found, Segmentation) else _checked(found, flat)


def is_flat(path: Path) -> bool | None:
    """Whether a file or folder holds a single slice; None where it cannot be read."""
    try:
        # A pipe or a device is never opened.
        if special(path):
            return None
        if path.is_dir():
            return len(series_files(path)) == 1
        if is_dicom(path):
            header = read_header(path, colour=True)
            return not is_segmentation(header) and frame_count(header) == 1
        return single_slice(_header(path, "qform").size)
    except (HeaderFault, RuntimeError, OSError):
        return None


@contextmanager
def told(path: Path, patient_id: str) -> Iterator[None]:
    """What fails in the block is told with patient and file, whichever step it is in.

    Raises:
        CaseError: in place of a fault of the header, of ITK or of the file system.
    """
    try:
        yield
    except HeaderFault as error:
        raise fault(path, patient_id, error.reason, error.remedy) from error
    except RuntimeError as error:
        reason = f"unreadable image ({_itk_reason(error)})"
        raise fault(path, patient_id, reason, FORMATS) from error
    except OSError as error:
        reason = f"unreadable image ({error.strerror or error})"
        raise fault(path, patient_id, reason, "Check the file and its permissions.") from error


def fault(path: Path, patient_id: str, reason: str, remedy: str) -> CaseError:
    """The error of a file that cannot be used."""
    return CaseError(patient_id, path, stage="read", reason=reason, remedy=remedy)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps ITK's warnings off the console; what matters in them is checked and raised here."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _read_dicom(path: Path, flat: bool, pixel_mm: float | None) -> Loaded | Segmentation:
    files = series_files(path) if path.is_dir() else [path]
    if len(files) == 1:
        header = read_header(files[0], colour=flat)
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
        raise HeaderFault(f"{picture(_begin(path))}, {IN_VOLUMES[0]}", IN_VOLUMES[1])
    check_announced(header)
    if header.form == "picture":
        check_content(header)
        image = read_picture(path)
        image.SetSpacing([pixel_mm or 1.0] * image.GetDimension())
        return Loaded(image, () if pixel_mm else header.notes, placed=False)
    notes = header.notes
    with _rounding_axes() if needs_rounding(header) else nullcontext():
        image = read_packed(path, header)
        if image is None:
            check_content(header)
            with apart(path) as alone:
                image = sitk.ReadImage(str(alone))
            notes += not_finite(path, header) if header.form == "NIfTI" else ()
    if header.form == "NIfTI" and image.GetDimension() == 3:
        image = placed(image, path, form)
    if header.scale != (1, 0) and image.GetNumberOfComponentsPerPixel() == 1:
        slope, intercept = header.scale
        image = sitk.Cast(image, sitk.sitkFloat64) * slope + intercept
    return Loaded(image, notes)


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
    remedy = AS_PNG if found.endswith(" picture") else FORMATS
    raise HeaderFault(f"unreadable image ({found})", remedy)


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
    image, notes = read.image, read.notes
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if "complex" in image.GetPixelIDTypeAsString():
        raise HeaderFault("complex voxels", "Give the magnitude image.")
    if image.GetNumberOfComponentsPerPixel() == 1 and "vector" in image.GetPixelIDTypeAsString():
        image = sitk.VectorIndexSelectionCast(image, 0)
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
    elif single_slice(image.GetSize()):
        raise HeaderFault(f"{size} voxels, {IN_VOLUMES[0]}", IN_VOLUMES[1])
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
    return read._replace(image=image, notes=notes)


def _is_identity(image: sitk.Image) -> bool:
    direction = np.abs(np.array(image.GetDirection()).reshape(3, 3))
    affine = [*image.GetSpacing(), *image.GetOrigin()]
    return bool(np.array_equal(direction, np.eye(3)) and np.array_equal(affine, [1, 1, 1, 0, 0, 0]))


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


def _itk_reason(error: RuntimeError) -> str:
    """The sentence in an ITK exception that a user understands."""
    text = re.split(r"ERROR:", str(error))[-1]
    text = re.sub(r"\w+\(0x[0-9a-f]+\):", "", text)
    return " ".join(text.split())[:200] or "no reason given"
