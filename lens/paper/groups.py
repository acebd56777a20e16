"""Scores by feature group (the paper's Table 1) and by modality and class (its Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.intervals import percentile_interval
from lens.paper.scores import SCORES, STAGES

CLASSES = ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")
"""PyRadiomics' feature classes in the paper's order."""

FILTERS = ("original", "wavelet")
"""Image filters in the paper's order."""

PAPER_GROUPS = (*CLASSES, *FILTERS)
"""The rows of the paper's Table 1."""

Masks = Mapping[tuple[str, ...], np.ndarray]
"""Names of a group -> boolean mask (k,) of its features."""

Samples = Mapping[str, Mapping[str, Float[np.ndarray, "b k"]]]
"""Stage -> score -> bootstrap samples."""


def by_feature_group(
    features: pd.DataFrame, samples: Samples, *, complete: bool = False
) -> pd.DataFrame:
    """The layout of the paper's Table 1: within each ROI the classes, then the image filters.

    Args:
        features: a row per feature: ``roi, image, feature_class`` and each score before (``_pre``)
            and after (``_ft``) fine-tuning.
        samples: of the same features, with the stage ``delta`` of paired differences.
        complete: all of `PAPER_GROUPS` in every ROI, as in `group_masks`.

    Returns:
        A row per ``roi, group`` and ``stage``: ``n_features``, then of each score the median and
        mean over the group's features, each with ``_low`` and ``_high``. Of the stage ``delta``
        they are of the features' differences: not the difference of the medians. A group without
        features has ``n_features`` 0 and NaN.
    """
    masks = group_masks(features, complete=complete)
    return _summarise(features, samples, masks, ("roi", "group"))


def by_modality(features: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """The content of the paper's Figure 2: all features of a modality and ROI, then its classes.

    Args:
        features: as in `by_feature_group`, with ``modality``.
        samples: as there.

    Returns:
        A row per ``modality, roi, group`` and ``stage``, with the columns of `by_feature_group`.
    """
    return _summarise(features, samples, modality_masks(features), ("modality", "roi", "group"))


def median(values: Float[np.ndarray, "b k"]) -> Float[np.ndarray, " b"]:
    """Median over the features that have a value; NaN where none has.

    ``np.nanmedian`` goes row by row, which takes ten times as long.
    """
    if not values.shape[1]:
        return np.full(len(values), np.nan)
    ordered = np.sort(values, axis=1)  # NaN comes last
    count = np.isfinite(values).sum(axis=1, keepdims=True)
    middle = np.hstack([np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[1] - 1)])
    return np.take_along_axis(ordered, middle, axis=1).mean(axis=1)


def mean(values: Float[np.ndarray, "b k"]) -> Float[np.ndarray, " b"]:
    """Mean over the features that have a value; NaN where none has."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _summarise(
    features: pd.DataFrame, samples: Samples, masks: Masks, names: tuple[str, ...]
) -> pd.DataFrame:
    rows = []
    for labels, mask in masks.items():
        for stage in STAGES:
            row: dict[str, object] = dict(zip(names, labels, strict=True))
            row |= {"stage": stage, "n_features": int(mask.sum())}
            for score in SCORES:
                values = _stage_values(features, score, stage)[mask]
                row |= _summary(score, values, samples[stage][score][:, mask])
            rows.append(row)
    return pd.DataFrame(rows)


def _summary(
    score: str, values: Float[np.ndarray, " g"], samples: Float[np.ndarray, "b g"]
) -> dict[str, float]:
    """Median and mean over the features of a group, each with its percentile interval."""
    found = {}
    for name, reduce in ((f"{score}_median", median), (f"{score}_mean", mean)):
        low, high = percentile_interval(reduce(samples))
        found[name] = float(reduce(values[None])[0])
        found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def _stage_values(features: pd.DataFrame, score: str, stage: str) -> Float[np.ndarray, " k"]:
    if stage == "delta":
        return (features[f"{score}_ft"] - features[f"{score}_pre"]).to_numpy()
    return features[f"{score}_{stage}"].to_numpy()


def group_masks(features: pd.DataFrame, *, complete: bool = False) -> Masks:
    """Features of each row of Table 1, by ROI and name of the group.

    Args:
        features: a row per feature: ``roi, image, feature_class``.
        complete: all of `PAPER_GROUPS` in every ROI, with or without features, and other classes
            and filters after them; else the classes that exist, then the filters that exist.
    """
    classes, filters = features["feature_class"], features["image"].str.split("-").str[0]
    groups = {name: classes == name for name in _in_order(classes, CLASSES)}
    groups |= {name: filters == name for name in _in_order(filters, FILTERS)}
    if complete:
        nothing = pd.Series(False, index=features.index)
        groups = {name: groups.get(name, nothing) for name in PAPER_GROUPS} | groups
    always = PAPER_GROUPS if complete else ()
    masks = {
        (roi, name): ((features["roi"] == roi) & member).to_numpy()
        for roi in features["roi"].unique()
        for name, member in groups.items()
    }
    return {labels: mask for labels, mask in masks.items() if mask.any() or labels[1] in always}


def modality_masks(features: pd.DataFrame) -> Masks:
    """Features of each row of Figure 2, by modality, ROI and class; ``all`` for every class."""
    masks = {}
    for modality, roi in features[["modality", "roi"]].drop_duplicates().itertuples(index=False):
        inside = ((features["modality"] == modality) & (features["roi"] == roi)).to_numpy()
        masks[modality, roi, "all"] = inside
        for name in _in_order(features["feature_class"], CLASSES):
            masks[modality, roi, name] = inside & (features["feature_class"] == name).to_numpy()
    return {labels: mask for labels, mask in masks.items() if mask.any()}


def _in_order(values: pd.Series, first: tuple[str, ...]) -> list[str]:
    """Distinct values, the well-known ones first and in their usual order."""
    found = set(values)
    return [v for v in first if v in found] + sorted(found - set(first))
