"""Variance partition: closed forms, other implementations, planted truths."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from himalaya.kernel_ridge import (
    predict_weighted_kernel_ridge,
    solve_weighted_kernel_ridge_conjugate_gradient,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from lens.probes.kernel_ridge import ALPHAS
from lens.probes.ridge import RidgeProbe
from lens.probes.spectral import decompose_kernel, solve
from lens.radiomics.names import parse_columns
from lens.scratch import Scratch
from lens.settings import Scores
from lens.verdicts import variance_partition
from lens.verdicts.encoding import count_fits, draw_rows, encoding, feature_groups
from lens.verdicts.estimates import delta_r2, r2_score
from lens.verdicts.folds import make_folds, single_fold
from lens.verdicts.held_out import held_out_errors
from lens.verdicts.variance_partition import (
    alone,
    change,
    fit_subsets,
    partition_by_embedding,
    shapley,
    shapley_values,
    total,
    unique,
)

N = 120
GROUPS = np.arange(N)
FOLDS = make_folds(GROUPS, 3, 2, 0)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(0, 999))
def test_shapley_values_equal_the_mean_over_all_orders(groups: int, seed: int) -> None:
    gain = np.random.default_rng(seed).normal(size=2**groups)
    gain[0] = 0
    expected = np.zeros(groups)
    for order in itertools.permutations(range(groups)):
        subset = 0
        for group in order:
            expected[group] += gain[subset | 1 << group] - gain[subset]
            subset |= 1 << group
    found = shapley_values(gain)
    np.testing.assert_allclose(found, expected / math.factorial(groups), atol=1e-12)
    np.testing.assert_allclose(found.sum(), gain[-1], atol=1e-12)


@pytest.fixture(scope="module")
def data() -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(N, width)) * 10.0**width for width in (3, 5, 40)]
    y = blocks[0] @ rng.normal(size=(3, 6)) / 1e3 + blocks[1] @ rng.normal(size=(5, 6)) / 1e5
    return blocks, y + rng.normal(size=(N, 6)) * np.linspace(0.1, 3, 6)


def test_every_subset_equals_himalaya_and_scikit_learn(data) -> None:
    blocks, y = data
    split = np.repeat(["train", "val", "test"], [70, 20, 30])
    fitted, test = split != "test", split == "test"
    (subsets,) = fit_subsets(
        blocks, {"y": y}, GROUPS, single_fold(split), whole=False, scores="raw"
    ).values()
    centred = y - y[fitted].mean(axis=0)
    np.testing.assert_allclose(subsets.baseline[test], np.square(centred[test]))
    for subset in range(1, 8):
        inside = [blocks[bit] for bit in range(3) if subset >> bit & 1]
        designs = [(b - b[fitted].mean(0)) / b[fitted].std(0) / np.sqrt(b.shape[1]) for b in inside]
        x = np.concatenate(designs, axis=1)
        kernel = (x @ x.T)[np.ix_(fitted, fitted)]
        alpha = solve(decompose_kernel(kernel), centred[fitted], ALPHAS).alpha
        deltas = np.zeros((len(inside), y.shape[1]))
        dual = solve_weighted_kernel_ridge_conjugate_gradient(
            np.stack([d[fitted] @ d[fitted].T for d in designs]), centred[fitted], deltas,
            alpha=alpha, max_iter=2000, tol=1e-10,
        )  # fmt: skip
        others = {
            "himalaya": predict_weighted_kernel_ridge(
                np.stack([d[test] @ d[fitted].T for d in designs]), dual, deltas
            ),
            "scikit-learn": Ridge(alpha=alpha, fit_intercept=False)
            .fit(x[fitted], centred[fitted])
            .predict(x[test]),
        }
        found = subsets.gain[subset][test].sum(axis=0) / subsets.baseline.sum(axis=0)
        for name, predicted in others.items():
            error = np.square(centred[test] - predicted).sum(axis=0)
            expected = 1 - error / np.square(centred[test]).sum(axis=0)
            np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=f"{name} {subset}")


def test_large_cohorts_are_drawn_from_by_patient(monkeypatch) -> None:
    monkeypatch.setattr("lens.verdicts.encoding.MAX_ROWS", 50)
    groups = np.repeat(np.arange(40), 3)
    drawn = draw_rows(groups)
    assert 45 < drawn.sum() <= 50
    assert set(drawn.reshape(40, 3).sum(axis=1)) == {0, 3}
    assert draw_rows(np.arange(50)).all()


def test_shapley_values_add_up_exactly_and_find_the_blocks_that_explain(data) -> None:
    blocks, y = data
    (subsets,) = fit_subsets(blocks, {"y": y}, GROUPS, FOLDS, whole=False).values()
    shares, whole = shapley(subsets, GROUPS), total(subsets, GROUPS)
    np.testing.assert_allclose(shares.value.sum(axis=0), whole.value[0], atol=1e-12)
    # The third block is noise.
    assert (np.abs(shares.value[2]) < 0.1).all()
    assert (shares.value[:2, 0] > 0.1).all()
    assert whole.value[0, 0] > 0.9
    assert ((shares.low < shares.value) & (shares.value < shares.high)).all()


def test_two_blocks_with_the_same_information_get_half_each_and_neither_is_unique(data) -> None:
    blocks, y = data
    doubled = [blocks[0], blocks[0] * 7 + 1]
    (subsets,) = fit_subsets(doubled, {"y": y}, GROUPS, FOLDS, whole=False).values()
    shares = shapley(subsets, GROUPS).value
    np.testing.assert_allclose(shares[0], shares[1], atol=1e-9)
    # A doubled kernel halves the penalty, which the grid follows in steps of a factor 2.
    np.testing.assert_allclose(unique(subsets, GROUPS).value, 0, atol=0.02)
    np.testing.assert_allclose(
        alone(subsets, GROUPS).value[0], total(subsets, GROUPS).value[0], atol=0.02
    )


def test_too_many_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="10 groups"):
        fit_subsets([np.zeros((N, 1))] * 10, {}, GROUPS, FOLDS, whole=False)


NAMES = [
    f"{modality}.gland.{image}_{kind}_F{index}"
    for modality in ("t2", "adc")
    for image in ("original", "wavelet-LLH", "wavelet-LLL")
    for kind in ("firstorder", "glcm")
    for index in range(3)
]
FEATURES = parse_columns(NAMES)


@pytest.fixture(scope="module")
def cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half of the embedding's variance before is T2, the other half no radiomics; after, ADC."""
    rng = np.random.default_rng(1)
    r = rng.normal(size=(N, len(NAMES))) * 10.0 ** rng.integers(-3, 4, len(NAMES))
    t2 = (FEATURES["modality"] == "t2").to_numpy()
    standard = r / r.std(axis=0)

    def unit(values: np.ndarray) -> np.ndarray:
        return values / np.sqrt(np.square(values).sum(axis=1).mean())

    other = unit(rng.normal(size=(N, 5)) @ rng.normal(size=(5, 30)))
    pre = unit(standard[:, t2][:, :3] @ rng.normal(size=(3, 30))) + other
    ft = unit(standard[:, ~t2][:, :3] @ rng.normal(size=(3, 30))) + other
    return pre, ft, r


