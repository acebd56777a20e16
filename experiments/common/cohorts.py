"""The cohort that flags name, with what they say of its columns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from encoders.settings import INPUT_SHAPE, SPACING_MM
from lens.settings import NiftiForm

if TYPE_CHECKING:
    from lens.cohort import Cohort

log = logging.getLogger(__name__)

FLAT_SHAPE, FLAT_SPACING = (1, 224, 224), (1.0, 1.0, 1.0)
"""An encoder's input (D, H, W) and its voxels (x, y, z) where images are of a single slice."""

NO_CHANNEL = ("none", "")
"""Names of an encoder's channel that no image fills."""


class CohortFlags(Protocol):
    """Flags of every job that takes a cohort."""

    @property
    def cohort(self) -> Path | None:
        """The manifest."""
        ...

    @property
    def modalities(self) -> tuple[str, ...]:
        """Columns with images."""
        ...

    @property
    def rois(self) -> tuple[str, ...]:
        """Columns with masks."""
        ...

    @property
    def kind(self) -> tuple[str, ...]:
        """``NAME=KIND``: what the numbers of a modality mean."""
        ...

    @property
    def nifti_form(self) -> NiftiForm | None:
        """Which placement of a NIfTI header to use."""
        ...


def read_cohort(
    flags: CohortFlags, *, label: Sequence[str] = (), only: bool = True, told: bool = True
) -> Cohort:
    """The manifest as the flags describe it; says what was taken for what.

    Args:
        flags: of the job.
        label: of ``--label``.
        only: ``--modalities`` names all images of the cohort; False where it names what an encoder
            is shown of them.
        told: log what was taken for what.

    Raises:
        InputError: as `lens.cohort.read_manifest`, or a flag of another form.
    """
    from lens.cohort import parse_labels, read_manifest
    from lens.cohort.columns import Declared
    from lens.cohort.intensities import parse_kinds

    assert flags.cohort is not None
    named = tuple(name for name in flags.modalities if name not in NO_CHANNEL)
    declared = Declared(
        modalities=named if only else (),
        channels=() if only else named,
        rois=flags.rois,
        kinds=parse_kinds(flags.kind),
        labels=parse_labels(label),
    )
    cohort = read_manifest(flags.cohort, nifti_form=flags.nifti_form, declared=declared)
    if told:
        log.info("cohort: %s", cohort.columns)
    return cohort


def spacing_of(
    cohort: Cohort, given: tuple[float, float, float] | None
) -> tuple[float, float, float]:
    """Voxel size (x, y, z): as given, or the default of volumes or single slices."""
    return given or (FLAT_SPACING if cohort.flat else SPACING_MM)


def shape_of(cohort: Cohort, given: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """An encoder's input (D, H, W): as given, or the default of volumes or single slices."""
    return given or (FLAT_SHAPE if cohort.flat else INPUT_SHAPE)
