"""Small images with known content, for the tests of this folder."""

from __future__ import annotations

import locale
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lens.cohort import CaseFiles


def rotation(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    """Rotation by degrees about the x, then y, then z axis."""
    cx, cy, cz = np.cos(np.radians([x, y, z]))
    sx, sy, sz = np.sin(np.radians([x, y, z]))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def image(
    array: np.ndarray,
    spacing=(1.0, 1.0, 2.0),
    direction: np.ndarray | None = None,
    centre=(0, 0, 0),
) -> sitk.Image:
    """An image of a (z, y, x) array whose centre lies at `centre` mm."""
    direction = np.eye(3) if direction is None else direction
    out = sitk.GetImageFromArray(array)
    out.SetSpacing(spacing)
    out.SetDirection(direction.ravel().tolist())
    half = (np.array(out.GetSize()) - 1) * spacing / 2
    out.SetOrigin((np.array(centre) - direction @ half).tolist())
    return out


def positions(grid: sitk.Image) -> np.ndarray:
    """(z, y, x, 3) voxel centres in mm, one by one from the image itself."""
    flat = [
        grid.TransformIndexToPhysicalPoint((x, y, z))
        for z in range(grid.GetSize()[2])
        for y in range(grid.GetSize()[1])
        for x in range(grid.GetSize()[0])
    ]
    return np.array(flat).reshape(*grid.GetSize()[::-1], 3)


def ball(size_zyx=(10, 20, 20), radius=6.0, spacing=(1.0, 1.0, 2.0)) -> np.ndarray:
    """(z, y, x) uint8 ball of `radius` mm about the centre."""
    axes = [
        (np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(size_zyx, spacing[::-1], strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return (x**2 + y**2 + z**2 < radius**2).astype(np.uint8)


def noise(size_zyx=(10, 20, 20), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(100, 900, size_zyx).astype(np.float32)


def write(image: sitk.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def case_files(folder: Path, patient_id: str = "P-07", **images: sitk.Image) -> CaseFiles:
    """Writes images and masks by name and describes them as a manifest would."""
    paths = {name: write(content, folder / f"{name}.mha") for name, content in images.items()}
    return CaseFiles(
        patient_id=patient_id,
        study_id=None,
        images={name: paths[name] for name in ("t2", "dwi", "adc") if name in paths},
        masks={name: paths[name] for name in ("gland", "lesion") if name in paths},
        labels={},
        split=None,
    )


def write_series(
    volume: sitk.Image,
    folder: Path,
    series_uid: str = "1.2.826.0.1.3680043.2.1125.1",
    skip=(),
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Writes int16 slices as a DICOM series, without those in `skip`, with further header tags."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = volume.GetDirection()
    cosines = "\\".join(f"{direction[k]:.12f}" for k in (0, 3, 6, 1, 4, 7))
    for k in range(volume.GetSize()[2]):
        if k in skip:
            continue
        piece = volume[:, :, k]
        origin = volume.TransformIndexToPhysicalPoint((0, 0, k))
        for tag, value in {
            "0008|0060": "MR",
            "0008|0008": "DERIVED\\SECONDARY",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0020|000e": series_uid,
            "0008|0018": f"{series_uid}.{k + 1}",
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{mm:.9f}" for mm in origin),
            "0020|0037": cosines,
            "0018|0050": str(volume.GetSpacing()[2]),
            **(tags or {}),
        }.items():
            piece.SetMetaData(tag, value)
        # Named against the order of the slices, which must not matter.
        writer.SetFileName(str(folder / f"{series_uid[-1]}-{99 - k}.dcm"))
        _execute(writer, piece)
    return folder


def _execute(writer: sitk.ImageFileWriter, image: sitk.Image) -> None:
    """Writes, and gives the process its locale back: ITK's DICOM writer leaves it at C, in which
    Python reads the output of other programs as ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        writer.Execute(image)
    finally:
        locale.setlocale(locale.LC_ALL, before)