@pytest.fixture(scope="module")
def table(cohort) -> pd.DataFrame:
    pre, ft, r = cohort
    fits = []
    found = encoding(
        pre, {"cls": ft}, r, FEATURES, GROUPS, FOLDS, on_fit=lambda: fits.append(1)
    )["cls"]  # fmt: skip
    assert len(fits) == count_fits(FEATURES, FOLDS)
    return found.set_index(["grouping", "group", "stage"])


def test_the_modality_that_makes_the_embedding_explains_it(table: pd.DataFrame) -> None:
    share = table["shapley"]["modality"]
    assert 0.3 < share["t2", "pre"] < 0.6
    assert abs(share["adc", "pre"]) < 0.1
    assert 0.3 < share["adc", "ft"] < 0.6
    assert 0.3 < share["none", "pre"] < 0.7
    assert table["shapley_high"]["modality", "t2", "delta"] < 0
    assert table["shapley_low"]["modality", "adc", "delta"] > 0


def test_the_table_adds_up(table: pd.DataFrame) -> None:
    for grouping in ("modality", "class", "filter"):
        for stage, whole in (("pre", 1), ("ft", 1), ("delta", 0)):
            share = table["shapley"].xs(stage, level="stage")[grouping]
            groups = share.drop(["all", "none"])
            np.testing.assert_allclose(groups.sum(), share["all"], atol=1e-12)
            np.testing.assert_allclose(share["all"] + share["none"], whole, atol=1e-12)
    assert (table["shapley_low"] <= table["shapley"]).all()
    assert (table["shapley"] <= table["shapley_high"]).all()
    sizes = table["n_features"].xs("pre", level="stage")["filter"]
    assert sizes.to_dict() == {"original": 12, "wavelet": 24, "all": 36, "none": 0}


