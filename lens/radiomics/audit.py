"""What is wrong with a radiomics table, value by value and column by column, and why."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.cohort.manifest import CaseFiles
from lens.radiomics.findings import FINDINGS
from lens.radiomics.matrices import CLASSES
from lens.radiomics.names import parse_columns

log = logging.getLogger(__name__)

FEWEST, MOST = 16, 128
"""Gray levels of an image between which texture is comparable and affordable."""

MIN_PATIENTS = 10
"""Fewest patients over which a column is called constant or proportional to another."""

KEYS = ("patient_id", "study_id")


class Image(NamedTuple):
    """Gray levels of one image in one region: a row of `gray_levels`.

    Attributes:
        patient_id, study_id: whose image.
        modality, roi, image: which image (``original``, ``wavelet-LLH``, ...) and region.
        bins: gray levels between the lowest and the highest.
        occupied: gray levels that have a voxel.
        voxels: of the region.
    """

    patient_id: str
    study_id: str
    modality: str
    roi: str
    image: str
    bins: int
    occupied: int
    voxels: int


class Audit(NamedTuple):
    """A radiomics table with its bad values taken out.

    Attributes:
        table: as given, with NaN for what the findings call bad.
        findings: a row each, see `audit`.
    """

    table: pd.DataFrame
    findings: pd.DataFrame


def gray_levels(cases: Sequence[CaseFiles], parts: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Gray levels of every image, a row per patient, modality, ROI and filtered image.

    Returns:
        Table with ``patient_id``, ``study_id`` (empty where there is none), ``modality``, ``roi``,
        ``image``, ``bins`` (from the lowest to the highest intensity), ``occupied`` (those that
        hold a voxel) and ``voxels`` of the region.
    """
    rows = [
        (files.patient_id, files.study_id or "", *region, image, *bins, part["voxels"][name])
        for files, part in zip(cases, parts, strict=True)
        for key, bins in part["bins"].items()
        for region, image, name in [_split(key)]
    ]
    return pd.DataFrame(rows, columns=list(Image._fields))


def audit(table: pd.DataFrame, levels: pd.DataFrame) -> Audit:
    """Finds what cannot be trusted in a radiomics table and takes out what is no measurement.

    Kinds of finding, those marked * with NaN in the table:

    - ``gray levels``: an image of a region has fewer than 16 or more than 128;
    - ``small region``: a region has fewer voxels than an image has gray levels;
    - ``one gray level`` *: texture of an image with a single gray level, where PyRadiomics gives
      conventional values (correlation 1, coarseness 1e6);
    - ``undefined`` (NaN already) and ``infinite`` *: values of a region that was measured;
    - ``constant`` *: a column with one value over all of at least 10 patients;
    - ``proportional``: a column that is another one times a number over all of at least 10
      patients (GLCM's SumAverage is twice JointAverage); it stays in the table, but adds nothing,
      and `lens.load_study` drops it.

    Args:
        table: a row per case with ``patient_id`` and perhaps ``study_id``.
        levels: from `gray_levels`, for the same cases.
    """
    names = [column for column in table.columns if column not in KEYS]
    values = table[names].to_numpy(np.float64, copy=True)
    features = parse_columns(names)
    rows = {key: row for row, key in enumerate(_case_keys(table))}
    findings = [
        *_gray_level_findings(levels),
        *_single_level(values, features, levels, rows),
        *_not_finite(values, names, table["patient_id"], _measured(features, levels, rows)),
        *_constant(values, names),
        *_proportional(values, names),
    ]
    checked = table.copy()
    checked[names] = values
    return Audit(checked, pd.DataFrame(findings, columns=list(FINDINGS)))


def log_findings(findings: pd.DataFrame) -> None:
    """Logs how much of each kind was found, and the first of its reasons."""
    for kind, rows in findings.groupby("kind", sort=False):
        first = rows.iloc[0]
        where = f"patient {first['patient_id']}, " if first["patient_id"] else ""
        others = f" ({len(rows) - 1} more)" if len(rows) > 1 else ""
        log.info("audit, %s: %s%s: %s%s", kind, where, first["column"], first["reason"], others)


def _images(levels: pd.DataFrame) -> Iterator[Image]:
    return (Image(*row) for row in levels.itertuples(index=False, name=None))


def _split(key: str) -> tuple[tuple[str, str], str, str]:
    """``t2.gland.original`` as region, image and name of the region."""
    modality, roi, image = key.split(".", 2)
    return (modality, roi), image, f"{modality}.{roi}"


