"""Depth: what every layer tells of the features, before and after fine-tuning.

**Comparable layers.** A wide layer can be read with more freedom than a narrow one. Every layer, on
either side and of every control, is read from the same number of leading principal components
(`components_of`), fitted in the fold on its fitted rows, each brought to unit variance, by ridge
with the same penalties (`lens.probes.ridge.LeadingRidgeProbe`).

**Tests.** Per layer and class of features the mean change of R2 over the class, after less before,
with the influence of every patient on it (`lens.verdicts.estimates`), so that all rows of a patient
count as one. A *step* is the change at a layer less that at the layer before it; at the first layer
it is the change itself, since both encoders see the same image. Two families, one of all changes
and one of all steps: every layer times every class, all classes together included. p values hold
for all of a family (maxT), and are the larger of two views of the components (`VIEWS`).

**Controls.** The same reader on the encoder before fine-tuning and features dealt out anew to other
patients: about zero at every depth, whatever the width. Embeddings of a random encoder, and of one
fine-tuned on permuted labels, are read alike where they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.errors import InputError
from lens.probes.probe import Probe
from lens.probes.ridge import SHARE, LeadingRidgeProbe, RidgeProbe
from lens.settings import Rules, Scores
from lens.verdicts.estimates import (
    Estimate,
    concatenate,
    delta_r2,
    difference,
    equivalence,
    mean_of,
    r2_score,
    significance,
)
from lens.verdicts.folds import Fold
from lens.verdicts.held_out import PRE, HeldOutErrors, held_out_errors

FT, SHUFFLED, WHOLE = "ft", "shuffled", "whole"

CONTROLS = ("random", "permuted")
"""Encoders that may be read beside: at its random start, fine-tuned on permuted labels."""

VIEWS = ("common", "per_channel")
"""Components of the channels in one common unit, which no rotation changes, and of channels
standardised one by one, which no gain per channel changes. R2 is that of the first."""

Layers = Mapping[str, Float[np.ndarray, "n _"]]
"""Layer -> embeddings, in the order of depth."""


class LayerTables(NamedTuple):
    """What the layers of an encoder tell.

    Attributes:
        classes: a row per layer and class of features; ``all`` stands for all of them.
        features: a row per layer and feature.
    """

    classes: pd.DataFrame
    features: pd.DataFrame


class _Depth(NamedTuple):
    """Estimates of one layer, of every feature.

    Attributes:
        r2: side (``pre, ft``, controls, ``shuffled``) -> R2.
        whole: R2 of ridge on all dimensions before and after.
        changes: change of R2 in each of `VIEWS`.
    """

    r2: dict[str, Estimate]
    whole: dict[str, Estimate]
    changes: tuple[Estimate, ...]


def layer_profile(
    pre: Layers,
    ft: Layers,
    r: Float[np.ndarray, "n k"],
    features: pd.DataFrame,
    groups: np.ndarray,
    folds: Sequence[Fold],
    rules: Rules,
    *,
    controls: Mapping[str, Layers] | None = None,
    scores: Scores = "normal",
    seed: int = 0,
    on_fit: Callable[[], object] | None = None,
) -> LayerTables:
    """R2 by depth before and after fine-tuning, and its change with a test over depth and class.

    Args:
        pre, ft: embeddings of each layer before and after fine-tuning, of the same layers.
        r: radiomic features in any units; NaN where missing.
        features: their parts, with ``column`` and ``feature_class``.
        groups: patient of each row.
        folds: from `lens.verdicts.folds`.
        rules: level, margins and number of sign flips.
        controls: of `CONTROLS`, embeddings of the same layers.
        scores: of the features, as in `lens.verdicts.held_out`.
        seed: of sign flips and of the features dealt out anew.
        on_fit: called after each of `count_fits` fits.

    Returns:
        Tables with ``layer, depth`` (from 1). Of classes: ``group, n_features, width`` (before
        fine-tuning), ``components``; ``r2_pre, r2_ft, delta_r2, step_r2``, ``r2_shuffled,
        r2_random, r2_permuted`` with ``_low`` and ``_high``; ``p_maxt, p_step, p_unchanged``;
        ``verdict`` (lost, gained, unchanged, undecided, absent); ``r2_whole_pre, r2_whole_ft``. Of
        features: ``column``, ``r2_pre, r2_ft, delta_r2`` with ends, and the controls' R2.

    Raises:
        InputError: the layers differ.
    """
    sides = {PRE: pre, FT: ft, **(controls or {})}
    check_layers({name: list(layers) for name, layers in sides.items()})
    count = components_of(sides, folds)
    dealt = shuffled_rows(groups, seed)
    depths = [
        _read(
            {name: x[layer] for name, x in sides.items()}, r, dealt, groups, folds,
            _probes(count), scores, on_fit,
        )
        for layer in pre
    ]  # fmt: skip
    masks = class_masks(features)
    widths = [x.shape[1] for x in pre.values()]
    classes = _class_table(depths, [*pre], masks, rules, seed)
    classes.insert(4, "width", np.repeat(widths, len(masks)))
    classes.insert(5, "components", count)
    tables = [
        _feature_rows(depth, features).assign(layer=layer, depth=at)
        for at, (layer, depth) in enumerate(zip(pre, depths, strict=True), start=1)
    ]
    table = pd.concat(tables, ignore_index=True)
    first = ["column", "layer", "depth"]
    return LayerTables(classes, table[[*first, *table.columns.difference(first, sort=False)]])


def check_layers(names: Mapping[str, Sequence[str]]) -> None:
    """Refuses sides of an encoder with other layers than before fine-tuning.

    Args:
        names: side -> its layers in order; the first is what the others are held against.

    Raises:
        InputError: as said, with what to do.
    """
    (first, layers), *others = names.items()
    for side, found in others:
        if list(found) != list(layers):
            raise InputError(
                f"layers of {side}: {', '.join(found)}; those of {first} are {', '.join(layers)}. "
                "Embed both by the same layers (experiments.embed --stage all, or blocks)"
            )


def components_of(sides: Mapping[str, Layers], folds: Sequence[Fold]) -> int:
    """Principal components that every layer is read from: as many as the narrowest layer has.

    At most an eighth of the fewest fitted rows (`lens.probes.ridge.SHARE`), and at least one.
    """
    narrowest = min(x.shape[1] for layers in sides.values() for x in layers.values())
    rows = min(int(fold.fitted.sum()) for fold in folds)
    return max(1, min(narrowest, int(SHARE * rows)))


def count_fits(layers: int, controls: int, folds: Sequence[Fold]) -> int:
    """Calls of `on_fit` by `layer_profile`, for a progress bar."""
    return layers * len(folds) * (3 + controls)


def class_masks(features: pd.DataFrame) -> dict[str, Bool[np.ndarray, " k"]]:
    """Class of features -> its columns; ``all`` comes first."""
    kinds = features["feature_class"].to_numpy(str)
    every = {"all": np.ones(len(kinds), bool)}
    return every | {str(kind): kinds == kind for kind in dict.fromkeys(kinds)}


def shuffled_rows(groups: np.ndarray, seed: int) -> np.ndarray:
    """For each row one of another patient, whose features it is dealt: patients exchanged.

    A patient's rows get rows of the same other patient, over again where that has fewer.
    """
    patients, patient = np.unique(groups, return_inverse=True)
    order = np.random.default_rng([seed, len(patients)]).permutation(len(patients))
    # Along a random cycle nobody keeps the own features.
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    rows = [np.flatnonzero(patient == at) for at in range(len(patients))]
    found = np.empty(len(groups), int)
    for at, own in enumerate(rows):
        given = rows[other[at]]
        found[own] = given[np.arange(len(own)) % len(given)]
    return found


def _probes(count: int) -> dict[str, Probe]:
    return {
        VIEWS[0]: LeadingRidgeProbe(components=count),
        VIEWS[1]: LeadingRidgeProbe(components=count, per_channel=True),
        WHOLE: RidgeProbe(),
    }


def _read(
    sides: Mapping[str, Float[np.ndarray, "n _"]],
    r: Float[np.ndarray, "n k"],
    dealt: np.ndarray,
    groups: np.ndarray,
    folds: Sequence[Fold],
    probes: Mapping[str, Probe],
    scores: Scores,
    on_fit: Callable[[], object] | None,
) -> _Depth:
    """Estimates of one layer."""
    others = {name: x for name, x in sides.items() if name != PRE}

    def errors(
        x_ft: Mapping[str, np.ndarray], values: np.ndarray, names: Sequence[str]
    ) -> HeldOutErrors:
        return held_out_errors(
            sides[PRE], x_ft, values, groups, folds, None,
            scores=scores, probes={name: probes[name] for name in names}, on_fit=on_fit,
        )  # fmt: skip

    found = errors({FT: others[FT]}, r, [*probes])
    base, first = found.baseline, VIEWS[0]
    r2 = {side: r2_score(found.probes[first][side], base, groups) for side in (PRE, FT)}
    whole = {side: r2_score(found.probes[WHOLE][side], base, groups) for side in (PRE, FT)}
    changes = tuple(
        delta_r2(found.probes[view][PRE], found.probes[view][FT], base, groups) for view in VIEWS
    )
    for name, x in others.items():
        if name != FT:
            control = held_out_errors(
                x, {}, r, groups, folds, None, scores=scores, probes={first: probes[first]},
                on_fit=on_fit,
            )  # fmt: skip
            r2[name] = r2_score(control.probes[first][PRE], control.baseline, groups)
    chance = errors({}, r[dealt], [first])
    r2[SHUFFLED] = r2_score(chance.probes[first][PRE], chance.baseline, groups)
    return _Depth(r2, whole, changes)


def _class_table(
    depths: Sequence[_Depth],
    layers: Sequence[str],
    masks: Mapping[str, Bool[np.ndarray, " k"]],
    rules: Rules,
    seed: int,
) -> pd.DataFrame:
    cells = len(masks)
    views = [
        _joined([_means(depth.changes[view], masks) for depth in depths])
        for view in range(len(VIEWS))
    ]
    steps = [
        _joined([
            _means(depth.changes[view], masks) if not at
            else difference(
                _means(depths[at - 1].changes[view], masks), _means(depth.changes[view], masks)
            )
            for at, depth in enumerate(depths)
        ])
        for view in range(len(VIEWS))
    ]  # fmt: skip
    levels = {
        side: _joined([_means(depth.r2[side], masks) for depth in depths]) for side in depths[0].r2
    }
    change, step = views[0], steps[0]
    table = pd.DataFrame({
        "layer": np.repeat(layers, cells),
        "depth": np.repeat(np.arange(1, len(layers) + 1), cells),
        "group": [*masks] * len(layers),
        "n_features": [int(mask.sum()) for mask in masks.values()] * len(layers),
        **_ends("r2_pre", levels[PRE]),
        **_ends("r2_ft", levels[FT]),
        **_ends("delta_r2", change),
        "p_maxt": _p(views, rules, seed),
        "p_unchanged": equivalence(change, rules.equivalence, flips=rules.flips, seed=seed),
        **_ends("step_r2", step),
        "p_step": _p(steps, rules, seed),
    })  # fmt: skip
    table["verdict"] = _verdicts(table, views, levels, rules, seed)
    for side in (SHUFFLED, *CONTROLS):
        empty = dict.fromkeys((f"r2_{side}", f"r2_{side}_low", f"r2_{side}_high"), np.nan)
        table = table.assign(**(_ends(f"r2_{side}", levels[side]) if side in levels else empty))
    for side in (PRE, FT):
        whole = [_means(depth.whole[side], masks).value for depth in depths]
        table[f"r2_whole_{side}"] = np.concatenate(whole)
    return table


def _p(views: Sequence[Estimate], rules: Rules, seed: int) -> Float[np.ndarray, " c"]:
    """The larger of the views' family-wise p values."""
    tests = [significance(view, flips=rules.flips, seed=seed) for view in views]
    return np.max([test.p_maxt for test in tests], axis=0)


