"""NIfTI-1 headers: alone, as a pair of .hdr and .img, and the Analyze 7.5 header they grew from."""

from __future__ import annotations

import gzip
import itertools
import math
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk

from lens.cohort.geometry import SNAP_LIMIT
from lens.cohort.headers import Header, HeaderFault, check_axes, damaged
from lens.settings import NiftiForm

GZIP = b"\x1f\x8b"
"""How compressed content begins."""

UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Code of the header's spatial unit -> mm; a file that does not say is taken to be in mm."""

TO_LPS = np.diag([-1.0, -1.0, 1.0])
"""NIfTI counts to the right, front and head; images here to the left, back and head."""

SINGLE_FILE_OFFSET = 352
"""Bytes of a single file before its voxels: the header of 348 and the mark of an extension."""

STORED = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
"""Code of the data type -> type of a number, without its byte order."""

BLOCK = 1 << 20
"""Bytes of voxels that are looked at at a time."""

TENSORS = {1004: "a matrix", 1005: "a symmetric matrix", 1006: "a displacement"}
"""Intent codes of what is no number per voxel."""

SPACING_AGREES = 1e-3
"""Largest relative difference of a voxel's edge in pixdim from that in the sform that counts as
rounding."""

ORTHONORMAL = 1e-4
"""Shear from which ITK refuses an sform that is within rounding."""


class Placements(NamedTuple):
    """The (3, 4) matrices, voxel index to mm in LPS, that a header gives; None where it does not
    (its code is 0)."""

    qform: np.ndarray | None
    sform: np.ndarray | None

    def used(self, form: NiftiForm | None) -> np.ndarray | None:
        """The one that is asked for (the qform where none is), or else the one that is there."""
        first, second = (self.sform, self.qform) if form == "sform" else (self.qform, self.sform)
        return first if first is not None else second


def nifti_header(path: Path, form: NiftiForm | None) -> Header:
    """The header of a NIfTI file.

    Args:
        path: .nii, .nii.gz, or one file of a pair .hdr and .img (also .gz).
        form: which placement to use where both are set; None refuses those that disagree.

    Raises:
        HeaderFault: NIfTI-2, MGZ or no NIfTI at all, two placements that disagree, a sform whose
            voxels are not those of pixdim, or a compressed pair beside a plain one.
    """
    file, data = header_and_voxels(path)
    if file != data:
        _check_alone(path)
    content = _content(file)
    _check_kind(file, content)
    order = _order(content)
    dim = struct.unpack_from(f"{order}8h", content, 40)
    if not 1 <= dim[0] <= 7:
        raise HeaderFault(f"the header announces {dim[0]} axes", "Export the image again.")
    (bits,) = struct.unpack_from(f"{order}h", content, 72)
    pixdim = struct.unpack_from(f"{order}8f", content, 76)
    (intent,) = struct.unpack_from(f"{order}h", content, 68)
    if intent in TENSORS:
        raise HeaderFault(
            f"{TENSORS[intent]} per voxel by its intent code, {intent}",
            "Give an image of one number per voxel; if it is one, set the intent code to 0.",
        )
    lead = _lead(content, order, single=file == data)
    size = dim[1 : 1 + dim[0]]
    # Only space has to have a spacing: a fourth axis is time.
    spacing = tuple(mm if axis < 3 else 1.0 for axis, mm in enumerate(pixdim[1 : 1 + dim[0]]))
    placements = _placements(content)
    notes = []
    qform, sform = placements.qform, placements.sform
    if qform is not None and sform is not None and form is None and min(spacing[:3]) > 0:
        _check_agreement(qform, sform, size)
    if qform is None and sform is not None and form != "sform" and min(spacing[:3]) > 0:
        _check_edges(sform, np.array(spacing[:3]) * _to_mm(content))
    if qform is None and sform is None:
        notes.append("no orientation in the header (qform and sform have code 0)")
    used = placements.used(form)
    return Header(
        form="NIfTI",
        size=size,
        voxel_bytes=bits / 8 if bits > 0 else None,
        spacing=spacing,
        unit="",
        axes=None if used is None or len(size) < 3 else used[:, :3],
        data=(data,),
        lead=lead,
        packing="gzip" if _begins(data).startswith(GZIP) else "",
        stored=_stored(content, order),
        notes=tuple(notes),
    )


def header_and_voxels(path: Path) -> tuple[Path, Path]:
    """The file with the header and the file with the voxels: of a pair .hdr and .img, whichever of
    them is named; for any other name the file itself, twice."""
    name = path.name
    for ending in (".hdr", ".img", ".hdr.gz", ".img.gz"):
        if name.lower().endswith(ending):
            stem = name[: -len(ending)]
            return _partner(path, stem, "hdr"), _partner(path, stem, "img")
    return path, path


