"""Held-out errors: laws of probes, of the shared MLP, and of what is fitted inside a fold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from lens.probes.ridge import RidgeProbe
from lens.settings import Rules, SweepConfig
from lens.verdicts.clusters import cluster_features
from lens.verdicts.estimates import delta_r2, r2_score
from lens.verdicts.fold_values import normal_scores
from lens.verdicts.folds import make_folds, single_fold
from lens.verdicts.held_out import (
    HEAD,
    PRE,
    PROBES,
    HeldOutErrors,
    halves,
    held_out_errors,
    mlp_column_names,
    random_signs,
)
from lens.verdicts.judge import judge
from lens.verdicts.sign_flips import patient_sums
from tests.planted import Planted, plant

CONFIG = SweepConfig(hidden=8, l1=(0.0, 1e-5), l2=(0.0, 1e-4), epochs=30, batch=32)
N = 90
GROUPS = np.arange(N)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(n=N, d=24, latents=4)


@pytest.fixture(scope="module")
def r(planted: Planted) -> np.ndarray:
    return planted.radiomics.iloc[:, 1:].to_numpy() * 1e4 + 7


@pytest.fixture(scope="module")
def held_out(planted: Planted, r: np.ndarray) -> HeldOutErrors:
    sides = {"cls": planted.ft, "same": planted.pre, "loud": 3 * planted.pre}
    return held_out_errors(planted.pre, sides, r, GROUPS, make_folds(GROUPS, 3, 2, 0), CONFIG)


def test_the_same_embeddings_on_both_sides_give_exactly_nothing(held_out: HeldOutErrors) -> None:
    pairs = [held_out.probes[view] for view in held_out.probes]
    pairs.append({PRE: held_out.mlp[PRE, PRE], "same": held_out.mlp["same", "same"]})
    pairs.append({PRE: held_out.mlp[PRE, PRE], "same": held_out.mlp[PRE, "same"]})
    for errors in pairs:
        change = delta_r2(errors[PRE], errors["same"], held_out.baseline, GROUPS)
        for values in change[:3]:
            np.testing.assert_array_equal(values, 0)


def test_one_scale_for_the_embedding_changes_no_r2_of_the_mlp(held_out: HeldOutErrors) -> None:
    def score(key):
        return r2_score(held_out.mlp[key], held_out.baseline, GROUPS).value

    for key in (("loud", "loud"), (PRE, "loud"), ("loud", PRE)):
        # float32 standardisation of other numbers, then 30 epochs of rounding.
        np.testing.assert_allclose(score(key), score((PRE, PRE)), atol=0.02)


def test_ridge_equals_a_plain_loop_over_the_folds(
    planted: Planted, r: np.ndarray, held_out: HeldOutErrors
) -> None:
    x, error, base = planted.pre.astype(float), np.zeros_like(r), np.zeros_like(r)
    for fold in make_folds(GROUPS, 3, 2, 0):
        mean, std = x[fold.fitted].mean(axis=0), x[fold.fitted].std(axis=0)
        scores = normal_scores(r, fold.fitted)
        alpha = RidgeProbe().fit(planted.pre[fold.fitted], scores[fold.fitted]).alpha
        probe = Ridge(alpha=alpha).fit((x[fold.fitted] - mean) / std, scores[fold.fitted])
        predicted = probe.predict((x[fold.test] - mean) / std)
        error[fold.test] += (scores[fold.test] - predicted) ** 2 / 2
        base[fold.test] += (scores[fold.test] - scores[fold.fitted].mean(axis=0)) ** 2 / 2
    found = r2_score(held_out.probes["per_channel"][PRE], held_out.baseline, GROUPS).value
    np.testing.assert_allclose(found, 1 - error.sum(axis=0) / base.sum(axis=0), atol=1e-4)
    np.testing.assert_allclose(held_out.baseline, base, rtol=1e-6)


def test_raw_scores_are_the_features_own_values(planted: Planted, r: np.ndarray) -> None:
    folds = make_folds(GROUPS, 3, 1, 0)
    found = held_out_errors(planted.pre, {}, r, GROUPS, folds, None, scores="raw")
    base = np.zeros_like(r)
    for fold in folds:
        base[fold.test] = (r[fold.test] - r[fold.fitted].mean(axis=0)) ** 2
    np.testing.assert_allclose(found.baseline, base / r.var(axis=0), rtol=1e-6)


def test_normal_scores_do_not_see_a_monotone_map(planted: Planted, r: np.ndarray) -> None:
    folds, bent = make_folds(GROUPS, 3, 1, 0), np.exp((r - r.mean(axis=0)) / r.std(axis=0))
    one, other = (
        held_out_errors(planted.pre, {}, values, GROUPS, folds, None).probes["per_channel"][PRE]
        for values in (r, bent)
    )
    # Between two fitted values the maps interpolate on another scale; the ends do not differ.
    np.testing.assert_allclose(other.error.sum(axis=0), one.error.sum(axis=0), rtol=0.02)


def test_halves_share_out_the_patients_with_all_their_rows() -> None:
    groups = np.repeat(np.arange(11), [1, 2, 3, 1, 1, 4, 1, 1, 2, 1, 5])
    fitted = groups != 3
    one, other = halves(fitted, groups)
    assert not (one & other).any()
    np.testing.assert_array_equal(one | other, fitted)
    in_one, in_other = set(groups[one]), set(groups[other])
    assert not in_one & in_other
    assert len(in_one) == len(in_other) == 5


def test_errors_of_halves_are_the_mean_of_two_fits(planted: Planted, r: np.ndarray) -> None:
    split = np.repeat(["train", "val", "test"], [60, 10, 20])
    held_out = held_out_errors(planted.pre, {}, r, GROUPS, single_fold(split), None)
    fitted, test = split != "test", split == "test"
    scores, probe = normal_scores(r, fitted), RidgeProbe(per_channel=False)
    error = [
        scores[test] - probe.fit(planted.pre[half], scores[half]).predict(planted.pre[test])
        for half in halves(fitted, GROUPS)
    ]
    found = held_out.probes["one_scale_half"][PRE].error[test]
    np.testing.assert_allclose(found, np.square(error).mean(axis=0), rtol=1e-6)


def test_signs_and_influences_are_those_of_patients() -> None:
    """A patient twice is one patient: the same test as of each once, but for the fit's weights."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 2)
    assert (random_signs(groups)[::2] == random_signs(groups)[1::2]).all()
    assert len(set(random_signs(groups))) == 2
    x, r = rng.normal(size=(40, 5))[groups], rng.normal(size=(40, 3))[groups]
    folds = make_folds(groups, 4, 1, 0)
    held_out = held_out_errors(x, {}, r, groups, folds, None, scores="raw")
    errors = held_out.probes["per_channel"][PRE]
    single = held_out_errors(x, {}, r, np.arange(80), folds, None, scores="raw")
    # Left out alone, a copy is predicted from its twin: its influence looks too small.
    alone = single.probes["per_channel"][PRE].fitted_influence
    assert np.abs(alone).mean() < 0.95 * np.abs(errors.fitted_influence).mean()


