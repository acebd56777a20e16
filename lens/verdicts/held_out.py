"""Held-out errors of every probe on every encoder, and what each patient adds to them.

A probe predicts the radiomic features from one encoder's embeddings: it is fitted on a fold's
fitted rows and scored on its held-out rows. There are two kinds:

- those in `PROBES`, fitted to each encoder by itself;
- the shared MLP of the paper: its first layer is trained on one encoder and then frozen, and a
  least-squares head on it is fitted and scored on the same or on another encoder.

All that is fitted is fitted inside the fold: normal scores and imputation of the features, both
scalings, the MLP and its penalties, heads, ridge and its penalties.

**Half of the patients.** An embedding can hold the same information and need more patients for a
probe to find it, as after a rescaling of directions that carry no signal. To tell, one probe is
also fitted to half of the fitted patients at a time (`HALVED`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from lens.probes.probe import Probe, fitter
from lens.probes.ridge import LeadingRidgeProbe, RidgeProbe
from lens.scratch import IN_MEMORY, Scratch, release
from lens.settings import Scores, SweepConfig
from lens.verdicts.fitting_time import count_work, measure, seconds
from lens.verdicts.fold_fits import FoldFits
from lens.verdicts.fold_mlp import Sizes, common_sizes, project, train_mlp
from lens.verdicts.fold_values import all_target_values, common_unit, residuals, target_values
from lens.verdicts.folds import Fold

PROBES: dict[str, Probe] = {
    "per_channel": RidgeProbe(per_channel=True),
    "one_scale": RidgeProbe(per_channel=False),
    "leading": LeadingRidgeProbe(),
}
"""Probes that are fitted to each encoder by itself. The verdicts ask the three ridge probes
(`RIDGE_VIEWS`); any other only adds its R2 to the verdicts' table."""

RIDGE_VIEWS = ("per_channel", "one_scale", "leading")
"""Three ways to look at embeddings before ridge. The first does not see a gain per channel; the
second sees neither a rotation nor a scale factor; the third takes the leading components with equal
weight, whatever variance each has. A change that all of them see is none of these."""

HALVED = {"one_scale": "one_scale_half"}
"""Probe -> name of the mean errors of two of it, each fitted to a half of the fitted patients."""

HEAD: Probe = RidgeProbe(alphas=(0.0,))
"""Least squares with intercept, on the projected embeddings of the MLP."""

PRE = "pre"

_COLUMNS = 512
"""Features that are fitted at once where only the time counts."""


Key = tuple[Any, ...]


class ProbeErrors(NamedTuple):
    """Squared held-out errors of a probe and their influences, averaged over repeats.

    With ``e_jk`` the held-out error of row j for feature k (observed minus predicted), ``g_ik``
    its residual in a fit without its patient, and ``a_jik`` its weight in the prediction of row j
    (`lens.probes.probe.FittedProbe`):

    Attributes:
        error: ``e_jk^2``; zero where a row is not scored.
        fitted_influence: ``-2 sum_j e_jk a_jik g_ik`` over the held-out rows j of the fits that row
            i takes part in. Negative where it makes the predictions of others better.
        flipped_influence: ``-2 sum_j s_j e_jk a_jik g_ik`` with random signs ``s_j`` of the
            patients, the same for all probes and features. Its expected square is that of the noise
            in `fitted_influence`, which the errors of the rows j hold as well.
    """

    error: Float[np.ndarray, "n k"]
    fitted_influence: Float[np.ndarray, "n k"]
    flipped_influence: Float[np.ndarray, "n k"]


@dataclass(frozen=True)
class HeldOutErrors:
    """Held-out errors per row and feature: all that the tests and intervals need.

    Features are normal scores, or in units of their standard deviation over all rows; no result
    depends on the unit.

    Attributes:
        baseline: squared errors of the fitted patients' mean, zero where a row is not scored.
        probes: name in `PROBES` or of halves in `HALVED` -> encoder (``pre`` or a task) -> errors.
        mlp: (encoder that the MLP was trained on, encoder that its head was fitted and scored on)
            -> errors; for each task the four pairs with ``pre``, or none without an MLP.
    """

    baseline: Float[np.ndarray, "n k"]
    probes: dict[str, dict[str, ProbeErrors]]
    mlp: dict[tuple[str, str], ProbeErrors]


