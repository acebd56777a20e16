"""Metrics against scikit-learn's own, and against cases small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from encoders.metrics import (
    classification_metrics,
    overlap,
    regression_metrics,
    segmentation_metrics,
)


def test_classification_equals_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.choice([2.0, 3.0, 5.0], 60, p=[0.5, 0.3, 0.2])
    classes = np.array([2.0, 3.0, 5.0])
    probability = rng.dirichlet([1, 1, 1], 60) + 0.5 * (labels[:, None] == classes)
    probability /= probability.sum(axis=1, keepdims=True)
    found = classification_metrics(probability, labels, classes)
    guessed = classes[probability.argmax(axis=1)]
    assert found["n"] == 60
    assert found["accuracy"] == np.mean(guessed == labels)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, guessed))
    area = roc_auc_score(labels, probability, multi_class="ovr", average="macro")
    assert found["auc"] == pytest.approx(area)
    assert found["n_of_class"] == {f"{c}": int((labels == c).sum()) for c in classes}
    assert np.sum(found["confusion"]) == 60
    assert np.trace(found["confusion"]) == np.sum(guessed == labels)


def test_a_class_that_no_patient_has():
    probability = np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    found = classification_metrics(probability, np.array([0, 1, 1]), np.array([0, 1, 2]))
    assert found["balanced_accuracy"] == pytest.approx((1 + 0.5) / 2)
    assert set(found["auc_of_class"]) == {"0", "1"}
    assert found["auc"] == 1.0
    # One that training did not know is wrong, whatever is said.
    unknown = classification_metrics(probability, np.array([0, 1, 7]), np.array([0, 1, 2]))
    assert unknown["accuracy"] == pytest.approx(2 / 3)
    alone = classification_metrics(probability, np.array([1, 1, 1]), np.array([0, 1, 2]))
    assert alone["auc"] is None


def test_regression_by_hand():
    found = regression_metrics(np.array([1.0, 2.0, 6.0]), np.array([1.0, 3.0, 5.0]), 2.0)
    assert found == {
        "n": 3,
        "mae": pytest.approx(2 / 3),
        "r2": pytest.approx(1 - 2 / 8),
        "mae_of_mean": pytest.approx((1 + 1 + 3) / 3),
    }


def test_overlap_by_hand():
    """Two lesions of 8 and 1 voxels; the first is hit with 4, a component lies beside both."""
    truth, predicted = np.zeros((2, 8, 8, 8), bool)
    truth[:2, :2, :2] = True
    truth[6, 6, 6] = True
    predicted[:1, :2, :2] = True
    predicted[4, 0:2, 0] = True
    found = overlap(predicted, truth)
    assert found == {"dice": pytest.approx(2 * 4 / (9 + 6)), "lesions": 2, "hit": 1, "false": 1}
    # Voxels that share a corner only are one lesion.
    truth[5, 5, 5] = True
    assert overlap(predicted, truth)["lesions"] == 2
    nothing = np.zeros_like(truth)
    assert overlap(predicted, nothing) == {"dice": None, "lesions": 0, "hit": 0, "false": 2}
    assert overlap(nothing, truth) == {"dice": 0.0, "lesions": 2, "hit": 0, "false": 0}
    assert overlap(truth, truth)["dice"] == 1.0
    summed = segmentation_metrics([found, overlap(predicted, nothing), overlap(truth, truth)])
    assert summed["n"] == 3
    assert summed["n_with"] == 2
    assert summed["dice"] == pytest.approx((8 / 15 + 1) / 2)
    assert summed["dice_of_case"][1] is None
    assert summed["lesion_sensitivity"] == pytest.approx(3 / 4)
    assert summed["false_per_case"] == pytest.approx(1.0)