def test_erased_factors_fall_where_the_mlp_reads_the_encoder_after_fine_tuning(
    planted: Planted, held_out: HeldOutErrors
) -> None:
    erased = np.isin(planted.factor, planted.erased)
    r2 = {
        name: r2_score(held_out.mlp[key], held_out.baseline, GROUPS).value
        for name, key in mlp_column_names("cls")
    }
    assert list(r2) == ["pre_pre", "pre_ft", "ft_pre", "ft_ft"]
    assert r2["pre_pre"][erased].mean() > 0.4
    for name in ("pre_ft", "ft_ft"):
        assert r2[name][erased].mean() < 0.1
        assert r2[name][~erased].mean() > 0.4


def test_other_tasks_do_not_change_a_tasks_scores(
    planted: Planted, r: np.ndarray, held_out: HeldOutErrors
) -> None:
    alone = held_out_errors(
        planted.pre, {"cls": planted.ft}, r, GROUPS, make_folds(GROUPS, 3, 2, 0), CONFIG
    )
    for _, key in mlp_column_names("cls"):
        np.testing.assert_array_equal(alone.mlp[key].error, held_out.mlp[key].error)
    np.testing.assert_array_equal(
        alone.probes["one_scale"]["cls"].fitted_influence,
        held_out.probes["one_scale"]["cls"].fitted_influence,
    )


