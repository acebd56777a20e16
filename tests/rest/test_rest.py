"""The share of a change that features tell, and who moved without them, where both are planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ortho_group

from benchmarks.rest_calibration import Setting, draw, features_of, looked_at
from lens.rest.changes import pulled_in, same_channels
from lens.rest.fits import fit_rows
from lens.rest.patients import patients_table
from lens.rest.table import Cohort, Rest, rest
from lens.verdicts.folds import make_folds


def cohort(r: np.ndarray, features: pd.DataFrame | None = None, studies: int = 1) -> Cohort:
    """Patients in order, each with as many studies."""
    patients = np.repeat(np.arange(len(r) // studies), studies).astype(str)
    ids = pd.DataFrame({"patient_id": patients, "study_id": np.arange(len(r)).astype(str)})
    features = features_of(r.shape[1]) if features is None else features
    return Cohort(r, features, ids, make_folds(patients, 4, 1, 0), flips=200)


def whole(found: Rest, side: str = "new") -> pd.Series:
    rows = found.table[(found.table["side"] == side) & (found.table["grouping"] == "all")]
    return rows.iloc[0]


def planted(measured: int | None, seed: int = 0, n: int = 120, **options) -> Rest:
    setting = Setting("", n, measured, 16, **options)
    return looked_at(draw(setting, np.random.default_rng(seed)), again=True)


@pytest.mark.parametrize(("measured", "low", "high"), [(4, 0.75, 1.0), (2, 0.25, 0.6)])
def test_the_share_is_that_of_the_factors_that_features_measure(measured, low, high) -> None:
    found = planted(measured)
    for side in ("new", "gone"):
        row = whole(found, side)
        assert low < row["share"] < high
        assert row["share_low"] < row["share"] < row["share_high"]
        assert row["finding"] == "told"
        assert row["share"] > row["null_high"] + 0.1


def test_a_change_that_no_feature_measures_is_told_by_another_seed_alone() -> None:
    found = planted(0)
    row = whole(found)
    assert row["finding"] == "not told"
    assert row["size_low"] > 0.1
    assert row["share"] < 0.05
    seed = found.table[(found.table["side"] == "new") & (found.table["group"] == "another seed")]
    assert seed["share"].item() > 0.9
    assert seed["unique_low"].item() > 0.8, "it comes again, and it is not radiomic"


@pytest.mark.parametrize("d", [16, 150])
def test_nothing_is_claimed_where_nothing_changed(d: int) -> None:
    """Also with more channels than patients, of which no reader tells all."""
    rng = np.random.default_rng(d)
    x = rng.normal(size=(90, d)) * np.linspace(2, 0.1, d)
    r = x[:, :6] @ rng.normal(size=(6, 30)) + rng.normal(size=(90, 30))
    after = 3 * x @ ortho_group.rvs(d, random_state=rng) + 7
    found = rest(x, after, cohort(r))
    for side in ("new", "gone"):
        row = whole(found, side)
        assert row["finding"] == "no change shown"
        assert row["size"] == pytest.approx(row["floor"], abs=1e-5)
    if d > 90:
        assert whole(found)["size"] > 0.01, "a floor that is none would not show the rule"


def test_noise_of_the_training_does_not_come_again() -> None:
    found = planted(None, noise=0.5)
    assert whole(found)["finding"] == "not told"
    seed = found.table[(found.table["side"] == "new") & (found.table["group"] == "another seed")]
    assert seed["share"].item() < 0.1


def test_a_feature_that_was_read_in_part_is_all_of_what_is_new() -> None:
    """Told from the feature as it is, the part that was read before would hide the rest."""
    rng = np.random.default_rng(1)
    old, new = rng.normal(size=(2, 200, 1))
    x = old @ rng.normal(size=(1, 8)) + 0.1 * rng.normal(size=(200, 8))
    after = np.concatenate([x, new + 0.02 * rng.normal(size=(200, 1))], axis=1)
    r = np.repeat((old + new) / np.sqrt(2), 2, axis=1)
    row = whole(rest(x, after, cohort(r)))
    assert row["share_raw"] < 0.6
    assert row["share"] > 0.85


def test_neither_turn_nor_scale_nor_unit_matters_and_widths_may_differ() -> None:
    drawn = draw(Setting("", 80, 2, 10), np.random.default_rng(3))
    rng = np.random.default_rng(4)
    one = rest(drawn.pre, drawn.ft, cohort(drawn.r, drawn.features))
    wide = np.concatenate([drawn.ft, np.zeros((80, 5))], axis=1) @ ortho_group.rvs(
        15, random_state=rng
    )
    turned = 4 * drawn.pre @ ortho_group.rvs(10, random_state=rng) - 2
    other = rest(turned, wide, cohort(np.exp(drawn.r), drawn.features))
    names = ["share", "share_low", "unique", "size", "floor"]
    for side in ("new", "gone"):
        a, b = (each.table[each.table["side"] == side] for each in (one, other))
        np.testing.assert_allclose(a[names], b[names], atol=2e-3)
    assert set(other.table["side"]) == {"new", "gone"}, "no plain difference of other channels"


def test_the_group_that_measures_what_changed_is_named() -> None:
    rng = np.random.default_rng(5)
    old, new = rng.normal(size=(160, 4)), rng.normal(size=(160, 2))
    mixing = rng.normal(size=(6, 12))
    x = old @ mixing[:4] + 0.1 * rng.normal(size=(160, 12))
    after = x + new @ mixing[4:]
    r = np.concatenate([np.repeat(new, 6, axis=1), np.repeat(old, 3, axis=1)], axis=1)
    r = r + 0.3 * rng.normal(size=r.shape)
    features = features_of(24)
    features["modality"] = np.repeat(["t2", "adc"], 12)
    table = rest(x, after, cohort(r, features)).table
    rows = table[(table["side"] == "new") & (table["grouping"] == "modality")]
    t2, adc = rows.set_index("group").loc[["t2", "adc"]].to_dict("records")
    assert t2["share"] > 0.8
    assert t2["unique_low"] > 0.6
    assert t2["p_maxt"] <= 0.05
    assert adc["share"] < 0.05
    assert adc["unique"] < 0.05
    difference = table[table["side"] == "difference"]
    assert difference["share"].item() > 0.8, "channels are the same here, and told by all alone"


def test_missing_few_patients_many_features_and_collapse() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(24, 40))
    r = rng.normal(size=(24, 60))
    r[rng.uniform(size=r.shape) < 0.1] = np.nan
    r[:, 3] = 1.0
    found = rest(x, np.tile(rng.normal(size=40), (24, 1)), cohort(r))
    assert whole(found)["finding"] == "no change shown"
    assert np.isnan(whole(found)["size"])
    assert whole(found, "gone")["finding"] != "no change shown", (
        "all of it is gone, without a floor"
    )
    assert whole(found, "gone")["floor"] == 0
    assert len(found.patients) == 24
    gone = whole(found, "gone")
    assert gone["size"] > 0.9, "a collapsed embedding tells nothing of the one before"
    lone = rest(x, rng.normal(size=(24, 3)), cohort(r, studies=2))
    assert np.isfinite(lone.table.drop(columns=lone.table.columns[:3]).iloc[0]["share"])


def test_features_that_tell_nothing_do_little_harm_with_few_patients() -> None:
    """Residuals of a first fit hold evidence of fewer rows than there are; counted as all of them
    they have a share of -0.2 to -0.9 here."""
    shares = [whole(planted(0, seed=seed, n=48))["share"] for seed in range(3)]
    assert min(shares) > -0.15


def test_residuals_of_fitted_rows_are_those_without_their_patient() -> None:
    """They are larger than the noise, of variance one; those of the fit itself are smaller."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 2).astype(str)
    x = rng.normal(size=(80, 30))
    y = x @ rng.normal(size=(30, 3)) + rng.normal(size=(80, 3))
    fold = make_folds(groups, 4, 1, 0)[0]
    fit = fit_rows(x, y, fold)
    rows = fit.residuals(y, groups, fold)
    assert np.square(rows[fold.fitted]).mean() > 1.2
    assert np.square(fit.solution.residual).mean() < 0.8
    np.testing.assert_array_equal(rows[fold.test], y[fold.test] - fit.predict())


