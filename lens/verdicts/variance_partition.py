"""Variance partition: held-out R2 divided among groups of predictors, over all subsets of groups.

Every subset S of the groups gets a ridge fit of its own (a kernel per group; a subset's kernel is
their sum), scored on held-out patients: R2(S). From these follow, for a group g among all groups G:

- **unique**: ``R2(G) - R2(G without g)``, what is missing without it;
- **alone**: ``R2({g})``, what it explains with no other present;
- **Shapley value**: the mean of ``R2(S with g) - R2(S)`` over all orders in which the groups can
  enter (Shapley 1953; for R2 Lindeman, Merenda and Gold 1980). The values add up to R2(G); two
  groups with the same information get half of it each.
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

COMPONENT_VARIANCE = 0.99
"""Share of an embedding's variance in the principal components that are predicted; the rest counts
as unexplained."""


class SubsetGains(NamedTuple):
    """Squared error that every subset of groups saves on held-out rows, averaged over repeats.

    Attributes:
        gain: squared error of the fitted patients' mean less that of the subset's prediction; the
            subset with number ``s`` consists of the groups whose bits are set in ``s``, and the
            gain of the empty one is zero.
        baseline: squared error of the fitted patients' mean.
    """

    gain: Float[np.ndarray, "s n t"]
    baseline: Float[np.ndarray, "n t"]


class Part(NamedTuple):
    """A part of R2 per group and target, with its interval over the held-out patients.

    The intervals take the fits as fixed.
    """

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
    """Unique R2 of each of the two embeddings for every feature, given the other.

    Unlike the change of R2, which cancels what is gained against what is lost, this keeps the two
    apart.

    Args:
        x_pre, x_ft: embeddings before and after fine-tuning.
        r: radiomic features, finite.
        groups: patient of each row.
        folds: from `lens.verdicts.folds`.
        on_fit: called after each fold.

    Returns:
        A row per feature: ``r2_both, unique_r2_pre, unique_r2_ft, shapley_r2_pre, shapley_r2_ft``
        and ``_low`` and ``_high`` of the unique and Shapley parts.
    """
    (subsets,) = fit_subsets([x_pre, x_ft], {"r": r}, folds, whole=False, on_fit=on_fit).values()
    table = pd.DataFrame({"r2_both": total(subsets, groups).value[0]})
    for name, part in (("unique", unique(subsets, groups)), ("shapley", shapley(subsets, groups))):
        for side, stage in enumerate(("pre", "ft")):
            for suffix, values in zip(("", "_low", "_high"), part, strict=True):
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
    """Squared errors saved by every subset of the blocks, from a fit of each in every fold.

    A block's columns are standardised and divided by the root of their number, so that blocks of
    any width weigh the same. Each target has a penalty of its own, by generalised cross-validation.

    Args:
        blocks: a matrix of predictors per group, finite, at most `MAX_GROUPS`.
        targets: name -> values to predict, finite.
        folds: from `lens.verdicts.folds`.
        whole: the columns of a target are one thing, an embedding: its principal components (of the
            fitted rows, `COMPONENT_VARIANCE`) are predicted and their errors added up (t = 1), so
            that the result is invariant to rotation and to one scale factor. Otherwise every column
            is a target by itself.
        on_fit: called after each fold.

    Raises:
        ValueError: too many blocks.
    """
    if not 1 <= len(blocks) <= MAX_GROUPS:
        raise ValueError(f"{len(blocks)} groups of predictors; there can be 1 to {MAX_GROUPS}")
    weight = 1.0 / len({fold.repeat for fold in folds})
    found = {}
    for name, values in targets.items():
        width = 1 if whole else values.shape[1]
        gain = np.zeros((2 ** len(blocks), len(values), width))
        found[name] = SubsetGains(gain, np.zeros(gain.shape[1:]))
    for fold in folds:
        _add_fold(found, _Predictors(blocks, fold), targets, fold, weight, whole)
        if on_fit:
            on_fit()
    return found


def shapley(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """Shapley value of each group; they add up to the R2 of all groups together."""
    return _part(shapley_values(subsets.gain), subsets.baseline, groups)


def unique(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """R2 of all groups together less that without each group."""
    everything = len(subsets.gain) - 1
    without = everything - (1 << np.arange(_group_count(subsets.gain)))
    return _part(subsets.gain[everything] - subsets.gain[without], subsets.baseline, groups)


def alone(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """R2 of each group by itself."""
    single = 1 << np.arange(_group_count(subsets.gain))
    return _part(subsets.gain[single], subsets.baseline, groups)


def total(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """R2 of all groups together (one row)."""
    return _part(subsets.gain[-1:], subsets.baseline, groups)


def change(
    part: Callable[[np.ndarray], np.ndarray],
    before: SubsetGains,
    after: SubsetGains,
    groups: np.ndarray,
) -> Part:
    """A part of R2 after less the same before, of the same patients: a paired interval.

    Args:
        part: from the gains of all subsets to those of the part, such as `shapley_values`.
        before, after: gains with the same groups and rows.
        groups: patient of each row.
    """
    parts = [_influence(part(each.gain), each.baseline, groups) for each in (before, after)]
    return _interval(parts[1][0] - parts[0][0], parts[1][1] - parts[0][1])


def shapley_values(gain: Float[np.ndarray, "s ..."]) -> Float[np.ndarray, "g ..."]:
    """Shapley value of each group from the gain of every subset, numbered by its bits.

    ``sum over S without g of (gain(S with g) - gain(S)) / (G C(G - 1, |S|))`` for G groups.
    """
    count = _group_count(gain)
    subsets = np.arange(len(gain))
    sizes = np.array([int(subset).bit_count() for subset in subsets])
    values = []
    for group in range(count):
        without = subsets[(subsets >> group) & 1 == 0]
        weight = np.array([1.0 / (count * comb(count - 1, size)) for size in sizes[without]])
        values.append(np.tensordot(weight, gain[without | 1 << group] - gain[without], 1))
    return np.stack(values)


def _add_fold(
    found: Mapping[str, SubsetGains],
    predictors: _Predictors,
    targets: Mapping[str, Float[np.ndarray, "n _"]],
    fold: Fold,
    weight: float,
    whole: bool,
) -> None:
    """Adds one fold's errors; all targets share the fit of a subset."""
    centred = [_centred(values, fold.fitted, whole) for values in targets.values()]
    observed = np.concatenate([target.scores for target in centred], axis=1)
    ends = np.cumsum([0, *(target.scores.shape[1] for target in centred)])
    for gains, target in zip(found.values(), centred, strict=True):
        gains.baseline[fold.test] += weight * target.baseline[fold.test]
    test = observed[fold.test]
    for subset in range(1, 2**predictors.count):
        error = test - predictors.predict(subset, observed[fold.fitted])
        saved = np.square(test) - np.square(error)
        for number, gains in enumerate(found.values()):
            part = saved[:, ends[number] : ends[number + 1]]
            part = part.sum(axis=1, keepdims=True) if whole else part
            gains.gain[subset, fold.test] += weight * part


