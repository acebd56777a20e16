"""Who explains what: R2 shared out among groups of predictors, by exact subsets.

Every subset of the groups gets a ridge fit of its own (a kernel per group, a subset's kernel is
their sum), scored on held-out patients. From these R2 follow, per group:

- **unique**: what is missing without it, all others present;
- **alone**: what it explains with no other present;
- **Shapley share**: its contribution averaged over all orders in which groups can come; the shares
  add up to the R2 of all groups together. Two groups that tell the same get half of it each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import linalg, stats

from lens.folds import Fold
from lens.significance import patient_sums
from lens.uncertainty import LEVEL

MAX_GROUPS = 9
"""With more, the subsets (2 to the number of groups) are too many to fit each."""

ALPHAS = tuple(np.geomspace(1e-6, 1e3, 28).tolist())
"""Penalties, in units of the number of patients; a group's kernel has that for its trace."""

HELD_VARIANCE = 0.99
"""Share of an embedding's variance whose principal components are predicted; the rest counts as
unexplained."""


class Game(NamedTuple):
    """Squared errors that every subset of groups saves on held-out rows.

    Attributes:
        gain: error of the fitted patients' mean less that of the subset; subset ``s`` holds the
            groups whose bits are set in ``s``, and the gain of none is zero.
        baseline: error of the fitted patients' mean.
    """

    gain: Float[np.ndarray, "s n t"]
    baseline: Float[np.ndarray, "n t"]


class Share(NamedTuple):
    """A share of R2 with its interval over the held-out patients (the fits are held fixed)."""

    value: Float[np.ndarray, "g t"]
    low: Float[np.ndarray, "g t"]
    high: Float[np.ndarray, "g t"]


class KernelRidge(NamedTuple):
    """A fit: ``k_new @ dual`` predicts centred targets; `alpha` is the penalty of each."""

    dual: Float[np.ndarray, "n t"]
    alpha: Float[np.ndarray, " t"]


def decoding_shares(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Float[np.ndarray, "n e"],
    r: Float[np.ndarray, "n k"],
    groups: np.ndarray,
    folds: Sequence[Fold],
    *,
    on_fit: Callable[[], object] | None = None,
) -> pd.DataFrame:
    """What each of the two embeddings tells of every feature that the other does not.

    Unlike the change of R2, which cancels what is gained against what is lost, the two unique parts
    stand beside each other.

    Args:
        x_pre, x_ft: embeddings before and after fine-tuning.
        r: radiomic features, finite.
        groups: patient of each row.
        folds: from `lens.folds`.
        on_fit: told after each fold.

    Returns:
        A row per feature: ``r2_both, unique_r2_pre, unique_r2_ft, shapley_r2_pre, shapley_r2_ft``
        and ``_low`` and ``_high`` of the unique and Shapley parts.
    """
    (game,) = play([x_pre, x_ft], {"r": r}, folds, whole=False, on_fit=on_fit).values()
    table = pd.DataFrame({"r2_both": total(game, groups).value[0]})
    for name, share in (("unique", unique(game, groups)), ("shapley", shapley(game, groups))):
        for side, stage in enumerate(("pre", "ft")):
            for suffix, values in zip(("", "_low", "_high"), share, strict=True):
                table[f"{name}_r2_{stage}{suffix}"] = values[side]
    return table


