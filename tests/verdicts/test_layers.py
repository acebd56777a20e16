"""Depth: a planted change is placed at its layer; controls are flat; the fold keeps its secrets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.errors import InputError
from lens.probes.ridge import LeadingRidgeProbe, RidgeProbe
from lens.settings import Rules
from lens.verdicts.folds import Fold, make_folds
from lens.verdicts.layers import (
    LayerTables,
    check_layers,
    components_of,
    count_fits,
    layer_profile,
    shuffled_rows,
)

PATIENTS, STUDIES = 70, 2
GROUPS = np.repeat(np.arange(PATIENTS), STUDIES).astype(str)
FOLDS = make_folds(GROUPS, 3, 1, 0)
RULES = Rules(flips=300)
WIDTHS = {"stage1": 12, "stage2": 48}
KINDS = ("firstorder", "glcm")
FEATURES = pd.DataFrame({"column": [f"f{at}" for at in range(6)], "feature_class": [*KINDS] * 3})


def embedded(factors: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers that hold the factors in a basis of their own, with noise."""
    mixing = rng.normal(size=(factors.shape[1], width))
    return factors @ mixing + 0.5 * rng.normal(size=(len(factors), width))


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, np.ndarray]:
    """Two factors, alike in a patient's studies, and three features of each."""
    rng = np.random.default_rng(0)
    factors = np.repeat(rng.normal(size=(PATIENTS, 2)), STUDIES, axis=0)
    factors += 0.2 * rng.normal(size=factors.shape)
    r = factors[:, [0, 1] * 3] + 0.4 * rng.normal(size=(len(GROUPS), 6))
    return factors, r


@pytest.fixture(scope="module")
def vanishing(truth) -> LayerTables:
    """The first factor is gone at the second layer after fine-tuning; a random encoder beside."""
    (factors, r), rng = truth, np.random.default_rng(1)
    pre = {name: embedded(factors, width, rng) for name, width in WIDTHS.items()}
    # The same twice over: at the first layer nothing happens but another basis.
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    ft = {"stage1": pre["stage1"] @ turn, "stage2": embedded(factors[:, 1:], 48, rng)}
    noise = {name: rng.normal(size=(len(GROUPS), width)) for name, width in WIDTHS.items()}
    return layer_profile(pre, ft, r, FEATURES, GROUPS, FOLDS, RULES, controls={"random": noise})


def cell(tables: LayerTables, layer: str, group: str) -> pd.Series:
    """One row of the classes' table."""
    rows = tables.classes
    return rows[(rows["layer"] == layer) & (rows["group"] == group)].iloc[0]


def test_information_that_vanishes_at_the_second_layer_is_placed_there(vanishing) -> None:
    lost = cell(vanishing, "stage2", "firstorder")
    assert lost["verdict"] == "lost"
    assert lost["delta_r2"] < -0.4
    assert lost["p_step"] <= 0.05
    for layer, group in (("stage1", "firstorder"), ("stage1", "glcm"), ("stage2", "glcm")):
        assert cell(vanishing, layer, group)["verdict"] not in ("lost", "gained"), (layer, group)
    assert cell(vanishing, "stage1", "firstorder")["p_step"] > 0.05


def test_a_step_is_the_change_less_that_of_the_layer_before(vanishing) -> None:
    rows = vanishing.classes.set_index(["layer", "group"])
    first, second = rows.loc["stage1"], rows.loc["stage2"]
    np.testing.assert_allclose(first["step_r2"], first["delta_r2"])
    np.testing.assert_allclose(second["step_r2"], second["delta_r2"] - first["delta_r2"])


def test_classes_are_means_of_their_features(vanishing) -> None:
    features = vanishing.features.merge(FEATURES, on="column")
    means = features.groupby(["layer", "feature_class"])[["r2_pre", "r2_ft", "delta_r2"]].mean()
    rows = vanishing.classes.set_index(["layer", "group"]).loc[means.index]
    np.testing.assert_allclose(rows[means.columns], means)
    change = features["r2_ft"] - features["r2_pre"]
    np.testing.assert_allclose(change, features["delta_r2"], atol=1e-12)


def test_controls_are_flat_whatever_the_width(vanishing) -> None:
    """The random encoder holds nothing of the features, and the shuffled features are nobody's."""
    whole = vanishing.classes[vanishing.classes["group"] == "all"]
    for control in ("r2_random", "r2_shuffled"):
        assert whole[control].abs().max() < 0.1, control
        assert np.ptp(whole[control].to_numpy()) < 0.08, control
    assert whole["r2_permuted"].isna().all(), "not given"
    assert whole["r2_pre"].min() > 0.6


def test_identical_layers_change_by_exactly_nothing(truth) -> None:
    (factors, r), rng = truth, np.random.default_rng(2)
    pre = {name: embedded(factors, width, rng) for name, width in WIDTHS.items()}
    found = layer_profile(pre, pre, r, FEATURES, GROUPS, FOLDS, RULES).classes
    assert (found["delta_r2"] == 0).all()
    assert (found["p_maxt"] == 1).all()
    assert (found["verdict"] == "unchanged").all()


