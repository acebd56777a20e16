"""Variance partition: held-out R2 divided among groups of predictors, over all subsets of groups.

Every subset S of the groups gets a ridge fit of its own (a kernel per group; a subset's kernel is
their sum), scored on held-out patients: R2(S). From these follow, for a group g among all groups G:

- **unique**: ``R2(G) - R2(G without g)``, what is missing without it;
- **alone**: ``R2({g})``, what it explains with no other present;
- **Shapley value**: the mean of ``R2(S with g) - R2(S)`` over all orders in which the groups can
  enter (Shapley 1953; for R2 Lindeman, Merenda and Gold 1980). The values add up to R2(G); two
  groups with the same information get half of it each.

Intervals are over the patients, whom a part owes two things: their own errors while held out, and
what the fits that they took part in made of those of others. Every part is a sum of R2(S) with
fixed weights, and its influences are the same sum of those of R2(S), for which
`lens.verdicts.estimates` says how they are had and corrected. Intervals of unique R2 that hold the
fits fixed are too narrow: at 95% they cover less than 90% with 120 simulated patients. Penalties,
scalings and the principal components of an embedding are taken as given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from lens.allocator import give_back_memory
from lens.intervals import LEVEL
from lens.probes.kernel_ridge import ALPHAS
from lens.probes.spectral import Solution, Spectrum, decompose, decompose_kernel, solve
from lens.scratch import IN_MEMORY, Scratch, release
from lens.settings import Scores
from lens.verdicts.fold_values import target_values
from lens.verdicts.folds import Fold
from lens.verdicts.held_out import random_signs
from lens.verdicts.sign_flips import patient_sums

MAX_GROUPS = 9
"""With more, the subsets (2 to the number of groups) are too many to fit each."""

BLOCK_NUMBERS = 2**21
"""Rows times features that are partitioned at once. A number takes about 230 bytes: errors and
influences of four subsets and what they are made from, so that a block takes half a GB."""

_COLUMNS = 128
"""Features whose intervals are computed at once."""

COMPONENT_VARIANCE = 0.99
"""Share of an embedding's variance in the principal components that are predicted; the rest counts
as unexplained."""


class SubsetGains(NamedTuple):
    """Squared error that every subset of groups saves on held-out rows, averaged over repeats.

    The subset with number ``s`` consists of the groups whose bits are set in ``s``; of the empty
    one all entries are zero.

    Attributes:
        gain: squared error of the fitted patients' mean less that of the subset's prediction.
        fitted_influence: of each row on the sum of the subset's squared errors, by the fits that it
            took part in, as in `lens.verdicts.held_out.ProbeErrors`.
        flipped_influence: the same with random signs of the errors, as there.
        baseline: squared error of the fitted patients' mean, zero where a row is not scored.
    """

    gain: Float[np.ndarray, "s n t"]
    fitted_influence: Float[np.ndarray, "s n t"]
    flipped_influence: Float[np.ndarray, "s n t"]
    baseline: Float[np.ndarray, "n t"]

    def of_targets(self, columns: slice) -> SubsetGains:
        """Of some of the targets."""
        return SubsetGains(*(values[..., columns] for values in self))


class Part(NamedTuple):
    """A part of R2 per group and target, with its interval at `lens.intervals.LEVEL`."""

    value: Float[np.ndarray, "g t"]
    low: Float[np.ndarray, "g t"]
    high: Float[np.ndarray, "g t"]


Combine = Callable[[Float[np.ndarray, "s n t"]], Float[np.ndarray, "g n t"]]
"""From what every subset has to what each part has: a sum over subsets with fixed weights."""


def partition_by_embedding(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Float[np.ndarray, "n e"],
    r: Float[np.ndarray, "n k"],
    groups: np.ndarray,
    folds: Sequence[Fold],
    *,
    scores: Scores = "normal",
    on_fit: Callable[[], object] | None = None,
    scratch: Scratch = IN_MEMORY,
) -> pd.DataFrame:
    """Unique R2 of each of the two embeddings for every feature, given the other.

    Unlike the change of R2, which cancels what is gained against what is lost, this keeps the two
    apart.

    Args:
        x_pre, x_ft: embeddings before and after fine-tuning.
        r: radiomic features; NaN where missing, which is imputed by the median of the fitted rows
            and not scored.
        groups: patient of each row.
        folds: from `lens.verdicts.folds`.
        scores: whether normal scores of the features are predicted or their values.
        on_fit: called after each fold, of the first block of features.
        scratch: where decompositions live that serve several blocks of features.

    Returns:
        A row per feature: ``r2_both, unique_r2_pre, unique_r2_ft, shapley_r2_pre, shapley_r2_ft``
        and ``_low`` and ``_high`` of the unique and Shapley parts.
    """
    parts = np.array_split(np.arange(r.shape[1]), -(-r.size // BLOCK_NUMBERS) or 1)
    kept = scratch if len(parts) > 1 else None
    predictors, tables = [_Predictors([x_pre, x_ft], fold, kept) for fold in folds], []
    for columns in parts:
        tables += _tables_of_both(
            _fit_folds(
                predictors, {"r": r[:, columns]}, groups, folds,
                whole=False, scores=scores, on_fit=None if tables else on_fit,
            )["r"],
            groups,
        )  # fmt: skip
        if kept is not None:
            give_back_memory()
    return pd.concat(tables, ignore_index=True)


def _tables_of_both(subsets: SubsetGains, groups: np.ndarray) -> list[pd.DataFrame]:
    """The table of `partition_by_embedding` for a block of features, in parts."""
    starts = range(0, subsets.baseline.shape[1], _COLUMNS)
    return [_parts_of_both(subsets.of_targets(slice(i, i + _COLUMNS)), groups) for i in starts]


def _parts_of_both(subsets: SubsetGains, groups: np.ndarray) -> pd.DataFrame:
    """The table of `partition_by_embedding`."""
    table = pd.DataFrame({"r2_both": total(subsets, groups).value[0]})
    for name, part in (("unique", unique(subsets, groups)), ("shapley", shapley(subsets, groups))):
        for side, stage in enumerate(("pre", "ft")):
            for suffix, values in zip(("", "_low", "_high"), part, strict=True):
                table[f"{name}_r2_{stage}{suffix}"] = values[side]
    return table


def fit_subsets(
    blocks: Sequence[Float[np.ndarray, "n _"]],
    targets: Mapping[str, Float[np.ndarray, "n _"]],
    groups: np.ndarray,
    folds: Sequence[Fold],
    *,
    whole: bool,
    scores: Scores = "normal",
    on_fit: Callable[[], object] | None = None,
) -> dict[str, SubsetGains]:
    """Squared errors saved by every subset of the blocks, from a fit of each in every fold.

    A block's columns are standardised and divided by the root of their number, so that blocks of
    any width weigh the same. Each target has a penalty of its own, by generalised cross-validation.

    Args:
        blocks: a matrix of predictors per group, finite, at most `MAX_GROUPS`.
        targets: name -> values to predict; NaN where a column is a target by itself and missing.
        groups: patient of each row.
        folds: from `lens.verdicts.folds`.
        whole: the columns of a target are one thing, an embedding: its principal components (of the
            fitted rows, `COMPONENT_VARIANCE`) are predicted and their errors added up (t = 1), so
            that the result is invariant to rotation and to one scale factor. Otherwise every column
            is a target by itself.
        scores: whether normal scores of these are predicted or their values; an embedding is always
            predicted as it is.
        on_fit: called after each fold.

    Raises:
        ValueError: too many blocks.
    """
    if not 1 <= len(blocks) <= MAX_GROUPS:
        raise ValueError(f"{len(blocks)} groups of predictors; there can be 1 to {MAX_GROUPS}")
    predictors = [_Predictors(blocks, fold) for fold in folds]
    return _fit_folds(predictors, targets, groups, folds, whole=whole, scores=scores, on_fit=on_fit)


def _fit_folds(
    predictors: Sequence[_Predictors],
    targets: Mapping[str, Float[np.ndarray, "n _"]],
    groups: np.ndarray,
    folds: Sequence[Fold],
    *,
    whole: bool,
    scores: Scores,
    on_fit: Callable[[], object] | None,
) -> dict[str, SubsetGains]:
    """`fit_subsets` from the predictors of every fold."""
    weight = 1.0 / len({fold.repeat for fold in folds})
    found = {}
    for name, values in targets.items():
        width = 1 if whole else values.shape[1]
        shape = (len(values), width)
        sums = (np.zeros((2 ** predictors[0].count, *shape)) for _ in range(3))
        found[name] = SubsetGains(*sums, baseline=np.zeros(shape))
    for own, fold in zip(predictors, folds, strict=True):
        centred = [_centred(v, fold.fitted, whole, scores) for v in targets.values()]
        _add_fold([*found.values()], centred, own, groups, fold, weight)
        own.end_fold()
        if on_fit:
            on_fit()
    return found


def shapley(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """Shapley value of each group; they add up to the R2 of all groups together."""
    return _interval(_linearise(shapley_values, subsets, groups))


def unique(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """R2 of all groups together less that without each group."""
    everything = len(subsets.gain) - 1
    without = everything - (1 << np.arange(_group_count(subsets.gain)))
    return _interval(_linearise(lambda each: each[everything] - each[without], subsets, groups))


def alone(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """R2 of each group by itself."""
    single = 1 << np.arange(_group_count(subsets.gain))
    return _interval(_linearise(lambda each: each[single], subsets, groups))


def total(subsets: SubsetGains, groups: np.ndarray) -> Part:
    """R2 of all groups together (one row)."""
    return _interval(_linearise(lambda each: each[-1:], subsets, groups))


def change(part: Combine, before: SubsetGains, after: SubsetGains, groups: np.ndarray) -> Part:
    """A part of R2 after less the same before, of the same patients: a paired interval.

    Args:
        part: from the gains of all subsets to those of the part, such as `shapley_values`.
        before, after: gains with the same groups and rows.
        groups: patient of each row.
    """
    one, other = (_linearise(part, each, groups) for each in (before, after))
    return _interval(
        _Linear(
            other.value - one.value,
            other.influence - one.influence,
            other.flipped - one.flipped,
            one.patients,
        )
    )


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
    found: Sequence[SubsetGains],
    targets: Sequence[_Centred],
    predictors: _Predictors,
    groups: np.ndarray,
    fold: Fold,
    weight: float,
) -> None:
    """Adds one fold's errors and influences; all targets share the fit of a subset."""
    columns = np.concatenate([target.columns for target in targets], axis=1)
    seen = np.concatenate([target.seen for target in targets], axis=1)[fold.test]
    ends = np.cumsum([0, *(target.columns.shape[1] for target in targets)])
    for gains, target in zip(found, targets, strict=True):
        gains.baseline[fold.test] += weight * target.baseline[fold.test]
    observed, signs = columns[fold.test], random_signs(groups)[fold.test, None]
    for subset in range(1, 2**predictors.count):
        fit = predictors.fit(subset, columns[fold.fitted])
        # A value that is missing has no error; zeros keep it out of every sum.
        error = np.where(seen, observed - fit.predict(), 0.0)
        saved = np.where(seen, np.square(observed) - np.square(error), 0.0)
        fitted = fit.influence(error, groups[fold.fitted])
        flipped = fit.influence(error * signs, groups[fold.fitted])
        for gains, start, end in zip(found, ends[:-1], ends[1:], strict=True):
            width = gains.baseline.shape[1]
            for sums, rows, values in (
                (gains.gain, fold.test, saved),
                (gains.fitted_influence, fold.fitted, fitted),
                (gains.flipped_influence, fold.fitted, flipped),
            ):
                part = values[:, start:end]
                part = part if width == end - start else part.sum(axis=1, keepdims=True)
                sums[subset, rows] += weight * part


