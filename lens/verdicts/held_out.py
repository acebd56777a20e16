"""Held-out errors of every probe on every encoder: four corners of the MLP, and ridge.

All that is fitted is fitted inside the fold, on patients who are not held out: imputation of
missing features, both scalings, the shared MLP and its penalties, heads, ridge and its penalties.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.probes.halving import Winner, halve, rounds
from lens.probes.mlp import hidden
from lens.probes.ridge import fitted_influence, predict, ridge
from lens.probes.scaling import MinMax, fit_standardise, scale
from lens.probes.training import Data
from lens.scratch import IN_MEMORY, Scratch
from lens.settings import SweepConfig
from lens.verdicts.folds import Fold

View = Literal["per_channel", "one_scale"]
VIEWS: tuple[View, ...] = ("per_channel", "one_scale")
"""Two ways to standardise embeddings before ridge. The first does not see a gain per channel, the
second sees no rotation, neither a scale factor: a change that both see is none of these."""

PRE = "pre"

PILOT = 10
"""Epochs timed for an estimate."""


class ProbeErrors(NamedTuple):
    """A probe's squared errors, averaged over repeats; zero where a row is not scored.

    Attributes:
        error: of each row while it was held out.
        teaching: what the row did, while it was fitted, to the sum of the others' errors
            (`lens.probes.ridge.teaching`).
        chance: `teaching` by others' errors with signs tossed per row: the part of its spread that
            is noise upon noise, which the others' own errors hold as well.
    """

    error: Float[np.ndarray, "n k"]
    fitted_influence: Float[np.ndarray, "n k"]
    flipped_influence: Float[np.ndarray, "n k"]


@dataclass(frozen=True)
class HeldOutErrors:
    """Everything the tests and intervals need: held-out errors per row and feature.

    Features are in units of their standard deviation over all rows; no result depends on the unit.

    Attributes:
        baseline: squared errors of the fitted patients' mean.
        scored: rows that were held out at all.
        ridge: view -> side (``pre`` or a task) -> scores.
        mlp: (side where the MLP was trained, side where the head was solved and scored) -> scores;
            for each task the four corners with ``pre``, or none where no MLP was asked for.
        penalties: a row per fold, side and penalty pair: the search of `lens.probes.halving.halve`.
    """

    baseline: Float[np.ndarray, "n k"]
    scored: Bool[np.ndarray, " n"]
    ridge: dict[View, dict[str, ProbeErrors]]
    mlp: dict[tuple[str, str], ProbeErrors]
    penalties: pd.DataFrame


def held_out_errors(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Mapping[str, Float[np.ndarray, "n e"]],
    r: Float[np.ndarray, "n k"],
    folds: Sequence[Fold],
    config: SweepConfig | None,
    *,
    seed: int = 0,
    back: bool = True,
    adjust: Callable[[Bool[np.ndarray, " n"]], Float[np.ndarray, "n a"]] | None = None,
    on_fit: Callable[[], object] | None = None,
    scratch: Scratch = IN_MEMORY,
) -> HeldOutErrors:
    """Fits every probe in every fold and collects the errors on held-out rows.

    Ridge is fitted on each side in both `VIEWS`. The MLP is trained on each side with the same seed
    and batches, its penalties chosen by `lens.probes.halving`; its first layer is read on the other
    side too, with that side's own standardisation, so that scale and gains of the embedding do not
    matter. Heads are least squares with intercept on the fitted rows. Whatever the number of tasks,
    the side before fine-tuning is fitted once per fold.

    Args:
        x_pre: embeddings before fine-tuning.
        x_ft: task -> embeddings after it, same rows.
        r: radiomic features in any units; NaN where missing, which is imputed by the median of the
            fitted rows and not scored.
        folds: from `lens.verdicts.folds.make_folds` or `single_fold`.
        config: of the MLP; None leaves it out, with its four corners.
        seed: of the MLP's initialisation and batch order in the first fold, counted on from there.
        back: also train it after fine-tuning; without, half of the corners and most of the work are
            left out. No verdict needs them.
        adjust: columns to adjust for, from the fold's fitted rows (`lens.verdicts.confounds`): what
            they tell by least squares on these rows is taken out of features and embeddings before
            any probe is fitted, so that every R2 is a partial one.
        on_fit: told after each of the ``len(folds) * (1 + len(x_ft))`` fits (progress bars).
        scratch: where the scores live: ``n * k`` numbers, three times for each of two ridge probes
            a side and four corners a task.
    """
    sides = {PRE: x_pre, **x_ft}
    unit = _common_unit(r)
    # A missing value has no error; zeros keep it out of every sum.
    seen = np.isfinite(unit)
    # The same for every probe, so that what two of them have in common cancels.
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=len(r))
    weight = 1.0 / _repeats(folds)
    baseline, scored = np.zeros(r.shape), np.zeros(len(r), bool)
    scores: dict[tuple[str, ...], ProbeErrors] = {}
    tables = []

    def add(key: tuple[str, ...], fold: Fold, design: np.ndarray, **options) -> None:
        if key not in scores:
            scores[key] = ProbeErrors(
                *(scratch.keep(np.zeros(r.shape)) for _ in ProbeErrors._fields)
            )
        held_out = scores[key]
        probe = ridge(design[fold.fitted], filled[fold.fitted], **options)
        error = filled[fold.test] - predict(probe, design[fold.test])
        error[~seen[fold.test]] = 0.0
        held_out.error[fold.test] += weight * np.square(error)
        held_out.fitted_influence[fold.fitted] += weight * fitted_influence(
            probe, design[fold.test], error
        )
        error *= signs[fold.test, None]
        held_out.flipped_influence[fold.fitted] += weight * fitted_influence(
            probe, design[fold.test], error
        )

    sizes = _common_sizes(folds)
    for number, fold in enumerate(folds):
        filled, embeddings = _impute(unit, fold.fitted), sides
        if adjust is not None:
            columns = adjust(fold.fitted)
            filled = _without(filled, columns, fold.fitted)
            embeddings = {name: _without(x, columns, fold.fitted) for name, x in sides.items()}
        deviation = filled[fold.test] - filled[fold.fitted].mean(axis=0)
        baseline[fold.test] += weight * np.square(np.where(seen[fold.test], deviation, 0.0))
        scored |= fold.test
        for side, x in embeddings.items():
            for view in VIEWS:
                add((view, side), fold, x, per_channel=view == "per_channel")
            if config is not None and (back or side == PRE):
                winner = _train(x, filled, fold, sizes, config, seed=seed + number)
                tables.append(winner.table.assign(fold=number, side=side))
                for read in sides if side == PRE else (PRE, side):
                    z = _project(winner, embeddings[read], fold)
                    add(("mlp", side, read), fold, z, alphas=(0.0,))
            if on_fit:
                on_fit()
    return HeldOutErrors(
        baseline=baseline,
        scored=scored,
        ridge={view: {side: scores[view, side] for side in sides} for view in VIEWS},
        mlp={(key[1], key[2]): value for key, value in scores.items() if key[0] == "mlp"},
        penalties=pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(),
    )


def estimate_seconds(
    x_pre: Float[np.ndarray, "n d"],
    tasks: int,
    r: Float[np.ndarray, "n k"],
    folds: Sequence[Fold],
    config: SweepConfig | None,
) -> float:
    """How long `hold_out` will take here, from one ridge fit and two short trainings of the MLP."""
    fold, filled = folds[0], _impute(_common_unit(r), folds[0].fitted)
    start = time.perf_counter()
    probe = ridge(x_pre[fold.fitted], filled[fold.fitted])
    fitted_influence(probe, x_pre[fold.test], filled[fold.test] - predict(probe, x_pre[fold.test]))
    seconds = len(VIEWS) * (time.perf_counter() - start)
    if config is not None:
        pilot = replace(config, l1=config.l1[:1], l2=config.l2[:1])
        times = []
        for epochs in (1, 1, 1 + PILOT):  # the first compiles
            start = time.perf_counter()
            _train(x_pre, filled, fold, _common_sizes(folds), replace(pilot, epochs=epochs), seed=0)
            times.append(time.perf_counter() - start)
        epoch = max(times[2] - times[1], 0.0) / PILOT
        pairs = len(config.l1) * len(config.l2)
        calls = sum(count for _, count in rounds(pairs, config.epochs))
        seconds += _epochs(pairs, config.epochs) * epoch + calls / 2 * max(times[1] - epoch, 0.0)
    return seconds * len(folds) * (1 + tasks)


def _epochs(pairs: int, epochs: int) -> int:
    """Epochs of all pairs together in one search."""
    schedule = rounds(pairs, epochs)
    before = (0, *(goal for goal, _ in schedule))
    return sum(count * (goal - last) for (goal, count), last in zip(schedule, before, strict=False))


def _common_unit(r: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Every feature centred and divided by its standard deviation over all rows.

    Probes and scores are equivariant to shift and scale of a feature, so nothing leaks from
    held-out rows; the common unit lets errors of different folds be added up.
    """
    r = np.where(np.isfinite(r), r, np.nan).astype(np.float64)
    centred = r - np.nanmean(r, axis=0)
    deviation = np.sqrt(np.nanmean(np.square(centred), axis=0))
    return centred / np.where(deviation > 0, deviation, 1.0)


