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

    def among(self, rows: Bool[np.ndarray, " n"]) -> Fold:
        """The fold of these rows alone."""
        return Fold(self.train[rows], self.val[rows], self.test[rows], self.repeat)


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


def leave_site_out(groups: np.ndarray, sites: np.ndarray, seed: int) -> tuple[Fold, ...]:
    """A fold per site, in sorted order, which holds out all of its patients.

    Args:
        groups: patient of each row (n,).
        sites: site of each row (n,).
        seed: of the draw of `val` among the fitted patients.

    Raises:
        ValueError: fewer than two sites, a patient at two sites, or fewer than three patients
            outside of a site.
    """
    patients, first, patient = np.unique(groups, return_index=True, return_inverse=True)
    at = sites[first]
    if (at[patient] != sites).any():
        name = groups[np.flatnonzero(at[patient] != sites)[0]]
        raise ValueError(f"patient {name} is at two sites; a patient belongs to one")
    names = np.unique(at)
    if len(names) < 2:
        raise ValueError(f"all patients are at one site, {names[0]}; at least two are needed")
    rng = np.random.default_rng(seed)
    made = []
    for name in names:
        fitted = np.flatnonzero(at != name)
        if len(fitted) < 3:
            raise ValueError(f"{len(fitted)} patients are too few outside of site {name}")
        val = np.zeros(len(patients), bool)
        val[rng.permutation(fitted)[: max(1, round(INNER_SHARE * len(fitted)))]] = True
        test = at == name
        made.append(Fold((~test & ~val)[patient], val[patient], test[patient], 0))
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
