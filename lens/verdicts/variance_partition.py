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
from scipy import stats

from lens.intervals import LEVEL
from lens.probes.kernel_ridge import kernel_ridge, narrow_ridge
from lens.verdicts.folds import Fold
from lens.verdicts.sign_flips import patient_sums

MAX_GROUPS = 9
"""With more, the subsets (2 to the number of groups) are too many to fit each."""


HELD_VARIANCE = 0.99
"""Share of an embedding's variance whose principal components are predicted; the rest counts as
unexplained."""


class SubsetGains(NamedTuple):
    """Squared errors that every subset of groups saves on held-out rows.

    Attributes:
        gain: error of the fitted patients' mean less that of the subset; subset ``s`` holds the
            groups whose bits are set in ``s``, and the gain of none is zero.
        baseline: error of the fitted patients' mean.
    """

    gain: Float[np.ndarray, "s n t"]
    baseline: Float[np.ndarray, "n t"]


class Part(NamedTuple):
    """A share of R2 with its interval over the held-out patients (the fits are held fixed)."""

    value: Float[np.ndarray, "g t"]
    low: Float[np.ndarray, "g t"]
    high: Float[np.ndarray, "g t"]


def partition_by_embedding(
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
        folds: from `lens.verdicts.folds`.
        on_fit: told after each fold.

    Returns:
        A row per feature: ``r2_both, unique_r2_pre, unique_r2_ft, shapley_r2_pre, shapley_r2_ft``
        and ``_low`` and ``_high`` of the unique and Shapley parts.
    """
    (subsets,) = fit_subsets([x_pre, x_ft], {"r": r}, folds, whole=False, on_fit=on_fit).values()
    table = pd.DataFrame({"r2_both": total(subsets, groups).value[0]})
    for name, share in (("unique", unique(subsets, groups)), ("shapley", shapley(subsets, groups))):
        for side, stage in enumerate(("pre", "ft")):
            for suffix, values in zip(("", "_low", "_high"), share, strict=True):
                table[f"{name}_r2_{stage}{suffix}"] = values[side]
    return table


def fit_subsets(
    blocks: Sequence[Float[np.ndarray, "n _"]],
    targets: Mapping[str, Float[np.ndarray, "n _"]],
    folds: Sequence[Fold],
    *,
    whole: bool,
    on_fit: Callable[[], object] | None = None,
) -> dict[str, SubsetGains]:
    """Fits every subset of the blocks in every fold.

    A block's columns are standardised and divided by the root of their number, so that blocks of
    any width weigh the same. Each target has a penalty of its own, by generalised cross-validation.

    Args:
        blocks: a matrix of predictors per group, finite, at most `MAX_GROUPS`.
        targets: name -> values to predict, finite.
        folds: from `lens.verdicts.folds`.
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
    subset_gains = {}
    for name, values in targets.items():
        width = 1 if whole else values.shape[1]
        subset_gains[name] = SubsetGains(
            np.zeros((count, len(values), width)), np.zeros((len(values), width))
        )
    for fold in folds:
        designs = [_design(block, fold.fitted) for block in blocks]
        kernels: dict[int, np.ndarray] = {}
        views = {name: _view(values, fold.fitted, whole) for name, values in targets.items()}
        observed = np.concatenate([view.scores for view in views.values()], axis=1)
        ends = np.cumsum([0, *(view.scores.shape[1] for view in views.values())])
        for subsets, view in zip(subset_gains.values(), views.values(), strict=True):
            subsets.baseline[fold.test] += weight * view.baseline[fold.test]
        for subset in range(1, count):
            chosen = [bit for bit in range(len(blocks)) if subset >> bit & 1]
            test = observed[fold.test]
            if sum(designs[bit].shape[1] for bit in chosen) < fold.fitted.sum():
                x = np.concatenate([designs[bit] for bit in chosen], axis=1)
                predicted = x[fold.test] @ narrow_ridge(x[fold.fitted], observed[fold.fitted])
            else:
                for bit in set(chosen) - set(kernels):
                    kernels[bit] = designs[bit] @ designs[bit].T
                kernel = np.sum([kernels[bit] for bit in chosen], axis=0)
                fit = kernel_ridge(kernel[np.ix_(fold.fitted, fold.fitted)], observed[fold.fitted])
                predicted = kernel[np.ix_(fold.test, fold.fitted)] @ fit.dual
            error = test - predicted
            saved = np.square(test) - np.square(error)
            for number, subsets in enumerate(subset_gains.values()):
                part = saved[:, ends[number] : ends[number + 1]]
                part = part.sum(axis=1, keepdims=True) if whole else part
                subsets.gain[subset, fold.test] += weight * part
        if on_fit:
            on_fit()
    return subset_gains


def shapley(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """Shares of R2 that add up to that of all groups together."""
    return _share(shapley_values(subsets.gain), subsets.baseline, groups)


def unique(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """What is missing from R2 without each group."""
    everyone = len(subsets.gain) - 1
    bits = 1 << np.arange(_group_count(subsets.gain))
    return _share(subsets.gain[everyone] - subsets.gain[everyone - bits], subsets.baseline, groups)


def alone(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """R2 of each group by itself."""
    return _share(
        subsets.gain[1 << np.arange(_group_count(subsets.gain))], subsets.baseline, groups
    )


def total(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """R2 of all groups together (one row)."""
    return _share(subsets.gain[-1:], subsets.baseline, groups)


def change(share: Callable[[np.ndarray], np.ndarray], before: SubsetGains, after: SubsetGains,
           groups: np.ndarray) -> Part:  # fmt: skip
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
    held_out = np.cumsum(np.square(s)) / np.square(s).sum()
    components = v[: int(np.searchsorted(held_out, HELD_VARIANCE)) + 1]
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


def _share(gain: np.ndarray, baseline: np.ndarray, groups: np.ndarray) -> Part:
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


def _interval(value: np.ndarray, influence: np.ndarray) -> Part:
    patients = influence.shape[1]
    error = np.sqrt(np.square(influence).sum(axis=1))
    half = stats.t.ppf((1 + LEVEL) / 2, max(patients - 1, 1)) * error
    return Part(value, value - half, value + half)
