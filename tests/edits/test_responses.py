"""Slopes, heads and tests: planted responses are found, and what means nothing is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.edits.catalogue import parse_edits, targets
from lens.edits.heads import fit_heads, influence, make_folds, scored
from lens.edits.responses import FEWEST, STAGES, Moved, Settings, respond, slope
from lens.edits.tables import Effects, Originals, assemble
from lens.edits.versions import ARMS

SETTINGS = Settings(flips=399)
DOSES = np.array([-1.0, 1.0])
D = 12


def planted(n=120, m=40, seed=0, *, along=0.0, outside=0.0, control=True, consistent=1.0):
    """Embeddings whose first channel is the label; an edit moves it by `along`, and all patients
    the same way in a direction that means nothing by `consistent`."""
    rng = np.random.default_rng(seed)
    label = rng.normal(size=n)
    x = rng.normal(size=(n, D))
    x[:, 0] = label + 0.3 * rng.normal(size=n)
    nowhere = np.r_[0.0, rng.normal(size=D - 1)]
    rows = rng.permutation(n)[:m]

    def arm(size: float, common: float) -> np.ndarray:
        each = size * np.eye(D)[0] + common * nowhere + 0.3 * rng.normal(size=(m, D))
        return DOSES[None, :, None] * each[:, None]

    arms = {
        "edit": arm(along, consistent),
        "outside": arm(outside, 0.0) if control else np.full((m, 2, D), np.nan),
        "noise": arm(0.0, 0.0),
    }
    return x, label, Moved(DOSES, rows, {"pre": arms, "ft": arms})


def run(x, label, *moved, settings=SETTINGS) -> pd.DataFrame:
    return respond({"pre": x, "ft": x}, label, moved, settings)[0]


def test_a_slope_through_the_original_is_that_of_a_straight_line() -> None:
    doses = np.array([-1.0, 0.5, 2.0])
    change = doses[None, :, None] * np.array([[3.0, -1.0]])[:, None]
    np.testing.assert_allclose(slope(doses, change), [[3.0, -1.0]])
    noisy = np.random.default_rng(0).normal(size=(4, 3))
    expected = [np.linalg.lstsq(doses[:, None], row, rcond=None)[0][0] for row in noisy]
    np.testing.assert_allclose(slope(doses, noisy), expected)


def test_nobody_is_scored_by_a_head_that_saw_him() -> None:
    x, label, moved = planted(n=40, m=10)
    fold, one = make_folds(40, 5, 0), np.ones((1, D))
    patient = int(moved.rows[0])
    other = label.copy()
    other[patient] += 50
    before, after = fit_heads(x, label, fold), fit_heads(x, other, fold)
    held = np.array([patient])
    assert np.array_equal(scored(before, one, held), scored(after, one, held))
    someone = np.flatnonzero(fold != fold[patient])[:1]
    assert not np.allclose(scored(before, one, someone), scored(after, one, someone))


def test_a_change_of_the_score_is_that_of_two_predictions() -> None:
    x, label, _ = planted(n=60)
    heads = fit_heads(x, label, make_folds(60, 3, 0))
    row = np.array([7])
    step = np.random.default_rng(1).normal(size=(1, D))
    head = heads.fitted[heads.fold[7]]
    expected = head.predict(x[row] + step) - head.predict(x[row])
    np.testing.assert_allclose(scored(heads, step, row), expected[:, 0], rtol=1e-9)


def test_influence_is_what_the_mean_is_less_without_a_patient() -> None:
    x, label, moved = planted(n=80, m=30)
    fold = make_folds(80, 4, 0)
    heads = fit_heads(x, label, fold)
    step = slope(moved.doses, moved.change["ft"]["edit"])
    told = influence(heads, step, moved.rows)
    assert told.sum() == pytest.approx(0, abs=1e-12)
    whole = scored(heads, step, moved.rows).mean()
    out = []
    for patient in range(80):
        stays, edited = np.arange(80) != patient, moved.rows != patient
        rows = moved.rows[edited] - (moved.rows[edited] > patient)
        part = fit_heads(x[stays], label[stays], fold[stays])
        out.append(whole - scored(part, step[edited], rows).mean())
    # The fits without him choose their penalties and scales anew, which the influence holds.
    assert np.corrcoef(told, out)[0, 1] > 0.99
    assert np.std(told) == pytest.approx(np.std(out), rel=0.1)


def test_a_planted_response_is_found_with_its_size() -> None:
    x, label, moved = planted(along=0.5, consistent=0.0)
    row = run(x, label, moved).set_index("stage").loc["ft"]
    assert row["moves"]
    # One unit of the first channel is 1 / 1.09 of the label (noise of 0.3), shrunk a little.
    assert row["slope"] == pytest.approx(0.5 / 1.09, rel=0.15)
    assert row["slope_low"] < row["slope"] < row["slope_high"]
    assert row["p"] == max(row["p_zero"], row["p_outside"], row["p_noise"])
    assert row["p_family"] >= row["p"]
    assert row["n"] == row["n_outside"] == 40


def test_a_movement_of_all_patients_alike_is_no_response_of_a_head_that_reads_nothing() -> None:
    alarms = []
    for seed in range(30):
        x, label, moved = planted(seed=seed, consistent=2.0)
        label = np.random.default_rng([seed, 1]).permutation(label)
        fold = make_folds(len(label), 5, 0)
        own = scored(
            fit_heads(x, label, fold), slope(DOSES, moved.change["ft"]["edit"]), moved.rows
        )
        # Were the head taken as given, patients would agree on the movement.
        t = own.mean() / own.std(ddof=1) * np.sqrt(len(own))
        row = run(x, label, moved).set_index("stage").loc["ft"]
        alarms.append((abs(t) > 3, bool(row["moves"])))
    taken, counted = np.mean(alarms, axis=0)
    assert taken > 0.5
    # 5% of 30 is one and a half; six or more has a chance of 1 in 300.
    assert counted <= 5 / 30


def test_an_encoder_that_ignores_the_region_raises_no_alarm() -> None:
    x, label, moved = planted()
    zero = {arm: np.zeros_like(values) for arm, values in moved.change["ft"].items()}
    table = run(x, label, moved._replace(change={"pre": zero, "ft": zero}))
    assert np.all(table["slope"] == 0)
    assert np.all(table["p"] == 1)
    assert not table["moves"].any()


def test_an_edit_outside_that_moves_as_much_or_more_is_no_response_of_the_region() -> None:
    for outside in (0.5, 1.5):
        x, label, moved = planted(along=0.5, outside=outside)
        row = run(x, label, moved).set_index("stage").loc["ft"]
        assert not row["moves"], outside
        assert row["p_outside"] > 0.05


def test_without_a_control_region_the_other_questions_stay() -> None:
    x, label, moved = planted(along=0.5, control=False)
    row = run(x, label, moved).set_index("stage").loc["ft"]
    assert np.isnan(row["p_outside"])
    assert np.isnan(row["slope_outside"])
    assert row["n_outside"] == 0
    assert row["p"] == max(row["p_zero"], row["p_noise"])
    assert row["moves"]


def test_patients_who_lack_the_control_count_in_the_other_questions() -> None:
    x, label, moved = planted(along=0.5)
    for stage in ("pre", "ft"):
        moved.change[stage]["outside"][:25] = np.nan
    row = run(x, label, moved).set_index("stage").loc["ft"]
    assert (row["n"], row["n_outside"]) == (40, 15)
    assert row["moves"]


def test_too_few_patients_are_not_tested() -> None:
    x, label, moved = planted(m=FEWEST - 1, along=0.5)
    table = run(x, label, moved)
    assert table[["p", "p_family"]].isna().all(axis=None)
    assert not table["moves"].any()


def test_the_family_is_of_all_edits_and_stages() -> None:
    x, label, moved = planted(along=0.2, m=14, consistent=0.0)
    alone = run(x, label, moved)
    others = [planted(seed=seed, m=14, consistent=0.0)[2] for seed in range(1, 4)]
    among = run(x, label, moved, *others)
    first = among[among["at"] == 0].reset_index(drop=True)
    pd.testing.assert_series_equal(first["p"], alone["p"])
    assert (first["p_family"] >= alone["p_family"]).all()
    assert (first["p_family"] > alone["p_family"]).any()


def test_a_change_is_after_less_before() -> None:
    x, label, moved = planted(along=0.5)
    _, _, still = planted(along=0.0)
    both = moved._replace(change={"pre": still.change["pre"], "ft": moved.change["ft"]})
    table = run(x, label, both).set_index("stage")
    assert list(table.index) == list(STAGES)
    assert table.loc["change", "slope"] == pytest.approx(
        table.loc["ft", "slope"] - table.loc["pre", "slope"]
    )
    assert table.loc["change", "moves"]
    assert not table.loc["pre", "moves"]
    same = run(x, label, moved).set_index("stage")
    assert same.loc["change", "slope"] == 0
    assert not same.loc["change", "moves"]


def test_signs_are_those_of_patients_whichever_edits_they_have() -> None:
    x, label, moved = planted(along=0.3, m=20)
    order = np.argsort(moved.rows)
    ordered = Moved(
        moved.doses,
        moved.rows[order],
        {s: {a: v[order] for a, v in arms.items()} for s, arms in moved.change.items()},
    )
    pd.testing.assert_frame_equal(run(x, label, moved), run(x, label, ordered))


def test_rates_of_false_alarm_with_skewed_slopes_that_mean_nothing() -> None:
    # Labels that nothing tells of: skewed movements, a few of them ten times as large.
    alarms = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x, label = rng.normal(size=(60, D)), rng.normal(size=60)
        rows = np.arange(24)
        size = rng.exponential(size=24) * np.where(rng.random(24) < 0.1, 10.0, 1.0)
        way = rng.normal(size=D)
        arms = {
            arm: DOSES[None, :, None]
            * ((size[:, None] * way if arm == "edit" else 0) + rng.normal(size=(24, D)))[:, None]
            for arm in ARMS
        }
        alarms.append(
            run(x, label, Moved(DOSES, rows, {"pre": arms, "ft": arms}), settings=SETTINGS)
            .set_index("stage").loc["ft", "moves"]
        )  # fmt: skip
    # 5% of 30 is one and a half; six or more has a chance of 1 in 300.
    assert sum(alarms) <= 5


def test_tables_are_put_together_from_all_parts() -> None:
    rng = np.random.default_rng(0)
    found = targets(parse_edits(["shift", "grow"], {}, flat=False), ["lesion"], ["t2", "dwi"])
    assert [target.modality for target in found] == ["t2", "dwi", "all"]
    n, m = 30, 10
    shapes = [(m, len(target.edit.doses), 3) for target in found]

    def random(*more: int) -> list[np.ndarray]:
        return [rng.normal(size=(*shape, *more)) for shape in shapes]

    pre, ft = random(D), random(D)
    # A patient without the last edit, and an edit without a control region.
    pre[2][0], ft[2][0] = np.nan, np.nan
    pre[1][:, :, 1], ft[1][:, :, 1] = np.nan, np.nan
    rms = [np.abs(each) for each in random()]
    rms[2][0] = np.nan
    kinds = [np.array(["copy"] * m), np.array(["none"] * m), np.array(["shell"] * m)]
    effects = Effects(np.arange(5, 15), pre, ft, rms, rms, kinds)
    labels = {"grade": rng.normal(size=n), "size": np.r_[np.full(8, np.nan), rng.normal(size=22)]}
    ids = np.array([f"P{number:02d}" for number in range(n)])
    originals = Originals(ids, rng.normal(size=(n, D)), rng.normal(size=(n, D)), labels)
    column = "t2.lesion.original_firstorder_Mean"
    before = [{column: float(v), "t2.lesion.original_glcm_Idm": 1.0} for v in range(4)]
    after = [{column: v[column] + 2.0, "t2.lesion.original_glcm_Idm": 1.5} for v in before]
    measured = [(before, after), ((), ()), ((), ())]
    tables = assemble(found, originals, effects, SETTINGS, measured)
    edits = tables.edits
    assert len(edits) == 2 * 3 * 3
    one = edits[(edits["task"] == "size") & (edits["edit"] == "grow")].iloc[0]
    # Of patients 5 to 14, three lack the label; the one who lacks the edit is one of them.
    assert one["n"] == 7
    assert (one["copies"], one["shells"]) == (0, 9)
    assert edits.loc[edits["modality"] == "dwi", "p_outside"].isna().all()
    row = edits[(edits["modality"] == "t2") & (edits["task"] == "grade")].iloc[0]
    assert row["feature"] == column
    assert row["feature_change"] == 2.0
    assert row["feature_change_sd"] == pytest.approx(2 / np.std(range(4), ddof=1))
    assert tables.features["on_target"].tolist() == [True, False]
    assert np.isnan(tables.features["change_sd"].iloc[1])
    assert set(tables.patients["patient_id"]) == set(ids[5:15])
    assert set(tables.doses["arm"]) == set(ARMS)
