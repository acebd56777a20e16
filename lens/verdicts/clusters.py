"""Clusters of radiomic features that are near copies of each other, each with its medoid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.stats import rankdata

THRESHOLD = 0.9
"""Absolute Spearman correlation above which two features are near copies."""

_ROWS = 512
"""Features whose correlations with all others are computed at once."""


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
    ranks = _unit_ranks(r)
    k = ranks.shape[1]
    if k == 1:
        return Clusters(np.zeros(1, int), np.zeros(1, int))
    # The cut is inclusive; a correlation of exactly the threshold is not above it.
    cut = np.nextafter(1.0 - threshold, 0.0)
    labels = fcluster(linkage(_distances(ranks), "complete"), cut, criterion="distance")
    _, first, ids = np.unique(labels, return_index=True, return_inverse=True)
    ids = np.argsort(np.argsort(first))[ids]
    medoids = np.empty(len(first), int)
    for cluster in range(len(first)):
        members = np.flatnonzero(ids == cluster)
        own = ranks[:, members]
        closeness = _correlations(own, own).mean(axis=0)
        # Rounding must not decide between members that tie, as two always do.
        medoids[cluster] = members[np.round(closeness, 9).argmax()]
    return Clusters(ids, medoids)


def _distances(ranks: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " p"]:
    """``1 - |Spearman|`` of every pair of features, in the order of `scipy`'s `squareform`.

    The square matrix of all pairs is never there: it would take as much again, and its indices four
    times as much.
    """
    k = ranks.shape[1]
    distance, end = np.empty(k * (k - 1) // 2), 0
    for start in range(0, k, _ROWS):
        block = _correlations(ranks[:, start : start + _ROWS], ranks[:, start:])
        np.subtract(1.0, block, out=block)
        for row, values in enumerate(block):
            part = values[row + 1 :]
            distance[end : end + len(part)] = part
            end += len(part)
    return distance


def _correlations(
    a: Float[np.ndarray, "n i"], b: Float[np.ndarray, "n j"]
) -> Float[np.ndarray, "i j"]:
    """Absolute rank correlations, from unit ranks."""
    found = a.T @ b
    np.abs(found, out=found)
    return np.minimum(found, 1.0, out=found)


def _unit_ranks(r: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Centred ranks of each column, of norm 1; zeros of a constant one."""
    ranks = rankdata(r, axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.linalg.norm(ranks, axis=0)
    ranks /= np.where(length > 0, length, 1.0)
    return ranks