def _verdicts(
    table: pd.DataFrame,
    views: Sequence[Estimate],
    levels: Mapping[str, Estimate],
    rules: Rules,
    seed: int,
) -> np.ndarray:
    """As of features (`lens.verdicts.rules`), without what only a whole encoder is asked."""
    both = concatenate(levels[PRE], levels[FT])
    present = significance(both, flips=rules.flips, seed=seed, alternative="greater").p_maxt
    absent = np.minimum(*np.split(present, 2)) > rules.level
    change = table["delta_r2"].to_numpy()
    low, high = table["delta_r2_low"].to_numpy(), table["delta_r2_high"].to_numpy()
    agree = np.all([np.sign(view.value) == np.sign(change) for view in views], axis=0)
    shown = agree & (table["p_maxt"] <= rules.level) & (np.abs(change) >= rules.margin)
    shown &= (low > 0) | (high < 0)
    margin = rules.equivalence
    within = (table["p_unchanged"] <= rules.level) & (low > -margin) & (high < margin)
    holds = {"absent": absent, "lost": shown & (change < 0), "gained": shown & (change > 0),
             "unchanged": within}  # fmt: skip
    return np.select([np.asarray(rule) for rule in holds.values()], [*holds], "undecided")


def _feature_rows(depth: _Depth, features: pd.DataFrame) -> pd.DataFrame:
    columns = {"column": features["column"].to_numpy()}
    columns |= _ends("r2_pre", depth.r2[PRE]) | _ends("r2_ft", depth.r2[FT])
    columns |= _ends("delta_r2", depth.changes[0])
    for side in (SHUFFLED, *CONTROLS):
        columns[f"r2_{side}"] = depth.r2[side].value if side in depth.r2 else np.nan
    return pd.DataFrame(columns)


def _means(estimate: Estimate, masks: Mapping[str, Bool[np.ndarray, " k"]]) -> Estimate:
    return _joined([mean_of(estimate, mask) for mask in masks.values()])


def _joined(parts: Sequence[Estimate]) -> Estimate:
    return reduce(concatenate, parts)


def _ends(name: str, estimate: Estimate) -> dict[str, np.ndarray]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