def test_every_layer_is_read_from_as_many_components_fitted_on_train_rows(monkeypatch, truth):
    """The reader sees fitted rows alone: held-out rows enter by `predict` and nowhere else."""
    (factors, r), rng = truth, np.random.default_rng(3)
    pre = {name: embedded(factors, width, rng) for name, width in WIDTHS.items()}
    seen: list[tuple[int, int | None, bool]] = []
    decompose = LeadingRidgeProbe.decompose

    def spied(probe: LeadingRidgeProbe, x: np.ndarray):
        made = decompose(probe, x)
        seen.append((len(x), probe.components, made.v.shape[1] == probe.components))
        return made

    monkeypatch.setattr(LeadingRidgeProbe, "decompose", spied)
    fits: list[None] = []
    layer_profile(pre, pre, r, FEATURES, GROUPS, FOLDS, RULES, on_fit=lambda: fits.append(None))
    expected = components_of({"pre": pre}, FOLDS)
    assert expected == min(12, min(int(fold.fitted.sum()) for fold in FOLDS) // 8)
    assert {count for _, count, _ in seen} == {expected}
    assert all(full for *_, full in seen)
    assert {rows for rows, *_ in seen} == {int(fold.fitted.sum()) for fold in FOLDS}
    assert len(fits) == count_fits(len(WIDTHS), 0, FOLDS)


def test_held_out_rows_do_not_move_the_components(monkeypatch, truth) -> None:
    """What the reader is fitted to is a layer as it came, at the fitted rows: components of all
    rows, taken before, would be turned by a held-out patient far away."""
    (factors, r), rng = truth, np.random.default_rng(4)
    pre = {name: embedded(factors, width, rng) for name, width in WIDTHS.items()}
    own: list[bool] = []
    decompose = LeadingRidgeProbe.decompose

    def spied(probe: LeadingRidgeProbe, x: np.ndarray):
        rows = [each[fold.fitted] for each in pre.values() for fold in FOLDS]
        own.append(any(x.shape == each.shape and np.allclose(x, each) for each in rows))
        return decompose(probe, x)

    monkeypatch.setattr(LeadingRidgeProbe, "decompose", spied)
    layer_profile(pre, pre, r, FEATURES, GROUPS, FOLDS, RULES)
    assert own
    assert all(own)


def test_as_many_components_as_dimensions_span_what_ridge_sees() -> None:
    """With all components and next to no penalty both readers are least squares."""
    rng = np.random.default_rng(5)
    x, y, new = rng.normal(size=(60, 5)), rng.normal(size=(60, 3)), rng.normal(size=(9, 5))
    for per_channel in (False, True):
        leading = LeadingRidgeProbe(components=5, per_channel=per_channel, alphas=(1e-9,))
        found = leading.fit(x, y).predict(new)
        np.testing.assert_allclose(found, RidgeProbe(alphas=(0.0,)).fit(x, y).predict(new), 1e-5)


def test_patients_are_dealt_the_features_of_others_and_whole() -> None:
    dealt = shuffled_rows(GROUPS, 0)
    assert (GROUPS[dealt] != GROUPS).all()
    pairs = pd.DataFrame({"to": GROUPS, "of": GROUPS[dealt]}).drop_duplicates()
    assert len(pairs) == PATIENTS, "all rows of a patient come from one other"
    assert sorted(dealt) == list(range(len(GROUPS))), "with equal numbers of rows none is lost"
    uneven = np.array(list("aabccc"))
    assert (uneven[shuffled_rows(uneven, 1)] != uneven).all()


def test_other_layers_are_refused_with_what_to_do() -> None:
    check_layers({"pre": ["a", "b"], "ft": ["a", "b"]})
    with pytest.raises(InputError, match=r"layers of ft: a, c; those of pre are a, b.*--stage all"):
        check_layers({"pre": ["a", "b"], "ft": ["a", "c"]})


def test_several_studies_do_not_count_as_several_patients(truth) -> None:
    """Each study twice more: intervals stay, as they would not if rows were independent."""
    (factors, r), rng = truth, np.random.default_rng(6)
    pre = {name: embedded(factors, width, rng) for name, width in WIDTHS.items()}
    ft = {name: x + 0.5 * rng.normal(size=x.shape) for name, x in pre.items()}
    often = np.tile(np.arange(len(GROUPS)), 3)

    def half(rows: np.ndarray) -> float:
        sides = [{name: x[rows] for name, x in side.items()} for side in (pre, ft)]
        folds = [Fold(*(mask[rows] for mask in fold[:3]), fold.repeat) for fold in FOLDS]
        found = layer_profile(*sides, r[rows], FEATURES, GROUPS[rows], folds, RULES).classes
        return float((found["delta_r2_high"] - found["delta_r2_low"]).mean())

    once, thrice = half(np.arange(len(GROUPS))), half(often)
    assert thrice > 0.75 * once
