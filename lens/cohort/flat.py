"""Single slices: pictures, files with one slice, and how each becomes a volume of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset

from lens.cohort.dicom_header import plane, scale, value, without_padding
from lens.cohort.headers import COPY, Header, HeaderFault

PICTURES = {b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture"}
"""First bytes -> what a file is."""

ENDS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}
"""First bytes of a picture -> what its last bytes hold; readers fill up a picture cut short."""

NEARLY_GRAY = 2
"""Largest difference between the colours of a pixel that counts as gray: JPEG rounds."""

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
        HeaderFault: the file is cut off.
        RuntimeError: it cannot be read.
    """
    content = path.read_bytes()
    end = next(end for first, end in ENDS.items() if content.startswith(first))
    if end not in content[-64:]:
        raise HeaderFault("unreadable image (the picture is cut off before its end)", COPY)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return Header(
        form="picture",
        size=tuple(reader.GetSize()),
        voxel_bytes=None,
        spacing=(1.0,) * reader.GetDimension(),
        unit="",
        axes=None,
        data=(path,),
        notes=(NO_SPACING,),
    )


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
                "a picture that is transparent in places", "Save it as gray values (8-bit)."
            )
        voxels = voxels[..., :-1]
    spread = voxels.max(axis=-1) - voxels.min(axis=-1)
    if spread.max() > NEARLY_GRAY:
        coloured = int(np.count_nonzero(spread > NEARLY_GRAY))
        raise HeaderFault(
            f"a colour picture: {coloured} of {spread.size} pixels are no gray",
            "Save it as gray values (8-bit), without coloured marks or Doppler.",
        )
    out = sitk.GetImageFromArray(np.rint(voxels.mean(axis=-1)).astype(np.float32))
    out.CopyInformation(image)
    return out


def read_slice(
    path: Path, header: Dataset, pixel_mm: float | None
) -> tuple[sitk.Image, tuple[str, ...]]:
    """A DICOM file of one slice, and notes.

    The values are those of its slope and intercept. A file without a place in space, as of X-ray
    and ultrasound, lies at zero, with the pixel size that its header knows.

    Args:
        path: the file.
        header: of it, from `read_header`.
        pixel_mm: edge of a pixel, where the header has none.
    """
    stored = sitk.ReadImage(str(path), sitk.sitkFloat32)
    voxels, notes = without_padding(sitk.GetArrayViewFromImage(stored), [scale(header)])
    image = sitk.GetImageFromArray(voxels)
    placed = value(header, "ImagePositionPatient", None, default=None) is not None
    if placed:
        where = plane(header)
        across = float(value(header, "SliceThickness", None, default=1.0) or 1.0)
        image.SetSpacing((*where.spacing, across))
        image.SetDirection(np.column_stack([where.axes, where.normal]).ravel().tolist())
        image.SetOrigin(where.position.tolist())
        return image, notes
    edges = next(
        (found for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
         if (found := value(header, keyword, None, default=None)) is not None), None
    )  # fmt: skip
    if edges is None and pixel_mm is None:
        return image, (*notes, NO_SPACING)
    across = pixel_mm or 1.0
    rows, columns = (float(edges[0]), float(edges[1])) if edges is not None else (across, across)
    image.SetSpacing((columns, rows, 1.0))
    return image, notes