def held_out_errors(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Mapping[str, Float[np.ndarray, "n e"]],
    r: Float[np.ndarray, "n k"],
    groups: np.ndarray,
    folds: Sequence[Fold],
    config: SweepConfig | None,
    *,
    scores: Scores = "normal",
    probes: Mapping[str, Probe] = PROBES,
    seed: int = 0,
    back: bool = True,
    adjust: Callable[[Bool[np.ndarray, " n"]], Float[np.ndarray, "n a"]] | None = None,
    on_fit: Callable[[], object] | None = None,
    scratch: Scratch = IN_MEMORY,
    fits: FoldFits | None = None,
) -> HeldOutErrors:
    """Held-out errors of every probe, from a fit of each in every fold.

    The MLP is trained on each encoder with the same seed and batches, its penalties chosen by
    `lens.probes.halving`; its first layer reads every embedding with that embedding's own
    standardisation, so that scale and gains do not matter. Whatever the number of tasks, the
    encoder before fine-tuning is fitted once per fold.

    Args:
        x_pre: embeddings before fine-tuning.
        x_ft: task -> embeddings after it, same rows.
        r: radiomic features in any units; NaN where missing, which is imputed by the median of the
            fitted rows and not scored.
        groups: patient of each row (n,).
        folds: from `lens.verdicts.folds.make_folds` or `single_fold`.
        config: of the MLP; None leaves it out.
        scores: whether normal scores of the features are predicted or their values.
        probes: fitted to each encoder by itself.
        seed: of the MLP's initialisation and batch order in the first fold, counted on from there.
        back: also train it on the encoders after fine-tuning: most of the work, for no verdict.
        adjust: columns to adjust for, from the fold's fitted rows (`lens.verdicts.confounds`): the
            probes get the residuals of features and embeddings, so that every R2 is a partial one.
        on_fit: called after each of the ``len(folds) * (1 + len(x_ft))`` fits (progress bars).
        scratch: where the errors live, ``3 n k`` numbers for each probe and encoder.
        fits: of the same arguments but the features, where these come block by block: what does not
            depend on them is taken from there, and put there. The MLPs, which do, must be there
            (`train_mlps`).
    """
    sides, unit, sizes = {PRE: x_pre, **x_ft}, common_unit(r), common_sizes(folds)
    sums = _zeros(r.shape, [*sides], probes, config is not None, back, scratch)
    weight = 1.0 / len({fold.repeat for fold in folds})
    for number, fold in enumerate(folds):
        filled, embeddings = target_values(unit, fold.fitted, scores), sides
        if adjust is not None:
            columns = adjust(fold.fitted)
            filled = residuals(filled, columns, fold.fitted)
            embeddings = {name: residuals(x, columns, fold.fitted) for name, x in sides.items()}
        made = FoldFits() if fits is None else fits
        scorer = _Scorer(number, fold, filled, np.isfinite(unit), groups, weight, made)
        scorer.add_baseline(sums.baseline)
        for side, x in embeddings.items():
            for name, probe in probes.items():
                scorer.add(sums.probes[name][side], probe, x, (side, name))
                if name in HALVED:
                    scorer.add_halves(sums.probes[HALVED[name]][side], probe, x, (side, name))
            heads = [pair for pair in sums.mlp if pair[0] == side]
            if config is not None and heads and fits is None:
                _train(made, number, heads, embeddings, filled, fold, sizes, config, seed)
            for pair in heads:
                # A head is narrow: its decomposition takes less time than its room is worth.
                head = replace(scorer, fits=FoldFits())
                head.add(sums.mlp[pair], HEAD, made.project((number, pair)), pair)
            if on_fit:
                on_fit()
        made.end_fold()
    return sums


