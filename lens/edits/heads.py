"""The task score: a head refitted in closed form, which no scored patient helped to fit.

The head is ridge regression of the label on the embedding (`lens.probes.ridge.RidgeProbe`). It is
fitted to originals alone; edited images are only ever scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lens.probes.ridge import FittedRidge, RidgeProbe


@dataclass(frozen=True)
class Heads:
    """A head per fold.

    Attributes:
        fitted: of each fold.
        fold: (n,) in which each patient is scored, having taken no part in the fit.
        r2: share of the label's variance between patients that the scores explain.
    """

    fitted: tuple[FittedRidge, ...]
    fold: Int[np.ndarray, " n"]
    r2: float


def fit_heads(
    x: Float[np.ndarray, "n d"], label: Float[np.ndarray, " n"], fold: Int[np.ndarray, " n"]
) -> Heads:
    """Cross-fitted heads on the embeddings of original images.

    Args:
        x: a row per patient.
        label: in the unit that scores are to have.
        fold: of each patient, of `make_folds`.
    """
    x, scores, fitted = np.asarray(x, np.float64), np.empty(len(label)), []
    for each in range(int(fold.max()) + 1):
        head = RidgeProbe().fit(x[fold != each], label[fold != each, None])
        scores[fold == each] = head.predict(x[fold == each])[:, 0]
        fitted.append(head)
    left = np.square(label - scores).sum() / np.square(label - label.mean()).sum()
    return Heads(tuple(fitted), fold, 1 - float(left))


def make_folds(n: int, folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """The fold of each of n patients, drawn at random, as equal in size as can be."""
    return np.random.default_rng([seed, 3]).permutation(np.arange(n) % folds)


def scored(
    heads: Heads, moved: Float[np.ndarray, "m ... d"], rows: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "m ..."]:
    """Changes of the score that changes of the embedding make.

    Args:
        heads: of the patients.
        moved: embedding of an edited image less that of the original, for m of the patients.
        rows: which patients.
    """
    out = np.empty(moved.shape[:-1])
    for each, head in enumerate(heads.fitted):
        held = heads.fold[rows] == each
        out[held] = moved[held] @ (head.coef[:, 0] / head.x_std)
    return out


def influence(
    heads: Heads, moved: Float[np.ndarray, "m d"], rows: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " n"]:
    """Influence of each patient on the mean change of the score.

    In two ways. As one of the m who are edited: what his own change differs from the mean. As one
    of those to whom heads are fitted: his weight in the score that the edit moves, times the
    residual of his label in the fit without him (as in `lens.probes.probe.FittedProbe.influence`),
    which is what the mean would be less without him. A head that reads nothing moves with the draw
    of its patients, and this is how much.

    Args:
        heads, moved, rows: as in `scored`, finite.

    Returns:
        (n,), which sum to zero.
    """
    total = np.zeros(len(heads.fold))
    own = scored(heads, moved, rows)
    total[rows] += (own - own.mean()) / len(rows)
    for each, head in enumerate(heads.fitted):
        held = heads.fold[rows] == each
        pull = head.v.T @ (moved[held].sum(axis=0) / len(rows) / head.x_std)
        u, s = head.solution.spectrum
        weight = u @ (pull * s / (np.square(s) + head.alpha[0]))
        part = weight * head.left_out()[:, 0]
        total[heads.fold != each] += part - part.mean()
    return total
