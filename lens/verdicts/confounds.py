"""Confounds of the verdicts: the size of the ROI, the site, patients whom fine-tuning saw.

- **Partial R2** given columns such as ``volume_ml``: inside every fold, feature *and* embedding are
  replaced by their residuals from a least-squares regression on the columns, fitted on the fitted
  patients; the ridge probe is fitted and scored on these. It is the share of the feature's
  variation among patients of equal volume that the embedding explains: about zero for a feature
  that is volume and nothing else. A number enters as a cubic spline with four knots (`adjuster`),
  so that a feature which follows volume along a curve is adjusted for as well.
- **Exposure**: R2 in the patients on whom the fine-tuned weights depend, and in all others. An
  encoder may know the former by heart, so that a gain is called only where the others show it.
- **Site**: R2 at every site from probes fitted at the others (leave one site out).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.settings import Scores
from lens.verdicts.estimates import Estimate, delta_r2, r2_score
from lens.verdicts.fold_fits import FoldFits
from lens.verdicts.folds import Fold, leave_site_out
from lens.verdicts.held_out import (
    PRE,
    PROBES,
    RIDGE_VIEWS,
    HeldOutErrors,
    ProbeErrors,
    held_out_errors,
)

PROBE = {RIDGE_VIEWS[0]: PROBES[RIDGE_VIEWS[0]]}

RUNS = ("adjusted", "site")
"""Fits of their own that confounds may ask for."""

KNOTS = 4
"""Knots of a number's spline, at quantiles of the fitted patients."""

_CURVED_FROM = 10
"""Distinct values from which a number gets a curve; with fewer it enters as it is."""


@dataclass(frozen=True)
class Confounds:
    """Which confounds to look at; rows are those of the study.

    Attributes:
        adjust: columns to adjust for, numbers or names; none means no partial R2.
        exposed: task -> rows of patients on whom its weights depend.
        sites: site of each row; none means no scores by site.
    """

    adjust: pd.DataFrame | None = None
    exposed: Mapping[str, Bool[np.ndarray, " n"]] = field(default_factory=dict)
    sites: np.ndarray | None = None


def confound_columns(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Mapping[str, Float[np.ndarray, "n e"]],
    r: Float[np.ndarray, "n k"],
    groups: np.ndarray,
    folds: Sequence[Fold],
    held_out: HeldOutErrors,
    confounds: Confounds,
    *,
    scores: Scores = "normal",
    seed: int = 0,
    on_fit: Callable[[], object] | None = None,
    fits: Mapping[Any, FoldFits] | None = None,
) -> dict[str, pd.DataFrame]:
    """Columns about confounds for every task, a row per feature; ridge probe alone.

    Args:
        x_pre, x_ft, r: as in `lens.verdicts.held_out`.
        groups: patient of each row.
        folds: of the analysis.
        held_out: errors of the analysis, for the exposed and unexposed patients.
        confounds: what to look at.
        scores: of the features, as in `lens.verdicts.held_out`.
        seed: of the draw inside the folds by site.
        on_fit: called after each of `count_fits` fits.
        fits: of `RUNS`, where the features come block by block.

    Returns:
        Task -> table with, as far as asked for, ``r2_adjusted_pre, r2_adjusted_ft,
        delta_r2_adjusted``, the same with ``site``, ``unexposed`` and ``exposed`` for ``adjusted``,
        and ``_low`` and ``_high`` of each change.
    """
    tables = {task: pd.DataFrame(index=range(r.shape[1])) for task in x_ft}
    runs: dict[str, HeldOutErrors] = {}
    fits = fits or {}
    if confounds.adjust is not None:
        adjust = adjuster(confounds.adjust)
        runs["adjusted"] = held_out_errors(
            x_pre, x_ft, r, groups, folds, None,
            scores=scores, probes=PROBE, adjust=adjust, on_fit=on_fit, fits=fits.get("adjusted"),
        )  # fmt: skip
    if confounds.sites is not None:
        by_site = leave_site_out(groups, confounds.sites, seed)
        runs["site"] = held_out_errors(
            x_pre, x_ft, r, groups, by_site, None,
            scores=scores, probes=PROBE, on_fit=on_fit, fits=fits.get("site"),
        )  # fmt: skip
    for task, table in tables.items():
        for name, run in runs.items():
            _add(table, name, *_errors(run, task), groups)
        if task in confounds.exposed:
            exposed = confounds.exposed[task]
            for name, rows in (("unexposed", ~exposed), ("exposed", exposed)):
                if rows.any():
                    _add(table, name, *_part(held_out, task, rows), groups)
    return tables