def train_mlps(
    fits: FoldFits,
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Mapping[str, Float[np.ndarray, "n e"]],
    r: Float[np.ndarray, "n k"],
    folds: Sequence[Fold],
    config: SweepConfig,
    *,
    scores: Scores = "normal",
    seed: int = 0,
    back: bool = True,
    on_fit: Callable[[], object] | None = None,
) -> None:
    """Trains the MLPs of `held_out_errors` on all features, before these come block by block.

    Args:
        fits: gets the projected embeddings.
        x_pre, x_ft, r, folds, config, scores, seed, back: as there.
        on_fit: called after each encoder of each fold.
    """
    sides, sizes = {PRE: x_pre, **x_ft}, common_sizes(folds)
    for number, fold in enumerate(folds):
        filled = all_target_values(r, fold.fitted, scores)
        for side in sides:
            heads = [pair for pair in _mlp_pairs([*sides], back) if pair[0] == side]
            if heads:
                _train(fits, number, heads, sides, filled, fold, sizes, config, seed)
            if on_fit:
                on_fit()
        fits.end_fold()


def feature_bytes(
    rows: int, tasks: int, probes: Mapping[str, Probe] = PROBES, *, mlp: bool = True
) -> int:
    """Bytes that the errors of a feature take in `HeldOutErrors`.

    Args:
        rows: of the study.
        tasks: encoders after fine-tuning.
        probes, mlp: whose errors they are.
    """
    sides = ["", *map(str, range(tasks))]
    kinds = len(_names(probes)) * len(sides) + (len(_mlp_pairs(sides, True)) if mlp else 0)
    return 8 * rows * (1 + len(ProbeErrors._fields) * kinds)


def _train(
    fits: FoldFits,
    number: int,
    heads: Sequence[tuple[str, str]],
    embeddings: Mapping[str, Float[np.ndarray, "n d"]],
    filled: Float[np.ndarray, "n k"],
    fold: Fold,
    sizes: Sizes,
    config: SweepConfig,
    seed: int,
) -> None:
    """Trains the MLP of a fold on the first encoder of `heads`, and projects the second of each."""
    x = embeddings[heads[0][0]]
    mlp = train_mlp(x, filled, fold, sizes, config, seed=seed + number)
    for pair in heads:
        fits.project((number, pair), lambda pair=pair: project(mlp, embeddings[pair[1]], fold))


def estimate_seconds(
    x_pre: Float[np.ndarray, "n d"],
    tasks: int,
    r: Float[np.ndarray, "n k"],
    folds: Sequence[Fold],
    config: SweepConfig | None,
) -> float:
    """Seconds that `held_out_errors` will take here, from the first fold before fine-tuning.

    Args:
        x_pre: embeddings before fine-tuning.
        tasks: number of encoders after it.
        r, folds, config: as there.
    """
    fold = folds[0]
    filled = all_target_values(r, fold.fitted)

    def fit_probes() -> None:
        for probe in PROBES.values():
            fit_to = fitter(probe, x_pre[fold.fitted])
            for at in range(0, r.shape[1], _COLUMNS):
                part = filled[:, at : at + _COLUMNS]
                fit = fit_to(part[fold.fitted])
                fit.influence(x_pre[fold.test], part[fold.test] - fit.predict(x_pre[fold.test]))

    def train(epochs: int) -> None:
        assert config is not None
        pilot = replace(config, l1=config.l1_grid[:1], l2=config.l2[:1], epochs=epochs)
        train_mlp(x_pre, filled, fold, common_sizes(folds), pilot, seed=0)

    costs = measure(fit_probes, train if config else None)
    return seconds(count_work(len(folds), 1 + tasks, config), costs)


