"""How far two runs agree: their changes side by side, their verdicts, their mean change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from lens.cards.entries import Comparable, Entry, Relation
from lens.cards.pooling import standard_error
from lens.intervals import LEVEL

CALLED = ("lost", "gained")
"""Verdicts of opposite direction."""


def pair_table(comparable: Comparable) -> pd.DataFrame:
    """A row per pair of runs: `pair_row`."""
    entries = comparable.entries
    return pd.DataFrame(
        [pair_row(entries[a], entries[b], how) for (a, b), how in comparable.relations.items()]
    )


def pair_row(a: Entry, b: Entry, relation: Relation) -> dict[str, object]:
    """Agreement of two runs on their common features.

    Correlations are over features, which are near copies of one another: they describe, and no p
    belongs to them. Errors of estimation pull them towards zero where patients differ, and up where
    they are the same. The difference of the mean changes has an interval only where patients
    differ: Student's t with the degrees of freedom of Welch and Satterthwaite.

    Returns:
        ``run_a, run_b, patients`` (same, different, not known), ``how_known, features,
        correlation`` (Pearson's, of the changes of R2), ``rank_correlation`` (Spearman's),
        ``same_sign`` (share of features whose changes have one sign), ``same_verdict`` (count),
        ``kappa`` (Cohen's, of the verdicts), ``lost_in_both, gained_in_both, opposite`` (lost in
        one and gained in the other), ``called_in_one`` (lost or gained in one alone),
        ``difference`` (mean change of b less that of a) with ``_low`` and ``_high``, and ``p``.
    """
    x, y = a.features["delta_r2"].to_numpy(), b.features["delta_r2"].to_numpy()
    one, other = a.features["verdict"].to_numpy(str), b.features["verdict"].to_numpy(str)
    known = np.isfinite(x) & np.isfinite(y)
    called = np.isin(one, CALLED), np.isin(other, CALLED)
    return {
        "run_a": a.label,
        "run_b": b.label,
        "patients": relation.kind,
        "how_known": relation.reason,
        "features": len(x),
        "correlation": correlation(x[known], y[known]),
        "rank_correlation": correlation(
            stats.rankdata(x[known]), stats.rankdata(y[known])
        ),
        "same_sign": float(np.mean(np.sign(x[known]) == np.sign(y[known]))) if known.any()
        else np.nan,
        "same_verdict": int((one == other).sum()),
        "kappa": kappa(one, other),
        "lost_in_both": int(((one == "lost") & (other == "lost")).sum()),
        "gained_in_both": int(((one == "gained") & (other == "gained")).sum()),
        "opposite": int((called[0] & called[1] & (one != other)).sum()),
        "called_in_one": int((called[0] != called[1]).sum()),
        **_difference(a, b, independent=relation.kind != "same"),
    }  # fmt: skip


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's; NaN of fewer than three values, or where one side does not vary."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa of two sets of words; NaN where both hold nothing but one word."""
    words = sorted({*one, *other})
    by_chance = float(sum(np.mean(one == word) * np.mean(other == word) for word in words))
    return float((np.mean(one == other) - by_chance) / (1 - by_chance)) if by_chance < 1 else np.nan


def whole(entry: Entry) -> tuple[float, float]:
    """Mean change of R2 over all features and its standard error; NaN where it is not comparable.

    Args:
        entry: cut down to common levels.
    """
    rows = entry.levels[entry.levels["level"] == "task"]
    if rows.empty:
        return np.nan, np.nan
    row = rows.iloc[0]
    error = standard_error(
        row[["delta_r2_cv_low"]].to_numpy(float), row[["delta_r2_cv_high"]].to_numpy(float),
        entry.patients,
    )  # fmt: skip
    return float(row["delta_r2_cv"]), float(error[0])


def _difference(a: Entry, b: Entry, *, independent: bool) -> dict[str, float]:
    (one, s), (other, t) = whole(a), whole(b)
    found: dict[str, float] = dict.fromkeys(("difference_low", "difference_high", "p"), np.nan)
    variance = s**2 + t**2
    if independent and variance > 0:
        freedom = variance**2 / (s**4 / (a.patients - 1) + t**4 / (b.patients - 1))
        half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance))
        p = float(2 * stats.t.sf(abs(other - one) / np.sqrt(variance), freedom))
        found = {
            "difference_low": other - one - half, "difference_high": other - one + half, "p": p,
        }  # fmt: skip
    return {"difference": other - one, **found}


def verdict_in_all(entries: Sequence[Entry]) -> pd.Series:
    """The verdict of each feature that all runs share; an empty text where they differ."""
    table = pd.DataFrame({at: e.features["verdict"] for at, e in enumerate(entries)})
    return table[0].where(table.nunique(axis=1) == 1, "")