def _impute(
    r: Float[np.ndarray, "n k"], fitted: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "n k"]:
    """Missing values take the median over the fitted rows, 0 where these have none."""
    missing = ~np.isfinite(r)
    if not missing.any():
        return r
    columns = np.flatnonzero(missing.any(axis=0))
    filled = r.copy()
    for column in columns:
        values = r[fitted, column]
        values = values[np.isfinite(values)]
        filled[missing[:, column], column] = np.median(values) if len(values) else 0.0
    return filled


def _without(
    values: Float[np.ndarray, "n k"],
    columns: Float[np.ndarray, "n a"],
    fitted: Bool[np.ndarray, " n"],
) -> Float[np.ndarray, "n k"]:
    """Values less what the columns and a constant tell of them, learnt on the fitted rows."""
    values = values.astype(np.float64)
    design = np.column_stack([np.ones(len(columns)), columns])
    predicted, *_ = np.linalg.lstsq(design[fitted], values[fitted], rcond=None)
    return values - design @ predicted


def _repeats(folds: Sequence[Fold]) -> int:
    return len({fold.repeat for fold in folds})


class _Sizes(NamedTuple):
    """Rows of every fold's arrays: equal sizes spare a compilation per fold."""

    train: int
    val: int


def _common_sizes(folds: Sequence[Fold]) -> _Sizes:
    train = min(int(fold.train.sum()) for fold in folds)
    return _Sizes(train, max(int(fold.fitted.sum()) - train for fold in folds))


