"""A study: embeddings before and after fine-tuning, radiomics and split, joined by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lens.errors import CaseError, InputError
from lens.files import read_table
from lens.radiomics.findings import (
    default_audit_file,
    explain,
    missing_kinds,
    read_findings,
    repeated,
)
from lens.radiomics.names import parse_columns
from lens.study.split import split_patients
from lens.study.study import SPLITS, Study
from lens.study.tables import ID_COLUMNS, read_embeddings, read_radiomics

MIN_PATIENTS = 10
"""With fewer, a 7:1:2 split leaves a single patient to validate and too few to score."""
MAX_MISSING = 0.2
"""A column missing in a larger share of the patients is dropped; a patient who lacks a larger share
of the columns is set aside. What is missing then is imputed."""


def load_study(
    pre: Path,
    ft: Mapping[str, Path],
    radiomics: Path,
    *,
    split: Path | None = None,
    rois: Sequence[str] = (),
    modalities: Sequence[str] = (),
    seed: int = 0,
    audit: Path | None = None,
    retrained: Mapping[str, Sequence[Path]] | None = None,
) -> Study:
    """Joins a user's tables on ``patient_id`` (and ``study_id`` where all tables carry it).

    Files may list patients in any order. Patients that are not in every file, whose embedding is
    not finite, or who lack more than a fifth of the features, are set aside; radiomic columns that
    are missing in more than a fifth of the patients, constant over the train patients, or by the
    audit proportional to another column, are dropped. A feature that is still missing takes the
    median over the train patients. All is listed in the result, with the audit's reasons.

    Args:
        pre: embeddings before fine-tuning, ``.npz`` or a table.
        ft: task name -> embeddings after fine-tuning.
        radiomics: radiomic features, ``.parquet`` or ``.csv``.
        split: table with ``patient_id`` and ``split``; without it, 7:1:2 by patient from `seed`.
        rois: regions of interest to analyse; none means all. Patients who have features of other
            regions alone (no lesion, say) have no part in the study; a note counts them.
        modalities: modalities to analyse; none means all.
        seed: of the split.
        audit: findings about the radiomics table, as ``experiments.radiomics`` writes them;
            without it ``R-audit.csv`` beside ``R.parquet``, where there is one.
        retrained: task name -> embeddings after fine-tuning from other seeds.

    Raises:
        InputError: a file is unusable as a whole, or too few patients remain.
    """
    if not ft:
        raise InputError("no fine-tuned embeddings given; at least one task is needed")
    again = {
        f"{task}, seed {number}": path
        for task in ft
        for number, path in enumerate((retrained or {}).get(task, ()), start=2)
    }
    files = {"pre": pre, **ft, **again}
    embeddings = {name: read_embeddings(path) for name, path in files.items()}
    _check_widths(embeddings, files)
    table = read_radiomics(radiomics)
    frames = {str(files[name]): frame for name, frame in embeddings.items()}
    frames[str(radiomics)] = table
    keys, set_aside = _common_rows(frames)

    def aligned(frame: pd.DataFrame) -> pd.DataFrame:
        merged = keys.merge(frame, how="left", on=list(keys.columns), validate="one_to_one")
        return merged.drop(columns=list(keys.columns))

    features = parse_columns([c for c in table.columns if c not in ID_COLUMNS])
    everything = aligned(table)[features["column"].tolist()].to_numpy(np.float64)
    features = _select(features, "roi", rois, radiomics)
    features = _select(features, "modality", modalities, radiomics)
    r = aligned(table)[features["column"].tolist()].to_numpy(np.float64)
    x = {name: aligned(frame).to_numpy(np.float32) for name, frame in embeddings.items()}

    findings = read_findings(audit or default_audit_file(radiomics))
    has_any, has_these = (np.isfinite(values).any(axis=1) for values in (everything, r))
    elsewhere = np.asarray(has_any & ~has_these)
    keys, r = keys.loc[~elsewhere].reset_index(drop=True), r[~elsewhere]
    x = {name: values[~elsewhere] for name, values in x.items()}
    keep_columns, dropped = _missing_columns(r, features)
    dropped = explain(dropped, findings)
    r, features = r[:, keep_columns], features[keep_columns].reset_index(drop=True)
    copies, proportional = repeated(r, features["column"].tolist(), findings)
    r, features = r[:, ~copies], features[~copies].reset_index(drop=True)
    keep_rows, incomplete = _incomplete_rows(r, features, x, keys, files, radiomics)
    set_aside += incomplete
    keys, r = keys[keep_rows].reset_index(drop=True), r[keep_rows]
    x = {name: values[keep_rows] for name, values in x.items()}
    patients = keys["patient_id"].nunique()
    if patients < MIN_PATIENTS:
        finding = f"; first finding: {set_aside[0]}" if set_aside else ""
        raise InputError(
            f"{patients} patient(s) are complete in {', '.join(map(str, frames))}, "
            f"at least {MIN_PATIENTS} are needed{finding}"
        )

    assigned = (
        split_patients(keys["patient_id"].tolist(), seed=seed)
        if split is None
        else _read_split(split, keys)
    )
    kinds = missing_kinds(keys["patient_id"].tolist(), features["column"].tolist(), findings)
    missing, every = ~np.isfinite(r), features["column"]
    r, notes = _impute(r, assigned == "train", kinds)
    if elsewhere.any():
        regions = " or ".join(features["roi"].unique())
        notes = (f"{elsewhere.sum()} row(s) without {regions} features have no part in it", *notes)
    r, features, constant = _drop_constant(r, features, assigned == "train", radiomics)
    return Study(
        ids=keys,
        x_pre=x["pre"],
        x_ft={task: x[task] for task in ft},
        retrained={
            task: [x[name] for name in again if name.startswith(f"{task}, seed ")] for task in ft
        },
        r=r,
        features=features,
        split=assigned,
        dropped=pd.concat([dropped, proportional, constant], ignore_index=True),
        set_aside=tuple(set_aside),
        notes=notes,
        imputed=missing[:, every.isin(features["column"])] if missing.any() else None,
    )


def _check_widths(embeddings: Mapping[str, pd.DataFrame], files: Mapping[str, Path]) -> None:
    widths = {
        name: frame.shape[1] - len(set(ID_COLUMNS) & set(frame.columns))
        for name, frame in embeddings.items()
    }
    for name, width in widths.items():
        if width != widths["pre"]:
            raise InputError(
                f"{files[name]}: embeddings have {width} dimensions, {files['pre']} has "
                f"{widths['pre']}; the frozen projection needs the same width"
            )


def _common_rows(frames: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, list[CaseError]]:
    """Ids present in every file, sorted, and the others as patients set aside."""
    with_study = [name for name, frame in frames.items() if "study_id" in frame.columns]
    if with_study and len(with_study) < len(frames):
        other = next(name for name in frames if name not in with_study)
        raise InputError(
            f"{with_study[0]} has column study_id, {other} does not; add it or drop it"
        )
    keys = list(ID_COLUMNS if with_study else ID_COLUMNS[:1])
    indexes = {name: pd.MultiIndex.from_frame(frame[keys]) for name, frame in frames.items()}
    common = None
    for index in indexes.values():
        common = index if common is None else common.intersection(index)
    assert common is not None
    errors = []
    everyone = pd.MultiIndex.from_frame(pd.concat([f[keys] for f in frames.values()])).unique()
    for row in everyone.difference(common):
        absent = [name for name, index in indexes.items() if row not in index]
        errors.append(
            CaseError(
                "/".join(row),
                ", ".join(absent),
                stage="join",
                reason="the patient is not in this file but in others",
                remedy="Add the patient's row, or remove the patient from the other files",
            )
        )
    return common.sort_values().to_frame(index=False), errors


def _select(features: pd.DataFrame, what: str, wanted: Sequence[str], path: Path) -> pd.DataFrame:
    """The features whose `what` (roi, modality) is wanted; all where nothing is named."""
    known = features[what].unique().tolist()
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"{path}: no column of {what} {unknown[0]!r}; the table has {known}")
    return features[features[what].isin(wanted or known)].reset_index(drop=True)


def _missing_columns(r: np.ndarray, features: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """Columns to keep (boolean), and those missing in too many of the patients who have the ROI.

    A patient in whom every column of an ROI is missing has no such ROI (no lesion, say). Columns
    of an ROI that most patients lack are dropped unless that ROI was asked for alone.
    """
    missing = ~np.isfinite(r)
    several_rois = features["roi"].nunique() > 1
    keep = np.ones(r.shape[1], bool)
    reasons = {}
    for _, group in features.groupby("roi", sort=False):
        columns = group.index.to_numpy()
        has_roi = ~missing[:, columns].all(axis=1)
        base = np.ones(len(r), bool) if several_rois else has_roi
        if not base.any():
            continue
        share = missing[np.ix_(base, columns)].mean(axis=0)
        for column, fraction in zip(columns, share, strict=True):
            if fraction > MAX_MISSING:
                keep[column] = False
                reasons[features.loc[column, "column"]] = (
                    f"not finite in {fraction:.0%} of the patients"
                )
    dropped = pd.DataFrame({"column": list(reasons), "reason": list(reasons.values())})
    return keep, dropped


def _incomplete_rows(
    r: np.ndarray,
    features: pd.DataFrame,
    x: Mapping[str, np.ndarray],
    keys: pd.DataFrame,
    files: Mapping[str, Path],
    radiomics: Path,
) -> tuple[np.ndarray, list[CaseError]]:
    """Rows to keep (boolean), and patients with too many values that are not finite."""
    keep = np.ones(len(keys), bool)
    errors = []
    finite = np.isfinite(r)
    for row in range(len(keys)):
        name = "/".join(keys.iloc[row])
        bad = np.flatnonzero(~finite[row])
        if bad.size > MAX_MISSING * len(features):
            keep[row] = False
            first = features.loc[bad[0], "column"]
            reason = (
                "the region of interest is missing"
                if bad.size == len(features)
                else f"{bad.size} of {len(features)} features are not finite, the first is {first}"
            )
            errors.append(
                CaseError(
                    name,
                    radiomics,
                    stage="join",
                    reason=reason,
                    remedy="Extract the patient again, or leave the patient out",
                )
            )
            continue
        for encoder, values in x.items():
            if not np.isfinite(values[row]).all():
                keep[row] = False
                errors.append(
                    CaseError(
                        name,
                        files[encoder],
                        stage="join",
                        reason="the embedding has values that are not finite",
                        remedy="Embed the patient again; check the image for extreme values",
                    )
                )
                break
    return keep, errors


def _read_split(path: Path, keys: pd.DataFrame) -> np.ndarray:
    table = read_table(path)
    if not {"patient_id", "split"} <= set(table.columns):
        raise InputError(f"{path}: columns patient_id and split are needed")
    unknown = set(table["split"].unique()) - set(SPLITS)
    if unknown:
        raise InputError(f"{path}: split {sorted(map(str, unknown))[0]!r}; use {', '.join(SPLITS)}")
    by_patient = table.drop_duplicates(["patient_id", "split"]).set_index("patient_id")["split"]
    twice = by_patient.index[by_patient.index.duplicated()]
    if len(twice):
        raise InputError(f"{path}: patient {twice[0]} is in two splits; a patient belongs to one")
    missing = keys.loc[~keys["patient_id"].isin(by_patient.index), "patient_id"]
    if len(missing):
        raise InputError(
            f"{path}: no split for patient {missing.iloc[0]} and {len(missing) - 1} more"
        )
    assigned = by_patient.reindex(keys["patient_id"]).to_numpy(str)
    for name, least in (("train", 2), ("val", 1), ("test", 2)):
        count = int((assigned == name).sum())
        if count < least:
            raise InputError(f"{path}: {count} patient(s) in {name}, at least {least} are needed")
    return assigned


def _impute(
    r: np.ndarray, train: np.ndarray, kinds: Mapping[str, int]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Missing values take the column's median over the train patients, 0 where they have none.

    A column without any value in a train patient is constant then, and dropped as such. The note
    says what the audit knows of the values, by kind.
    """
    missing = ~np.isfinite(r)
    if not missing.any():
        return r, ()
    seen = np.where(missing, np.nan, r)[train]
    unseen = missing[train].all(axis=0)
    median = np.where(unseen, 0.0, np.nanmedian(np.where(unseen, 0.0, seen), axis=0))
    note = (
        f"{missing.sum()} missing value(s) of {missing.any(axis=1).sum()} patient(s) in "
        f"{missing.any(axis=0).sum()} column(s) were replaced by the median over the train patients"
    )
    if kinds:
        said = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        note += f" (by the audit: {said})"
    return np.where(missing, median, r), (note,)


def _drop_constant(
    r: np.ndarray, features: pd.DataFrame, train: np.ndarray, path: Path
) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    spread = np.ptp(r[train], axis=0)
    # Below float32 resolution of the value itself, a spread is rounding noise.
    constant = spread <= np.finfo(np.float32).eps * np.abs(r[train]).max(axis=0)
    if constant.all():
        raise InputError(f"{path}: every feature is constant over the train patients")
    dropped = pd.DataFrame(
        {"column": features["column"][constant], "reason": "constant over the train patients"}
    )
    return r[:, ~constant], features[~constant].reset_index(drop=True), dropped
