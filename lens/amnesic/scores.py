"""Scores of held-out predictions, compared within a fold only, and their spread over patients.

Predictions of two folds come from two fits: after an erasure that leaves nothing, each of them is
the mean of its fitted rows, which is the higher the fewer high labels were held out. Pooled, such
predictions would rank patients worse than chance. Pairs of one fold know no such shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

Kind = Literal["auc", "concordance", "r2"]

ROUNDING = 9
"""Decimals, in standard deviations of a label, from which predictions are told apart."""


class Held(NamedTuple):
    """Held-out rows of a fold.

    Attributes:
        rows: indices into the study.
        label: values, in the head's unit (standard deviations of the fitted rows).
        mean: of the fitted rows, what R2 is against.
    """

    rows: np.ndarray
    label: Float[np.ndarray, " t"]
    mean: float


def score(
    kind: Kind, folds: Sequence[Held], predictions: Sequence[Float[np.ndarray, "_ b"]]
) -> Float[np.ndarray, " b"]:
    """Score of each of several sets of predictions.

    Args:
        kind: ``r2``: one less the squared error over that of the fitted mean, over all folds;
            ``auc`` and ``concordance``: the share of pairs of one fold with different labels
            whose predictions are in the same order, ties counting half.
        folds: the held-out rows.
        predictions: a column per set.
    """
    tops, bottoms = [], []
    for held, predicted in zip(folds, predictions, strict=True):
        if kind == "r2":
            tops.append(np.square(held.label[:, None] - predicted).sum(axis=0))
            bottoms.append(np.square(held.label - held.mean).sum())
        else:
            right, pairs = _pairs(held.label, predicted)
            tops.append(right)
            bottoms.append(pairs)
    top, bottom = np.sum(tops, axis=0), float(np.sum(bottoms))
    if bottom == 0:
        return np.full(np.shape(top), np.nan)
    return 1.0 - top / bottom if kind == "r2" else top / bottom


def _pairs(
    label: Float[np.ndarray, " t"], predicted: Float[np.ndarray, "t b"]
) -> tuple[Float[np.ndarray, " b"], int]:
    """Pairs in order, and pairs, over every two values of the label."""
    predicted = np.round(predicted, ROUNDING)
    right, pairs = np.zeros(predicted.shape[1]), 0
    values = np.unique(label)
    for at, low in enumerate(values):
        below = label == low
        for high in values[at + 1 :]:
            above = label == high
            ranks = rankdata(predicted[below | above], axis=0)
            upper = above[below | above]
            m = int(upper.sum())
            right += ranks[upper].sum(axis=0) - m * (m + 1) / 2
            pairs += m * int(below.sum())
    return right, pairs


def resampled(
    kind: Kind,
    folds: Sequence[Held],
    predictions: Sequence[Float[np.ndarray, " _"]],
    weights: Float[np.ndarray, "w n"],
) -> Float[np.ndarray, " w"]:
    """The score with every row counted as often as its patient was drawn.

    The fits stay as they are: what is resampled is who is held out.

    Args:
        kind, folds: as in `score`.
        predictions: one per fold.
        weights: times that each row of the study counts, of every draw.
    """
    top, bottom = np.zeros(len(weights)), np.zeros(len(weights))
    for held, predicted in zip(folds, predictions, strict=True):
        own = weights[:, held.rows]
        if kind == "r2":
            top += own @ np.square(held.label - predicted)
            bottom += own @ np.square(held.label - held.mean)
        else:
            rounded = np.round(predicted, ROUNDING)
            # A row of the lowest label is above none, one of the highest below none.
            up, down = held.label > held.label.min(), held.label < held.label.max()
            above = held.label[up, None] > held.label[down]
            order = (np.sign(rounded[up, None] - rounded[down]) + 1) / 2
            top += ((own[:, up] @ (above * order)) * own[:, down]).sum(axis=1)
            bottom += ((own[:, up] @ above.astype(float)) * own[:, down]).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = top / bottom
    return 1.0 - ratio if kind == "r2" else ratio


def patient_weights(
    groups: np.ndarray, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "w n"]:
    """How often each row counts where patients are drawn with replacement, with all their rows."""
    patients, patient = np.unique(groups, return_inverse=True)
    count = len(patients)
    return rng.multinomial(count, np.full(count, 1 / count), size=draws)[:, patient].astype(float)
