"""The rules on evidence made by hand, and verdicts on planted changes whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.settings import Rules, SweepConfig
from lens.verdicts.clusters import cluster_features
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import held_out_errors
from lens.verdicts.judge import judge
from lens.verdicts.rules import VERDICTS, decide, withheld
from tests.planted import Planted, plant

N = 200
GROUPS = np.arange(N)
RULES = Rules(flips=999, margin=0.01)
CONFIG = SweepConfig(hidden=8, l1=(0.0, 1e-6), l2=(0.0, 1e-5), epochs=60)

SHOWN = {"p_present_pre": 0.001, "p_present_ft": 0.001, "p_unchanged": 1.0}
SHOWN |= {
    "needs_more": 0,
    "delta_r2_extrapolated": -0.2,
    "p_extrapolated": 0.5,
    "lasting_share": 1.0,
}
LOSS = SHOWN | {
    "delta_r2": -0.3, "delta_r2_low": -0.4, "delta_r2_high": -0.2,
    "delta_r2_one_scale": -0.2, "delta_r2_leading": -0.25, "p_maxt": 0.01,
}  # fmt: skip
GAIN = LOSS | {
    "delta_r2": 0.3, "delta_r2_low": 0.2, "delta_r2_high": 0.4,
    "delta_r2_one_scale": 0.2, "delta_r2_leading": 0.25,
}  # fmt: skip
NOTHING = LOSS | {
    "delta_r2": 0.0, "delta_r2_low": -0.2, "delta_r2_high": 0.2,
    "delta_r2_one_scale": 0.0, "delta_r2_leading": 0.0, "p_maxt": 1.0,
}  # fmt: skip
DROP = NOTHING | {"frozen_drop": 0.4, "p_recoded": 0.01, "p_read": 0.01}
WITHIN = NOTHING | {"delta_r2_low": -0.05, "delta_r2_high": 0.05, "p_unchanged": 0.01}
BAND = {"retrained_low": -0.4, "retrained_high": -0.1}


def verdict(evidence: dict[str, float], rules: Rules = RULES) -> str:
    (found,) = decide(pd.DataFrame([evidence]), rules)
    return found


def reason(evidence: dict[str, float]) -> str:
    (found,) = withheld(pd.DataFrame([evidence]), RULES)
    return found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "lost"),
        (GAIN, "gained"),
        ({"delta_r2_one_scale": 0.2}, "undecided"),
        ({"delta_r2_leading": 0.2}, "undecided"),
        ({"delta_r2": 0.3, "delta_r2_low": 0.2, "delta_r2_high": 0.4}, "undecided"),
        ({"p_maxt": 0.05}, "lost"),
        ({"p_maxt": 0.051}, "undecided"),
        ({"delta_r2": -0.01}, "lost"),
        ({"delta_r2": -0.0099}, "undecided"),
        # A verdict never stands against the feature's own interval.
        ({"delta_r2_high": 0.0}, "undecided"),
        ({"delta_r2": np.nan, "delta_r2_low": np.nan, "delta_r2_high": np.nan}, "undecided"),
        # The margin is about the reported view alone.
        ({"delta_r2_one_scale": -0.001}, "lost"),
    ],
)
def test_lost_and_gained_need_all_views_the_level_the_interval_and_the_margin(
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
        ({}, "recoded"),
        ({"p_recoded": 0.05}, "recoded"),
        ({"p_recoded": 0.051}, "undecided"),
        # What the MLP never read cannot have left it.
        ({"p_read": 0.051}, "undecided"),
        ({"frozen_drop": 0.01}, "recoded"),
        ({"frozen_drop": 0.0099}, "undecided"),
        ({"frozen_drop": -0.4}, "undecided"),
        # At least half of the drop is no drop of ridge: a ridge loss of up to half of it.
        ({"delta_r2": -0.2}, "recoded"),
        ({"delta_r2": -0.21}, "undecided"),
        ({"delta_r2": -0.4}, "undecided"),
        ({"delta_r2": 0.3}, "recoded"),
        # What ridge shows to be lost or gained is not called recoded; what it shows to be within
        # the margin of equivalence may be.
        (LOSS | {"delta_r2": -0.2}, "lost"),
        (GAIN | {"delta_r2": 0.2}, "gained"),
        (WITHIN, "recoded"),
        ({"p_present_pre": 0.9, "p_present_ft": 0.9}, "absent"),
    ],
)
def test_recoded_is_a_drop_of_the_frozen_mlp_of_which_ridge_has_at_most_half(
    change: dict[str, float], expected: str
) -> None:
    assert verdict(DROP | change) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "unchanged"),
        ({"p_unchanged": 0.05}, "unchanged"),
        ({"p_unchanged": 0.051}, "undecided"),
        ({"delta_r2_low": -0.1}, "undecided"),
        ({"delta_r2_high": 0.1}, "undecided"),
        # A change that is shown is called, however small it is.
        ({"delta_r2": -0.02, "delta_r2_high": -0.01, "p_maxt": 0.01}
         | {"delta_r2_one_scale": -0.01, "delta_r2_leading": -0.01}, "lost"),
    ],
)  # fmt: skip
def test_unchanged_is_shown_by_the_test_and_by_the_interval(
    change: dict[str, float], expected: str
) -> None:
    assert verdict(WITHIN | change) == expected


@pytest.mark.parametrize(
    ("band", "expected"),
    [
        ({}, ""),
        ({"retrained_high": 0.0}, "other seeds"),
        ({"retrained_high": 0.1}, "other seeds"),
        # Other seeds gain what this one loses.
        ({"retrained_low": 0.1, "retrained_high": 0.3}, "other seeds"),
    ],
)
def test_a_change_must_hold_for_the_next_seed(band: dict[str, float], expected: str) -> None:
    evidence = LOSS | BAND | band
    assert reason(evidence) == expected
    assert verdict(evidence) == ("undecided" if expected else "lost")


@pytest.mark.parametrize(
    ("low", "change", "expected"),
    [
        (0.01, GAIN, ""),
        (0.0, GAIN, "unseen patients"),
        # Fine-tuning saw every patient, so that nobody can show the gain.
        (np.nan, GAIN, "unseen patients"),
        # Memory makes no losses.
        (-0.5, LOSS, ""),
    ],
)
def test_a_gain_must_hold_in_patients_whom_fine_tuning_did_not_see(
    low: float, change: dict[str, float], expected: str
) -> None:
    evidence = change | {"unseen_low": low}
    assert reason(evidence) == expected
    assert (verdict(evidence) == "undecided") == bool(expected)


@pytest.mark.parametrize(
    ("needs_more", "extrapolated", "p", "expected"),
    [
        (-1, -0.3, 0.05, ""),
        (-1, -0.3, 0.051, "learning curve"),
        (-1, 0.2, 0.01, "learning curve"),
        # The margin is 0.01.
        (-1, -0.01, 0.01, ""),
        (-1, -0.0099, 0.01, "learning curve"),
        # The encoder before fine-tuning needs more patients: no explanation of a loss.
        (1, -0.2, 1.0, ""),
        (0, -0.2, 1.0, ""),
    ],
)
def test_a_loss_must_hold_beyond_the_learning_curve_where_there_is_one(
    needs_more: int, extrapolated: float, p: float, expected: str
) -> None:
    curve = {"needs_more": needs_more, "delta_r2_extrapolated": extrapolated, "p_extrapolated": p}
    assert reason(LOSS | curve) == expected
    mirrored = curve | {"needs_more": -needs_more, "delta_r2_extrapolated": -extrapolated}
    assert reason(GAIN | mirrored) == expected


@pytest.mark.parametrize(("share", "expected"), [(0.67, ""), (0.66, "learning curve")])
def test_where_more_patients_are_needed_two_thirds_of_all_changes_must_last(
    share: float, expected: str
) -> None:
    curve = {"p_extrapolated": 0.01, "lasting_share": share}
    loss = {"needs_more": -1, "delta_r2_extrapolated": -0.2}
    assert reason(LOSS | curve | loss) == expected
    assert reason(GAIN | curve | {"needs_more": 1, "delta_r2_extrapolated": 0.2}) == expected
    assert reason(LOSS | curve | loss | {"needs_more": 0}) == ""


def test_nothing_is_withheld_where_nothing_is_shown() -> None:
    rest = {"needs_more": -1, "retrained_low": -1.0, "retrained_high": 1.0, "unseen_low": -1.0}
    assert reason(LOSS | rest | {"p_maxt": 0.2}) == ""


def test_every_row_is_decided_by_itself_at_the_level_and_margins_of_the_rules() -> None:
    rows = [LOSS, DROP | {"p_maxt": 0.2}, DROP | {"p_recoded": 1.0}, WITHIN]
    table = pd.DataFrame(rows).fillna({"frozen_drop": 0.0, "p_recoded": 1.0, "p_read": 1.0})
    expected = ["lost", "recoded", "undecided", "unchanged"]
    assert decide(table, RULES).tolist() == expected
    assert decide(table[::-1], RULES).tolist() == expected[::-1]
    strict = Rules(level=0.001, margin=0.01)
    assert decide(table, strict).tolist() == ["undecided"] * 4
    wide = decide(table, Rules(margin=0.35, equivalence=0.04)).tolist()
    assert wide == ["undecided", "recoded", "undecided", "undecided"]
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
    held_out = held_out_errors(pre, sides, r, GROUPS, folds, CONFIG)
    clusters = cluster_features(r)
    found = {task: judge(held_out, task, clusters, GROUPS, RULES).features for task in sides}
    # The fine-tuned side as the start: what was lost comes back.
    back = held_out_errors(sides["erased"], {"back": pre}, r, GROUPS, folds, None)
    found["back"] = judge(back, "back", clusters, GROUPS, RULES).features
    others = r[rng.permutation(N)]
    nothing = held_out_errors(pre, {"t": sides["erased"]}, others, GROUPS, folds, None)
    found["permuted"] = judge(nothing, "t", clusters, GROUPS, RULES).features
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
    assert verdicts["back"]["verdict"][~erased].isin(["unchanged", "undecided"]).all()


@pytest.mark.parametrize("change", ["rotated", "scaled", "gained", "same"])
def test_a_change_of_basis_or_scale_is_never_a_loss(verdicts, change: str) -> None:
    assert set(verdicts[change]["verdict"]) <= {"recoded", "unchanged", "undecided"}


def test_a_rotation_that_the_frozen_probe_cannot_follow_is_recoded(verdicts) -> None:
    table = verdicts["rotated"]
    fallen = table["r2_pre_ft"] < table["r2_pre_pre"] - 0.2
    assert fallen.any(), "the rotation costs the frozen probe nothing, nothing is tested"
    assert (table["verdict"][fallen] == "recoded").mean() > 0.8
    assert (table["r2_ft_ft"] > table["r2_pre_ft"])[fallen].mean() > 0.8


def test_nothing_changed_gives_zeros(verdicts) -> None:
    table = verdicts["same"]
    assert (table["verdict"] == "unchanged").all()
    for name in ("delta_r2", "delta_r2_low", "delta_r2_high"):
        np.testing.assert_array_equal(table[name], 0)
    np.testing.assert_array_equal(table["p_maxt"], 1)


def test_features_of_other_patients_are_absent(verdicts) -> None:
    table = verdicts["permuted"]
    assert (table["verdict"] == "absent").all()
    assert table["r2_ridge_pre"].mean() < 0.02
    assert not {"p_recoded", "r2_pre_pre"} & set(table.columns)


def test_every_member_of_a_cluster_has_a_verdict_of_its_own(planted: Planted) -> None:
    """Two near copies, of which one also holds some of what is lost: only that one may be called.

    It is the medoid of three: the verdict of a medoid is not that of the others.
    """
    rng = np.random.default_rng(1)
    values = planted.radiomics.iloc[:, 1:].to_numpy()
    lost = np.flatnonzero(np.isin(planted.factor, planted.erased))[0]
    common, part = values[:, np.flatnonzero(planted.factor == 1)[0]], values[:, lost]
    part = 0.3 * (part - part.mean()) / part.std() * common.std()
    copies = [common + 0.02 * common.std() * rng.normal(size=N) for _ in range(2)]
    r = np.c_[common + part, copies[0], np.exp(copies[1] / common.std())]
    folds = make_folds(GROUPS, 5, 1, 0)
    held_out = held_out_errors(planted.pre, {"t": planted.ft}, r, GROUPS, folds, None)
    table = judge(held_out, "t", cluster_features(r), GROUPS, RULES).features
    assert table["cluster"].nunique() == 1
    assert table["medoid"].sum() == 1
    assert table["verdict"].tolist() == ["lost", "unchanged", "unchanged"]


def test_a_margin_keeps_small_changes_out(planted: Planted) -> None:
    r, folds = planted.radiomics.iloc[:, 1:].to_numpy(), make_folds(GROUPS, 3, 1, 0)
    held_out = held_out_errors(planted.pre, {"t": planted.ft}, r, GROUPS, folds, None)
    clusters = cluster_features(r)
    loose = judge(held_out, "t", clusters, GROUPS, RULES).features
    strict = judge(held_out, "t", clusters, GROUPS, Rules(flips=999, margin=2.0)).features
    assert (loose["verdict"] == "lost").any()
    assert not strict["verdict"].isin(["lost", "gained", "recoded"]).any()