def mlp_column_names(task: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """``pre_pre, pre_ft, ft_pre, ft_ft``: column endings with the keys of `HeldOutErrors.mlp`."""
    for trained, trained_key in ((PRE, PRE), ("ft", task)):
        for read, read_key in ((PRE, PRE), ("ft", task)):
            yield f"{trained}_{read}", (trained_key, read_key)


def _zeros(
    shape: tuple[int, ...],
    sides: Sequence[str],
    probes: Mapping[str, Probe],
    with_mlp: bool,
    back: bool,
    scratch: Scratch,
) -> HeldOutErrors:
    """Errors of no fold yet, with an entry for each probe and encoder."""

    def zeros() -> ProbeErrors:
        return ProbeErrors(*(scratch.keep(np.zeros(shape)) for _ in ProbeErrors._fields))

    return HeldOutErrors(
        np.zeros(shape),
        {name: {side: zeros() for side in sides} for name in _names(probes)},
        {pair: zeros() for pair in _mlp_pairs(sides, back)} if with_mlp else {},
    )


def _names(probes: Mapping[str, Probe]) -> list[str]:
    """Keys of `HeldOutErrors.probes`."""
    return [*probes, *(HALVED[name] for name in probes if name in HALVED)]


def _mlp_pairs(sides: Sequence[str], back: bool) -> list[tuple[str, str]]:
    """Keys of `HeldOutErrors.mlp`; the first side is that before fine-tuning."""
    pairs = [(sides[0], side) for side in sides]
    if back:
        pairs += [(task, read) for task in sides[1:] for read in (sides[0], task)]
    return pairs


@dataclass(frozen=True)
class _Scorer:
    """Adds the errors of one fold to those of all folds.

    Attributes:
        number: of the fold.
        fold: the fold.
        r: features, imputed and adjusted.
        seen: values that are not missing; only these are scored.
        groups: patient of each row.
        weight: of the fold, one over the number of repeats.
        fits: what the fits owe to the embeddings alone.
    """

    number: int
    fold: Fold
    r: Float[np.ndarray, "n k"]
    seen: Bool[np.ndarray, "n k"]
    groups: np.ndarray
    weight: float
    fits: FoldFits

    def add_baseline(self, baseline: Float[np.ndarray, "n k"]) -> None:
        """Adds the squared errors of the fitted rows' mean."""
        test = self.fold.test
        error = self.r[test] - self.r[self.fold.fitted].mean(axis=0)
        baseline[test] += self.weight * np.square(np.where(self.seen[test], error, 0.0))

    def add(self, errors: ProbeErrors, probe: Probe, x: Float[np.ndarray, "n d"], key: Key) -> None:
        """Fits the probe to the embeddings `x`, and adds its errors and their influences.

        Args:
            errors: to add to.
            probe: to fit.
            x: embeddings.
            key: of encoder and probe.
        """
        self._add(errors, probe, x, key, self.fold.fitted, self.weight)

    def add_halves(
        self, errors: ProbeErrors, probe: Probe, x: Float[np.ndarray, "n d"], key: Key
    ) -> None:
        """The same with the mean of a fit to each half of the fitted patients."""
        for part, half in enumerate(halves(self.fold.fitted, self.groups)):
            self._add(errors, probe, x, (*key, part), half, 0.5 * self.weight)

    def _add(
        self,
        errors: ProbeErrors,
        probe: Probe,
        x: Float[np.ndarray, "n d"],
        key: Key,
        fitted: Bool[np.ndarray, " n"],
        weight: float,
    ) -> None:
        test, groups = self.fold.test, self.groups[fitted]
        fit = self.fits.fit((self.number, *key), probe, lambda: x[fitted])(self.r[fitted])
        error = self.r[test] - fit.predict(x[test])
        # A missing value has no error; zeros keep it out of every sum.
        error[~self.seen[test]] = 0.0
        errors.error[test] += weight * np.square(error)
        errors.fitted_influence[fitted] += weight * fit.influence(x[test], error, groups)
        error *= random_signs(self.groups)[test, None]
        errors.flipped_influence[fitted] += weight * fit.influence(x[test], error, groups)
        release(*errors)
        self.fits.release()


def random_signs(groups: np.ndarray) -> Float[np.ndarray, " n"]:
    """A random sign of each patient, by row.

    The same for every probe and fold, so that what two probes share cancels.

    Args:
        groups: patient of each row.
    """
    patients, patient = np.unique(groups, return_inverse=True)
    return np.random.default_rng(0).choice((-1.0, 1.0), size=len(patients))[patient]


def halves(
    fitted: Bool[np.ndarray, " n"], groups: np.ndarray
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The fitted rows in two parts with equal numbers of patients, at random.

    Args:
        fitted: rows to share out.
        groups: patient of each row; a patient's rows stay together.
    """
    patients, patient = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(patients))[patient]
    first = fitted & (order <= np.median(np.unique(order[fitted])))
    return first, fitted & ~first
