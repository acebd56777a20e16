"""Patients as images: manifest, reading, one grid per patient, and a phantom cohort."""

from lens.cohort.anatomy import write_phantoms_on
from lens.cohort.case import Case, read_case
from lens.cohort.images import read_image, read_mask
from lens.cohort.manifest import CaseFiles, Cohort, read_manifest
from lens.cohort.phantom import Phantom, write_phantoms
from lens.cohort.placement import Placement, geometry_table
from lens.cohort.regions import parse_labels
from lens.cohort.volume import stack, stack_mask

__all__ = [
    "Case",
    "CaseFiles",
    "Cohort",
    "Phantom",
    "Placement",
    "geometry_table",
    "parse_labels",
    "read_case",
    "read_image",
    "read_manifest",
    "read_mask",
    "stack",
    "stack_mask",
    "write_phantoms",
    "write_phantoms_on",
]
