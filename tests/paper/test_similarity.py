"""Similarity statistics: closed forms and stated invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from lens.paper.similarity import (
    debiased_cka,
    effective_rank,
    mean_principal_cosine,
    procrustes_distance,
    similarity,
)

PAIRED = (debiased_cka, procrustes_distance, mean_principal_cosine)


def embeddings(seed: int, n: int = 60, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.linspace(1, 3, d)
    return x, x @ rng.normal(size=(d, d)) + rng.normal(size=(n, d))


@pytest.mark.parametrize("statistic", PAIRED)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
def test_rotation_scale_and_shift_change_nothing(statistic, seed, scale, shift) -> None:
    x, y = embeddings(seed)
    rotation = ortho_group.rvs(x.shape[1], random_state=seed)
    moved = scale * y @ rotation + shift
    np.testing.assert_allclose(statistic(x, moved), statistic(x, y), atol=1e-6)
    np.testing.assert_allclose(effective_rank(moved), effective_rank(y), rtol=1e-6)
    rows = np.random.default_rng(seed).permutation(len(x))
    np.testing.assert_allclose(statistic(x[rows], y[rows]), statistic(x, y), atol=1e-9)


def test_same_embedding() -> None:
    x, _ = embeddings(0)
    assert debiased_cka(x, x) == pytest.approx(1)
    assert procrustes_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert mean_principal_cosine(x, x) == pytest.approx(1)


def test_cka_of_unrelated_wide_embeddings_is_about_zero_where_the_plain_one_is_not() -> None:
    rng = np.random.default_rng(1)
    values = []
    for _ in range(30):
        x, y = rng.normal(size=(2, 40, 200))
        values.append(debiased_cka(x, y))
    assert abs(np.mean(values)) < 0.02
    centred = x - x.mean(0), y - y.mean(0)
    plain = np.square(np.linalg.norm(centred[0].T @ centred[1])) / (
        np.linalg.norm(centred[0].T @ centred[0]) * np.linalg.norm(centred[1].T @ centred[1])
    )
    assert plain > 0.5


def test_procrustes_is_scipys_on_narrow_and_wide_embeddings() -> None:
    from scipy.spatial import procrustes

    for d in (5, 90):
        x, y = embeddings(2, n=50, d=d)
        # SciPy also scales the second set; its disparity is 1 - t^2 where ours is 2 - 2 t.
        _, _, disparity = procrustes(x, y)
        t = 1 - procrustes_distance(x, y) / 2
        np.testing.assert_allclose(1 - t**2, disparity, atol=1e-9)


def test_effective_rank_of_known_spectra() -> None:
    rng = np.random.default_rng(3)
    u, _ = np.linalg.qr(rng.normal(size=(100, 10)) - rng.normal(size=(100, 10)).mean(0))
    u -= u.mean(axis=0)
    u, _ = np.linalg.qr(u)
    assert effective_rank(u) == pytest.approx(10, rel=1e-6)
    one = np.outer(np.arange(20.0), rng.normal(size=6))
    assert effective_rank(one) == pytest.approx(1, abs=1e-6)


def test_jackknife_covers_the_value_of_a_large_sample() -> None:
    rng = np.random.default_rng(4)
    mixing = rng.normal(size=(6, 6))

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(n, 6))
        return x, x @ mixing + 1.5 * rng.normal(size=(n, 6))

    truth = debiased_cka(*draw(3000))
    covered = 0
    for seed in range(60):
        table = similarity(*draw(80), np.arange(80), seed=seed).set_index("statistic")
        row = table.loc["debiased linear CKA"]
        covered += row["value_low"] <= truth <= row["value_high"]
    # 95% nominal; binomial(60, 0.95) falls below 51 with a chance under 1%.
    assert covered >= 51