def unseen_low(
    task: str, columns: pd.DataFrame, confounds: Confounds
) -> Float[np.ndarray, " k"] | None:
    """Lower end of the change of R2 in the patients whom fine-tuning did not see.

    Args:
        task: name of the task.
        columns: of the task, from `confound_columns`.
        confounds: what was looked at.

    Returns:
        NaN where it saw all of them; None where nobody knows whom it saw.
    """
    if task not in confounds.exposed:
        return None
    if "delta_r2_unexposed_low" not in columns:
        return np.full(len(columns), np.nan)
    return columns["delta_r2_unexposed_low"].to_numpy()


def count_fits(tasks: int, folds: Sequence[Fold], confounds: Confounds) -> int:
    """Fits of `confound_columns`, for a progress bar."""
    count = len(folds) if confounds.adjust is not None else 0
    if confounds.sites is not None:
        count += len(np.unique(confounds.sites))
    return count * (1 + tasks)


def adjuster(
    table: pd.DataFrame,
) -> Callable[[Bool[np.ndarray, " n"]], Float[np.ndarray, "n a"]]:
    """Columns of a regression on labels, as a function of the rows that are fitted.

    A number with at least ten distinct values becomes a cubic spline (linear beyond the fitted
    range), one with fewer stays as it is; where it is missing it takes the fitted median. A name
    becomes an indicator per value; one that no fitted row has is left out, and where it is missing
    the indicators take the fitted shares.

    Args:
        table: a row per row of the study.
    """

    def columns(fitted: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "n a"]:
        parts = [
            _curve(values.to_numpy(np.float64), fitted)
            if pd.api.types.is_numeric_dtype(values)
            else _indicators(values, fitted)
            for _, values in table.items()
        ]
        return np.concatenate(parts, axis=1)

    return columns


def _curve(values: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    known = values[fitted & np.isfinite(values)]
    filled = np.where(np.isfinite(values), values, np.median(known) if len(known) else 0.0)
    column = filled[:, None]
    places = np.unique(np.quantile(filled[fitted], np.linspace(0, 1, KNOTS)))
    if len(np.unique(known)) < _CURVED_FROM or len(places) < KNOTS:
        return column
    # Slow to import, and most runs adjust for nothing.
    from sklearn.preprocessing import SplineTransformer

    knots: Any = places[:, None]
    spline = SplineTransformer(degree=3, knots=knots, extrapolation="linear", include_bias=False)
    return np.asarray(spline.fit(column[fitted]).transform(column))


def _indicators(values: pd.Series, fitted: np.ndarray) -> np.ndarray:
    names, there = values.astype(str).to_numpy(str), values.notna().to_numpy()
    known = names[fitted & there]
    # The last value is what the constant stands for.
    columns = (names[:, None] == np.unique(known)[:-1]).astype(np.float64)
    if len(known):
        columns[~there] = columns[fitted & there].mean(axis=0)
    return columns


def _errors(held_out: HeldOutErrors, task: str) -> tuple[ProbeErrors, ProbeErrors, np.ndarray]:
    """Before, after and baseline."""
    sides = held_out.probes[RIDGE_VIEWS[0]]
    return sides[PRE], sides[task], held_out.baseline


def _part(
    held_out: HeldOutErrors, task: str, rows: np.ndarray
) -> tuple[ProbeErrors, ProbeErrors, np.ndarray]:
    """Errors over some of the rows; influences by the fits in proportion to their share.

    `ProbeErrors.fitted_influence` is a sum over all held-out rows, and not kept row by row, so that
    the part of it that concerns some rows is taken as proportional to their share in the baseline:
    intervals are approximate to that extent.
    """
    before, after, baseline = _errors(held_out, task)
    chosen = rows[:, None]
    part = np.where(chosen, baseline, 0.0)
    total = baseline.sum(axis=0)
    share = np.divide(part.sum(axis=0), total, out=np.zeros_like(total), where=total > 0)

    def only(errors: ProbeErrors) -> ProbeErrors:
        error = np.where(chosen, errors.error, 0.0)
        return ProbeErrors(error, errors.fitted_influence * share, errors.flipped_influence * share)

    return only(before), only(after), part


def _add(
    table: pd.DataFrame,
    name: str,
    before: ProbeErrors,
    after: ProbeErrors,
    baseline: np.ndarray,
    groups: np.ndarray,
) -> None:
    change: Estimate = delta_r2(before, after, baseline, groups)
    table[f"r2_{name}_pre"] = r2_score(before, baseline, groups).value
    table[f"r2_{name}_ft"] = r2_score(after, baseline, groups).value
    table[f"delta_r2_{name}"] = change.value
    table[f"delta_r2_{name}_low"], table[f"delta_r2_{name}_high"] = change.low, change.high
