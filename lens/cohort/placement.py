"""How each image and mask came onto the grid of its case: records, and their table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from lens.cohort.geometry import MENTION
from lens.cohort.images import listed
from lens.cohort.manifest import CaseFiles
from lens.errors import CaseError

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["identical", "snapped", "reoriented", "resampled", "refused"]


@dataclass(frozen=True)
class Placement:
    """How one file relates to the grid of the reference image, and what of it was used.

    Attributes:
        name: modality or region.
        file: where it lies.
        verdict: ``identical`` grid; ``snapped``: the same grid but for rounding of the headers;
            ``reoriented``: the same grid stored with flipped or permuted axes; ``resampled``: a
            grid of its own, sampled anew; ``refused``.
        displacement: largest distance to the reference's voxel centres along an axis, in its
            voxels; None on a grid of its own.
        displacement_mm: the same distance in space.
        dice: of a mask, overlap of the region in use with the region as stored, on the stored grid.
        volume_change: of a mask, volume in use over volume as stored, less 1.
        labels: of a mask, the values above or below zero with their voxel counts.
        taken: of a mask, the values that were taken as the region.
        reason: what a grid of its own differs in, why the file was refused, or what is
            odd about a mask that is used.
    """

    name: str
    file: str
    verdict: Verdict
    displacement: float | None = None
    displacement_mm: float | None = None
    dice: float | None = None
    volume_change: float | None = None
    labels: tuple[tuple[int, int], ...] = ()
    taken: tuple[int, ...] = ()
    reason: str = ""

    def row(self) -> dict[str, str | float | None]:
        """As a row of ``geometry.csv``, numbers to six decimals."""
        numbers = ("displacement", "displacement_mm", "dice", "volume_change")
        found = {name: getattr(self, name) for name in numbers}
        rounded = {name: None if x is None else round(x, 6) for name, x in found.items()}
        return asdict(self) | {
            **rounded,
            "labels": listed(dict(self.labels)),
            "taken": ", ".join(map(str, self.taken)),
        }


COLUMNS = (
    "patient_id",
    "study_id",
    *("name", "verdict", "displacement", "displacement_mm", "dice", "volume_change"),
    *("labels", "taken", "reason", "file"),
)
"""Columns of ``geometry.csv``."""


def verdict(displacement: float, reordered: bool) -> Verdict:
    """The verdict on a grid that equals the reference's but for rounding and axis order."""
    if displacement > MENTION:
        return "snapped"
    return "reoriented" if reordered else "identical"


def geometry_table(cases: Iterable[tuple[str, str | None, Iterable[Placement]]]) -> pd.DataFrame:
    """The report as a table, a row per image and mask.

    Args:
        cases: per case the patient, the study and ``Case.geometry``.
    """
    rows = [
        {"patient_id": patient, "study_id": study or "", **placement.row()}
        for patient, study, placements in cases
        for placement in placements
    ]
    import pandas as pd  # late: workers make no table

    return pd.DataFrame(rows, columns=list(COLUMNS))


def refusal(error: CaseError, files: CaseFiles) -> Placement:
    """The record about the file for which a case is refused."""
    named = {str(path): name for name, path in (files.images | files.masks).items()}
    return Placement(named.get(error.file, ""), error.file, "refused", reason=error.reason)