def _train(
    x: np.ndarray, r: np.ndarray, fold: Fold, sizes: _Sizes, config: SweepConfig, *, seed: int
) -> Winner:
    """The shared MLP of one side in one fold.

    Folds differ by a few rows: what a fold has beyond the common train size helps to choose the
    penalty instead, and validation arrays are filled up with rows of weight zero.
    """
    train = np.flatnonzero(fold.train)
    val = np.r_[np.flatnonzero(fold.val), train[sizes.train :]]
    train = train[: sizes.train]
    fill = np.r_[val, np.full(sizes.val - len(val), val[0])]
    low, high = r[train].min(axis=0), r[train].max(axis=0)
    # A feature that is constant here has no range; it stays at 0 and teaches nothing.
    scaled = scale(r, MinMax(low, np.where(high > low, high, low + 1.0))).astype(np.float32)
    standard = _standardised(x, fold)
    data = Data(
        x=jnp.asarray(standard[train]),
        r=jnp.asarray(scaled[train]),
        x_val=jnp.asarray(standard[fill]),
        r_val=jnp.asarray(scaled[fill]),
        val_weight=jnp.asarray(np.arange(len(fill)) < len(val), jnp.float32),
    )
    return halve(data, config, seed=seed)


def _standardised(x: np.ndarray, fold: Fold) -> Float[np.ndarray, "n d"]:
    mean, std = fit_standardise(x[fold.fitted])
    return ((x - mean) / std).astype(np.float32)


def _project(winner: Winner, x: np.ndarray, fold: Fold) -> Float[np.ndarray, "n h"]:
    z = hidden(jnp.asarray(_standardised(x, fold)), jnp.asarray(winner.w), jnp.asarray(winner.b))
    return np.asarray(z, np.float64)


def mlp_column_names(task: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """``pre_pre, pre_ft, ft_pre, ft_ft``: column endings with the keys of `Held.mlp`."""
    for trained, trained_key in ((PRE, PRE), ("ft", task)):
        for read, read_key in ((PRE, PRE), ("ft", task)):
            yield f"{trained}_{read}", (trained_key, read_key)
