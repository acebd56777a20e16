"""Every case of a cohort opened once: what was done to its geometry, or why it is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from tqdm import tqdm

from lens.cohort.case import read_case
from lens.cohort.manifest import Cohort
from lens.cohort.placement import Placement, geometry_table, refusal
from lens.errors import CaseError


def geometry_report(
    cohort: Cohort,
    *,
    spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0),
    labels: Mapping[str, Sequence[int]] | None = None,
    progress: bool = True,
) -> tuple[pd.DataFrame, tuple[CaseError, ...]]:
    """Reads every case as radiomics and encoders would.

    Args:
        cohort: from `read_manifest`.
        spacing_mm: (x, y, z) of the grid.
        labels: region -> the mask values that make it, as in `read_case`.
        progress: show a progress bar.

    Returns:
        The geometry report (``geometry.csv``): a row per image and mask, and for a case that is
        refused a row for the file that is to blame; and all errors, those of the manifest included.
    """
    reports: list[tuple[str, str | None, Sequence[Placement]]] = []
    errors = list(cohort.set_aside)
    for files in tqdm(cohort.cases, desc="cases", unit="case", disable=not progress):
        try:
            case = read_case(files, spacing_mm=spacing_mm, labels=labels, margin=(0, 0, 0))
            placements: Sequence[Placement] = case.geometry
        except CaseError as error:
            errors.append(error)
            placements = [refusal(error, files)]
        reports.append((files.patient_id, files.study_id, placements))
    return geometry_table(reports), tuple(errors)
