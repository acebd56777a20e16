"""How well each feature repeats: intraclass correlation with a confidence interval."""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import f as f_distribution

from lens.errors import InputError

log = logging.getLogger(__name__)

Form = Literal["1", "2", "3"]
KEYS = ("patient_id", "study_id", "repeat")
COLUMNS = ("column", "icc", "icc_low", "icc_high", "n", "repeats")


def _one_study_each(table: pd.DataFrame) -> pd.DataFrame:
    """The first study of each patient that has the most repeats: the studies of a patient resemble
    each other, and would count as subjects who differ less than patients do."""
    if "study_id" not in table or not table.duplicated(["patient_id", "repeat"]).any():
        return table
    table = table.assign(study_id=table["study_id"].fillna(""))
    counts = table.groupby(["patient_id", "study_id"], sort=False, dropna=False).size()
    chosen = counts.groupby(level=0, sort=False).idxmax().tolist()
    pairs = pd.MultiIndex.from_frame(table[["patient_id", "study_id"]])
    kept = table[pairs.isin(chosen)]
    log.info(
        "repeatability: of patients with several studies one is taken, %d of %d rows: studies of "
        "one patient are no further subjects",
        len(kept), len(table),
    )  # fmt: skip
    return kept


class ICC(NamedTuple):
    """Intraclass correlation of a single measurement, with its confidence interval."""

    icc: float
    low: float
    high: float


def repeatability(table: pd.DataFrame, *, form: Form = "1", level: float = 0.95) -> pd.DataFrame:
    """Intraclass correlation of every column over repeated measurements of the same patients.

    The share of a column's variance that lies between patients: an upper bound on the R2 with
    which anything that does not know the repeat can predict the column.

    Args:
        table: a row per patient and repeat: ``patient_id``, perhaps ``study_id``, ``repeat`` (any
            labels) and numeric columns; from perturbed images, or a user's own test-retest.
        form: see `icc`. The default takes repeats as exchangeable, as perturbations and scans on
            another day are.
        level: of the confidence interval.

    Returns:
        A row per column: ``column, icc, icc_low, icc_high, n, repeats``. A patient who lacks a
        repeat of a column does not count for it; NaN with fewer than two patients or a column
        that is constant.

    Raises:
        InputError: no ``patient_id`` or ``repeat``, fewer than two repeats, one given twice, fewer
            than two patients (two studies of one patient are no two subjects), or not one column
            with two patients who have all repeats.
    """
    missing = [name for name in ("patient_id", "repeat") if name not in table]
    if missing:
        raise InputError(
            f"repeatability needs the column {missing[0]}: a row per patient and repeat"
        )
    keys = [name for name in KEYS if name in table]
    if table.duplicated(keys).any():
        first = table.loc[table.duplicated(keys), keys].iloc[0].to_dict()
        raise InputError(f"a repeat is given twice: {first}. Number the repeats of a patient")
    repeat, labels = pd.factorize(table["repeat"])
    if len(labels) < 2:
        raise InputError("repeatability needs two or more repeats of each patient")
    patients = table["patient_id"].nunique()
    if patients < 2:
        raise InputError(
            f"repeatability needs two or more patients, and the table has {patients}: an "
            "intraclass correlation compares repeats with the differences between patients. "
            "Studies of one patient are no further subjects"
        )
    table = _one_study_each(table)
    subject = table.groupby("patient_id", sort=False, dropna=False).ngroup().to_numpy()
    repeat = pd.factorize(table["repeat"])[0]
    names = [name for name in table.columns if name not in KEYS]
    rows = []
    for column in names:
        values = np.full((subject.max() + 1, len(labels)), np.nan)
        values[subject, repeat] = table[column].to_numpy(np.float64)
        values = values[np.isfinite(values).all(axis=1)]
        found = icc(values, form=form, level=level)
        rows.append((column, *found, len(values), len(labels)))
    if names and max(n for *_, n, _ in rows) < 2:
        raise InputError(
            f"repeatability: no column has two patients with all {len(labels)} repeats, so that no "
            "intraclass correlation can be had. Bring every repeat of each patient, or fewer "
            "repeats"
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def icc(values: Float[np.ndarray, "n k"], *, form: Form = "1", level: float = 0.95) -> ICC:
    """Intraclass correlation of single measurements after Shrout and Fleiss (1979).

    Args:
        values: a row per subject, a column per repeat (or rater), finite.
        form: ``1`` for ICC(1,1): one-way, the repeats have no identity across subjects; ``2`` for
            ICC(2,1): two-way random, absolute agreement; ``3`` for ICC(3,1): two-way mixed,
            consistency (a shift between visits does not count).
        level: of the confidence interval (from F distributions; for form 2 approximate).

    Returns:
        NaN for fewer than two subjects or values without any variance.

    References:
        Shrout PE, Fleiss JL. Intraclass correlations: uses in assessing rater reliability.
        Psychological Bulletin 86(2), 420-428, 1979.
    """
    n, k = values.shape
    if n < 2 or k < 2 or np.ptp(values) == 0:
        return ICC(np.nan, np.nan, np.nan)
    subjects, repeats = values.mean(axis=1), values.mean(axis=0)
    grand = values.mean()
    between = k * np.sum((subjects - grand) ** 2) / (n - 1)
    judges = n * np.sum((repeats - grand) ** 2) / (k - 1)
    within = np.sum((values - subjects[:, None]) ** 2) / (n * (k - 1))
    residual = values - subjects[:, None] - repeats + grand
    error = np.sum(residual**2) / ((n - 1) * (k - 1))
    if form == "1":
        return _from_ratio(between, within, n - 1, n * (k - 1), k, level)
    if form == "3":
        return _from_ratio(between, error, n - 1, (n - 1) * (k - 1), k, level)
    return _two_way_random(between, judges, error, n, k, level)


def _from_ratio(
    between: float, noise: float, df_between: int, df_noise: int, k: int, level: float
) -> ICC:
    """``(F - 1) / (F + k - 1)`` of the ratio of mean squares, and of its confidence limits."""
    if noise == 0:
        return ICC(1.0, 1.0, 1.0)
    ratio, tail = between / noise, (1 + level) / 2
    low = ratio / f_distribution.ppf(tail, df_between, df_noise)
    high = ratio * f_distribution.ppf(tail, df_noise, df_between)
    return ICC(*(float((value - 1) / (value + k - 1)) for value in (ratio, low, high)))


def _two_way_random(
    between: float, judges: float, error: float, n: int, k: int, level: float
) -> ICC:
    total = between + (k - 1) * error + k * (judges - error) / n
    rho = (between - error) / total
    if error == 0:
        return ICC(float(rho), np.nan, np.nan)
    ratio, tail = judges / error, (1 + level) / 2
    rest = n * (1 + (k - 1) * rho) - k * rho
    df = (k - 1) * (n - 1) * (k * rho * ratio + rest) ** 2
    df /= (n - 1) * (k * rho * ratio) ** 2 + rest**2
    below, above = f_distribution.ppf(tail, n - 1, df), f_distribution.ppf(tail, df, n - 1)
    spread = k * judges + (k * n - k - n) * error
    low = n * (between - below * error) / (below * spread + n * between)
    high = n * (above * between - error) / (spread + n * above * between)
    return ICC(float(rho), float(low), float(high))
