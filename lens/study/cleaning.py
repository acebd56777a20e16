"""What of the joined tables can be analysed: features asked for, enough values, some variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool

from lens.errors import CaseError, InputError
from lens.names import check_names
from lens.radiomics.findings import explain, missing_kinds, repeated
from lens.study.absurd import (
    FACTOR,
    MAX_PATIENTS,
    absurd_embeddings,
    absurd_features,
    blame,
    sentinels,
    usual_magnitudes,
)
from lens.study.join import Rows

MAX_MISSING = 0.2
"""A column missing in a larger share of the patients is dropped; a patient who lacks a larger share
of the columns is set aside. What is missing then is imputed."""

LARGEST_USUAL = 1e100
"""Usual magnitude of a feature beyond which squares and sums of double precision overflow."""


def select(rows: Rows, *, rois: Sequence[str] = (), modalities: Sequence[str] = ()) -> Rows:
    """The features of these regions and modalities, all where none is named.

    Rows that have features of other regions or modalities alone (no lesion, say) have no part in
    the study; a note counts them.

    Raises:
        InputError: the table has no such region or modality.
    """
    wanted = _wanted(rows, "roi", rois)
    chosen = rows.with_columns(wanted)
    also = _wanted(chosen, "modality", modalities)
    chosen = chosen.with_columns(also)
    elsewhere = _has_any(rows) & ~_has_any(chosen)
    if not elsewhere.any():
        return chosen
    regions = " or ".join(chosen.features["roi"].unique())
    note = f"{elsewhere.sum()} row(s) without {regions} features have no part in it"
    return replace(chosen.with_rows(~elsewhere), notes=(*rows.notes, note))


def with_spelling(rows: Rows) -> Rows:
    """With a note on names of regions or columns that are the same but for upper and lower case.

    They are analysed as two, which is seldom meant.

    Raises:
        InputError: modalities have such names; people read them in capitals, as one.
    """
    notes = []
    parts = rows.features
    folded = pd.concat([parts[["modality", "roi"]], parts["column"].str.casefold()], axis=1)
    if (twice := folded.duplicated(keep=False)).any():
        same = folded["column"] == folded["column"][twice].iloc[0]
        names = parts["column"][twice & same].tolist()
        notes.append(
            f"{rows.sources['radiomics']}: {twice.sum()} columns have names that are the same but "
            f"for upper and lower case, such as {' and '.join(map(repr, names))}; are they meant "
            "to be one?"
        )
    if alike := _alike(parts["modality"]):
        raise InputError(
            f"{rows.sources['radiomics']}: the modalities {alike} differ in upper and lower case "
            "alone; give them the same name, or names that tell them apart"
        )
    if alike := _alike(parts["roi"]):
        notes.append(
            f"{rows.sources['radiomics']}: roi {alike} are taken as different ones; are they meant "
            "to be one?"
        )
    return replace(rows, notes=(*rows.notes, *notes))


def _alike(names: pd.Series) -> str:
    """Names that are the same but for upper and lower case; empty without any."""
    unique = pd.Series(names.unique())
    return " and ".join(map(repr, unique[unique.str.casefold().duplicated(keep=False)]))


def with_sentinels(rows: Rows) -> Rows:
    """With a note on a value that seems to stand for a missing one, -999 for instance."""
    found = sentinels(rows.r)
    notes = []
    for value in np.unique(rows.r[found]):
        these = found & (rows.r == value)
        patients, columns = np.flatnonzero(these.any(axis=1)), np.flatnonzero(these.any(axis=0))
        notes.append(
            f"{rows.sources['radiomics']}: {value:.6g} is the value of {len(patients)} patients in "
            f"{len(columns)} column(s), and far from all others, such as "
            f"{rows.columns[columns[0]]} of patient {'/'.join(rows.ids.iloc[patients[0]])}; where "
            "it stands for a missing value, leave the cell blank"
        )
    return replace(rows, notes=(*rows.notes, *notes))


def drop_missing(rows: Rows, findings: pd.DataFrame) -> Rows:
    """Without the features missing in more than `MAX_MISSING` of the patients who have the ROI.

    A patient in whom every feature of an ROI is missing has no such ROI (no lesion, say). Features
    of an ROI that most patients lack are dropped unless that ROI was asked for alone.

    Args:
        rows: joined tables.
        findings: of the audit, whose reasons are listed.
    """
    share = _missing_share(rows)
    keep = ~(share > MAX_MISSING)
    reasons = [f"not finite in {fraction:.0%} of the patients" for fraction in share[~keep]]
    dropped = pd.DataFrame({"column": rows.features["column"][~keep], "reason": reasons})
    return rows.with_columns(keep, explain(dropped, findings))


def drop_too_large(rows: Rows) -> Rows:
    """Without the features whose usual magnitude is beyond what can be squared and summed.

    Raises:
        InputError: all of them are.
    """
    usual = usual_magnitudes(rows.r)
    beyond = np.nan_to_num(usual) > LARGEST_USUAL
    reasons = [f"usual values near {size:.3g}, which no feature has" for size in usual[beyond]]
    dropped = pd.DataFrame({"column": rows.features["column"][beyond], "reason": reasons})
    if beyond.all() and len(dropped):
        raise InputError(
            f"{rows.sources['radiomics']}: no feature is left: {dropped['column'].iloc[0]} has "
            f"{dropped['reason'].iloc[0]}; look for an overflow or a wrong unit"
        )
    return rows.with_columns(~beyond, dropped)


def set_aside_absurd(rows: Rows) -> Rows:
    """Without patients who have a value that no measurement can be, see `lens.study.absurd`.

    One such value would decide every mean, deviation and fit that it takes part in. A radiomic
    column that is absurd in more than a twentieth of the patients is dropped in their stead.

    Raises:
        InputError: so many patients are absurd in a dimension of an embedding, which cannot go.
    """
    absurd = absurd_features(rows.r)
    columns, blamed = blame(absurd)
    errors = {
        row: _absurd_value(rows, row, "radiomics", rows.r[row], absurd[row] & ~columns)
        for row in np.flatnonzero(blamed).tolist()
    }
    for name, x in rows.x.items():
        found = absurd_embeddings(x)
        dimensions, blamed = blame(found)
        if dimensions.any():
            raise InputError(_absurd_dimension(rows.sources[name], found, dimensions))
        for row in np.flatnonzero(blamed).tolist():
            errors.setdefault(row, _absurd_value(rows, row, name, x[row], found[row]))
    counts = absurd[:, columns].sum(axis=0)
    reasons = [f"more than {FACTOR:.0e} times its usual size in {n} patients" for n in counts]
    dropped = pd.DataFrame({"column": rows.features["column"][columns], "reason": reasons})
    keep = ~np.isin(np.arange(len(rows.ids)), list(errors))
    left = rows.with_rows(keep, *(errors[row] for row in sorted(errors)))
    return left.with_columns(~columns, dropped)


def drop_proportional(rows: Rows, findings: pd.DataFrame) -> Rows:
    """Without the features that are another one times a number, by the audit and their values."""
    copies, dropped = repeated(rows.r, rows.columns, findings)
    return rows.with_columns(~copies, dropped)


def set_aside_incomplete(rows: Rows) -> Rows:
    """Without patients who lack more than `MAX_MISSING` of the features, or have no embedding."""
    errors = [
        _too_few_values(rows, row) or _bad_embedding(rows, row) for row in range(len(rows.ids))
    ]
    keep = np.array([error is None for error in errors], bool)
    return rows.with_rows(keep, *(error for error in errors if error is not None))


def impute(rows: Rows, train: Bool[np.ndarray, " n"], findings: pd.DataFrame) -> Rows:
    """Missing values take the feature's median over the train patients, 0 where they have none.

    A feature without any value in a train patient is constant then, and `drop_constant` lists it.
    A note counts the values, and says what the audit knows of them.

    Args:
        rows: joined tables.
        train: whether each row is a train patient.
        findings: of the audit.
    """
    missing = ~np.isfinite(rows.r)
    if not missing.any():
        return rows
    seen = np.where(missing, np.nan, rows.r)[train]
    unseen = missing[train].all(axis=0)
    median = np.where(unseen, 0.0, np.nanmedian(np.where(unseen, 0.0, seen), axis=0))
    note = (
        f"{missing.sum()} missing value(s) of {missing.any(axis=1).sum()} patient(s) in "
        f"{missing.any(axis=0).sum()} column(s) were replaced by the median over the train patients"
    )
    if kinds := missing_kinds(rows.ids["patient_id"].tolist(), rows.columns, findings):
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        note += f" (by the audit: {counts})"
    filled = np.where(missing, median, rows.r)
    return replace(rows, r=filled, imputed=missing, notes=(*rows.notes, note))


def drop_constant(rows: Rows, train: Bool[np.ndarray, " n"]) -> Rows:
    """Without the features that are constant over the train patients.

    Args:
        rows: joined tables without missing values.
        train: whether each row is a train patient.

    Raises:
        InputError: all of them are.
    """
    spread = np.ptp(rows.r[train], axis=0)
    # Below float32 resolution of the value itself, a spread is rounding noise.
    constant = spread <= np.finfo(np.float32).eps * np.abs(rows.r[train]).max(axis=0)
    if constant.all():
        source = rows.sources["radiomics"]
        raise InputError(f"{source}: every feature is constant over the train patients")
    columns = rows.features["column"][constant]
    dropped = pd.DataFrame({"column": columns, "reason": "constant over the train patients"})
    return rows.with_columns(~constant, dropped)


def _wanted(rows: Rows, what: str, names: Sequence[str]) -> np.ndarray:
    """Whether each feature is of one of these regions or modalities (`what`)."""
    known = rows.features[what].unique().tolist()
    check_names(names, known, f"column of {what}", rows.sources["radiomics"])
    return rows.features[what].isin(names or known).to_numpy()


def _has_any(rows: Rows) -> np.ndarray:
    return np.asarray(np.isfinite(rows.r).any(axis=1))


def _missing_share(rows: Rows) -> np.ndarray:
    """Share of patients in whom each feature is missing (k,); NaN for an ROI that nobody has."""
    missing = ~np.isfinite(rows.r)
    several_rois = rows.features["roi"].nunique() > 1
    share = np.full(missing.shape[1], np.nan)
    for _, group in rows.features.groupby("roi", sort=False):
        columns = group.index.to_numpy()
        has_roi = ~missing[:, columns].all(axis=1)
        base = np.ones(len(missing), bool) if several_rois else has_roi
        if base.any():
            share[columns] = missing[np.ix_(base, columns)].mean(axis=0)
    return share


def _absurd_value(
    rows: Rows, row: int, name: str, values: np.ndarray, absurd: np.ndarray
) -> CaseError:
    """About the first absurd value of a patient in a table; `values` and `absurd` are (k,)."""
    first, *others = np.flatnonzero(absurd)
    radiomics = name == "radiomics"
    column = rows.columns[first] if radiomics else f"dimension {first} (counted from 0)"
    also = f"; so are {len(others)} more value(s) of the patient" if others else ""
    again = "Extract" if radiomics else "Embed"
    return CaseError(
        "/".join(rows.ids.iloc[row]),
        rows.sources[name],
        stage="join",
        reason=f"{column} is {values[first]:.6g}, more than {FACTOR:.0e} times its usual size"
        + also,
        remedy=f"{again} the patient again; check image and mask for extreme values",
    )


def _absurd_dimension(source: str, absurd: np.ndarray, dimensions: np.ndarray) -> str:
    first = np.flatnonzero(dimensions)[0]
    return (
        f"{source}: dimension {first} (counted from 0) is more than {FACTOR:.0e} times its usual "
        f"size in {absurd[:, first].sum()} patients. In more than {MAX_PATIENTS:.0%} of them that "
        "is no wrong image: check the encoder, and whether it overflows in half precision"
    )


def _too_few_values(rows: Rows, row: int) -> CaseError | None:
    bad = np.flatnonzero(~np.isfinite(rows.r[row]))
    if bad.size <= MAX_MISSING * len(rows.features):
        return None
    reason = (
        "the region of interest is missing"
        if bad.size == len(rows.features)
        else f"{bad.size} of {len(rows.features)} features are not finite, "
        f"the first is {rows.columns[bad[0]]}"
    )
    return CaseError(
        "/".join(rows.ids.iloc[row]),
        rows.sources["radiomics"],
        stage="join",
        reason=reason,
        remedy=_remedy_of_too_few(rows, bad),
    )


def _remedy_of_too_few(rows: Rows, bad: np.ndarray) -> str:
    regions = rows.features["roi"]
    without = set(regions.iloc[bad]) - set(regions.drop(regions.index[bad]))
    left = [roi for roi in dict.fromkeys(regions) if roi not in without]
    if not without or not left:
        return "Extract the patient again, or leave the patient out"
    return (
        f"Where the patient has no {' and no '.join(sorted(without))}, leave the region out for "
        f"all (--roi {' '.join(left)}) or the patient; else extract the patient again"
    )


def _bad_embedding(rows: Rows, row: int) -> CaseError | None:
    for name, values in rows.x.items():
        if not np.isfinite(values[row]).all():
            return CaseError(
                "/".join(rows.ids.iloc[row]),
                rows.sources[name],
                stage="join",
                reason="the embedding has values that are not finite",
                remedy="Embed the patient again; check the image for extreme values",
            )
    return None
