"""Single slices: pictures, files with one slice, and how each becomes a volume of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

import lens.cohort.geometry as geometry
from lens.cohort.dicom_header import in_colour, plane, scale, value, without_padding
from lens.cohort.headers import COPY, Header, HeaderFault
from lens.errors import CaseError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PICTURES = {b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture"}
"""First bytes -> what a file is."""

ENDS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}
"""First bytes of a picture -> what its last bytes hold; readers fill up a picture cut short."""

NEARLY_GRAY = 2
"""Largest difference between the colours of a pixel that counts as gray: JPEG rounds."""

GRAY_ALPHA = 4
"""Colour type of a PNG of gray values with a transparency, which ITK does not read."""

EXIF_ORIENTATION = 0x0112
"""Tag of how a picture is to be shown: 1 as stored, 2 to 8 turned or mirrored."""

OF_MASK = "Of a mask, the gray value is the number of the label, not its colour."
"""What is said of colours, which masks are often drawn in."""

CENTIMETRES = 3
"""Unit of an ultrasound region whose pixels have a length."""

NO_SPACING = "no pixel size in the file: 1 pixel counts as 1 mm, so that lengths are in pixels"


def picture(begin: bytes) -> str | None:
    """What kind of picture begins with these bytes; None for anything else."""
    return next((kind for first, kind in PICTURES.items() if begin.startswith(first)), None)


def single_slice(size: Sequence[int]) -> bool:
    """Whether an image of this size is of two axes, others being one voxel long."""
    return len(size) >= 2 and sum(n > 1 for n in size) == 2


def as_volume(image: sitk.Image) -> sitk.Image:
    """A single slice as a volume (x, y, 1), in its own geometry."""
    if image.GetDimension() == 2:
        return sitk.JoinSeries(image)
    # The axis across the slice comes last, the others keep their order.
    axes = sorted(range(3), key=lambda axis: image.GetSize()[axis] == 1)
    return sitk.PermuteAxes(image, axes)


def picture_header(path: Path) -> Header:
    """The header of a picture, which has no spacing of use: printers' dots are no millimetres.

    Raises:
        HeaderFault: the file is cut off, or is to be shown turned or mirrored.
        RuntimeError: it cannot be read.
    """
    content = path.read_bytes()
    end = next(end for first, end in ENDS.items() if content.startswith(first))
    if end not in content[-64:]:
        raise HeaderFault("unreadable image (the picture is cut off before its end)", COPY)
    if (turn := _turned(path)) is not None:
        raise HeaderFault(
            f"a picture whose EXIF orientation ({turn}) shows it turned or mirrored, which not "
            "every program does that draws masks",
            "Save it upright without EXIF, and check its masks against that.",
        )
    if _gray_alpha(content) is not None:
        size = tuple(int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    else:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        size = tuple(reader.GetSize())
    return Header(
        form="picture",
        size=size,
        voxel_bytes=None,
        spacing=(1.0,) * len(size),
        unit="",
        axes=None,
        data=(path,),
        notes=(NO_SPACING,),
    )


def read_picture(path: Path) -> sitk.Image:
    """A picture as `gray` values, a pixel being 1 mm.

    Raises:
        HeaderFault: as in `gray`, or transparency beside 16-bit gray values.
        RuntimeError: it cannot be read.
    """
    bits = _gray_alpha(path.read_bytes()[:26])
    if bits is None:
        image = sitk.ReadImage(str(path))
        image.SetSpacing([1.0] * image.GetDimension())
        return gray(image)
    if bits != 8:
        raise HeaderFault(
            f"a picture of {bits}-bit gray values with a transparency",
            "Save it without the transparency (alpha channel).",
        )
    # Here, as below: few cohorts are of pictures.
    from PIL import Image

    with Image.open(path) as opened:
        return gray(sitk.GetImageFromArray(np.asarray(opened), isVector=True))


def _turned(path: Path) -> int | None:
    """The EXIF orientation of a picture that is not shown as stored; None of any other."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            turn = opened.getexif().get(EXIF_ORIENTATION)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        # What ITK says of it is told.
        return None
    return turn if turn in range(2, 9) else None


def _gray_alpha(begin: bytes) -> int | None:
    """Bits per value of a PNG of gray values with a transparency; None of any other file."""
    png = begin.startswith(b"\x89PNG") and len(begin) > 25
    return begin[24] if png and begin[25] == GRAY_ALPHA else None


