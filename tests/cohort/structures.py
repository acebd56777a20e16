"""RTSTRUCT files as planning systems write them, made by pydicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

STUDY = "1.2.826.0.1.3680043.2.1125.9"

Contour = tuple[str, np.ndarray]
"""Geometric type, and (points, 3) mm."""


def circles(
    grid: sitk.Image, radius: float, *, points: int = 180, every: int = 1, hole: bool = False
) -> list[Contour]:
    """A ball of `radius` mm about the grid's centre, cut by its slices; or each circle twice, the
    second of half the radius."""
    middle = [(n - 1) / 2 for n in grid.GetSize()]
    spacing = np.array(grid.GetSpacing())
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    out = []
    for place in range(0, grid.GetSize()[2], every):
        height = (place - middle[2]) * spacing[2]
        if abs(height) >= radius:
            continue
        for share in (1.0, 0.5) if hole else (1.0,):
            edge = share * np.sqrt(radius**2 - height**2)
            index = np.column_stack(
                [middle[0] + edge * np.cos(angle) / spacing[0],
                 middle[1] + edge * np.sin(angle) / spacing[1], np.full(points, place)]
            )  # fmt: skip
            out.append(("CLOSED_PLANAR", physical(grid, index)))
    return out


def physical(grid: sitk.Image, index: np.ndarray) -> np.ndarray:
    """(points, 3) column, row and slice as mm."""
    found = [grid.TransformContinuousIndexToPhysicalPoint(row.tolist()) for row in index]
    return np.array(found)


def write_structures(
    path: Path,
    structures: Mapping[str, Sequence[Contour]],
    *,
    series: str = "",
    patient: str = "",
    study: str = STUDY,
) -> Path:
    """Writes named structures that refer to the series on which they were drawn."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out = Dataset()
    out.file_meta = meta
    out.SOPClassUID, out.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    out.Modality, out.PatientID, out.StudyInstanceUID = "RTSTRUCT", patient, study
    out.SeriesInstanceUID, out.StructureSetLabel = generate_uid(), "RTstruct"
    if series:
        image, within, frame = Dataset(), Dataset(), Dataset()
        image.SeriesInstanceUID = series
        within.RTReferencedSeriesSequence = [image]
        frame.RTReferencedStudySequence = [within]
        out.ReferencedFrameOfReferenceSequence = [frame]
    out.StructureSetROISequence, out.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = number, name, "MANUAL"
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for kind, points in contours:
            one = Dataset()
            one.ContourGeometricType, one.NumberOfContourPoints = kind, len(points)
            one.ContourData = [f"{mm:.4f}" for mm in points.ravel()]
            drawn.ContourSequence.append(one)
        out.StructureSetROISequence.append(roi)
        out.ROIContourSequence.append(drawn)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, out, enforce_file_format=True)
    return path
