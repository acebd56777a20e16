"""Summaries by feature group (the paper's Table 1) and by modality and class (its Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.intervals import percentile_interval

CLASSES = ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")
STAGES = ("pre", "ft", "delta")
SCORES = ("r2", "mse", "mse_z")


Groups = Mapping[tuple[str, ...], np.ndarray]
"""Group labels -> boolean mask over the columns."""


def summaries(
    table: pd.DataFrame,
    samples: Mapping[str, Mapping[str, np.ndarray]],
    groups: Groups,
    keys: tuple[str, ...],
) -> pd.DataFrame:
    """Median and mean of each score over the columns of each group, with intervals.

    The row of stage ``delta`` holds the median (mean) of the columns' differences, which is not the
    difference of the medians.
    """
    rows = []
    for labels, mask in groups.items():
        for stage in STAGES:
            row: dict[str, object] = dict(zip(keys, labels, strict=True))
            row |= {"stage": stage, "n_features": int(mask.sum())}
            for score in SCORES:
                values = _stage_values(table, score, stage)[mask]
                drawn = samples[stage][score][:, mask]
                for name, reduce in (("median", median), ("mean", mean)):
                    low, high = percentile_interval(reduce(drawn))
                    row[f"{score}_{name}"] = float(reduce(values[None])[0])
                    row[f"{score}_{name}_low"], row[f"{score}_{name}_high"] = (
                        float(low),
                        float(high),
                    )
            rows.append(row)
    return pd.DataFrame(rows)


def feature_groups(table: pd.DataFrame) -> Groups:
    """The paper's groups within each ROI: the six classes, then the image filters."""
    groups = {}
    filters = table["image"].str.split("-").str[0]
    for roi in table["roi"].unique():
        inside = (table["roi"] == roi).to_numpy()
        for name in _present(table["feature_class"], CLASSES):
            groups[roi, name] = inside & (table["feature_class"] == name).to_numpy()
        for name in _present(filters, ("original", "wavelet")):
            groups[roi, name] = inside & (filters == name).to_numpy()
    return {key: mask for key, mask in groups.items() if mask.any()}


def modality_groups(table: pd.DataFrame) -> Groups:
    groups = {}
    for modality, roi in table[["modality", "roi"]].drop_duplicates().itertuples(index=False):
        inside = ((table["modality"] == modality) & (table["roi"] == roi)).to_numpy()
        groups[modality, roi, "all"] = inside
        for name in _present(table["feature_class"], CLASSES):
            groups[modality, roi, name] = inside & (table["feature_class"] == name).to_numpy()
    return {key: mask for key, mask in groups.items() if mask.any()}


def _present(values: pd.Series, first: tuple[str, ...]) -> list[str]:
    """Distinct values, the well-known ones first and in their usual order."""
    found = set(values)
    return [v for v in first if v in found] + sorted(found - set(first))


def _stage_values(table: pd.DataFrame, score: str, stage: str) -> np.ndarray:
    if stage == "delta":
        return (table[f"{score}_ft"] - table[f"{score}_pre"]).to_numpy()
    return table[f"{score}_{stage}"].to_numpy()


def median(values: Float[np.ndarray, "b k"]) -> Float[np.ndarray, " b"]:
    """Median over the columns that have a value; NaN where none has.

    ``np.nanmedian`` goes row by row, which takes ten times as long.
    """
    ordered = np.sort(values, axis=1)  # NaN comes last
    count = np.isfinite(values).sum(axis=1, keepdims=True)
    middle = np.hstack([np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[1] - 1)])
    return np.take_along_axis(ordered, middle, axis=1).mean(axis=1)


def mean(values: Float[np.ndarray, "b k"]) -> Float[np.ndarray, " b"]:
    """Mean over the columns that have a value; NaN where none has."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