@contextmanager
def apart(path: Path) -> Iterator[Path]:
    """The path by which ITK reads an image: of a copy where another file lies in the way.

    Asked for ``t2.nii.gz``, ITK takes the voxels from a ``t2.nii`` beside it.
    """
    if not (path.name.lower().endswith(".gz") and path.with_suffix("").exists()):
        yield path
        return
    with TemporaryDirectory() as folder:
        yield Path(shutil.copyfile(path, Path(folder, path.name)))


def not_finite(path: Path, header: Header) -> tuple[str, ...]:
    """A note on NaN and infinite voxels, of which ITK makes zeros silently before it scales them.

    Args:
        path: of a NIfTI file whose voxels are all there.
        header: its own.
    """
    content = _content(header_and_voxels(path)[0])
    order = _order(content)
    (code,) = struct.unpack_from(f"{order}h", content, 70)
    if STORED.get(code, "")[:1] != "f":
        return ()
    kind = np.dtype(f"{order}{STORED[code]}")
    left, bad = math.prod(header.size) * kind.itemsize, 0
    with (gzip.open if header.packing else open)(header.data[0], "rb") as stream:
        stream.seek(header.lead)
        while block := stream.read(min(left, BLOCK)):
            left -= len(block)
            bad += int(np.count_nonzero(~np.isfinite(np.frombuffer(block, kind))))
    (intercept,) = struct.unpack_from(f"{order}f", content, 116)
    return (f"{bad} voxel(s) are NaN or infinite, and read as {intercept:g}",) if bad else ()


def placed(image: sitk.Image, path: Path, form: NiftiForm | None) -> sitk.Image:
    """The image where the form asked for puts it; as it is where none is asked for."""
    placement = _placements(_content(header_and_voxels(path)[0])).used(form)
    if form is None or placement is None:
        return image
    spacing = np.linalg.norm(placement[:, :3], axis=0)
    out = sitk.Image(image)
    out.SetSpacing(spacing.tolist())
    out.SetDirection(_rotation(placement[:, :3] / spacing).ravel().tolist())
    out.SetOrigin(placement[:, 3].tolist())
    return out


def needs_rounding(header: Header) -> bool:
    """Whether the axes are at right angles but for rounding, and ITK needs to be told so."""
    if header.axes is None or not header.form.startswith("NIfTI"):
        return False
    unit = header.axes / np.linalg.norm(header.axes, axis=0)
    return float(np.abs(unit.T @ unit - np.eye(3)).max()) > ORTHONORMAL / 2


def _rotation(matrix: np.ndarray) -> np.ndarray:
    """The nearest matrix whose axes are exactly at right angles."""
    left, _, right = np.linalg.svd(matrix)
    return left @ right


def _check_agreement(qform: np.ndarray, sform: np.ndarray, size: tuple[int, ...]) -> None:
    """Refuses a header that places its image twice."""
    last = np.array([*size[:3], 1, 1][:3]) - 1
    corners = np.array(list(itertools.product(*[(0, n) for n in last])))
    index = np.column_stack([corners, np.ones(len(corners))])
    apart = index @ (qform - sform).T
    edges = np.linalg.norm(qform[:, :3], axis=0)
    if not np.all(np.isfinite(apart)) or edges.min() <= 0:
        return
    steps = np.abs(apart @ (qform[:, :3] / edges)) / edges
    # Below it, masks are snapped to the grid whichever of the two is taken.
    if steps.max() > SNAP_LIMIT:
        raise HeaderFault(
            f"qform and sform place this image {np.linalg.norm(apart, axis=1).max():.1f} mm apart",
            "Say which of them is right for this cohort (--nifti-form qform or --nifti-form "
            "sform), or convert the image again.",
        )


def _lead(content: bytes, order: str, *, single: bool) -> int:
    """Bytes before the voxels, in the file that holds them."""
    (offset,) = struct.unpack_from(f"{order}f", content, 108)
    if single and not offset >= SINGLE_FILE_OFFSET:
        raise HeaderFault(
            f"vox_offset {offset:g}, where the header alone takes {SINGLE_FILE_OFFSET} bytes, so "
            "that header would be read as voxels",
            f"Set vox_offset to where the voxels begin (mostly {SINGLE_FILE_OFFSET}), or convert "
            "the image again.",
        )
    return int(offset) if np.isfinite(offset) and offset > 0 else 0


def _stored(content: bytes, order: str) -> np.dtype[Any] | None:
    """Type of the voxels of a single file; None where slope and intercept make their values, or the
    bits of a voxel are not those of its type."""
    code, bits = struct.unpack_from(f"{order}2h", content, 70)
    slope, intercept = struct.unpack_from(f"{order}2f", content, 112)
    if content[344:348] != b"n+1\0" or code not in STORED or slope not in (0, 1) or intercept != 0:
        return None
    kind = np.dtype(f"{order}{STORED[code]}")
    return kind if bits == 8 * kind.itemsize else None


