"""The task score: a head refitted in closed form, which no scored patient helped to fit.

The head is ridge regression of the label on the embedding (`lens.probes.ridge.RidgeProbe`). It is
fitted to originals alone; edited images are only ever scored. Beside the label, heads are fitted to
the label exchanged among patients: directions of the embedding that mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lens.probes.ridge import RidgeProbe

FEWEST = 12
"""Patients with a label that heads can be fitted to."""


@dataclass(frozen=True)
class Heads:
    """Heads of every fold, for the label (first) and its exchanges.

    Attributes:
        coef: (folds, d, 1 + b) score per unit of the embedding, in standard deviations of the
            label.
        fold: (n,) in which each patient is scored, having taken no part in the fit.
        spread: (1 + b,) standard deviation over patients of the scores, about their fold's mean.
        r2: (1 + b,) share of the label's variance between patients that the scores explain.
    """

    coef: Float[np.ndarray, "f d k"]
    fold: Int[np.ndarray, " n"]
    spread: Float[np.ndarray, " k"]
    r2: Float[np.ndarray, " k"]


def fit_heads(
    x: Float[np.ndarray, "n d"],
    labels: Float[np.ndarray, "n k"],
    fold: Int[np.ndarray, " n"],
) -> Heads:
    """Cross-fitted heads on the embeddings of original images.

    Args:
        x: a row per patient.
        labels: of `exchanged`.
        fold: of each patient, of `make_folds`.
    """
    x = np.asarray(x, np.float64)
    coef, scores = [], np.empty_like(labels)
    centred = np.empty_like(labels)
    for each in range(int(fold.max()) + 1):
        held, fitted = fold == each, fold != each
        head = RidgeProbe().fit(x[fitted], labels[fitted])
        scores[held] = head.predict(x[held])
        centred[held] = scores[held] - scores[held].mean(axis=0)
        coef.append(head.coef / head.x_std[:, None])
    residual = np.square(labels - scores).sum(axis=0)
    total = np.square(labels - labels.mean(axis=0)).sum(axis=0)
    return Heads(
        np.stack(coef), fold, np.sqrt(np.mean(np.square(centred), axis=0)), 1 - residual / total
    )


def exchanged(label: Float[np.ndarray, " n"], count: int, seed: int) -> Float[np.ndarray, "n k"]:
    """The label in standard deviations, then `count` exchanges of it among patients.

    Args:
        label: of each patient; not the same for all.
        count: of exchanges.
        seed: of them.
    """
    standard = (label - label.mean()) / label.std()
    rng = np.random.default_rng([seed, 2])
    return np.column_stack([standard, *(rng.permutation(standard) for _ in range(count))])


def make_folds(n: int, folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """The fold of each of n patients, drawn at random, as equal in size as can be."""
    return np.random.default_rng([seed, 3]).permutation(np.arange(n) % folds)


def scored(
    heads: Heads, moved: Float[np.ndarray, "m ... d"], rows: Int[np.ndarray, " m"], *, first: bool
) -> Float[np.ndarray, "m ... k"]:
    """Changes of the score that changes of the embedding make.

    Args:
        heads: of the patients.
        moved: embedding of an edited image less that of the original, for m of the patients.
        rows: which patients.
        first: the head of the label alone (k = 1).
    """
    coef = heads.coef[..., :1] if first else heads.coef
    out = np.empty((*moved.shape[:-1], coef.shape[-1]))
    for each in range(len(coef)):
        held = heads.fold[rows] == each
        out[held] = moved[held] @ coef[each]
    return out
