"""Held-out predictions of patients: those of a ridge of one's own, and the R2 of the table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri
from scipy.stats import rankdata

from lens.settings import Scores
from lens.verdicts.clusters import cluster_features
from lens.verdicts.folds import Fold, make_folds, single_fold
from lens.verdicts.held_out import held_out_errors
from lens.verdicts.judge import judge
from lens.verdicts.patients import COUNT, Patients, held_out_patients, shown_features

N = 90


class Run:
    """Six traits, of which fine-tuning loses the first and gains the last; some values missing."""

    def __init__(self, *, scores: Scores = "normal", studies: int = 1, folds: int = 3) -> None:
        rng = np.random.default_rng(0)
        traits, mixing = rng.normal(size=(N, 6)), rng.normal(size=(6, 12))
        noise = 0.1 * rng.normal(size=(2, N, 12))
        self.pre = (traits * [1, 1, 1, 1, 1, 0]) @ mixing + noise[0]
        self.ft = (traits * [0, 1, 1, 1, 1, 1]) @ mixing + noise[1]
        # Two near copies of each trait, in units of their own.
        copies = np.repeat(traits, 2, axis=1) + 0.05 * rng.normal(size=(N, 12))
        self.r = 1000.0 + 40.0 * copies
        self.r[3, 0] = self.r[50, 4] = np.nan
        patients = [f"P{row // studies:02d}" for row in range(N)]
        self.ids = pd.DataFrame({"patient_id": patients})
        if studies > 1:
            self.ids["study_id"] = [f"S{row % studies}" for row in range(N)]
        self.groups, self.scores = self.ids["patient_id"].to_numpy(), scores
        self.folds: tuple[Fold, ...] = (
            make_folds(self.groups, folds, 2, seed=1)
            if folds
            else single_fold(np.where(np.arange(N) < 60, "train", "test"))
        )
        errors = held_out_errors(
            self.pre, {"cls": self.ft}, self.r, self.groups, self.folds, None, scores=scores
        )
        clusters = cluster_features(np.nan_to_num(self.r, nan=1000.0))
        self.verdicts = judge(errors, "cls", clusters, self.groups).features
        self.verdicts.insert(0, "column", [f"t2.gland.original_x_F{at}" for at in range(12)])

    def patients(self) -> Patients:
        return held_out_patients(
            self.pre, self.ft, self.r, self.ids, self.folds, self.verdicts, scores=self.scores
        )


@pytest.mark.parametrize("scores", ["normal", "raw"])
@pytest.mark.parametrize("folds", [3, 0])
def test_the_r2_of_the_predictions_is_that_of_the_verdicts(scores: Scores, folds: int) -> None:
    run = Run(scores=scores, folds=folds)
    table = run.verdicts.set_index("column")
    predictions = run.patients().predictions
    assert predictions["column"].nunique() >= 4
    for column, rows in predictions.groupby("column"):
        total = np.square(rows["observed"] - rows["fitted_mean"]).sum()
        for stage in ("pre", "ft"):
            error = np.square(rows["observed"] - rows[f"predicted_{stage}"]).sum()
            # The same sums in another order.
            assert 1 - error / total == pytest.approx(
                table.loc[column, f"r2_ridge_{stage}"], abs=1e-9
            )


def test_predictions_are_those_of_a_ridge_that_never_saw_the_patient() -> None:
    """Brute force: normal scores, standardised channels, and a penalty by GCV over a fine grid."""
    run = Run()
    found = run.patients().predictions
    column = found["column"].iloc[0]
    at = int(column.rpartition("F")[2])
    rows = found[found["column"] == column]
    for repeat in (0, 1):
        of_repeat = rows[rows["repeat"] == repeat].set_index("patient_id")
        assert of_repeat.index.is_unique, "each patient is held out once per repeat"
        for fold in (each for each in run.folds if each.repeat == repeat):
            known = fold.fitted & np.isfinite(run.r[:, at])
            value = run.r[known, at]
            target = ndtri((rankdata(value) - 0.5) / len(value))
            mean, sd = run.pre[fold.fitted].mean(axis=0), run.pre[fold.fitted].std(axis=0)
            x = (run.pre - mean) / sd
            predicted = brute_ridge(x[known], target, x[fold.test])
            names = run.ids.loc[fold.test, "patient_id"].to_numpy()
            seen = np.isin(names, of_repeat.index)
            theirs = of_repeat.loc[names[seen], "predicted_pre"].to_numpy()
            # Another grid of penalties, and imputed rows left out, make a small difference.
            np.testing.assert_allclose(theirs, predicted[seen], atol=0.06)


def brute_ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    best = (np.inf, np.zeros(len(new)))
    for alpha in np.geomspace(1e-4, 1e4, 60):
        hat = x @ np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T)
        residual = (y - y.mean()) - hat @ (y - y.mean())
        freedom = len(y) - 1 - np.trace(hat)
        score = np.square(residual).sum() / freedom**2
        weights = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ (y - y.mean()))
        if score < best[0]:
            best = (score, new @ weights + y.mean())
    return best[1]


def test_no_prediction_of_a_patient_depends_on_the_patients_own_values() -> None:
    run = Run()
    before = run.patients().predictions
    # A patient's own feature changes; the verdicts, and so the choice of features, stay.
    row, who = 7, run.ids["patient_id"][7]
    column = before["column"].iloc[0]
    at = int(column.rpartition("F")[2])
    run.r[row, at] += 25.0
    after = run.patients().predictions
    own = (before["patient_id"] == who) & (before["column"] == column)
    assert own.sum() == 2
    names = ["predicted_pre", "predicted_ft"]
    # The common unit moves with all values; normal scores of the others do not.
    np.testing.assert_allclose(before.loc[own, names], after.loc[own, names], atol=1e-9)
    others = (before["patient_id"] != who) & (before["column"] == column)
    one, other = (each.loc[others, names].to_numpy() for each in (before, after))
    assert np.abs(one - other).max() > 1e-4


def test_values_come_back_in_their_own_unit() -> None:
    for scores in ("normal", "raw"):
        run = Run(scores=scores)
        found = run.patients().predictions
        assert found["value"].between(800, 1200).all()
        assert np.abs(found[["value_pre", "value_ft"]].to_numpy() - 1000).max() < 200
        # The prediction of a well read feature is near the value, and orders as the prediction.
        rows = found[(found["shown"] == "unchanged") & (found["repeat"] == 0)]
        assert np.corrcoef(rows["value"], rows["value_pre"])[0, 1] > 0.9
        first = rows[rows["column"] == rows["column"].iloc[0]]
        assert first["predicted_pre"].corr(first["value_pre"], method="spearman") > 0.98


def test_features_are_shown_once_per_cluster_and_missing_values_have_no_row() -> None:
    run = Run()
    shown = shown_features(run.verdicts)
    clusters = run.verdicts.set_index("column").loc[list(shown), "cluster"]
    assert clusters.is_unique, "one of each pair of copies"
    kinds = pd.Series(shown).value_counts()
    assert kinds["lost"] == 1
    assert kinds["gained"] == 1
    assert kinds["unchanged"] == COUNT
    found = run.patients().predictions
    counts = found.groupby("column")["patient_id"].count()
    assert set(counts) <= {2 * N, 2 * (N - 1)}
    assert found["value"].notna().all()


def test_where_nothing_is_lost_the_largest_falls_stand_in_under_another_name() -> None:
    run = Run()
    run.verdicts["verdict"] = np.where(run.verdicts["delta_r2"] < 0, "undecided", "absent")
    shown = shown_features(run.verdicts)
    assert set(shown.values()) == {"lower"}
    run.verdicts["verdict"] = "absent"
    assert shown_features(run.verdicts) == {}
    empty = run.patients()
    full = Run().patients()
    assert empty.predictions.empty
    assert list(empty.predictions) == list(full.predictions)
    assert empty.moved.empty
    assert sorted(empty.moved) == sorted(full.moved)


def test_how_far_patients_moved_is_the_root_mean_square_over_explained_medoids() -> None:
    run = Run(studies=2)
    run.verdicts["medoid"] &= run.verdicts.index.isin([0, 1, 4, 5])
    moved = run.patients().moved
    assert list(moved)[:2] == ["patient_id", "study_id"]
    assert len(moved) == N
    assert moved["moved"].is_monotonic_decreasing
    medoids = run.verdicts.loc[run.verdicts["medoid"], "column"]
    assert (moved["n_features"] == len(medoids)).all()
    # Shown by hand: all medoids are among the features, asked for one after another.
    run.verdicts = run.verdicts[run.verdicts["medoid"]].reset_index(drop=True)
    run.r = run.r[:, [int(name.rpartition("F")[2]) for name in medoids]]
    run.verdicts["verdict"] = "unchanged"
    rows = run.patients().predictions
    assert set(rows["column"]) == set(medoids)
    rows["square"] = np.square(rows["predicted_ft"] - rows["predicted_pre"])
    rows["miss"] = np.square(rows["observed"] - rows["predicted_ft"])
    by_hand = rows.groupby(["patient_id", "study_id"])[["square", "miss"]].mean() ** 0.5
    complete = moved[moved["patient_id"] != run.ids["patient_id"][3]]
    complete = complete[complete["patient_id"] != run.ids["patient_id"][50]]
    theirs = by_hand.loc[[*map(tuple, complete[["patient_id", "study_id"]].to_numpy())]]
    np.testing.assert_allclose(complete["moved"], theirs["square"], rtol=1e-9)
    np.testing.assert_allclose(complete["error_ft"], theirs["miss"], rtol=1e-9)
    groups = rows.groupby(["column", "repeat", "patient_id"]).size()
    assert groups.max() == 2, "both studies of a patient are held out together"