def test_wild_rows_do_not_make_the_share() -> None:
    drawn = draw(Setting("", 120, 2, 12), np.random.default_rng(7))
    plain = whole(rest(drawn.pre, drawn.ft, cohort(drawn.r, drawn.features)))
    for x in (drawn.pre, drawn.ft):
        x[:2] *= 1000
    wild = whole(rest(drawn.pre, drawn.ft, cohort(drawn.r, drawn.features)))
    assert wild["far_ft"] == 2
    assert wild["share"] == pytest.approx(plain["share"], abs=0.15)


def test_far_rows_come_back_in_their_own_direction() -> None:
    x = np.random.default_rng(8).normal(size=(50, 5))
    x[0] *= 500
    near, far = pulled_in(x)
    assert far == 1
    np.testing.assert_allclose(near[1:], x[1:])
    middle = np.median(x, axis=0)
    one, other = x[0] - middle, near[0] - middle
    assert one @ other == pytest.approx(np.linalg.norm(one) * np.linalg.norm(other))
    assert np.linalg.norm(other) < 20


def test_same_channels_are_known_by_going_along() -> None:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(60, 12))
    assert same_channels(x, 0.5 * x + rng.normal(size=x.shape))
    assert not same_channels(x, np.roll(x, 1, axis=1))
    assert not same_channels(x, x[:, :11])
    assert not same_channels(x, rng.normal(size=x.shape))


