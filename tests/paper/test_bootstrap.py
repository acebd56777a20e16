"""The bootstrap of the test patients: patients stay whole, scores are those of repeated rows."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import r2_score

from lens.paper.bootstrap import bootstrap_scores, patient_weights
from lens.paper.scores import decoder_scores


def test_a_patients_studies_are_drawn_together() -> None:
    groups = np.array(["a", "b", "a", "c", "c", "c"])
    weights = patient_weights(groups, 200, seed=0)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 3], weights[:, 5])
    drawn = weights[:, [0, 1, 3]].sum(axis=1)
    np.testing.assert_array_equal(drawn, 3)
    np.testing.assert_array_equal(weights, patient_weights(groups, 200, seed=0))


def test_scores_equal_those_of_the_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    y, fitted = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    weights = patient_weights(np.arange(30), 5, seed=2)
    mean, variance = np.full(4, 0.1), np.full(4, 2.0)
    scores = bootstrap_scores(y - fitted, y - mean, variance, weights)
    for draw, weight in enumerate(weights):
        rows = np.repeat(np.arange(30), weight.astype(int))
        mse = np.square(y[rows] - fitted[rows]).mean(axis=0)
        np.testing.assert_allclose(scores["mse"][draw], mse, rtol=1e-5)
        np.testing.assert_allclose(scores["mse_z"][draw], mse / 2, rtol=1e-5)
        expected = 1 - mse / np.square(y[rows] - mean).mean(axis=0)
        np.testing.assert_allclose(scores["r2"][draw], expected, rtol=1e-4, atol=1e-5)


def test_r2_about_the_samples_own_mean_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    y, fitted = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    residual, deviation = y - fitted, y - y.mean(axis=0)
    expected = r2_score(y, fitted, multioutput="raw_values")
    plain = decoder_scores(residual, deviation, np.ones(3))
    np.testing.assert_allclose(plain["r2"], expected)
    np.testing.assert_allclose(plain["mse"], np.square(residual).mean(axis=0))
    drawn = bootstrap_scores(residual, deviation, np.ones(3), np.ones((1, 40)))
    np.testing.assert_allclose(drawn["r2"][0], expected, rtol=1e-5)