class _Fit(NamedTuple):
    """Ridge regression on a subset of the blocks.

    Attributes:
        solution: of the fitted rows.
        held_out: held-out rows along the singular directions of the fitted ones.
    """

    solution: Solution
    held_out: Float[np.ndarray, "p r"]

    def predict(self) -> Float[np.ndarray, "p t"]:
        """Centred targets of the held-out rows."""
        return self.held_out @ (self.solution.components / self.solution.spectrum.s[:, None])

    def influence(
        self, error: Float[np.ndarray, "p t"], groups: np.ndarray
    ) -> Float[np.ndarray, "m t"]:
        """Of the fitted rows, as `lens.probes.probe.FittedProbe` has it."""
        return self.solution.influence(self.held_out.T @ error, error, groups)


class _Decomposed(NamedTuple):
    """What a fit owes to the predictors alone: the spectrum, and `_Fit.held_out`."""

    spectrum: Spectrum
    held_out: Float[np.ndarray, "p r"]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Those that grow with the rows."""
        return self.spectrum.u, self.held_out


class _Predictors:
    """Blocks of predictors in one fold, and fits of any subset of them.

    Args:
        blocks: of predictors.
        fold: the fold.
        scratch: where decompositions stay for further targets; without one each fit makes its own.
    """

    def __init__(
        self,
        blocks: Sequence[Float[np.ndarray, "n _"]],
        fold: Fold,
        scratch: Scratch | None = None,
    ) -> None:
        self.count, self._blocks, self._scratch = len(blocks), blocks, scratch
        self._fitted, self._test = fold.fitted, fold.test
        self._designs: dict[int, np.ndarray] = {}
        self._kernels: dict[int, np.ndarray] = {}
        self._kept: dict[int, _Decomposed] = {}

    def fit(self, subset: int, y: Float[np.ndarray, "m t"]) -> _Fit:
        """Of the centred targets of the fitted rows, each with the penalty that GCV prefers."""
        made = self._kept[subset] if subset in self._kept else self._decompose(subset)
        if self._scratch is not None and subset not in self._kept:
            u, held_out = (self._scratch.keep(each) for each in (made.spectrum.u, made.held_out))
            made = self._kept[subset] = _Decomposed(made.spectrum._replace(u=u), held_out)
        release(*(each for other in self._kept.values() for each in other.arrays()))
        return _Fit(solve(made.spectrum, y, ALPHAS), made.held_out)

    def end_fold(self) -> None:
        """Lets go of all that only decompositions need."""
        self._designs, self._kernels = {}, {}
        release(*(each for made in self._kept.values() for each in made.arrays()))

    def _decompose(self, subset: int) -> _Decomposed:
        chosen = [block for block in range(self.count) if subset >> block & 1]
        if sum(self._blocks[block].shape[1] for block in chosen) < self._fitted.sum():
            x = np.concatenate([self._design(block) for block in chosen], axis=1)
            spectrum, v = decompose(x[self._fitted])
            return _Decomposed(spectrum, x[self._test] @ v)
        kernel = np.sum([self._kernel(block) for block in chosen], axis=0)
        spectrum = decompose_kernel(kernel[np.ix_(self._fitted, self._fitted)])
        held_out = kernel[np.ix_(self._test, self._fitted)] @ spectrum.u / spectrum.s
        return _Decomposed(spectrum, held_out)

    def _design(self, block: int) -> Float[np.ndarray, "n c"]:
        if block not in self._designs:
            self._designs[block] = _design(self._blocks[block], self._fitted)
        return self._designs[block]

    def _kernel(self, block: int) -> Float[np.ndarray, "n n"]:
        """Made when first asked for: narrow blocks need none."""
        if block not in self._kernels:
            design = self._design(block)
            self._kernels[block] = design @ design.T
        return self._kernels[block]


class _Centred(NamedTuple):
    """A centred target of one fold.

    Attributes:
        columns: that are predicted.
        seen: entries that are not missing.
        baseline: squared error of the fitted rows' mean.
    """

    columns: Float[np.ndarray, "n c"]
    seen: Bool[np.ndarray, "n c"]
    baseline: Float[np.ndarray, "n t"]


def _centred(
    values: Float[np.ndarray, "n _"], fitted: Bool[np.ndarray, " n"], whole: bool, scores: Scores
) -> _Centred:
    """The columns of a target, or the principal components of one that is `whole`."""
    values = values.astype(np.float64)
    seen = np.isfinite(values)
    values = values if whole else target_values(np.where(seen, values, np.nan), fitted, scores)
    centred = values - values[fitted].mean(axis=0)
    if not whole:
        return _Centred(centred, seen, np.square(np.where(seen, centred, 0.0)))
    _, s, v = np.linalg.svd(centred[fitted], full_matrices=False)
    explained = np.cumsum(np.square(s)) / np.square(s).sum()
    components = v[: int(np.searchsorted(explained, COMPONENT_VARIANCE)) + 1]
    columns = centred @ components.T
    baseline = np.square(centred).sum(axis=1, keepdims=True)
    return _Centred(columns, np.ones(columns.shape, bool), baseline)


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


class _Linear(NamedTuple):
    """A part of R2, and what it owes to each patient.

    Attributes:
        value: of each group and target; NaN where the target does not vary.
        influence: of each patient, sums to zero over patients.
        flipped: what `influence` holds of noise that it counts twice.
        patients: that were held out.
    """

    value: Float[np.ndarray, "g t"]
    influence: Float[np.ndarray, "g p t"]
    flipped: Float[np.ndarray, "g p t"]
    patients: int


def _linearise(part: Combine, subsets: SubsetGains, groups: np.ndarray) -> _Linear:
    """``sum gain / sum baseline`` with the influences of `lens.verdicts.estimates`."""
    baseline = subsets.baseline
    base = baseline.sum(axis=0)
    fitted = part(subsets.fitted_influence)
    known = (fitted != 0).any(axis=(0, 2))
    taught = -fitted
    if known.any():
        # What all patients taught alike is no difference between them.
        taught[:, known] -= taught[:, known].mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = part(subsets.gain)
        value = np.where(base > 0, gain.sum(axis=1) / base, np.nan)
        rows = (gain - value[:, None] * baseline + taught) / base
        flipped = part(subsets.flipped_influence) / base
    patients = int((patient_sums(baseline, groups) > 0).any(axis=1).sum())
    by_patient = (np.stack([patient_sums(g, groups) for g in each]) for each in (rows, flipped))
    return _Linear(value, *by_patient, patients=patients)


def _interval(linear: _Linear) -> Part:
    """Student's t times the root of the squared influences, less what these count twice."""
    value, influence, flipped, patients = linear
    squares = np.square(influence).sum(axis=1)
    # At most half of a sum of squares can be a second count of the other half.
    twice = np.minimum(np.square(flipped).sum(axis=1), 0.5 * squares)
    half = stats.t.ppf((1 + LEVEL) / 2, max(patients - 1, 1)) * np.sqrt(squares - twice)
    return Part(value, value - half, value + half)
