"""Clusters of radiomic features that are near copies of each other, each with its medoid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.stats import rankdata

THRESHOLD = 0.9
"""Absolute Spearman correlation above which two features are near copies."""


class Clusters(NamedTuple):
    """A partition of the features.

    Attributes:
        ids: cluster of each feature, numbered from 0 by first appearance.
        medoids: of each cluster, the feature with the largest mean absolute correlation to it.
    """

    ids: Int[np.ndarray, " k"]
    medoids: Int[np.ndarray, " c"]


def cluster_features(r: Float[np.ndarray, "n k"], threshold: float = THRESHOLD) -> Clusters:
    """Complete linkage on ``1 - |Spearman|``: all members of a cluster correlate above `threshold`.

    Monotone maps of a feature, up or down, and the order of the patients do not matter. Ties go to
    the feature that comes first. A constant feature is a cluster of its own.

    Args:
        r: radiomic features of the train patients, any units, finite.
        threshold: absolute rank correlation.
    """
    correlation = np.abs(_spearman(r))
    k = len(correlation)
    if k == 1:
        return Clusters(np.zeros(1, int), np.zeros(1, int))
    distance = 1.0 - correlation[np.triu_indices(k, 1)]
    # The cut is inclusive; a correlation of exactly the threshold is not above it.
    cut = np.nextafter(1.0 - threshold, 0.0)
    labels = fcluster(linkage(distance, "complete"), cut, criterion="distance")
    _, first, ids = np.unique(labels, return_index=True, return_inverse=True)
    ids = np.argsort(np.argsort(first))[ids]
    medoids = np.empty(len(first), int)
    for cluster in range(len(first)):
        members = np.flatnonzero(ids == cluster)
        closeness = correlation[np.ix_(members, members)].mean(axis=0)
        # Rounding must not decide between members that tie, as two always do.
        medoids[cluster] = members[np.round(closeness, 9).argmax()]
    return Clusters(ids, medoids)


def _spearman(r: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "k k"]:
    ranks = rankdata(r, axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.linalg.norm(ranks, axis=0)
    ranks /= np.where(length > 0, length, 1.0)
    return np.clip(ranks.T @ ranks, -1.0, 1.0)