def _check_edges(sform: np.ndarray, pixdim_mm: np.ndarray) -> None:
    """Refuses a header whose only placement has voxels of another size than it says (pixdim)."""
    check_axes(sform[:, :3])
    edges = np.linalg.norm(sform[:, :3], axis=0)[: len(pixdim_mm)]
    if np.abs(edges / pixdim_mm - 1).max() > SPACING_AGREES:
        said, placed = (" x ".join(f"{mm:.4g}" for mm in each) for each in (pixdim_mm, edges))
        raise HeaderFault(
            f"the header gives voxels of {said} mm (pixdim), and places them {placed} mm apart "
            "(sform)",
            "Say that the sform is right for this cohort (--nifti-form sform), or convert the "
            "image again.",
        )


def _to_mm(content: bytes) -> float:
    return UNIT_MM.get(content[123] & 7, 1.0)


def _placements(content: bytes) -> Placements:
    order = _order(content)
    if content[344:348] not in (b"n+1\0", b"ni1\0"):
        return Placements(None, None)
    qcode, scode = struct.unpack_from(f"{order}2h", content, 252)
    to_mm = _to_mm(content)
    qform = _qform(content, order) if qcode > 0 else None
    sform = None
    if scode > 0:
        sform = np.array(struct.unpack_from(f"{order}12f", content, 280)).reshape(3, 4)
    return Placements(*(None if form is None else TO_LPS @ form * to_mm for form in (qform, sform)))


def _qform(content: bytes, order: str) -> np.ndarray:
    """(3, 4): the rotation of a unit quaternion, the spacing, and the offset."""
    b, c, d, *offset = struct.unpack_from(f"{order}6f", content, 256)
    qfac, *spacing = struct.unpack_from(f"{order}4f", content, 76)
    squares = b * b + c * c + d * d
    if squares > 1:
        b, c, d = (part / np.sqrt(squares) for part in (b, c, d))
    a = np.sqrt(max(0.0, 1 - squares))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    scale = np.array(spacing) * [1, 1, -1 if qfac < 0 else 1]
    return np.column_stack([rotation * scale, offset])


def _check_alone(path: Path) -> None:
    """Refuses a compressed pair beside a plain one, whose voxels ITK would take."""
    name = path.name
    if not name.lower().endswith(".gz"):
        return
    for kind in ("hdr", "img"):
        packed = path.with_name(f"{name[: -len('.hdr.gz')]}.{kind}.gz")
        plain = packed.with_suffix("")
        if packed.exists() and plain.exists():
            raise HeaderFault(
                f"{plain.name} lies beside {packed.name}, and ITK would read the one for the other",
                "Move the pair that is not meant to another folder.",
            )


def _partner(path: Path, stem: str, kind: str) -> Path:
    named = [path.with_name(f"{stem}.{ending}") for ending in (kind, f"{kind}.gz")]
    named += [path.with_name(f"{stem}.{ending}") for ending in (kind.upper(), f"{kind.upper()}.GZ")]
    return next((file for file in named if file.exists()), named[0])


def _content(file: Path) -> bytes:
    """The first bytes, unpacked where they are compressed."""
    try:
        with gzip.open(file) if _begins(file).startswith(GZIP) else file.open("rb") as stream:
            return stream.read(1024)
    except FileNotFoundError:
        raise HeaderFault(
            f"unreadable image (its header {file.name} is not there)",
            "Copy both files, the .hdr and the .img.",
        ) from None
    except (EOFError, OSError, zlib.error) as error:
        raise damaged(error) from error


def _begins(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as stream:
        return stream.read(2)


def _order(content: bytes) -> str:
    """The byte order of a NIfTI-1 header, or an empty string for anything else."""
    if len(content) < 348:
        return ""
    return next((o for o in "<>" if struct.unpack_from(f"{o}i", content)[0] == 348), "")


def _check_kind(file: Path, content: bytes) -> None:
    if len(content) >= 8 and 540 in struct.unpack("<i", content[:4]) + struct.unpack(
        ">i", content[:4]
    ):
        raise HeaderFault(
            "NIfTI-2, which is not read",
            "Save it as NIfTI-1, as nibabel.save(nibabel.Nifti1Image(image.get_fdata(), "
            "image.affine), name) does.",
        )
    if file.name.lower().endswith((".mgz", ".mgh")):
        raise HeaderFault(
            "FreeSurfer MGH/MGZ, which is not read",
            "Convert it: mri_convert image.mgz image.nii.gz.",
        )
    if not _order(content):
        raise HeaderFault(
            f"unreadable image (no NIfTI header: it begins {content[:18]!r})",
            "Give NIfTI-1, MHA/MHD or NRRD, or a folder with one DICOM series.",
        )
