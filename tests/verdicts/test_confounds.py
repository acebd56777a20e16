"""Partial R2, exposed patients and sites, on planted confounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from lens.context import read_exposure, read_labels
from lens.errors import InputError
from lens.probes.ridge import RidgeProbe
from lens.settings import Rules
from lens.verdicts.clusters import cluster_features
from lens.verdicts.confounds import (
    Confounds,
    adjuster,
    confound_columns,
    count_fits,
    unseen_low,
)
from lens.verdicts.estimates import r2_score
from lens.verdicts.fold_values import normal_scores
from lens.verdicts.folds import leave_site_out, make_folds, single_fold
from lens.verdicts.held_out import PRE, held_out_errors
from lens.verdicts.judge import judge

N, D = 240, 24
GROUPS = np.arange(N)
FOLDS = make_folds(GROUPS, 4, 1, 0)
RNG = np.random.default_rng(0)
VOLUME = np.exp(RNG.normal(3.5, 0.4, N))
TEXTURE = RNG.normal(size=N)
# Volume along a curve, texture alone, half of each: as an embedding sees them, and as radiomics.
LATENT = np.c_[np.cbrt(VOLUME), TEXTURE]
R = np.c_[VOLUME ** (2 / 3), TEXTURE, TEXTURE + (np.log(VOLUME) - 3.5) / 0.4]
R = R + 0.1 * R.std(axis=0) * RNG.normal(size=R.shape)
X = (LATENT / LATENT.std(axis=0)) @ RNG.normal(size=(2, D)) + 0.2 * RNG.normal(size=(N, D))
ERASED = np.c_[LATENT[:, 0] / LATENT[:, 0].std(), np.zeros(N)] @ RNG.normal(size=(2, D))
ERASED = ERASED + 0.2 * RNG.normal(size=(N, D))
LABELS = pd.DataFrame({"volume_ml": VOLUME})


@pytest.fixture(scope="module")
def held_out():
    return held_out_errors(X, {"cls": ERASED}, R, GROUPS, FOLDS, None)


@pytest.fixture(scope="module")
def adjusted(held_out) -> pd.DataFrame:
    fits = []
    confounds = Confounds(adjust=LABELS)
    tables = confound_columns(
        X, {"cls": ERASED}, R, GROUPS, FOLDS, held_out, confounds, on_fit=lambda: fits.append(1)
    )
    assert len(fits) == count_fits(1, FOLDS, confounds)
    return tables["cls"]


def test_a_feature_that_is_only_volume_has_no_partial_r2(adjusted: pd.DataFrame, held_out) -> None:
    plain = r2_score(held_out.probes["per_channel"][PRE], held_out.baseline, GROUPS).value
    assert plain[0] > 0.8
    assert abs(adjusted["r2_adjusted_pre"][0]) < 0.05
    assert abs(adjusted["r2_adjusted_ft"][0]) < 0.05
    assert abs(adjusted["delta_r2_adjusted"][0]) < 0.05


def test_what_volume_does_not_explain_keeps_its_r2_and_its_loss(adjusted: pd.DataFrame) -> None:
    for feature in (1, 2):
        assert adjusted["r2_adjusted_pre"][feature] > 0.8
        assert adjusted["r2_adjusted_ft"][feature] < 0.1
        assert adjusted["delta_r2_adjusted_high"][feature] < -0.5


def test_partial_r2_equals_a_plain_loop_in_scikit_learn() -> None:
    split = np.repeat(["train", "val", "test"], [150, 30, 60])
    fitted, test = split != "test", split == "test"
    design = adjuster(LABELS)(fitted)
    run = held_out_errors(X, {}, R, GROUPS, single_fold(split), None, adjust=adjuster(LABELS))
    found = r2_score(run.probes["per_channel"][PRE], run.baseline, GROUPS).value

    def rest(values: np.ndarray) -> np.ndarray:
        return values - LinearRegression().fit(design[fitted], values[fitted]).predict(design)

    x, r = rest(X), rest(normal_scores(R, fitted))
    mean, std = x[fitted].mean(axis=0), x[fitted].std(axis=0)
    alpha = RidgeProbe().fit(x[fitted], r[fitted]).alpha
    probe = Ridge(alpha=alpha).fit((x[fitted] - mean) / std, r[fitted])
    error = np.square(r[test] - probe.predict((x[test] - mean) / std)).sum(axis=0)
    np.testing.assert_allclose(found, 1 - error / np.square(r[test]).sum(axis=0), atol=1e-6)


def test_units_of_the_adjusters_do_not_matter_and_names_become_indicators() -> None:
    fitted = np.arange(N) < 180
    site = np.array(["a", "b", "c"])[np.arange(N) % 3]
    design = adjuster(pd.DataFrame({"volume_ml": VOLUME, "site": site, "psa": 1.0}))(fitted)
    assert design.shape == (N, 5 + 2 + 1)
    litres = adjuster(pd.DataFrame({"volume_ml": VOLUME / 1000}))(fitted)
    np.testing.assert_allclose(design[:, :5], litres, atol=1e-9)
    np.testing.assert_array_equal(design[:, 5:7].sum(axis=1) == 0, site == "c")


def test_a_held_out_label_does_not_change_the_others() -> None:
    fitted = np.arange(N) < 180
    other = LABELS.copy()
    other.loc[200, "volume_ml"] = 1e4
    rest = np.arange(N) != 200
    np.testing.assert_array_equal(adjuster(LABELS)(fitted)[rest], adjuster(other)(fitted)[rest])
    holes = LABELS.copy()
    holes.loc[200, "volume_ml"] = np.nan
    assert np.isfinite(adjuster(holes)(fitted)).all()


def test_exposed_patients_are_scored_apart() -> None:
    # The fine-tuned embedding holds the feature of the exposed alone, as if learnt by heart.
    exposed = np.arange(N) % 2 == 0
    learnt = np.c_[ERASED, np.where(exposed, 3 * TEXTURE, 0.0)]
    held_out = held_out_errors(X, {"cls": learnt}, R, GROUPS, FOLDS, None)
    confounds = Confounds(exposed={"cls": exposed})
    table = confound_columns(X, {"cls": learnt}, R, GROUPS, FOLDS, held_out, confounds)["cls"]
    assert table["r2_exposed_ft"][1] > table["r2_unexposed_ft"][1] + 0.4
    assert abs(table["r2_exposed_pre"][1] - table["r2_unexposed_pre"][1]) < 0.1
    assert table["delta_r2_unexposed_high"][1] < table["delta_r2_exposed_low"][1]
    # The two parts make up the whole.
    error, base = held_out.probes["per_channel"]["cls"].error, held_out.baseline
    for name, rows in (("exposed", exposed), ("unexposed", ~exposed)):
        expected = 1 - error[rows].sum(axis=0) / base[rows].sum(axis=0)
        np.testing.assert_allclose(table[f"r2_{name}_ft"], expected)


def test_everybody_exposed_equals_the_whole(held_out) -> None:
    everyone = Confounds(exposed={"cls": np.ones(N, bool)})
    table = confound_columns(X, {"cls": ERASED}, R, GROUPS, FOLDS, held_out, everyone)["cls"]
    whole = r2_score(held_out.probes["per_channel"]["cls"], held_out.baseline, GROUPS)
    np.testing.assert_allclose(table["r2_exposed_ft"], whole.value)
    assert not any("unexposed" in name for name in table)


def test_an_embedding_that_knows_the_site_alone_fails_at_another_site() -> None:
    # A shift in one channel marks one site, where the feature is higher.
    site = np.arange(N) % 4
    r = R.copy()
    r[:, 0] = 3.0 * (site == 2) + 0.3 * RNG.normal(size=N)
    x = X.copy()
    x[:, 0] += 5.0 * (site == 2)
    confounds = Confounds(sites=site.astype(str))
    held_out = held_out_errors(x, {"cls": x}, r, GROUPS, FOLDS, None)
    table = confound_columns(x, {"cls": x}, r, GROUPS, FOLDS, held_out, confounds)["cls"]
    plain = r2_score(held_out.probes["per_channel"][PRE], held_out.baseline, GROUPS).value
    assert plain[0] > 0.5
    assert table["r2_site_pre"][0] < plain[0] - 0.4
    assert table["r2_site_pre"][1] > 0.8
    np.testing.assert_array_equal(table["delta_r2_site"], 0)
    assert count_fits(1, FOLDS, confounds) == 8


def test_sites_are_held_out_whole() -> None:
    groups = np.repeat(np.arange(30), 2)
    sites = np.repeat(np.array(["x", "y", "z"])[np.arange(30) % 3], 2)
    folds = leave_site_out(groups, sites, 0)
    assert [set(sites[fold.test]) for fold in folds] == [{"x"}, {"y"}, {"z"}]
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.val])
        assert (fold.train.astype(int) + fold.val + fold.test == 1).all()
        assert fold.val.any()
    with pytest.raises(ValueError, match="two sites"):
        leave_site_out(np.zeros(4, int), np.array(["x", "y", "x", "y"]), 0)
    with pytest.raises(ValueError, match="one site"):
        leave_site_out(np.arange(4), np.array(["x"] * 4), 0)


IDS = pd.DataFrame({"patient_id": ["b", "a", "c"]})


def test_labels_come_in_the_studys_order(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    pd.DataFrame(
        {"patient_id": list("abcd"), "volume_ml": [1.0, 2.0, 3.0, 4.0], "site": list("xyxy")}
    ).to_csv(path, index=False)
    labels = read_labels(path, IDS, ["volume_ml", "site"])
    assert labels["volume_ml"].tolist() == [2.0, 1.0, 3.0]
    assert labels["site"].tolist() == ["y", "x", "x"]
    with pytest.raises(InputError, match="no column psa"):
        read_labels(path, IDS, ["psa"])
    with pytest.raises(InputError, match="patient q and 0 more"):
        read_labels(path, pd.DataFrame({"patient_id": ["a", "q"]}), ["site"])


def test_a_patient_with_two_values_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    pd.DataFrame({"patient_id": ["a", "a"], "site": ["x", "y"], "psa": [1, 1]}).to_csv(
        path, index=False
    )
    one = pd.DataFrame({"patient_id": ["a"]})
    assert read_labels(path, one, ["psa"])["psa"].tolist() == [1]
    with pytest.raises(InputError, match="several rows of a differ"):
        read_labels(path, one, ["site"])


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"patient_id": ["P-0", "P-1"], "used": [True, True]}, "none of the study's patients"),
        ({"patient_id": ["P0", "P1"], "split": ["Train", "test"]}, r"'Train' \(patient P0\)"),
        ({"patient_id": ["P0", "P1"], "split": ["train", None]}, r"\(patient P1\), not train"),
    ],
)
def test_an_exposure_table_of_others_or_of_other_words_makes_nobody_unseen(
    table: dict[str, list], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        read_exposure(pd.DataFrame(table), IDS)


def test_exposure_is_read_from_either_table(tmp_path: Path) -> None:
    used, split = tmp_path / "patients.csv", tmp_path / "split.csv"
    pd.DataFrame(
        {"patient_id": ["a", "b"], "split": ["train", "test"], "used": [True, False]}
    ).to_csv(used, index=False)
    pd.DataFrame({"patient_id": ["a", "b", "c"], "split": ["test", "val", "train"]}).to_csv(
        split, index=False
    )
    np.testing.assert_array_equal(read_exposure(used, IDS), [False, True, False])
    np.testing.assert_array_equal(read_exposure(split, IDS), [True, False, True])
    pd.DataFrame({"patient_id": ["a"], "used": ["maybe"]}).to_csv(used, index=False)
    with pytest.raises(InputError, match="maybe"):
        read_exposure(used, IDS)


def test_a_gain_learnt_by_heart_is_withheld_where_the_others_are_known() -> None:
    exposed = np.arange(N) % 2 == 0
    learnt = np.c_[ERASED, np.where(exposed, 3 * TEXTURE, 0.0)]
    held_out = held_out_errors(ERASED, {"cls": learnt}, R, GROUPS, FOLDS, None)
    clusters, rules = cluster_features(R), Rules(flips=199)

    def judged(confounds: Confounds):
        columns = confound_columns(ERASED, {"cls": learnt}, R, GROUPS, FOLDS, held_out, confounds)[
            "cls"
        ]
        low = unseen_low("cls", columns, confounds)
        table = judge(held_out, "cls", clusters, GROUPS, rules, unseen_low=low).features
        return table.loc[1, ["verdict", "withheld"]].tolist()

    assert judged(Confounds()) == ["gained", ""]
    assert judged(Confounds(exposed={"cls": exposed})) == ["undecided", "unseen patients"]
    everyone = Confounds(exposed={"cls": np.ones(N, bool)})
    assert judged(everyone) == ["undecided", "unseen patients"]
    assert judged(Confounds(exposed={"cls": np.zeros(N, bool)})) == ["gained", ""]