def play(
    blocks: Sequence[Float[np.ndarray, "n _"]],
    targets: Mapping[str, Float[np.ndarray, "n _"]],
    folds: Sequence[Fold],
    *,
    whole: bool,
    on_fit: Callable[[], object] | None = None,
) -> dict[str, Game]:
    """Fits every subset of the blocks in every fold.

    A block's columns are standardised and divided by the root of their number, so that blocks of
    any width weigh the same. Each target has a penalty of its own, by generalised cross-validation.

    Args:
        blocks: a matrix of predictors per group, finite, at most `MAX_GROUPS`.
        targets: name -> values to predict, finite.
        folds: from `lens.folds`.
        whole: a target's columns are one thing, an embedding: it is predicted by principal
            component (of the fitted rows, `HELD_VARIANCE`), and the errors are added up (t = 1), so
            that the result does not change under rotation, nor under one scale factor. Otherwise
            every column stands for itself.
        on_fit: told after each fold.

    Raises:
        ValueError: too many blocks.
    """
    if not 1 <= len(blocks) <= MAX_GROUPS:
        raise ValueError(f"{len(blocks)} groups; between 1 and {MAX_GROUPS} can be shared out")
    count = 2 ** len(blocks)
    weight = 1.0 / len({fold.repeat for fold in folds})
    games = {}
    for name, values in targets.items():
        width = 1 if whole else values.shape[1]
        games[name] = Game(np.zeros((count, len(values), width)), np.zeros((len(values), width)))
    for fold in folds:
        designs = [_design(block, fold.fitted) for block in blocks]
        kernels: dict[int, np.ndarray] = {}
        views = {name: _view(values, fold.fitted, whole) for name, values in targets.items()}
        observed = np.concatenate([view.scores for view in views.values()], axis=1)
        ends = np.cumsum([0, *(view.scores.shape[1] for view in views.values())])
        for game, view in zip(games.values(), views.values(), strict=True):
            game.baseline[fold.test] += weight * view.baseline[fold.test]
        for subset in range(1, count):
            chosen = [bit for bit in range(len(blocks)) if subset >> bit & 1]
            test = observed[fold.test]
            if sum(designs[bit].shape[1] for bit in chosen) < fold.fitted.sum():
                x = np.concatenate([designs[bit] for bit in chosen], axis=1)
                told = x[fold.test] @ narrow_ridge(x[fold.fitted], observed[fold.fitted])
            else:
                for bit in set(chosen) - set(kernels):
                    kernels[bit] = designs[bit] @ designs[bit].T
                kernel = np.sum([kernels[bit] for bit in chosen], axis=0)
                fit = kernel_ridge(kernel[np.ix_(fold.fitted, fold.fitted)], observed[fold.fitted])
                told = kernel[np.ix_(fold.test, fold.fitted)] @ fit.dual
            error = test - told
            saved = np.square(test) - np.square(error)
            for number, game in enumerate(games.values()):
                part = saved[:, ends[number] : ends[number + 1]]
                part = part.sum(axis=1, keepdims=True) if whole else part
                game.gain[subset, fold.test] += weight * part
        if on_fit:
            on_fit()
    return games


def kernel_ridge(
    kernel: Float[np.ndarray, "n n"],
    y: Float[np.ndarray, "n t"],
    alphas: Sequence[float] = ALPHAS,
) -> KernelRidge:
    """Kernel ridge regression of centred targets, each with the penalty that GCV prefers.

    Equals ``sklearn.kernel_ridge.KernelRidge`` and ``himalaya.kernel_ridge.KernelRidge`` at the
    same penalties.

    Args:
        kernel: of centred predictors.
        y: centred targets.
        alphas: in units of n; ties go to the larger.
    """
    values, vectors = linalg.eigh(kernel, overwrite_a=True, check_finite=False)
    values = np.maximum(values, 0.0)
    scores = vectors.T @ y
    alpha = _penalties(values, np.square(scores), np.zeros(y.shape[1]), len(y), alphas)
    return KernelRidge(vectors @ (scores / (values[:, None] + alpha)), alpha)


def narrow_ridge(
    x: Float[np.ndarray, "n c"], y: Float[np.ndarray, "n t"], alphas: Sequence[float] = ALPHAS
) -> Float[np.ndarray, "c t"]:
    """Weights of the same fit as `kernel_ridge` of ``x @ x.T``, for fewer columns than rows.

    Args:
        x: centred predictors.
        y, alphas: as there.
    """
    values, vectors = linalg.eigh(x.T @ x, overwrite_a=True, check_finite=False)
    kept = values > 1e-12 * max(values[-1], np.finfo(np.float64).tiny)
    values, vectors = values[kept], vectors[:, kept]
    scores = vectors.T @ (x.T @ y) / np.sqrt(values)[:, None]
    power = np.square(scores)
    beyond = np.maximum(np.square(y).sum(axis=0) - power.sum(axis=0), 0.0)
    alpha = _penalties(values, power, beyond, len(y), alphas)
    return vectors @ (np.sqrt(values)[:, None] * scores / (values[:, None] + alpha))


def _penalties(
    values: Float[np.ndarray, " r"],
    power: Float[np.ndarray, "r t"],
    beyond: Float[np.ndarray, " t"],
    n: int,
    alphas: Sequence[float],
) -> Float[np.ndarray, " t"]:
    """The penalty of each target by generalised cross-validation.

    Args:
        values: eigenvalues of the kernel; the other ``n - r`` are zero.
        power: squared scores of the targets along their directions.
        beyond: squared length of the targets in no direction.
        n: rows.
        alphas: in units of n.
    """
    grid = np.sort(np.asarray(alphas))[::-1]
    left = n * grid[:, None] / (values + n * grid[:, None])
    # The constant takes a degree of freedom; its direction is one of those without a value.
    free = left.sum(axis=1, keepdims=True) + (n - len(values)) - 1.0
    missed = np.square(left) @ power + beyond
    return n * grid[(missed / np.square(np.maximum(free, 1e-9 * n))).argmin(axis=0)]


