"""Clusters of near copies: the defining property and invariances."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from lens.verdicts.clusters import cluster_features


def features(seed: int, n: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 5))
    noise = rng.uniform(0.05, 1.0, 24)
    sign = rng.choice((-1, 1), 24)
    return sign * latent[:, np.arange(24) % 5] + noise * rng.normal(size=(n, 24))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999))
def test_members_correlate_above_the_threshold_and_the_medoid_most(seed: int) -> None:
    r = features(seed)
    ids, medoids = cluster_features(r)
    rho = np.abs(spearmanr(r).statistic)  # pyright: ignore[reportAttributeAccessIssue]
    assert ids[0] == 0
    assert ids[medoids].tolist() == list(range(len(medoids)))
    for cluster, medoid in enumerate(medoids):
        members = np.flatnonzero(ids == cluster)
        inside = rho[np.ix_(members, members)]
        assert inside.min() > 0.9
        assert rho[medoid, members].sum() >= inside.sum(axis=0).max() - 1e-9


def test_near_copies_share_a_cluster_and_independent_features_do_not() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 80))
    ids, medoids = cluster_features(np.c_[a, b, np.exp(a), -a, b + 0.01 * rng.normal(size=80)])
    assert ids.tolist() == [0, 1, 0, 0, 1]
    assert medoids.tolist() == [0, 1]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 9999))
def test_monotone_maps_and_the_order_of_patients_do_not_matter(seed: int) -> None:
    r = features(seed)
    rng = np.random.default_rng(seed)
    plain = cluster_features(r)
    mapped = np.where(np.arange(24) % 2, np.exp(r), -(r**3))[rng.permutation(len(r))]
    other = cluster_features(mapped)
    np.testing.assert_array_equal(other.ids, plain.ids)
    np.testing.assert_array_equal(other.medoids, plain.medoids)


def test_order_of_the_columns_only_renumbers() -> None:
    r = features(1)
    order = np.random.default_rng(2).permutation(24)
    plain, other = cluster_features(r).ids, cluster_features(r[:, order]).ids
    together = plain[:, None] == plain
    np.testing.assert_array_equal(other[:, None] == other, together[np.ix_(order, order)])


def test_one_feature_and_constant_ones() -> None:
    assert cluster_features(np.ones((5, 1))).ids.tolist() == [0]
    assert cluster_features(np.ones((5, 3))).ids.tolist() == [0, 1, 2]