def test_rotation_scale_units_and_order_do_not_matter(cohort, table: pd.DataFrame) -> None:
    pre, ft, r = cohort
    rng = np.random.default_rng(3)
    rotation = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    units = np.exp(rng.normal(size=r.shape[1]))
    changed = encoding(
        7 * pre @ rotation, {"cls": 0.1 * ft @ rotation + 3}, r * units - 5, FEATURES, GROUPS, FOLDS
    )["cls"].set_index(["grouping", "group", "stage"])  # fmt: skip
    for name in ("shapley", "shapley_low", "unique", "alone"):
        np.testing.assert_allclose(changed[name], table[name], atol=1e-8)


def test_the_same_embeddings_change_no_share(cohort) -> None:
    pre, _, r = cohort
    found = encoding(pre, {"same": pre}, r, FEATURES, GROUPS, FOLDS)["same"]
    delta = found[found["stage"] == "delta"]
    np.testing.assert_array_equal(delta[["shapley", "shapley_low", "shapley_high"]], 0)


def test_groups_beyond_nine_go_together() -> None:
    images = ["original", *(f"log-{i}" for i in range(3)), *(f"filter{i}" for i in range(12))]
    names = [f"t2.gland.{image}_glcm_F{i}" for image in images for i in range(2)]
    found = feature_groups(parse_columns(names))
    assert set(found) == {"filter"}
    groups = found["filter"]
    assert len(groups) == 9
    assert len(groups["log"]) == 6
    assert sum(map(len, groups.values())) == len(names)
    one = feature_groups(parse_columns(names[:2]))
    assert {name: list(members) for name, members in one.items()} == {"class": ["glcm"]}


def test_what_only_one_embedding_holds_is_unique_to_it() -> None:
    rng = np.random.default_rng(4)
    latent = rng.normal(size=(N, 3))
    r = latent[:, [0, 1, 2]] + 0.2 * rng.normal(size=(N, 3))
    pre = latent[:, [0, 1]] @ rng.normal(size=(2, 12)) + 0.1 * rng.normal(size=(N, 12))
    ft = latent[:, [0, 2]] @ rng.normal(size=(2, 12)) + 0.1 * rng.normal(size=(N, 12))
    table = partition_by_embedding(pre, ft, r, GROUPS, FOLDS, scores="raw")
    assert (table["r2_both"] > 0.8).all()
    np.testing.assert_allclose(table["unique_r2_pre"], [0, 0.9, 0], atol=0.12)
    np.testing.assert_allclose(table["unique_r2_ft"], [0, 0, 0.9], atol=0.12)
    np.testing.assert_allclose(
        table["shapley_r2_pre"] + table["shapley_r2_ft"], table["r2_both"], atol=1e-12
    )