def _case_keys(table: pd.DataFrame) -> list[tuple[str, str]]:
    studies = table["study_id"] if "study_id" in table else [""] * len(table)
    pairs = zip(table["patient_id"], studies, strict=True)
    return [(patient, study or "") for patient, study in pairs]


def _gray_level_findings(levels: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    for row in _images(levels):
        where = row.patient_id, f"{row.modality}.{row.roi}.{row.image}"
        if row.occupied < FEWEST:
            reason = (
                f"{row.occupied} gray level(s), fewer than {FEWEST}: bins are wide for the range"
            )
            yield *where, "gray levels", reason
        elif row.bins > MOST:
            yield (
                *where,
                "gray levels",
                f"{row.bins} gray levels, more than {MOST}: bins are narrow for the range",
            )
        if row.voxels < row.bins:
            yield (
                *where,
                "small region",
                f"{row.voxels} voxels for {row.bins} gray levels: texture is mostly chance",
            )


def _single_level(
    values: Float[np.ndarray, "n k"],
    features: pd.DataFrame,
    levels: pd.DataFrame,
    rows: Mapping[tuple[str, str], int],
) -> Iterator[tuple[str, str, str, str]]:
    for found in _images(levels[levels["occupied"] == 1]):
        texture = features["feature_class"].isin(CLASSES) & (features["image"] == found.image)
        texture &= (features["modality"] == found.modality) & (features["roi"] == found.roi)
        values[rows[found.patient_id, found.study_id], texture.to_numpy()] = np.nan
        for column in features["column"][texture]:
            yield found.patient_id, column, "one gray level", "one gray level has no texture"


def _measured(
    features: pd.DataFrame, levels: pd.DataFrame, rows: Mapping[tuple[str, str], int]
) -> Bool[np.ndarray, "n k"]:
    """Whether the region of each column exists in each case."""
    regions = (features["modality"] + "." + features["roi"]).to_numpy(str)
    measured = np.zeros((len(rows), len(features)), bool)
    cases = levels.drop_duplicates(["patient_id", "study_id", "modality", "roi"])
    for found in _images(cases):
        region = f"{found.modality}.{found.roi}"
        measured[rows[found.patient_id, found.study_id]] |= regions == region
    return measured


def _not_finite(
    values: Float[np.ndarray, "n k"],
    names: Sequence[str],
    patients: pd.Series,
    measured: Bool[np.ndarray, "n k"],
) -> Iterator[tuple[str, str, str, str]]:
    for row, column in np.argwhere(measured & ~np.isfinite(values)):
        if np.isnan(values[row, column]):
            kind, reason = "undefined", "not defined by this region: too small, isolated or flat"
        else:
            kind, reason = "infinite", "PyRadiomics gives an infinite value"
            values[row, column] = np.nan
        yield patients.iloc[row], names[int(column)], kind, reason


def _constant(
    values: Float[np.ndarray, "n k"], names: Sequence[str]
) -> Iterator[tuple[str, str, str, str]]:
    present = np.isfinite(values)
    for column, name in enumerate(names):
        known = values[present[:, column], column]
        if len(known) >= MIN_PATIENTS and np.ptp(known) == 0:
            values[:, column] = np.nan
            yield "", name, "constant", f"{known[0]:g} in all {len(known)} patients"


def _proportional(
    values: Float[np.ndarray, "n k"], names: Sequence[str]
) -> Iterator[tuple[str, str, str, str]]:
    first: dict[bytes, int] = {}
    for column, name in enumerate(names):
        known = values[:, column]
        known = known[np.isfinite(known)]
        if len(known) < MIN_PATIENTS or not np.any(known):
            continue
        unit = known[np.flatnonzero(known)[0]]
        # Seven digits bring candidates together, whose ratio is then compared to the last digits.
        shape = (known / unit).astype(np.float32).tobytes()
        pattern = np.isfinite(values[:, column]).tobytes()
        other = first.setdefault(shape + pattern, column)
        base = values[np.isfinite(values[:, other]), other]
        factor = unit / base[np.flatnonzero(known)[0]]
        if other != column and np.allclose(known, factor * base, rtol=1e-12, atol=0):
            yield (
                "",
                name,
                "proportional",
                f"{factor:.6g} x {names[other]} in all {len(known)} patients",
            )
