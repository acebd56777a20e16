"""Head, random subspaces, scores, readers and labels, each by a law or another implementation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from lens.amnesic.clusters import clusters_of, targets_of
from lens.amnesic.eraser import directions, fit_eraser, fit_whitening, variance_share
from lens.amnesic.head import PENALTIES, fit_heads
from lens.amnesic.labels import label_of
from lens.amnesic.null import any_targets, matched_targets, orthonormal
from lens.amnesic.readers import kernel_reader, linear_reader, r2
from lens.amnesic.scores import Held, patient_weights, resampled, score
from lens.errors import InputError


def test_the_head_is_ridge_regression_on_the_erased_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 12)) * np.geomspace(3, 0.2, 12)
    z = x[:, :2] + rng.standard_normal((90, 2))
    y = x @ rng.standard_normal(12) + rng.standard_normal(90)
    y -= y.mean()
    whitening = fit_whitening(x)
    rows = whitening.rows(x)
    u = directions(rows, z)
    coefficients = fit_heads(
        whitening.scale, np.stack([u, u]), rows.T @ y / 90, float(np.square(y).mean()), 90
    )
    erased, errors, predictions = fit_eraser(x, z)(x), [], []
    for penalty in np.multiply(PENALTIES, whitening.scale[0] ** 2):
        ridge = Ridge(alpha=90 * penalty).fit(erased, y)
        predictions.append(ridge.predict(erased))
        centred = erased - erased.mean(axis=0)
        hat = centred @ np.linalg.solve(centred.T @ centred + 90 * penalty * np.eye(12), centred.T)
        free = 1 - (1 + np.trace(hat)) / 90
        errors.append(np.square(y - predictions[-1]).mean() / free**2)
    for each in coefficients:
        np.testing.assert_allclose(rows @ each, predictions[int(np.argmin(errors))], atol=1e-7)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_random_subspaces_take_the_variance_they_are_asked_for(share: float) -> None:
    scale = np.geomspace(5, 0.2, 20)
    drawn = matched_targets(scale, 3, share, 50, np.random.default_rng(0))
    basis = orthonormal(drawn)
    np.testing.assert_allclose(variance_share(scale, basis), share, atol=2e-3)
    np.testing.assert_allclose(
        np.einsum("brq,brp->bqp", basis, basis), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-9
    )
    # They are subspaces of their own, not one and the same.
    assert np.linalg.norm(basis[0].T @ basis[1]) < np.sqrt(3) - 0.05
    free = variance_share(scale, orthonormal(any_targets(20, 3, 400, np.random.default_rng(0))))
    assert free.mean() == pytest.approx(3 / 20, abs=0.02)


def test_the_largest_share_there_is_stands_for_what_is_beyond() -> None:
    scale = np.array([3.0, 1.0, 0.5])
    most = variance_share(scale, np.eye(3)[None, :, :1])[0]
    drawn = orthonormal(matched_targets(scale, 1, 0.999, 20, np.random.default_rng(0)))
    assert (variance_share(scale, drawn) <= most + 1e-12).all()
    assert variance_share(scale, drawn).min() > most - 0.02


def test_auc_is_that_of_scikit_learn_and_pairs_stay_in_their_fold() -> None:
    rng = np.random.default_rng(0)
    label = (rng.uniform(size=80) < 0.4).astype(float)
    predicted = label + rng.standard_normal(80)
    one = [Held(np.arange(80), label, 0.0)]
    found = score("auc", one, [predicted[:, None]])[0]
    assert found == pytest.approx(roc_auc_score(label, predicted))
    halves = [Held(np.arange(40), label[:40], 0.0), Held(np.arange(40, 80), label[40:], 0.0)]
    # A shift of a whole fold, as the mean of other fitted rows makes it, changes nothing.
    plain = score("auc", halves, [predicted[:40, None], predicted[40:, None]])
    shifted = score("auc", halves, [predicted[:40, None] + 9, predicted[40:, None]])
    assert plain == shifted
    constant = score("auc", halves, [np.full((40, 1), 0.3), np.full((40, 1), 0.7)])
    assert constant[0] == 0.5


def test_concordance_and_r2_by_hand() -> None:
    held = [Held(np.arange(4), np.array([0.0, 1.0, 1.0, 2.0]), 0.5)]
    # Pairs of different labels: 5; in order: (0,1), (0,2), (0,3), (2,3), tied: (1,3).
    predicted = np.array([[0.1], [0.9], [0.2], [0.9]])
    assert score("concordance", held, [predicted])[0] == pytest.approx(4.5 / 5)
    errors, baseline = 0.1**2 + 0.1**2 + 0.8**2 + 1.1**2, 4 * 0.5**2 + (1.5**2 - 0.5**2)
    assert score("r2", held, [predicted])[0] == pytest.approx(1 - errors / baseline)


@pytest.mark.parametrize("kind", ["auc", "r2"])
def test_weights_of_patients_are_copies_of_their_rows(kind) -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(15), 2).astype(str)
    label = np.tile([0.0, 1.0], 15)
    predicted = label + rng.standard_normal(30)
    held = [Held(np.arange(30), label, 0.5)]
    weights = patient_weights(groups, 5, rng)
    assert (weights[:, ::2] == weights[:, 1::2]).all(), "the studies of a patient stay together"
    assert (weights.sum(axis=1) == 30).all()
    for w in weights:
        copies = np.repeat(np.arange(30), w.astype(int))
        expected = score(kind, [Held(copies, label[copies], 0.5)], [predicted[copies, None]])[0]
        assert resampled(kind, held, [predicted], w[None])[0] == pytest.approx(expected)


def test_readers_find_what_is_linear_and_what_is_curved() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 4))
    z = np.stack([x[:, 0], np.square(x[:, 1])], axis=1)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    fitted, held = slice(0, 200), slice(200, 300)
    for column, linear, curved in ((0, (0.99, 1.0), (0.9, 1.0)), (1, (-0.1, 0.1), (0.6, 1.0))):
        for make, (low, high) in ((linear_reader, linear), (kernel_reader, curved)):
            own = z[:, [column]]
            found = r2([make(x[fitted], x[held]).errors(own[fitted], own[held], np.ones(1))])
            assert low <= found <= high, (column, make.__name__, found)


def test_components_of_a_cluster_carry_its_variance_and_know_no_held_out_row() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.standard_normal((60, 2)), 5, axis=1)
    values += 0.1 * rng.standard_normal(values.shape)
    fitted = np.arange(60) < 40
    targets = targets_of(np.hstack([values, np.ones((60, 1))]), fitted, 8)
    assert targets.z.shape == (60, 2), "two factors, near copies, one constant"
    assert targets.weights.sum() > 0.95
    np.testing.assert_allclose(targets.z[fitted].std(axis=0), 1, atol=1e-9)
    wild = np.where(fitted[:, None], values, 1e3 * values)
    again = targets_of(np.hstack([wild, np.ones((60, 1))]), fitted, 8)
    np.testing.assert_allclose(again.z[fitted], targets.z[fitted], atol=1e-9)
    assert targets_of(np.ones((60, 3)), fitted, 8).z.shape == (60, 0)
    # More columns than rows take the other product, and give the same.
    wide = np.hstack([values] * 8)
    np.testing.assert_allclose(
        np.abs(targets_of(wide, fitted, 8).z[:, 0]), np.abs(targets_of(values, fitted, 8).z[:, 0]),
        atol=1e-7,
    )  # fmt: skip


def test_clusters_are_a_partition_either_way() -> None:
    rng = np.random.default_rng(0)
    r = np.repeat(rng.standard_normal((40, 2)), 2, axis=1)
    r = r + 0.01 * rng.standard_normal((40, 4))
    features = pd.DataFrame(
        {
            "column": list("abcd"),
            "modality": ["t2", "t2", "adc", "adc"],
            "roi": "gland",
            "feature_class": ["glcm", "glcm", "glcm", "glrlm"],
        }
    )
    groups = clusters_of(features, r, "group")
    assert [c.name for c in groups] == ["t2 gland glcm", "adc gland glcm", "adc gland glrlm"]
    copies = clusters_of(features, r, "copies")
    assert [list(c.columns) for c in copies] == [[0, 1], [2, 3]]
    for found in (groups, copies):
        assert sorted(np.concatenate([c.columns for c in found])) == [0, 1, 2, 3]


PATIENTS = np.arange(40).astype(str)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"] * 20, "auc"),
        ([1.0, 2.0, 3.0, np.nan] * 10, "concordance"),
        (np.arange(40) / 7, "r2"),
        (np.arange(40), "r2"),
        ([True, False] * 20, "auc"),
        ([-1e308, 1e308] * 20, "auc"),
    ],
)
def test_kinds_of_labels(values, kind: str) -> None:
    label = label_of(pd.Series(values), "x", patients=PATIENTS, folds=5)
    assert label.kind == kind
    assert label.known.sum() == pd.Series(values).notna().sum()
    if kind == "auc":
        assert set(label.values) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "b", "c", "d"] * 10, "4 names .* have no order"),
        ([1.0] * 40, r"is '1\.0' in all rows"),
        ([1.0, np.inf] * 20, r"20 value\(s\) are infinite; leave cells blank"),
        ([*np.arange(39) / 7, -np.inf], r"1 value\(s\) are infinite"),
        ([0.0, 1.0, 1e200, 1.0] * 10, "as large as 1e\\+200 .* number them 0, 1, 2"),
        ([1.0] * 37 + [2.0] * 3, r"3 patient\(s\) with the value 2, fewer than the 5 folds"),
        ([1.0, 2.0] * 5 + [np.nan] * 30, "10 values, at least 20"),
    ],
)
def test_labels_that_cannot_be_scored_are_refused(values, message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_of(pd.Series(values), "x", patients=PATIENTS, folds=5)