def test_without_training_after_fine_tuning_the_other_errors_stay(
    planted: Planted, r: np.ndarray, held_out: HeldOutErrors
) -> None:
    folds = make_folds(GROUPS, 3, 2, 0)
    there = held_out_errors(planted.pre, {"cls": planted.ft}, r, GROUPS, folds, CONFIG, back=False)
    assert set(there.mlp) == {(PRE, PRE), (PRE, "cls")}
    for key, errors in there.mlp.items():
        np.testing.assert_array_equal(errors.error, held_out.mlp[key].error)
    without = judge(there, "cls", cluster_features(r), GROUPS, Rules(flips=99)).features
    whole = judge(held_out, "cls", cluster_features(r), GROUPS, Rules(flips=99)).features
    assert without["verdict"].tolist() == whole["verdict"].tolist()
    assert set(whole) - set(without) == {"r2_ft_pre", "r2_ft_ft"}


def test_a_held_out_value_changes_no_other_error(planted: Planted, r: np.ndarray) -> None:
    split = np.repeat(["train", "val", "test"], [60, 10, 20])
    sides = {"cls": planted.ft}
    plain = held_out_errors(planted.pre, sides, r, GROUPS, single_fold(split), CONFIG)
    changed = r.copy()
    changed[75, 3] += 1e4
    other = held_out_errors(planted.pre, sides, changed, GROUPS, single_fold(split), CONFIG)
    rest = np.setdiff1d(np.arange(70, 90), [75])
    for before, after in (
        (plain.probes["per_channel"]["cls"], other.probes["per_channel"]["cls"]),
        (plain.mlp[PRE, "cls"], other.mlp[PRE, "cls"]),
    ):
        # Normal scores of the fitted rows are the same; the MLP sees them rounded to float32.
        np.testing.assert_allclose(after.error[rest, 3], before.error[rest, 3], rtol=0.02)
    assert ((plain.baseline > 0).any(axis=1) == (split == "test")).all()


def test_a_missing_value_is_imputed_inside_the_fold_and_not_scored(
    planted: Planted, r: np.ndarray
) -> None:
    split = np.repeat(["train", "val", "test"], [60, 10, 20])
    holes = r.copy()
    holes[5, 0] = holes[80, 0] = np.nan
    # Raw values, since a rank more or less moves all normal scores a little.
    fold = single_fold(split)
    held_out = held_out_errors(planted.pre, {}, holes, GROUPS, fold, None, scores="raw")
    errors = held_out.probes["per_channel"][PRE]
    assert held_out.baseline[80, 0] == errors.error[80, 0] == 0
    assert held_out.baseline[79, 0] > 0
    filled = holes.copy()
    filled[5, 0] = np.nanmedian(holes[:70, 0])
    filled[80, 0] = 0
    expected = held_out_errors(planted.pre, {}, filled, GROUPS, fold, None, scores="raw")
    ratio = (
        v.probes["per_channel"][PRE].error[70:80, 0] / v.baseline[70:80, 0]
        for v in (held_out, expected)
    )
    np.testing.assert_allclose(*ratio, rtol=1e-8)


def test_heads_are_least_squares_on_the_projection(planted: Planted, r: np.ndarray) -> None:
    split = np.repeat(["train", "val", "test"], [60, 10, 20])
    config = replace(CONFIG, hidden=24 * 40, epochs=1, l1=(0.0,), l2=(0.0,))
    wide = held_out_errors(planted.pre, {}, r, GROUPS, single_fold(split), config)
    fitted, test = split != "test", split == "test"
    # More hidden units than patients: the minimum-norm head passes through every fitted patient.
    probe = LinearRegression().fit(planted.pre[fitted], r[fitted])
    assert probe.score(planted.pre[fitted], r[fitted]) < 1
    assert np.isfinite(wide.mlp[PRE, PRE].error[test]).all()
    np.testing.assert_allclose(wide.mlp[PRE, PRE].fitted_influence, 0, atol=1e-4)