def test_who_moved_for_no_radiomic_reason_comes_first() -> None:
    """Not who is far out in one channel, nor who moved as the features tell."""
    rng = np.random.default_rng(10)
    n, d = 160, 16
    x, factor = rng.normal(size=(n, d)), rng.normal(size=(n, 1))
    odd, spiked, told = 11, 23, 47
    factor[told] = 4.0
    after = np.concatenate([x, rng.normal(size=(n, d)) + 2 * factor], axis=1)
    after[odd, d:] += 2.5 * rng.choice((-1.0, 1.0), size=d)
    after[spiked, d] += 40.0
    r = np.repeat(factor, 8, axis=1) + 0.1 * rng.normal(size=(n, 8))
    found = rest(x, after, cohort(r, studies=2)).patients
    assert list(found.columns[:2]) == ["patient_id", "study_id"]
    order = found["study_id"].astype(int).tolist()
    assert sorted(order) == list(range(n))
    assert order[0] == odd
    assert found["beyond"].iloc[0] > 3
    assert order.index(told) > 5
    assert found["beyond"][order.index(spiked)] < found["beyond"].iloc[0] - 2


def test_patients_without_any_movement() -> None:
    ids = pd.DataFrame({"patient_id": ["a", "b"]})
    from lens.rest.patients import FoldMoves

    table = patients_table(ids, [FoldMoves(np.arange(2), *np.zeros((3, 2)))])
    assert (table["beyond"] == 0).all()


def test_of_a_large_cohort_patients_are_drawn_and_keep_their_names(monkeypatch) -> None:
    monkeypatch.setattr("lens.verdicts.encoding.MAX_ROWS", 60)
    drawn = draw(Setting("", 100, 2, 6), np.random.default_rng(11))
    wanted = cohort(drawn.r, drawn.features, studies=2)
    found = rest(drawn.pre, drawn.ft, wanted)
    assert len(found.patients) == 60
    assert whole(found)["patients"] == 30
    pairs = set(map(tuple, wanted.ids.to_numpy().tolist()))
    assert set(map(tuple, found.patients[["patient_id", "study_id"]].to_numpy().tolist())) <= pairs
