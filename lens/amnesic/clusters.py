"""What is erased together: clusters of features, and the components that stand for a cluster."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.verdicts.clusters import cluster_features

By = Literal["group", "copies"]

COVERED = 0.95
"""Share of a cluster's variance that its components carry."""

MOST = 8
"""Components of a cluster at most."""


class Cluster(NamedTuple):
    """Features that are erased together.

    Attributes:
        name: for people: modality, region and class, or the medoid's column.
        columns: indices of the features.
    """

    name: str
    columns: np.ndarray


class Targets(NamedTuple):
    """What is erased for a cluster, and what is read of it.

    Attributes:
        z: scores of the components, unit variance over the fitted rows.
        weights: share of the cluster's variance in each component.
    """

    z: Float[np.ndarray, "n k"]
    weights: Float[np.ndarray, " k"]


def clusters_of(features: pd.DataFrame, r: Float[np.ndarray, "n k"], by: By) -> list[Cluster]:
    """The clusters of a study in the order of their first feature.

    Args:
        features: their parts, as in `lens.study.study.Study`.
        r: their values, finite.
        by: ``group``: modality, region and class of features; ``copies``: near copies
            (`lens.verdicts.clusters`), called by their medoid.
    """
    if by == "copies":
        found = cluster_features(r)
        names = features["column"].to_numpy(str)[found.medoids]
        return [
            Cluster(str(name), np.flatnonzero(found.ids == number))
            for number, name in enumerate(names)
        ]
    keys = features[["modality", "roi", "feature_class"]].astype(str).agg(" ".join, axis=1)
    return [Cluster(name, np.flatnonzero(keys == name)) for name in dict.fromkeys(keys)]


def targets_of(
    values: Float[np.ndarray, "n c"], fitted: Bool[np.ndarray, " n"], most: int
) -> Targets:
    """Principal components of a cluster, fitted on some rows.

    As many as carry `COVERED` of the variance of the standardised features, at most `most`.

    Args:
        values: features without missing values.
        fitted: rows that means, deviations and components come from.
        most: components at most.

    Returns:
        No components where every feature is constant over the fitted rows.
    """
    centred = values - values[fitted].mean(axis=0)
    deviation = np.sqrt(np.square(centred[fitted]).mean(axis=0))
    varies = deviation > 1e-12
    standardised = centred[:, varies] / deviation[varies]
    if not varies.any():
        return Targets(np.zeros((len(values), 0)), np.zeros(0))
    power, axes = _components(standardised[fitted], most)
    share = power / np.count_nonzero(varies)
    enough = int(np.searchsorted(np.cumsum(share), COVERED)) + 1
    kept = (np.arange(len(share)) < min(enough, most)) & (share > 1e-9)
    return Targets(standardised @ axes[:, kept] / np.sqrt(power[kept]), share[kept])


def _components(
    rows: Float[np.ndarray, "m c"], most: int
) -> tuple[Float[np.ndarray, " q"], Float[np.ndarray, "c q"]]:
    """Variances and directions of the leading components, from the smaller of the two products."""
    m, columns = rows.shape
    small = rows @ rows.T / m if m < columns else rows.T @ rows / m
    power, vectors = np.linalg.eigh(small)
    order = np.argsort(power)[::-1][:most]
    power, vectors = np.maximum(power[order], 0.0), vectors[:, order]
    if m < columns:
        length = np.sqrt(np.maximum(power * m, np.finfo(float).tiny))
        vectors = rows.T @ vectors / length
    return power, vectors