def test_a_probe_in_the_registry_gets_its_columns(
    planted: Planted, r: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And changes no other; least squares stands for any probe that is not ridge."""
    folds, clusters = make_folds(GROUPS, 3, 1, 0), cluster_features(r)

    def table():
        held_out = held_out_errors(planted.pre, {"cls": planted.ft}, r, GROUPS, folds, None)
        judged = judge(held_out, "cls", clusters, GROUPS, Rules(flips=99))
        return judged.features, held_out

    default, _ = table()
    monkeypatch.setitem(PROBES, "plain", HEAD)
    more, held_out = table()
    assert [*more] == [*default, "r2_plain_pre", "r2_plain_ft"]
    pd.testing.assert_frame_equal(more[[*default]], default)
    for side, column in ((PRE, "r2_plain_pre"), ("cls", "r2_plain_ft")):
        x, error = {PRE: planted.pre, "cls": planted.ft}[side].astype(float), np.zeros_like(r)
        for fold in folds:
            scores = normal_scores(r, fold.fitted)
            fit = LinearRegression().fit(x[fold.fitted], scores[fold.fitted])
            error[fold.test] = scores[fold.test] - fit.predict(x[fold.test])
        expected = 1 - np.square(error).sum(axis=0) / held_out.baseline.sum(axis=0)
        np.testing.assert_allclose(more[column], expected, atol=1e-6)


def test_columns_without_further_probes(planted: Planted, r: np.ndarray) -> None:
    folds = make_folds(GROUPS, 3, 1, 0)
    held_out = held_out_errors(planted.pre, {"cls": planted.ft}, r, GROUPS, folds, None)
    table = judge(held_out, "cls", cluster_features(r), GROUPS, Rules(flips=9)).features
    assert [*table] == [
        "verdict", "withheld", "cluster", "medoid",
        "delta_r2", "delta_r2_low", "delta_r2_high",
        "r2_ridge_pre", "r2_ridge_pre_low", "r2_ridge_pre_high",
        "r2_ridge_ft", "r2_ridge_ft_low", "r2_ridge_ft_high",
        "delta_r2_one_scale", "delta_r2_leading", "delta_r2_extrapolated", "needs_more",
        "lasting_share",
        "p_extrapolated", "p_maxt", "q_bh", "p_unchanged", "detectable", "smallest_loss",
        "p_present_pre", "p_present_ft", "retrained",
    ]  # fmt: skip


def test_influence_equals_the_deletion_of_each_of_sixty_patients() -> None:
    """Refitted by scikit-learn without the patient, at the fold's scaling and penalty.

    Three patients are far out, and every third has two studies.
    """
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), np.where(np.arange(60) % 3, 1, 2))
    latent = rng.normal(size=(60, 4))[groups]
    x = latent @ rng.normal(size=(4, 20)) + rng.normal(size=(80, 20))
    x[np.isin(groups, [7, 21, 30])] *= 7
    r = latent + rng.normal(size=(80, 4))
    fold = single_fold(np.where(groups < 40, "train", np.where(groups < 45, "val", "test")))
    (fitted, test) = fold[0].fitted, fold[0].test
    probe = RidgeProbe(alphas=(0.1,))
    found = held_out_errors(
        x, {}, r, groups, fold, None, scores="raw", probes={"ridge": probe}
    ).probes["ridge"][PRE]
    scaled = (x - x[fitted].mean(axis=0)) / x[fitted].std(axis=0)
    y = r / r.std(axis=0)

    def error(rows: np.ndarray) -> np.ndarray:
        return y[test] - Ridge(alpha=0.1 * fitted.sum()).fit(scaled[rows], y[rows]).predict(
            scaled[test]
        )

    # What the sum of squared errors rises by, to first order in the predictions.
    whole, expected = error(fitted), []
    for patient in range(45):
        without = error(fitted & (groups != patient))
        expected.append((2 * whole * (without - whole)).sum(axis=0))
    ours = -patient_sums(found.fitted_influence, groups)[:45]
    np.testing.assert_allclose(ours, expected, rtol=0.02, atol=1e-6 * np.abs(expected).max())
    in_sample = y - Ridge(alpha=0.1 * fitted.sum()).fit(scaled[fitted], y[fitted]).predict(scaled)
    fit = probe.fit(x[fitted], y[fitted])
    weak = found.fitted_influence[fitted] * in_sample[fitted] / fit.left_out(groups[fitted])
    weak = -patient_sums(weak, groups[fitted])
    # The residual of the fit at hand would miss most of what the three who are far out did.
    assert np.linalg.norm(weak - expected) > 0.5 * np.linalg.norm(expected)
