"""The rules on evidence made by hand, and verdicts on planted changes whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.settings import Rules, SweepConfig
from lens.verdicts.clusters import cluster_features
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import HeldOutErrors, held_out_errors
from lens.verdicts.rules import VERDICTS, decide, judge
from tests.planted import Planted, plant

N = 200
GROUPS = np.arange(N)
RULES = Rules(flips=999)
CONFIG = SweepConfig(hidden=8, l1=(0.0, 1e-6), l2=(0.0, 1e-5), epochs=60)

EXPLAINED = {"p_present_pre": 0.001, "p_present_ft": 0.001}
LOSS = EXPLAINED | {"delta_r2": -0.3, "delta_r2_one_scale": -0.2, "p_maxt": 0.01}
DROP = EXPLAINED | {
    "delta_r2": 0.0, "delta_r2_one_scale": 0.0, "p_maxt": 1.0, "frozen_drop": 0.4, "p_moved": 0.01,
}  # fmt: skip
RETRAINED = {"retrained_mean": -0.25, "retrained_low": -0.4, "retrained_high": -0.1}


def verdict(evidence: dict[str, float], rules: Rules = RULES) -> str:
    (found,) = decide(pd.DataFrame([evidence]), rules)
    return found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "lost"),
        ({"delta_r2": 0.3, "delta_r2_one_scale": 0.2}, "gained"),
        ({"delta_r2_one_scale": 0.2}, "kept"),
        ({"delta_r2": 0.3}, "kept"),
        ({"p_maxt": 0.05}, "lost"),
        ({"p_maxt": 0.051}, "kept"),
        ({"delta_r2": -0.01}, "lost"),
        ({"delta_r2": -0.0099}, "kept"),
        ({"delta_r2": 0.0, "delta_r2_one_scale": 0.0}, "kept"),
        ({"delta_r2": np.nan, "delta_r2_one_scale": np.nan, "p_maxt": 1.0}, "kept"),
        # The margin is about the reported standardisation alone.
        ({"delta_r2_one_scale": -0.001}, "lost"),
    ],
)
def test_lost_and_gained_need_both_standardisations_the_level_and_the_margin(
    change: dict[str, float], expected: str
) -> None:
    assert verdict(LOSS | change) == expected


@pytest.mark.parametrize(
    ("pre", "ft", "expected"),
    [(0.05, 0.9, "lost"), (0.9, 0.05, "lost"), (0.051, 0.051, "absent"), (1.0, 1.0, "absent")],
)
def test_absent_is_above_the_level_on_both_sides_and_comes_before_any_change(
    pre: float, ft: float, expected: str
) -> None:
    assert verdict(LOSS | {"p_present_pre": pre, "p_present_ft": ft}) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "moved"),
        ({"p_moved": 0.05}, "moved"),
        ({"p_moved": 0.051}, "kept"),
        ({"frozen_drop": 0.01}, "moved"),
        ({"frozen_drop": 0.0099}, "kept"),
        ({"frozen_drop": -0.4}, "kept"),
        # At least half of the drop is no drop of ridge: a ridge loss of up to half of it.
        ({"delta_r2": -0.2}, "moved"),
        ({"delta_r2": -0.21}, "kept"),
        ({"delta_r2": -0.4}, "kept"),
        ({"delta_r2": 0.3}, "moved"),
        # What ridge shows to be lost or gained is not called moved.
        ({"delta_r2": -0.2, "delta_r2_one_scale": -0.2, "p_maxt": 0.01}, "lost"),
        ({"delta_r2": 0.2, "delta_r2_one_scale": 0.2, "p_maxt": 0.01}, "gained"),
        ({"p_present_pre": 0.9, "p_present_ft": 0.9}, "absent"),
    ],
)
def test_moved_is_a_drop_of_the_frozen_mlp_of_which_ridge_has_at_most_half(
    change: dict[str, float], expected: str
) -> None:
    assert verdict(DROP | change) == expected


@pytest.mark.parametrize(
    ("retrained", "expected"),
    [
        ({}, "lost"),
        ({"retrained_high": 0.0}, "kept"),
        ({"retrained_high": 0.1}, "kept"),
        # Other seeds gain what this one loses.
        ({"retrained_mean": 0.2, "retrained_low": 0.1, "retrained_high": 0.3}, "kept"),
    ],
)
def test_a_change_must_hold_for_the_next_seed(retrained: dict[str, float], expected: str) -> None:
    assert verdict(LOSS | RETRAINED | retrained) == expected


def test_every_row_is_decided_by_itself_at_the_level_and_margin_of_the_rules() -> None:
    rows = [LOSS, DROP | {"p_maxt": 0.2}, DROP | {"p_moved": 1.0}]
    table = pd.DataFrame(rows).fillna({"frozen_drop": 0.0, "p_moved": 1.0})
    assert decide(table, RULES).tolist() == ["lost", "moved", "kept"]
    assert decide(table[::-1], RULES).tolist() == ["kept", "moved", "lost"]
    assert decide(table, Rules(level=0.001)).tolist() == ["kept"] * 3
    assert decide(table, Rules(margin=0.35)).tolist() == ["kept", "moved", "kept"]
    assert set(decide(table, RULES)) <= set(VERDICTS)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(n=N, d=40)


@pytest.fixture(scope="module")
def verdicts(planted: Planted) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    # Channels of very different size, as in a real embedding: a rotation mixes them.
    pre = planted.pre * np.geomspace(0.03, 3, 40)
    rotation = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    sides = {
        "erased": planted.ft * np.geomspace(0.03, 3, 40),
        "rotated": pre @ rotation,
        "scaled": 0.01 * pre,
        "gained": pre * rng.uniform(0.1, 10, 40),
        "same": pre,
    }
    sides = {name: x.astype(np.float32) for name, x in sides.items()}
    r = planted.radiomics.iloc[:, 1:].to_numpy()
    pre = pre.astype(np.float32)
    folds = make_folds(GROUPS, 5, 1, 0)
    held_out = held_out_errors(pre, sides, r, folds, CONFIG)
    clusters = cluster_features(r)
    found = {task: judge(held_out, task, clusters, GROUPS, RULES) for task in sides}
    # The fine-tuned side as the start: what was lost comes back.
    back = held_out_errors(sides["erased"], {"back": pre}, r, folds, None)
    found["back"] = judge(back, "back", clusters, GROUPS, RULES)
    nothing = held_out_errors(pre, {"t": sides["erased"]}, r[rng.permutation(N)], folds, None)
    found["permuted"] = judge(nothing, "t", clusters, GROUPS, RULES)
    return found


def test_an_erased_factor_is_lost_and_the_others_are_not(planted: Planted, verdicts) -> None:
    erased = np.isin(planted.factor, planted.erased)
    table = verdicts["erased"]
    assert (table["verdict"][erased] == "lost").all()
    assert not table["verdict"][~erased].isin(["lost", "gained", "absent"]).any()
    assert (table["delta_r2_high"][erased] < -0.5).all()
    assert (table["p_maxt"] <= 1).all()
    assert (table["q_bh"][erased] < 0.01).all()


def test_what_comes_back_is_gained(planted: Planted, verdicts) -> None:
    erased = np.isin(planted.factor, planted.erased)
    assert (verdicts["back"]["verdict"][erased] == "gained").all()
    assert (verdicts["back"]["verdict"][~erased] == "kept").all()


@pytest.mark.parametrize("change", ["rotated", "scaled", "gained", "same"])
def test_a_change_of_basis_or_scale_is_never_a_loss(verdicts, change: str) -> None:
    assert set(verdicts[change]["verdict"]) <= {"moved", "kept"}


def test_a_rotation_that_the_frozen_probe_cannot_follow_is_moved(verdicts) -> None:
    table = verdicts["rotated"]
    fallen = table["r2_pre_ft"] < table["r2_pre_pre"] - 0.2
    assert fallen.any(), "the rotation costs the frozen probe nothing, nothing is tested"
    assert (table["verdict"][fallen] == "moved").mean() > 0.8
    assert (table["r2_ft_ft"] > table["r2_pre_ft"])[fallen].mean() > 0.8


def test_nothing_changed_gives_zeros(verdicts) -> None:
    table = verdicts["same"]
    assert (table["verdict"] == "kept").all()
    for name in ("delta_r2", "delta_r2_low", "delta_r2_high"):
        np.testing.assert_array_equal(table[name], 0)
    np.testing.assert_array_equal(table["p_maxt"], 1)


def test_features_of_other_patients_are_absent(verdicts) -> None:
    table = verdicts["permuted"]
    assert (table["verdict"] == "absent").all()
    assert table["r2_ridge_pre"].mean() < 0.02
    assert not {"p_moved", "r2_pre_pre"} & set(table.columns)


def test_members_carry_their_medoids_p_and_verdict(planted: Planted) -> None:
    r = planted.radiomics.iloc[:, 1:10].to_numpy()
    r = np.c_[r, 2 * r, -r + 0.01 * np.random.default_rng(1).normal(size=r.shape)]
    folds = make_folds(GROUPS, 3, 1, 0)
    held_out: HeldOutErrors = held_out_errors(planted.pre, {"t": planted.ft}, r, folds, None)
    table = judge(held_out, "t", cluster_features(r), GROUPS, RULES)
    assert table["cluster"].nunique() < len(table)
    assert table["medoid"].sum() == table["cluster"].nunique()
    shared = ["verdict", "p_maxt", "q_bh", "p_present_pre", "p_present_ft"]
    assert (table.groupby("cluster")[shared].nunique() == 1).all(axis=None)
    assert set(table["verdict"]) <= set(VERDICTS)


def test_a_margin_keeps_small_changes_out(planted: Planted) -> None:
    r = planted.radiomics.iloc[:, 1:].to_numpy()
    held_out = held_out_errors(planted.pre, {"t": planted.ft}, r, make_folds(GROUPS, 3, 1, 0), None)
    clusters = cluster_features(r)
    loose = judge(held_out, "t", clusters, GROUPS, RULES)
    strict = judge(held_out, "t", clusters, GROUPS, Rules(flips=999, margin=2.0))
    assert (loose["verdict"] == "lost").any()
    assert not strict["verdict"].isin(["lost", "gained", "moved"]).any()
