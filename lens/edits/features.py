"""What an edit really changed: radiomic features measured again, on target and off it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import SimpleITK as sitk

from lens.cohort.case import Case
from lens.edits.catalogue import Target
from lens.edits.versions import Editable, edited
from lens.radiomics.extract import columns, extract_regions, scaling_of
from lens.radiomics.names import column_name, parse_columns
from lens.radiomics.parameters import Parameters, parameters_for

KINDS_2D = {"original_shape_VoxelVolume": "original_shape2D_PixelSurface"}
"""Feature of a volume -> its like of a single slice."""


LARGEST = 100.0
"""Standard deviations beyond which a change is no size: PyRadiomics gives a number of its own to a
feature that is not defined, such as a coarseness of 1e6 to a region of one gray level."""


def measure_again(
    of: Editable, target: Target, parameters: Mapping[str, Parameters], *, anew: bool = False
) -> tuple[dict[str, float], dict[str, float]]:
    """Features of the region before and after an edit, at the edit's largest dose above zero.

    Measured as the radiomics table is, but standardised as the original image was: the edit is
    then all that differs. The region after an edit of the contour is the moved one, and its volume
    is told whether or not the parameters ask for shape.

    Args:
        of: the case.
        target: edit, region and image; of an edit that moves contours the first image is measured.
        parameters: by modality.
        anew: standardise the edited image by itself.

    Returns:
        Value by column before, and after.

    Raises:
        CaseError: the edit cannot be made, or a region cannot be measured.
    """
    images = target.images(tuple(of.case.images))
    made = edited(of, target.edit, target.edit.measured, images, of.region, carry=True)
    measured = images[:1]
    found = []
    for case in (of.case, made.case):
        only = {name: case.images[name] for name in measured}
        part = type(case)(
            case.patient_id, case.study_id, only, case.masks, case.notes, kinds=case.kinds
        )
        scalings = {
            name: scaling_of(case if anew else of.case, name, parameters_for(parameters, name))
            for name in measured
        }
        regions = extract_regions(part, parameters, scalings=scalings, rois=(target.roi,))
        found.append(columns(regions) | _volume(case, target, measured[0]))
    return found[0], found[1]


def _volume(case: Case, target: Target, modality: str) -> dict[str, float]:
    """Volume of the region in mm3, as PyRadiomics counts voxels, where its contour is edited."""
    mask = case.masks[target.roi]
    flat = mask.GetSize()[2] == 1
    if not target.edit.moves_contours or flat:
        return {}
    voxels = np.count_nonzero(sitk.GetArrayViewFromImage(mask))
    volume = float(voxels * np.prod(mask.GetSpacing()))
    return {column_name(modality, target.roi, "original_shape_VoxelVolume"): volume}


def changes(
    target: Target, before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]
) -> pd.DataFrame:
    """Change of every feature by an edit, over patients.

    Args:
        target: the edit.
        before, after: value by column, a mapping per patient.

    Returns:
        A row per column: ``column, on_target, n, before, change, change_sd``: means in the
        feature's unit, and the mean change in standard deviations of the feature over the patients
        before the edit (NaN where it does not vary).
    """
    first, second = pd.DataFrame(list(before)), pd.DataFrame(list(after))
    second = second.reindex(columns=first.columns)
    difference = second - first
    spread = first.std(ddof=1).to_numpy(float)
    mean = difference.mean().to_numpy(float)
    # A spread that is rounding, or that of one patient, is no unit.
    varies = spread > 1e-9 * np.abs(first.mean().to_numpy(float))
    parts = parse_columns(list(first.columns))
    return pd.DataFrame({
        "column": list(first.columns),
        "on_target": parts["feature_class"].isin(target.edit.about.classes).to_numpy(),
        "n": difference.notna().sum().to_numpy(),
        "before": first.mean().to_numpy(float),
        "change": mean,
        "change_sd": np.divide(mean, spread, out=np.full_like(mean, np.nan), where=varies),
    })  # fmt: skip


def summary(target: Target, table: pd.DataFrame) -> dict[str, object]:
    """The features that tell most of an edit.

    Args:
        target: the edit.
        table: of `changes`.

    Returns:
        ``feature`` that the edit is meant to change most (another of its classes where that was not
        measured), ``feature_change`` in its unit, ``feature_change_sd``; ``on_target_sd`` and
        ``off_target_sd``, the median size of the change in standard deviations over the features of
        the edit's classes and over all others; ``off_target_feature`` that changed most among
        these, and ``off_target_largest_sd``. Changes beyond `LARGEST` are passed over.
    """
    size = table.assign(size=table["change_sd"].abs())
    size = size[size["size"] <= LARGEST]
    on, off = size[size["on_target"]], size[~size["on_target"]]
    wanted = target.edit.feature()
    names = {wanted, KINDS_2D.get(wanted, wanted)}
    found = table[table["column"].str.split(".", n=2).str[2].isin(names)]
    if found.empty and len(on):
        found = on.nlargest(1, "size")
    own = found.iloc[0] if len(found) else None
    worst = off.nlargest(1, "size").iloc[0] if len(off) else None
    return {
        "feature": "" if own is None else own["column"],
        "feature_change": np.nan if own is None else own["change"],
        "feature_change_sd": np.nan if own is None else own["change_sd"],
        "on_target_sd": on["size"].median() if len(on) else np.nan,
        "off_target_sd": off["size"].median() if len(off) else np.nan,
        "off_target_feature": "" if worst is None else worst["column"],
        "off_target_largest_sd": np.nan if worst is None else worst["change_sd"],
    }
