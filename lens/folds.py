"""Repeated K-fold by patient: every patient is held out once per repeat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

INNER_SHARE = 0.125
"""Share of a fold's fitted patients that chooses the penalty: 1 of 8, as in a 7:1:2 split."""


class Fold(NamedTuple):
    """Masks over the rows of a study; the three do not overlap.

    Attributes:
        train: fits scalings and the shared MLP.
        val: chooses the MLP's penalties, then joins `train` for everything in closed form.
        test: held out, scored.
        repeat: number of the repeat that the fold belongs to.
    """

    train: Bool[np.ndarray, " n"]
    val: Bool[np.ndarray, " n"]
    test: Bool[np.ndarray, " n"]
    repeat: int

    @property
    def fitted(self) -> Bool[np.ndarray, " n"]:
        """Rows that are not held out."""
        return self.train | self.val


def make_folds(groups: np.ndarray, folds: int, repeats: int, seed: int) -> tuple[Fold, ...]:
    """Repeated K-fold in which all rows of a patient are held out together.

    Patients are dealt out at random to `folds` parts whose patient counts differ by at most one,
    anew in each repeat. The draw depends on the seed and the set of patients, not on the order of
    the rows.

    Args:
        groups: patient of each row (n,).
        folds: parts per repeat, at least 2.
        repeats: of the whole K-fold.
        seed: of the draws.

    Raises:
        ValueError: fewer than three patients would be fitted in a fold, or counts out of range.
    """
    patients, patient = np.unique(groups, return_inverse=True)
    if folds < 2 or repeats < 1:
        raise ValueError(f"{folds} folds and {repeats} repeats; at least 2 and 1 are needed")
    if len(patients) < max(folds, 3 * folds // (folds - 1) + 1):
        raise ValueError(f"{len(patients)} patients are too few for {folds} folds")
    rng = np.random.default_rng(seed)
    made = []
    for repeat in range(repeats):
        part = rng.permutation(len(patients)) % folds
        for index in range(folds):
            fitted = np.flatnonzero(part != index)
            count = max(1, round(INNER_SHARE * len(fitted)))
            val = np.zeros(len(patients), bool)
            val[rng.permutation(fitted)[:count]] = True
            test = part == index
            made.append(Fold((~test & ~val)[patient], val[patient], test[patient], repeat))
    return tuple(made)


def single_fold(split: np.ndarray) -> tuple[Fold, ...]:
    """The study's own split as one fold: train and val fitted, test held out.

    Args:
        split: ``train``, ``val`` or ``test`` per row (n,).
    """
    return (Fold(split == "train", split == "val", split == "test", 0),)


def times_held_out(folds: tuple[Fold, ...]) -> Int[np.ndarray, " n"]:
    """How many folds hold out each row."""
    return np.sum([fold.test for fold in folds], axis=0)


def by_repeat(folds: tuple[Fold, ...]) -> Iterator[tuple[Fold, ...]]:
    """The folds of each repeat."""
    for repeat in sorted({fold.repeat for fold in folds}):
        yield tuple(fold for fold in folds if fold.repeat == repeat)
