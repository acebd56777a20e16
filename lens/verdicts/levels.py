"""Verdicts above the feature: did anything change in a task, and in which group of its features?

Three levels, each with a family-wise error of its own: the task (one test), the groups of its
features, the features (`lens.verdicts.rules`). A group is what a row of a table is about, such as
the run-length features of T2 in the gland. Its change is the mean change of R2 over its features,
from the same held-out errors as the features' own; p values hold for all groups together (maxT,
which knows that groups overlap), and no group is called where the test of the task shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool

from lens.settings import Rules
from lens.verdicts.estimates import Estimate, concatenate, equivalence, mean_of, significance
from lens.verdicts.evidence import Estimates
from lens.verdicts.learning import LASTING, VIEW, lasting_share
from lens.verdicts.power import power_of
from lens.verdicts.rules import shown, unchanged, withheld

Masks = Mapping[tuple[str, ...], Bool[np.ndarray, " k"]]
"""Names of a group -> its features."""


def task_p(estimates: Estimates, needs_more: int, rules: Rules, *, seed: int = 0) -> float:
    """p of the hypothesis that no feature of the task changed by more than the margin.

    The largest of the views. Where the encoder with less in the mean needs more patients, the
    hypothesis is tested as it would be with very many of them, too, and is not rejected where
    too little of the changes would be left (`lens.verdicts.learning.LASTING`).

    Args:
        estimates: of all features.
        needs_more: encoder that needs more patients, as in `lens.verdicts.learning.needs_more`.
        rules: margin and number of sign flips.
        seed: of the sign flips.
    """
    tests = [
        significance(_beyond(change, rules.margin), flips=rules.flips, seed=seed)
        for change in estimates.changes.values()
    ]
    if needs_more and needs_more == np.sign(np.nanmean(estimates.change.value)):
        if lasting_share(estimates.changes[VIEW], estimates.extrapolated) < LASTING:
            return 1.0
        beyond = _beyond(estimates.extrapolated, rules.margin)
        one_sided = beyond._replace(
            value=needs_more * beyond.value, influence=needs_more * beyond.influence
        )
        tests.append(significance(one_sided, flips=rules.flips, seed=seed, alternative="greater"))
    return max(test.p_any for test in tests)


def _beyond(change: Estimate, margin: float) -> Estimate:
    """The part of a change beyond the margin; none within it."""
    part = np.sign(change.value) * np.maximum(np.abs(change.value) - margin, 0.0)
    return change._replace(value=part)


def level_table(
    estimates: Estimates,
    features: pd.DataFrame,
    groups: Masks,
    rules: Rules,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """A verdict of the task as a whole, and per group of features.

    Args:
        estimates: of all features.
        features: of `lens.verdicts.rules.verdict_table`.
        groups: all groups of all tables: one family.
        rules: level, margins and number of sign flips.
        seed: of the sign flips.

    Returns:
        A row of the task, whose `p_group` is `task_p`, then a row per group in the order given:
        ``delta_r2_cv`` with ``_low`` and ``_high``, the mean
        change of R2; ``p_group``, family-wise and not below the task's; ``detectable_group``, the
        smallest mean change that would be shown with 80% power; ``verdict``: ``lost``, ``gained``,
        ``unchanged`` and ``undecided`` of the mean, ``absent`` where every feature of the group is,
        an empty text for a group without features. A change must hold beyond the learning curve
        here too.
    """
    masks = [np.ones(len(features), bool), *groups.values()]
    means = {view: _means(change, masks) for view, change in estimates.changes.items()}
    of_means = {
        view: significance(mean, flips=rules.flips, seed=seed) for view, mean in means.items()
    }
    change, *others = means.values()
    extrapolated = _means(estimates.extrapolated, masks)
    p = np.max([test.p_maxt for test in of_means.values()], axis=0)
    more, lasting = int(features["needs_more"].iloc[0]), float(features["lasting_share"].iloc[0])
    whole = task_p(estimates, more, rules, seed=seed)
    p[0], p[1:] = whole, np.maximum(p[1:], whole)
    evidence = pd.DataFrame(
        {
            "delta_r2": change.value,
            "delta_r2_low": change.low,
            "delta_r2_high": change.high,
            **{
                f"delta_r2_{view}": mean.value
                for view, mean in zip([*means][1:], others, strict=True)
            },
            "p_maxt": p,
            "needs_more": more,
            "lasting_share": lasting,
            "delta_r2_extrapolated": extrapolated.value,
            "p_extrapolated": significance(extrapolated, flips=rules.flips, seed=seed).p,
            "p_unchanged": equivalence(change, rules.equivalence, flips=rules.flips, seed=seed),
        }
    )
    return pd.DataFrame(
        {
            "delta_r2_cv": change.value,
            "delta_r2_cv_low": change.low,
            "delta_r2_cv_high": change.high,
            "p_group": evidence["p_maxt"],
            "detectable_group": power_of(means, of_means, rules).detectable,
            "verdict": _decide(evidence, masks, features["verdict"].to_numpy(), rules),
        }
    )


def with_levels(
    table: pd.DataFrame, levels: pd.DataFrame, level: str, keys: list[str]
) -> pd.DataFrame:
    """A table of groups of features with the columns of their verdicts on the rows of a change.

    Args:
        table: of `lens.paper.groups`, with ``stage``.
        levels: rows of `level_table` with ``level`` and the keys.
        level: of the rows that belong to the table.
        keys: columns that name a group.
    """
    columns = [
        name
        for name in map(str, levels.columns)
        if name.startswith(("delta_r2_cv", "p_", "detectable"))
    ]
    rows = levels.loc[levels["level"] == level, [*keys, *columns, "verdict"]]
    return table.merge(rows.assign(stage="delta"), on=[*keys, "stage"], how="left")


def _means(change: Estimate, masks: list[np.ndarray]) -> Estimate:
    whole = mean_of(change, masks[0])
    for mask in masks[1:]:
        whole = concatenate(whole, mean_of(change, mask))
    return whole


def _decide(
    evidence: pd.DataFrame, masks: list[np.ndarray], verdicts: np.ndarray, rules: Rules
) -> np.ndarray:
    called = shown(evidence, rules) & (withheld(evidence, rules) == "")
    holds = {
        "": np.array([not mask.any() for mask in masks]),
        "absent": np.array([(verdicts[mask] == "absent").all() for mask in masks]),
        "lost": called & (evidence["delta_r2"] < 0),
        "gained": called & (evidence["delta_r2"] > 0),
        "unchanged": unchanged(evidence, rules),
    }
    return np.select([np.asarray(rule) for rule in holds.values()], [*holds], "undecided")
