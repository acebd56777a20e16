"""The share of a change that the features tell, of each group of them, and of another seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from lens.probes.spectral import solve
from lens.rest.changes import Change
from lens.rest.fits import Fit, Tally, fit_kernel, fit_rows
from lens.rest.patients import FoldMoves, fold_moves
from lens.verdicts.folds import Fold
from lens.verdicts.variance_partition import COMPONENT_VARIANCE

ALL, RAW, SEED, BOTH = "all", "raw", "another seed", "all and another seed"
"""Predictions: by all features; by all as they are; by the change of another seed; by both."""

Groupings = Mapping[str, Mapping[str, np.ndarray]]
"""Grouping -> group -> columns."""


def alone(grouping: str, group: str) -> str:
    """The name of the prediction by a group."""
    return f"alone/{grouping}/{group}"


def without(grouping: str, group: str) -> str:
    """The name of the prediction by all but a group."""
    return f"without/{grouping}/{group}"


@dataclass
class Shares:
    """Errors of all predictions of a change, and of its null.

    Attributes:
        tally: a column per prediction.
        null: errors of predictions by features dealt out to other patients, a number per draw.
        base: squared length of the change, of the same rows.
        moves: of single patients, a fold each.
    """

    tally: Tally
    null: Float[np.ndarray, " b"]
    base: float = 0.0
    moves: list[FoldMoves] = field(default_factory=list)


def empty_shares(n: int, groupings: Groupings, seeds: int, draws: int) -> Shares:
    """Before the first fold.

    Args:
        n: rows.
        groupings: of the features.
        seeds: whether there are other seeds, and how many.
        draws: of the null.
    """
    names = [ALL, RAW]
    for grouping, members in groupings.items():
        for group in members:
            names += [alone(grouping, group), without(grouping, group)]
    names += [f"{name} {at}" for at in range(seeds) for name in (SEED, BOTH)]
    return Shares(Tally(n, names), np.zeros(draws))


def add_fold(
    found: Shares,
    change: Change,
    raw: Float[np.ndarray, "n k"] | None,
    groupings: Groupings,
    groups: np.ndarray,
    fold: Fold,
    rng: np.random.Generator,
    channels: Float[np.ndarray, "q d"] | None = None,
) -> None:
    """Fits and scores all predictions in a fold.

    Args:
        found: gets the errors.
        change: in the fold.
        raw: the features as they are; None where the change has them so already.
        groupings: of the features.
        groups: patient of each row.
        fold: whose fitted rows are fitted.
        rng: of the null.
        channels: from the target's axes to channels; with them single patients are looked at.
    """
    y, total, axes = _components(change.target, fold)
    whole = None
    for name, fit in _fits(change, raw, groupings, y, fold):
        found.tally.add(name, fit, y, total, groups, fold)
        if name == ALL:
            whole = fit
            if raw is None:
                found.tally.add(RAW, fit, y, total, groups, fold)
    assert whole is not None
    observed = y[fold.test] - whole.mean
    left = total[fold.test].sum() - np.square(observed).sum()
    found.base += float(total[fold.test].sum())
    order = [_dealt_out(groups[fold.fitted], rng) for _ in found.null]
    for at, rows in enumerate(order):
        found.null[at] += left + float(_null_error(whole, y, rows, fold, change.spent))
    if channels is not None:
        found.moves.append(fold_moves(whole, y, axes.T @ channels, groups, fold))


def _components(
    target: Float[np.ndarray, "n q"], fold: Fold
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, " n"], Float[np.ndarray, "q c"]]:
    """Leading components of a change, its squared length about the fitted rows' mean, the axes."""
    centred = target - target[fold.fitted].mean(axis=0)
    total = np.square(centred).sum(axis=1)
    fitted = centred[fold.fitted]
    wide = fitted.shape[1] > len(fitted)
    power, axes = np.linalg.eigh(fitted @ fitted.T if wide else fitted.T @ fitted)
    power, axes = np.maximum(power[::-1], 0.0), axes[:, ::-1]
    if not power.sum() > 0:
        return np.zeros((len(target), 1)), total, np.zeros((target.shape[1], 1))
    count = int(np.searchsorted(np.cumsum(power) / power.sum(), COMPONENT_VARIANCE)) + 1
    count = min(count, int((power > 1e-12 * power[0]).sum()))
    axes = axes[:, :count]
    if wide:
        axes = fitted.T @ axes / np.sqrt(power[:count])
    return centred @ axes, total, axes


def _fits(
    change: Change,
    raw: Float[np.ndarray, "n k"] | None,
    groupings: Groupings,
    y: Float[np.ndarray, "n c"],
    fold: Fold,
) -> Iterator[tuple[str, Fit]]:
    """A fit for each prediction.

    The features keep their unit, a standard deviation of the feature: of one that the embedding
    tells wholly next to nothing is left, and that is noise.
    """

    def fitted(kernel: np.ndarray) -> Fit:
        return fit_kernel(kernel, y, fold, change.spent)

    rows = _centred(change.features, fold)
    whole = rows @ rows.T
    yield ALL, fitted(whole)
    if raw is not None:
        plain = _centred(raw, fold)
        yield RAW, fitted(plain @ plain.T)
    for grouping, members in groupings.items():
        for group, columns in members.items():
            part = rows[:, columns]
            kernel = part @ part.T
            # The decomposition is that of the smaller side.
            narrow = len(columns) < fold.fitted.sum()
            own = fit_rows(part, y, fold, change.spent) if narrow else fitted(kernel)
            yield alone(grouping, group), own
            yield without(grouping, group), fitted(whole - kernel)
    size = np.trace(whole)
    for at, each in enumerate(change.again):
        other = _centred(each, fold)
        other = other @ other.T
        # Features and seed with the same weight, whatever their units are.
        other *= size / max(np.trace(other), np.finfo(float).tiny) if size > 0 else 1.0
        yield f"{SEED} {at}", fitted(other)
        yield f"{BOTH} {at}", fitted(whole + other)


def _centred(rows: np.ndarray, fold: Fold) -> np.ndarray:
    used = fold.fitted | fold.test
    return np.where(used[:, None], rows - rows[fold.fitted].mean(axis=0), 0.0)


def _dealt_out(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows in another order: patients change places with others who have as many rows."""
    patients, patient, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(patient, kind="stable")
    starts = np.cumsum(counts) - counts
    to = np.arange(len(patients))
    for count in np.unique(counts):
        alike = np.flatnonzero(counts == count)
        to[alike] = rng.permutation(alike)
    within = np.arange(len(groups)) - np.repeat(starts, counts)
    found = np.empty(len(groups), int)
    found[order] = order[np.repeat(starts[to], counts) + within]
    return found


def _null_error(whole: Fit, y: np.ndarray, rows: np.ndarray, fold: Fold, spent: float) -> float:
    """Squared held-out error where the fitted rows' features are other patients'."""
    solution = whole.solution
    dealt = Fit(solve(solution.spectrum, solution.y[rows], spent=spent), whole.held, whole.mean)
    return float(np.square(y[fold.test] - dealt.predict()).sum())
