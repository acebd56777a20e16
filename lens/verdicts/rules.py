"""One verdict per feature and task: lost, gained, moved, kept or absent.

The rules, at a level (5% by default) that holds family-wise for each question over all clusters of
features. A cluster's medoid is tested; the members, near copies of it, carry its verdict.

1. **absent**: neither before nor after fine-tuning is the ridge probe's held-out error below that
   of the mean (one-sided test, both sides in one family).
2. **lost** / **gained**: the ridge probe's held-out error after fine-tuning is above / below that
   before. Both standardisations must agree, the p value is the larger of the two: one does not
   see a gain per channel, the other no rotation and no scale factor, so that neither of these
   changes, which leave the information as it is, can ever be called a loss. R2 must change by at
   least a margin, too: with enough patients a change that nobody cares about is beyond chance.
   Where fine-tuning was run from several seeds, the band in which the next one's change would lie
   must exclude zero (`lens.verdicts.retraining`).
3. **moved**: neither lost nor gained, but the MLP trained before fine-tuning reads the feature
   worse after it (pre/ft below pre/pre, one-sided test, by at least the margin), and at least half
   of that drop is not a drop of the ridge probe's R2: the information is there in another basis.
4. **kept**: nothing of this is shown. It does not say that nothing changed: how small a change the
   cohort would show depends on its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.settings import DEFAULT_RULES, Rules
from lens.verdicts.clusters import Clusters
from lens.verdicts.estimates import beside, delta_r2, r2_score, select, significance
from lens.verdicts.held_out import PRE, HeldOutErrors, mlp_column_names
from lens.verdicts.retraining import retraining_band
from lens.verdicts.sign_flips import Significance

SINGLE_SPLIT = ("delta_r2", "delta_r2_low", "delta_r2_high", "p_maxt", "q_bh")
"""Columns of `lens.paper.shift` whose names go to the verdicts' own; the former get ``_split``."""

VERDICTS = ("lost", "gained", "moved", "kept", "absent")


def judge(
    held_out: HeldOutErrors,
    task: str,
    clusters: Clusters,
    groups: np.ndarray,
    rules: Rules = DEFAULT_RULES,
    retrained: Sequence[HeldOutErrors] = (),
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Verdict, change of R2 with interval and p values of every feature.

    Args:
        held: held-out errors.
        task: key of the embeddings that `held` was made from.
        clusters: of the features, all of them.
        groups: patient of each row.
        rules: level and margin.
        retrained: the same of encoders fine-tuned from other seeds, under the same `task`.
        seed: of the sign flips.

    Returns:
        A row per feature: ``verdict, cluster, medoid`` (whether the feature is one), ridge's
        ``delta_r2, delta_r2_low, delta_r2_high, p_maxt, q_bh, r2_ridge_pre, r2_ridge_ft`` with
        ``_low`` and ``_high``, ``p_present_pre, p_present_ft`` (family-wise, against the mean), and
        with an MLP ``p_moved`` and its corners ``r2_pre_pre, r2_pre_ft, r2_ft_pre, r2_ft_ft``
        (where it was trained; where it was read), and with `retrained` encoders
        ``retrained`` (their number, `held` with them), ``delta_r2_retrained`` with ``_low`` and
        ``_high``. p and q are those of the medoid.
    """
    ridge, base = held_out.ridge["per_channel"], held_out.baseline
    table = pd.DataFrame({"cluster": clusters.ids})
    table["medoid"] = np.isin(np.arange(len(table)), clusters.medoids)
    changes = {
        view: delta_r2(sides[PRE], sides[task], base, groups)
        for view, sides in held_out.ridge.items()
    }
    change = changes["per_channel"]
    table["delta_r2"], table["delta_r2_low"], table["delta_r2_high"] = change[:3]
    found = {}
    for name, side in ((PRE, PRE), ("ft", task)):
        found[name] = r2_score(ridge[side], base, groups)
        for suffix, values in zip(("", "_low", "_high"), found[name][:3], strict=True):
            table[f"r2_ridge_{name}{suffix}"] = values

    chosen, spread = clusters.medoids, clusters.ids
    options: dict[str, Any] = {"flips": rules.flips, "seed": seed}
    tests = [significance(select(change, chosen), **options) for change in changes.values()]
    differ = Significance(*(np.maximum(a, b) for a, b in zip(*tests, strict=True)))
    signs = [np.sign(change.value[chosen]) for change in changes.values()]
    agree = signs[0] == signs[1]
    both_sides = beside(*(select(found[name], chosen) for name in (PRE, "ft")))
    present = significance(both_sides, alternative="greater", **options).p_maxt
    present_pre, present_ft = present[: len(chosen)], present[len(chosen) :]
    table["p_maxt"], table["q_bh"] = differ.p_maxt[spread], differ.q_bh[spread]
    table["p_present_pre"], table["p_present_ft"] = present_pre[spread], present_ft[spread]

    medoid = table.iloc[chosen]
    delta = medoid["delta_r2"].to_numpy()
    absent = np.minimum(present_pre, present_ft) > rules.level
    changed = agree & (differ.p_maxt <= rules.level) & (np.abs(delta) >= rules.margin)
    if retrained:
        band = retraining_band([_change(each, task, groups) for each in (held_out, *retrained)])
        table["retrained"], table["delta_r2_retrained"] = band.encoders, band.mean
        table["delta_r2_retrained_low"], table["delta_r2_retrained_high"] = band.low, band.high
        # The band lies on the side of this encoder's own change.
        changed &= (band.excludes_zero() & (np.sign(band.mean) == np.sign(change.value)))[chosen]
    moved = np.zeros(len(chosen), bool)
    if held_out.mlp:
        for name, key in mlp_column_names(task):
            if key in held_out.mlp:
                table[f"r2_{name}"] = r2_score(held_out.mlp[key], base, groups).value
        fall = delta_r2(held_out.mlp[PRE, task], held_out.mlp[PRE, PRE], base, groups)
        worse = significance(select(fall, chosen), alternative="greater", **options).p_maxt
        table["p_moved"] = worse[spread]
        drop = fall.value[chosen]
        moved = (worse <= rules.level) & (drop >= rules.margin) & (-delta <= drop / 2)
    verdict = np.select(
        [absent, changed & (delta < 0), changed & (delta > 0), moved],
        ["absent", "lost", "gained", "moved"],
        "kept",
    )
    table.insert(0, "verdict", verdict[spread])
    return table


def _change(held_out: HeldOutErrors, task: str, groups: np.ndarray) -> Float[np.ndarray, " k"]:
    ridge = held_out.ridge["per_channel"]
    return delta_r2(ridge[PRE], ridge[task], held_out.baseline, groups).value


def with_verdicts(features: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``features.parquet``: the single split's columns, then those of the verdicts.

    What the frozen projection and the single split say of the change of R2 keeps its values under
    ``delta_r2_split`` (with ``_low`` and ``_high``), ``p_maxt_split`` and ``q_bh_split``.

    Args:
        features: of `lens.paper.shift.Shift`.
        verdicts: of `judge`, with the same ``column`` first.
    """
    names = {
        name: name.replace("delta_r2", "delta_r2_split")
        if name.startswith("delta_r2")
        else f"{name}_split"
        for name in SINGLE_SPLIT
    }
    renamed = features.rename(columns=names)
    return renamed.merge(verdicts, on="column", how="left", validate="one_to_one")
