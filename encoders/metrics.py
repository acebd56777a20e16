"""How good predictions are on patients that training did not see."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
)

Metrics = dict[str, Any]


def classification_metrics(
    probability: Float[np.ndarray, "n classes"],
    labels: Shaped[np.ndarray, " n"],
    classes: Shaped[np.ndarray, " classes"],
) -> Metrics:
    """Accuracy, balanced accuracy and the area under the ROC curve of each class against the rest.

    A class that no patient has, or all have, has no such area; the mean is over the others.

    Args:
        probability: of each class.
        labels: the truth; a label that is none of the classes counts as wrong.
        classes: in the order of the columns.

    Returns:
        ``n, accuracy, balanced_accuracy, auc`` (shares from 0 to 1), ``auc_of_class``,
        ``n_of_class`` and ``confusion`` (rows: truth, columns: prediction, both as in ``labels``).
    """
    guessed = classes[probability.argmax(axis=1)]
    known = sorted({*classes.tolist(), *labels.tolist()})
    areas = {
        str(name): float(roc_auc_score(labels == name, probability[:, column]))
        for column, name in enumerate(classes.tolist())
        if 0 < np.count_nonzero(labels == name) < len(labels)
    }
    return {
        "n": len(labels),
        "accuracy": float(accuracy_score(labels, guessed)),
        # Over the classes that occur; scikit-learn's own warns where a guess never does.
        "balanced_accuracy": float(
            np.mean([np.mean(guessed[labels == name] == name) for name in np.unique(labels)])
        ),
        "auc": float(np.mean(list(areas.values()))) if areas else None,
        "auc_of_class": areas,
        "n_of_class": {str(name): int(np.sum(labels == name)) for name in known},
        "labels": [str(name) for name in known],
        "confusion": confusion_matrix(labels, guessed, labels=known).tolist(),
    }


def regression_metrics(
    predicted: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"], reference: float
) -> Metrics:
    """Errors in the label's unit.

    Args:
        predicted, truth: in the label's unit.
        reference: the mean of the training labels.

    Returns:
        ``n, mae`` (label's unit), ``r2`` (against the mean of these patients, as scikit-learn) and
        ``mae_of_mean``, the error of always saying `reference`.
    """
    return {
        "n": len(truth),
        "mae": float(mean_absolute_error(truth, predicted)),
        "r2": float(r2_score(truth, predicted)) if len(truth) > 1 else None,
        "mae_of_mean": float(np.abs(truth - reference).mean()),
    }


def overlap(predicted: Bool[np.ndarray, "d h w"], truth: Bool[np.ndarray, "d h w"]) -> Metrics:
    """One case of a segmentation.

    Returns:
        ``dice`` (None without a true voxel), ``lesions`` and ``hit``, the connected components of
        the truth (voxels that share a corner belong together) and those of them with a predicted
        voxel, and ``false``, the predicted components that touch no true voxel.
    """
    components, lesions = _components(truth)
    guessed, count = _components(predicted)
    touched = np.unique(guessed[truth])
    size = int(truth.sum()) + int(predicted.sum())
    return {
        "dice": 2 * float(np.sum(predicted & truth)) / size if lesions else None,
        "lesions": lesions,
        "hit": len(np.setdiff1d(np.unique(components[predicted]), [0])),
        "false": count - len(np.setdiff1d(touched, [0])),
    }


def _components(mask: Bool[np.ndarray, "d h w"]) -> tuple[np.ndarray, int]:
    """Voxels numbered by component, and the number of components."""
    numbered, count = ndimage.label(mask, np.ones((3,) * mask.ndim))  # pyright: ignore
    return numbered, count


def segmentation_metrics(cases: list[Metrics]) -> Metrics:
    """Sums up the cases of `overlap`.

    Returns:
        ``n``; ``n_with`` cases with true voxels and their Dice (``dice``: mean, ``dice_median``,
        ``dice_sd``, ``dice_of_case``: in order, None without true voxels); ``lesions`` and the
        share of them that was hit, ``lesion_sensitivity``; ``false_per_case``, predicted
        components that touch no true voxel.
    """
    scores = [case["dice"] for case in cases]
    known = np.array([score for score in scores if score is not None])
    lesions = sum(case["lesions"] for case in cases)
    hit = sum(case["hit"] for case in cases)
    return {
        "n": len(cases),
        "n_with": len(known),
        "dice": float(known.mean()) if len(known) else None,
        "dice_median": float(np.median(known)) if len(known) else None,
        "dice_sd": float(known.std(ddof=1)) if len(known) > 1 else None,
        "dice_of_case": scores,
        "lesions": lesions,
        "lesion_sensitivity": hit / lesions if lesions else None,
        "false_per_case": float(np.mean([case["false"] for case in cases])),
    }
