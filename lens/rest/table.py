"""What of an encoder's change the radiomic features tell, and what they do not.

The change is taken apart into what is new and what is gone (`lens.rest.changes`), and predicted
from the features in held-out patients (`lens.rest.shares`). What they leave is one of three things:
not radiomic; radiomic in a form that ridge regression does not find with so many patients; or
noise of the training. Encoders fine-tuned from other seeds tell the last from the others: noise
does not come again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.rest.changes import (
    SIZES,
    Change,
    Turned,
    differences,
    pulled_in,
    same_channels,
    turned,
    unpredicted,
)
from lens.rest.fits import Tally
from lens.rest.patients import patients_table
from lens.rest.shares import (
    ALL,
    BOTH,
    RAW,
    SEED,
    Groupings,
    Shares,
    add_fold,
    alone,
    empty_shares,
    without,
)
from lens.settings import Scores
from lens.verdicts.encoding import draw_rows, feature_groups
from lens.verdicts.estimates import Estimate, delta_r2, difference, r2_score, significance
from lens.verdicts.fold_values import common_unit, target_values
from lens.verdicts.folds import Fold
from lens.verdicts.held_out import ProbeErrors

SIDES = {
    "new": "what is new after fine-tuning",
    "gone": "what is gone of the embedding before it",
    "difference": "after less before, channel by channel",
}
"""Sides of a change, for people."""

GROUPINGS = ("modality", "class")

BY_GROUP = ("new", "gone")
"""Sides that are looked at group by group."""

SEEDS = 2
"""Other seeds that are looked at, at most: each costs two fits a fold and side."""

DRAWS = 20
"""Times that the features are dealt out to other patients."""

LEVEL = 0.05

LEAST = 0.001
"""Share of the variance that has to be shown to have changed; less is next to nothing."""


class Rest(NamedTuple):
    """Result of one task.

    Attributes:
        table: a row per side and prediction.
        patients: a row per held-out study, of `lens.rest.patients.patients_table`.
    """

    table: pd.DataFrame
    patients: pd.DataFrame


class Cohort(NamedTuple):
    """What all tasks share.

    Attributes:
        r: features, NaN where missing.
        features: their parts, as in `lens.study.study.Study`.
        ids: ``patient_id`` and perhaps ``study_id``.
        folds: of one repeat.
        scores: whether normal scores of the features are used or their values.
        flips: sign flips of a p.
        seed: of flips and null.
    """

    r: Float[np.ndarray, "n k"]
    features: pd.DataFrame
    ids: pd.DataFrame
    folds: Sequence[Fold]
    scores: Scores = "normal"
    flips: int = 10_000
    seed: int = 0


def rest(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Float[np.ndarray, "n e"],
    cohort: Cohort,
    *,
    again: Sequence[Float[np.ndarray, "n _"]] = (),
    on_fold: Callable[[], object] | None = None,
) -> Rest:
    """The share of the change that the features tell, and the patients who moved without them.

    Invariant, but for side ``difference``, to rotation and one scale factor of each embedding, and
    with normal scores to monotone maps of the features. Of a cohort with more rows than
    `lens.verdicts.encoding.MAX_ROWS`, patients drawn at random up to that number are used.

    Args:
        x_pre, x_ft: embeddings before and after fine-tuning; widths may differ.
        cohort: features, patients and folds.
        again: of encoders fine-tuned from other seeds; the first `SEEDS` are used.
        on_fold: called after each fold.

    Returns:
        See ``docs/tables.md``.
    """
    drawn = draw_rows(cohort.ids["patient_id"].to_numpy(str))
    (x_pre, x_ft, *again), far = zip(
        *(pulled_in(x[drawn]) for x in (x_pre, x_ft, *again[:SEEDS])), strict=True
    )
    groups = cohort.ids["patient_id"].to_numpy(str)[drawn]
    folds = [fold.among(drawn) for fold in cohort.folds]
    folds = [fold for fold in folds if fold.test.any()]
    unit = common_unit(cohort.r[drawn])
    groupings = {n: m for n, m in feature_groups(cohort.features).items() if n in GROUPINGS}
    before, after, others = turned(x_pre), turned(x_ft), [turned(x) for x in again]
    sides = {
        side: _Side(len(groups), groupings if side in BY_GROUP else {}, len(again), side)
        for side in SIDES
        if side != "difference" or same_channels(x_pre, x_ft)
    }
    for at, fold in enumerate(folds):
        values = target_values(unit, fold.fitted, cohort.scores)
        for number, (side, found) in enumerate(sides.items()):
            rng = np.random.default_rng([cohort.seed, number, at])
            if side == "new":
                change = unpredicted(before, after, others, values, groups, fold, found.sizes)
            elif side == "gone":
                change = _gone(before, after, others, values, groups, fold, found.sizes)
            else:
                change = differences(x_pre, x_ft, again, values, fold)
                found.add_size(change, x_ft, fold)
            raw = None if side == "difference" else values
            channels = after.v if side == "new" else None
            add_fold(found.shares, change, raw, found.groupings, groups, fold, rng, channels)
        if on_fold is not None:
            on_fold()
    tables = [_table(side, found, cohort, groups, len(again)) for side, found in sides.items()]
    table = pd.concat(tables, ignore_index=True).assign(far_pre=far[0], far_ft=far[1])
    patients = patients_table(cohort.ids, sides["new"].shares.moves, np.flatnonzero(drawn))
    return Rest(table, patients)


def count_folds(folds: Sequence[Fold]) -> int:
    """Calls of `on_fold`, for a progress bar."""
    return len(folds)


class _Side:
    """The sums of one side over the folds."""

    def __init__(self, n: int, groupings: Groupings, seeds: int, side: str) -> None:
        self.shares: Shares = empty_shares(n, groupings, seeds, DRAWS)
        self.sizes = Tally(n, SIZES)
        self.groupings, self.floor = groupings, side != "difference"

    def add_size(self, change: Change, x_ft: np.ndarray, fold: Fold) -> None:
        """How large the plain difference is, of the variance after fine-tuning."""
        for rows, sums in (
            (change.target, self.sizes.errors.error), (x_ft.astype(float), self.sizes.baseline)
        ):  # fmt: skip
            centred = rows - rows[fold.fitted].mean(axis=0)
            sums[fold.test] += np.square(centred[fold.test]).sum(axis=1, keepdims=True)


def _gone(
    before: Turned,
    after: Turned,
    others: Sequence[Turned],
    features: np.ndarray,
    groups: np.ndarray,
    fold: Fold,
    sizes: Tally,
) -> Change:
    """What of the embedding before no longer is, and in the other seeds is not, either."""
    change = unpredicted(after, before, (), features, groups, fold, sizes)
    spare = [Tally(len(groups), SIZES) for _ in others]
    again = [
        unpredicted(other, before, (), features[:, :0], groups, fold, each).target
        for other, each in zip(others, spare, strict=True)
    ]
    return change._replace(again=tuple(again))


def _table(side: str, found: _Side, cohort: Cohort, groups: np.ndarray, seeds: int) -> pd.DataFrame:
    """The rows of a side."""
    tally, count = found.shares.tally, len(cohort.features)
    whole = _r2(tally, [ALL], groups)
    options = {"flips": cohort.flips, "seed": cohort.seed, "alternative": "greater"}
    p = float(significance(whole, **options).p[0])
    rows = [_row("all", "all", count, whole, 0, None) | {"p_maxt": p}]
    if found.groupings:
        rows += _of_groups(tally, found.groupings, groups, options)
    if seeds:
        rows += _of_seeds(tally, groups, seeds, count)
    facts = _size(found, groups) | _null(found.shares)
    facts["share_raw"] = float(_r2(tally, [RAW], groups).value[0])
    facts["patients"] = len(np.unique(groups[tally.baseline[:, 0] > 0]))
    table = pd.DataFrame(rows).assign(**facts)
    table.insert(0, "side", side)
    return table.assign(finding=finding(table.iloc[0].to_dict()))


def _of_groups(
    tally: Tally, groupings: Groupings, groups: np.ndarray, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """What each group tells alone, and what would be missing without it; two families of p."""
    names = [(grouping, group) for grouping, members in groupings.items() for group in members]
    by_group = _r2(tally, [alone(*each) for each in names], groups)
    missing = [without(*each) for each in names]
    unique = delta_r2(
        tally.errors_of(missing),
        tally.errors_of([ALL] * len(names)),
        tally.baseline_of([ALL] * len(names)),
        groups,
    )
    p_maxt, p_unique = (significance(e, **options).p_maxt for e in (by_group, unique))
    return [
        _row(grouping, group, len(groupings[grouping][group]), by_group, at, unique)
        | {"p_maxt": p_maxt[at], "p_unique_maxt": p_unique[at]}
        for at, (grouping, group) in enumerate(names)
    ]


def finding(row: Mapping[Any, Any]) -> str:
    """What the row of all features shows: ``told``, ``not told`` or ``no change shown``.

    ``no change shown``: what is called new (gone) is no more than the same reader leaves of the
    embedding itself, so that no share of it means anything. ``told``: the share has an interval
    above zero, p is at most `LEVEL`, and no dealing out of the features to other patients came to
    as much.
    """
    if not row["size_beyond_low"] > LEAST:
        return "no change shown"
    told = row["share_low"] > 0 and row["p_maxt"] <= LEVEL and row["share"] > row["null_high"]
    return "told" if told else "not told"


def _r2(tally: Tally, names: list[str], groups: np.ndarray) -> Estimate:
    return r2_score(tally.errors_of(names), tally.baseline_of(names), groups)


def _row(
    grouping: str, group: str, count: int, share: Estimate, at: int, unique: Estimate | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"grouping": grouping, "group": group, "n_features": count}
    nothing = np.full(at + 1, np.nan)
    for name, each in (("share", share), ("unique", unique)):
        ends = (nothing,) * 3 if each is None else (each.value, each.low, each.high)
        for suffix, values in zip(("", "_low", "_high"), ends, strict=True):
            row[f"{name}{suffix}"] = float(values[at])
    return row | {"p_maxt": np.nan, "p_unique_maxt": np.nan}


def _of_seeds(tally: Tally, groups: np.ndarray, seeds: int, count: int) -> list[dict[str, Any]]:
    """What another seed tells of the change, mean over them, and beyond the features."""

    def mean(name: str) -> tuple[ProbeErrors, np.ndarray]:
        columns = [f"{name} {at}" for at in range(seeds)]
        errors = (e.mean(axis=1, keepdims=True) for e in tally.errors_of(columns))
        return ProbeErrors(*errors), tally.baseline_of(columns[:1])

    seed, both = (mean(name) for name in (SEED, BOTH))
    beyond = delta_r2(tally.errors_of([ALL]), both[0], both[1], groups)
    return [
        _row("seed", SEED, 0, r2_score(*seed, groups), 0, beyond),
        _row("seed", BOTH, count, r2_score(*both, groups), 0, None),
    ]


def _size(found: _Side, groups: np.ndarray) -> dict[str, float]:
    """Share of the variance that changed, its floor, and what it is beyond that."""
    predicted = _r2(found.sizes, SIZES[:1], groups)
    floor = _r2(found.sizes, SIZES[1:], groups)
    # Of an embedding that does not vary nothing is told, and nothing is left of it.
    floored = found.floor and bool(np.isfinite(floor.value[0]))
    facts = {
        "size": 1.0 - float(predicted.value[0]),
        "size_low": 1.0 - float(predicted.high[0]),
        "size_high": 1.0 - float(predicted.low[0]),
        "floor": 1.0 - float(floor.value[0]) if floored else 0.0,
    }
    if not floored:
        return facts | {f"size_beyond{end}": facts[f"size{end}"] for end in ("", "_low", "_high")}
    beyond = difference(predicted, floor)
    for end, values in zip(("", "_low", "_high"), beyond[:3], strict=True):
        facts[f"size_beyond{end}"] = float(values[0])
    return facts


def _null(shares: Shares) -> dict[str, float]:
    if not shares.base > 0:
        return {"null_mean": float("nan"), "null_high": float("nan")}
    values = 1.0 - shares.null / shares.base
    return {"null_mean": float(values.mean()), "null_high": float(values.max())}