def shapley(game: Game, groups: np.ndarray) -> Share:
    """Shares of R2 that add up to that of all groups together."""
    return _share(shapley_values(game.gain), game.baseline, groups)


def unique(game: Game, groups: np.ndarray) -> Share:
    """What is missing from R2 without each group."""
    everyone = len(game.gain) - 1
    bits = 1 << np.arange(_group_count(game.gain))
    return _share(game.gain[everyone] - game.gain[everyone - bits], game.baseline, groups)


def alone(game: Game, groups: np.ndarray) -> Share:
    """R2 of each group by itself."""
    return _share(game.gain[1 << np.arange(_group_count(game.gain))], game.baseline, groups)


def total(game: Game, groups: np.ndarray) -> Share:
    """R2 of all groups together (one row)."""
    return _share(game.gain[-1:], game.baseline, groups)


def change(share: Callable[[np.ndarray], np.ndarray], before: Game, after: Game,
           groups: np.ndarray) -> Share:  # fmt: skip
    """A share after less the same before, of the same patients: a paired interval.

    Args:
        share: from a game's gains to those of the shares, such as `shapley_values`.
        before, after: games with the same groups and rows.
        groups: patient of each row.
    """
    parts = [_influence(share(g.gain), g.baseline, groups) for g in (before, after)]
    return _interval(parts[1][0] - parts[0][0], parts[1][1] - parts[0][1])


def shapley_values(worth: Float[np.ndarray, "s ..."]) -> Float[np.ndarray, "g ..."]:
    """Shapley values from the worth of every subset, by its bits; that of none is zero."""
    count = _group_count(worth)
    subsets = np.arange(len(worth))
    sizes = np.array([int(subset).bit_count() for subset in subsets])
    found = []
    for group in range(count):
        without = subsets[(subsets >> group) & 1 == 0]
        weight = np.array([1.0 / (count * comb(count - 1, size)) for size in sizes[without]])
        found.append(np.tensordot(weight, worth[without | 1 << group] - worth[without], 1))
    return np.stack(found)


class _View(NamedTuple):
    """Centred targets as they are predicted, and the error of the mean per row and output."""

    scores: np.ndarray
    baseline: np.ndarray


def _view(values: np.ndarray, fitted: Bool[np.ndarray, " n"], whole: bool) -> _View:
    values = values.astype(np.float64)
    centred = values - values[fitted].mean(axis=0)
    if not whole:
        return _View(centred, np.square(centred))
    _, s, v = np.linalg.svd(centred[fitted], full_matrices=False)
    held = np.cumsum(np.square(s)) / np.square(s).sum()
    components = v[: int(np.searchsorted(held, HELD_VARIANCE)) + 1]
    return _View(centred @ components.T, np.square(centred).sum(axis=1, keepdims=True))


def _design(block: np.ndarray, fitted: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "n c"]:
    """Standardised columns over the root of their number."""
    block = block.astype(np.float64)
    mean, deviation = block[fitted].mean(axis=0), block[fitted].std(axis=0)
    # A column that is constant here says nothing.
    flat = deviation <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
    standard = np.where(flat, 0.0, (block - mean) / np.where(flat, 1.0, deviation))
    return standard / np.sqrt(block.shape[1])


def _group_count(worth: np.ndarray) -> int:
    return len(worth).bit_length() - 1


def _share(gain: np.ndarray, baseline: np.ndarray, groups: np.ndarray) -> Share:
    return _interval(*_influence(gain, baseline, groups))


def _influence(
    gain: Float[np.ndarray, "g n t"], baseline: Float[np.ndarray, "n t"], groups: np.ndarray
) -> tuple[Float[np.ndarray, "g t"], Float[np.ndarray, "g p t"]]:
    """A ratio of sums, and what each held-out patient adds to it."""
    whole = baseline.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(whole > 0, gain.sum(axis=1) / whole, np.nan)
        rows = (gain - value[:, None] * baseline) / whole
    return value, np.stack([patient_sums(part, groups) for part in rows])


def _interval(value: np.ndarray, influence: np.ndarray) -> Share:
    patients = influence.shape[1]
    error = np.sqrt(np.square(influence).sum(axis=1))
    half = stats.t.ppf((1 + LEVEL) / 2, max(patients - 1, 1)) * error
    return Share(value, value - half, value + half)