def test_blocks_of_features_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor do decompositions in files, of which every block makes use."""
    pre, ft, r = factors(0, N)
    whole = partition_by_embedding(pre, ft, r, GROUPS, FOLDS)
    monkeypatch.setattr(variance_partition, "BLOCK_NUMBERS", 5 * N)
    calls: list[str] = []

    def counted(plain: Callable[..., object]) -> Callable[..., object]:
        return lambda rows: [calls.append("decomposed"), plain(rows)][1]

    for name in ("decompose", "decompose_kernel"):
        plain = getattr(variance_partition, name)
        monkeypatch.setattr(variance_partition, name, counted(plain))
    for scratch in (Scratch(), Scratch(0.0, tmp_path)):
        calls.clear()
        blocks = partition_by_embedding(
            pre, ft, r, GROUPS, FOLDS, on_fit=lambda: calls.append("fold"), scratch=scratch
        )
        pd.testing.assert_frame_equal(blocks, whole, rtol=1e-9)
        # Of either embedding, and of both together.
        assert calls == ["decomposed", "decomposed", "decomposed", "fold"] * len(FOLDS)


def test_a_block_of_features_takes_as_much_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pre, ft, r = (rng.normal(size=(N, width)) for width in (3, 3, 4000))
    monkeypatch.setattr(variance_partition, "BLOCK_NUMBERS", 2000 * N)
    tracemalloc.start()
    partition_by_embedding(pre, ft, r, GROUPS, FOLDS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 230 * variance_partition.BLOCK_NUMBERS, peak / variance_partition.BLOCK_NUMBERS


def factors(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two embeddings that share four factors and have two each of their own; features of all."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    latent = rng.normal(size=(n, 8))
    mixing, weights = fixed.normal(size=(2, 8, 40)), fixed.normal(size=(8, 18))
    signal = np.sqrt(np.linspace(0.4, 0.95, 18))
    r = latent @ (weights / np.linalg.norm(weights, axis=0)) * signal
    r += np.sqrt(1 - signal**2) * rng.normal(size=(n, 18))
    pre, ft = (
        np.delete(latent, lost, axis=1) @ np.delete(m, lost, axis=0)
        + 1.5 * rng.normal(size=(n, 40))
        for lost, m in zip(([2, 3], [0, 1]), mixing, strict=True)
    )
    return pre, ft, r


@pytest.mark.parametrize("scores", ["normal", "raw"])
def test_parts_are_estimates_of_the_ridge_probe(scores: Scores) -> None:
    """R2 of one embedding, of both, and the difference, as for any probe: intervals included.

    Patients have one to three rows, and values are missing.
    """
    pre, ft, r = factors(0, 90)
    rng = np.random.default_rng(1)
    r[rng.random(r.shape) < 0.05] = np.nan
    groups = np.repeat(np.arange(45), np.tile([1, 2, 3], 15))
    folds = make_folds(groups, 3, 2, 0)
    # A block is divided by the root of its number of columns.
    probe = RidgeProbe(alphas=tuple(40 * a for a in ALPHAS))
    both = np.concatenate([pre, ft], axis=1)
    held_out = held_out_errors(
        pre, {"ft": ft, "both": both}, r, groups, folds, None, scores=scores, probes={"p": probe}
    )
    errors, base = held_out.probes["p"], held_out.baseline
    table = partition_by_embedding(pre, ft, r, groups, folds, scores=scores)
    (subsets,) = fit_subsets(
        [pre, ft], {"r": r}, groups, folds, whole=False, scores=scores
    ).values()
    whole = r2_score(errors["both"], base, groups)
    np.testing.assert_allclose(table["r2_both"], whole.value, atol=1e-8)
    for number, (side, other) in enumerate((("pre", "ft"), ("ft", "pre"))):
        expected = delta_r2(errors[other], errors["both"], base, groups)
        for suffix, values in zip(("", "_low", "_high"), expected, strict=False):
            np.testing.assert_allclose(table[f"unique_r2_{side}{suffix}"], values, atol=1e-8)
        by_itself = r2_score(errors[side], base, groups)
        for found, values in zip(alone(subsets, groups), by_itself, strict=False):
            np.testing.assert_allclose(found[number], values, atol=1e-8)


def test_intervals_of_unique_r2_cover_and_those_of_fixed_fits_do_not() -> None:
    """Forty cohorts of 120 patients; unique R2 is 0.14 before and 0.24 after on average."""
    values, inside, fixed = [], [], []
    for seed in range(40):
        pre, ft, r = factors(seed, N)
        folds = make_folds(GROUPS, 5, 1, seed)
        (subsets,) = fit_subsets([pre, ft], {"r": r}, GROUPS, folds, whole=False).values()
        silent = subsets._replace(
            fitted_influence=0 * subsets.fitted_influence,
            flipped_influence=0 * subsets.flipped_influence,
        )
        part = unique(subsets, GROUPS)
        values.append(part.value)
        inside.append(part.high - part.value)
        fixed.append(unique(silent, GROUPS).high - part.value)
    assert 0.05 < np.mean(values, axis=(0, 2)).min() < np.mean(values, axis=(0, 2)).max() < 0.4
    deviation = np.abs(np.array(values) - np.mean(values, axis=0))
    # 1440 values, correlated within a cohort: a standard error of about a point.
    assert 0.93 < (deviation <= inside).mean() < 0.98
    assert (deviation <= fixed).mean() < 0.90


def test_what_is_monotone_in_a_feature_changes_no_part() -> None:
    pre, ft, r = factors(2, N)
    one = partition_by_embedding(pre, ft, r, GROUPS, FOLDS[:1])
    # Held-out values between two fitted ones are interpolated on another scale.
    other = partition_by_embedding(pre, ft, np.exp(r), GROUPS, FOLDS[:1])
    np.testing.assert_allclose(other, one, atol=0.01)
    raw = partition_by_embedding(pre, ft, np.exp(r), GROUPS, FOLDS[:1], scores="raw")
    assert (raw - one).abs().to_numpy().max() > 0.1


def test_embeddings_are_predicted_as_they_are(cohort) -> None:
    pre, _, r = cohort
    one, other = (
        fit_subsets([r], {"x": pre}, GROUPS, FOLDS, whole=True, scores=scores)["x"]
        for scores in ("normal", "raw")
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_intervals_of_shapley_values_and_of_their_change_cover() -> None:
    """Forty cohorts in which the embedding before leans on some factors, that after on others."""
    fixed, weights = np.random.default_rng(9), np.array([1, 1, 1, 0.5, 0.5, 0.5])
    mixing, loadings = fixed.normal(size=(2, 6, 30)), fixed.normal(size=(6, 36))
    values, half = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        latent = rng.normal(size=(N, 6))
        r = latent @ loadings + 2 * rng.normal(size=(N, 36))
        targets = {
            name: (latent * w) @ m + 1.5 * rng.normal(size=(N, 30))
            for name, w, m in zip(("pre", "ft"), (weights, weights[::-1]), mixing, strict=True)
        }
        folds = make_folds(GROUPS, 5, 1, seed)
        gains = fit_subsets(np.split(r, 3, axis=1), targets, GROUPS, folds, whole=True)
        parts = [
            shapley(gains["pre"], GROUPS),
            change(shapley_values, gains["pre"], gains["ft"], GROUPS),
        ]
        values.append([part.value for part in parts])
        half.append([part.high - part.value for part in parts])
    deviation = np.abs(np.array(values) - np.mean(values, axis=0))
    # 240 values, correlated within a cohort: a standard error of about two points.
    assert 0.90 < (deviation <= half).mean() < 0.995