class _Predictors:
    """Standardised blocks of one fold, and predictions from any subset of them."""

    def __init__(self, blocks: Sequence[Float[np.ndarray, "n _"]], fold: Fold) -> None:
        self.count = len(blocks)
        self._fitted, self._test = fold.fitted, fold.test
        self._designs = [_design(block, fold.fitted) for block in blocks]
        self._kernels: dict[int, np.ndarray] = {}

    def predict(self, subset: int, y: Float[np.ndarray, "m t"]) -> Float[np.ndarray, "p t"]:
        """Predicted centred targets of the held-out rows, from those of the fitted rows."""
        chosen = [block for block in range(self.count) if subset >> block & 1]
        if sum(self._designs[block].shape[1] for block in chosen) < len(y):
            x = np.concatenate([self._designs[block] for block in chosen], axis=1)
            return x[self._test] @ narrow_ridge(x[self._fitted], y)
        kernel = np.sum([self._kernel(block) for block in chosen], axis=0)
        fit = kernel_ridge(kernel[np.ix_(self._fitted, self._fitted)], y)
        return kernel[np.ix_(self._test, self._fitted)] @ fit.dual

    def _kernel(self, block: int) -> Float[np.ndarray, "n n"]:
        """Made when first asked for: narrow blocks need none."""
        if block not in self._kernels:
            self._kernels[block] = self._designs[block] @ self._designs[block].T
        return self._kernels[block]


class _Centred(NamedTuple):
    """A centred target: the columns that are predicted, and the squared error of the mean."""

    scores: np.ndarray
    baseline: np.ndarray


def _centred(values: np.ndarray, fitted: Bool[np.ndarray, " n"], whole: bool) -> _Centred:
    values = values.astype(np.float64)
    centred = values - values[fitted].mean(axis=0)
    if not whole:
        return _Centred(centred, np.square(centred))
    _, s, v = np.linalg.svd(centred[fitted], full_matrices=False)
    explained = np.cumsum(np.square(s)) / np.square(s).sum()
    components = v[: int(np.searchsorted(explained, COMPONENT_VARIANCE)) + 1]
    return _Centred(centred @ components.T, np.square(centred).sum(axis=1, keepdims=True))


def _design(block: np.ndarray, fitted: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "n c"]:
    """Standardised columns over the root of their number."""
    block = block.astype(np.float64)
    mean, deviation = block[fitted].mean(axis=0), block[fitted].std(axis=0)
    # A column that is constant here predicts nothing.
    flat = deviation <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
    standard = np.where(flat, 0.0, (block - mean) / np.where(flat, 1.0, deviation))
    return standard / np.sqrt(block.shape[1])


def _group_count(gain: np.ndarray) -> int:
    return len(gain).bit_length() - 1


def _part(gain: np.ndarray, baseline: np.ndarray, groups: np.ndarray) -> Part:
    return _interval(*_influence(gain, baseline, groups))


def _influence(
    gain: Float[np.ndarray, "g n t"], baseline: Float[np.ndarray, "n t"], groups: np.ndarray
) -> tuple[Float[np.ndarray, "g t"], Float[np.ndarray, "g p t"]]:
    """``sum gain / sum baseline``, and the influence of each held-out patient on it."""
    base = baseline.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(base > 0, gain.sum(axis=1) / base, np.nan)
        rows = (gain - value[:, None] * baseline) / base
    return value, np.stack([patient_sums(part, groups) for part in rows])


def _interval(value: np.ndarray, influence: np.ndarray) -> Part:
    patients = influence.shape[1]
    error = np.sqrt(np.square(influence).sum(axis=1))
    half = stats.t.ppf((1 + LEVEL) / 2, max(patients - 1, 1)) * error
    return Part(value, value - half, value + half)