def gray(image: sitk.Image) -> sitk.Image:
    """The gray values of a picture, as stored; those of a gray picture saved in colour.

    Raises:
        HeaderFault: colours, or a transparency that hides something.
    """
    count = image.GetNumberOfComponentsPerPixel()
    if count == 1:
        return image
    voxels = sitk.GetArrayViewFromImage(image).astype(np.int64)
    if count in (2, 4):
        if np.ptp(voxels[..., -1]):
            raise HeaderFault(
                "a picture that is transparent in places",
                f"Save it as gray values (8-bit), without an alpha channel. {OF_MASK}",
            )
        voxels = voxels[..., :-1]
    spread = voxels.max(axis=-1) - voxels.min(axis=-1)
    if spread.max() > NEARLY_GRAY:
        coloured = int(np.count_nonzero(spread > NEARLY_GRAY))
        raise HeaderFault(
            f"a colour picture: {coloured} of {spread.size} pixels are no gray",
            f"Save it as gray values (8-bit), without coloured marks or Doppler. {OF_MASK}",
        )
    out = sitk.GetImageFromArray(np.rint(voxels.mean(axis=-1)).astype(np.float32))
    out.CopyInformation(image)
    return out


def read_slice(
    path: Path, header: Dataset, pixel_mm: float | None
) -> tuple[sitk.Image, tuple[str, ...], bool]:
    """A DICOM file of one slice, notes, and whether it has a place in space.

    The values are those of its slope and intercept, those of colours as in `gray`. A file without a
    place, as of X-ray and ultrasound, lies at zero, with the pixel size that its header knows.

    Args:
        path: the file.
        header: of it, from `read_header`.
        pixel_mm: edge of a pixel, where the header has none.
    """
    # ITK makes luminance of colours that are read as real numbers, without a word.
    kind = sitk.sitkUnknown if in_colour(header) else sitk.sitkFloat32
    stored = sitk.Cast(gray(sitk.ReadImage(str(path), kind)), sitk.sitkFloat32)
    voxels, notes = without_padding(sitk.GetArrayViewFromImage(stored), [scale(header)])
    image = sitk.GetImageFromArray(voxels)
    placed = value(header, "ImagePositionPatient", None, default=None) is not None
    if placed:
        where = plane(header)
        across = float(value(header, "SliceThickness", None, default=1.0) or 1.0)
        image.SetSpacing((*where.spacing, across))
        image.SetDirection(np.column_stack([where.axes, where.normal]).ravel().tolist())
        image.SetOrigin(where.position.tolist())
        return image, notes, True
    edges = next(
        (found for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
         if (found := value(header, keyword, None, default=None)) is not None),
        _ultrasound_edges(header),
    )  # fmt: skip
    if edges is None and pixel_mm is None:
        return image, (*notes, NO_SPACING), False
    across = pixel_mm or 1.0
    rows, columns = (float(edges[0]), float(edges[1])) if edges is not None else (across, across)
    image.SetSpacing((columns, rows, 1.0))
    return image, notes, False


def _ultrasound_edges(header: Dataset) -> tuple[float, float] | None:
    """mm between rows and between columns, where all regions of an ultrasound image whose pixels
    have a length agree on it."""
    found = {
        (round(abs(float(region.PhysicalDeltaY)) * 10, 6),
         round(abs(float(region.PhysicalDeltaX)) * 10, 6))
        for region in header.get("SequenceOfUltrasoundRegions") or []
        if region.get("PhysicalUnitsXDirection") == CENTIMETRES
        and region.get("PhysicalUnitsYDirection") == CENTIMETRES
        and region.get("PhysicalDeltaX") and region.get("PhysicalDeltaY")
    }  # fmt: skip
    return found.pop() if len(found) == 1 else None


def lay_on(
    image: sitk.Image,
    reference: sitk.Image,
    *,
    name: str,
    onto: str,
    path: Path,
    patient_id: str,
) -> tuple[sitk.Image, tuple[str, ...]]:
    """A single slice on the grid of another, pixel by pixel, where either has no place in space.

    Args:
        image, reference: (x, y, 1).
        name, onto: what they are, for messages.
        path, patient_id: of `image`, for messages.

    Returns:
        The image, and a note where its header says another grid.

    Raises:
        CaseError: other sizes or axes, so that no pixel is known to lie on another.
    """
    own, size = (" x ".join(map(str, each.GetSize()[:2])) for each in (image, reference))
    turned = not np.allclose(image.GetDirection(), reference.GetDirection(), atol=1e-3)
    if own != size or turned:
        differs = "turned axes" if own == size else f"{own} pixels against {size}"
        raise CaseError(
            patient_id,
            path,
            stage="geometry",
            reason=f"{name} cannot be laid on {onto} pixel by pixel ({differs}), and pictures have "
            "no position",
            remedy=f"Scale or crop {name} to the {size} pixels of {onto}, as a picture.",
        )
    laid = sitk.Image(image)
    laid.CopyInformation(reference)
    alike = (np.allclose(getattr(image, get)(), getattr(reference, get)(), atol=1e-3)
             for get in ("GetSpacing", "GetOrigin"))  # fmt: skip
    if all(alike):
        return laid, ()
    differs = geometry.mismatch(image, reference)
    note = f"laid on {onto} pixel by pixel, since pictures have no position (its header: {differs})"
    return laid, (note,)
