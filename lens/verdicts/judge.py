"""From held-out errors to verdicts: of the features, of their groups, of the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.settings import DEFAULT_RULES, Rules
from lens.verdicts.clusters import Clusters
from lens.verdicts.evidence import (
    Estimates,
    estimate_task,
    evidence_table,
    significance_of_changes,
)
from lens.verdicts.held_out import HeldOutErrors
from lens.verdicts.levels import Masks, level_table
from lens.verdicts.rules import verdict_table


class Judged(NamedTuple):
    """Verdicts of one task.

    Attributes:
        features: of `lens.verdicts.rules.verdict_table`, a row per feature.
        levels: of `lens.verdicts.levels.level_table`, the task and its groups of features.
    """

    features: pd.DataFrame
    levels: pd.DataFrame


def judge(
    held_out: HeldOutErrors,
    task: str,
    clusters: Clusters,
    groups: np.ndarray,
    rules: Rules = DEFAULT_RULES,
    retrained: Sequence[HeldOutErrors] = (),
    *,
    rows: Masks | None = None,
    unseen_low: Float[np.ndarray, " k"] | None = None,
    seed: int = 0,
) -> Judged:
    """Verdicts of one task, with the estimates and p values behind them.

    Args:
        held_out: held-out errors of every probe.
        task: key of the embeddings after fine-tuning that `held_out` was made from.
        clusters: of the features, all of them.
        groups: patient of each row (n,).
        rules: level and margins.
        retrained: errors of encoders fine-tuned from other seeds, under the same `task`.
        rows: groups of features that get a verdict of their own.
        unseen_low: lower end of the change of R2 in patients whom fine-tuning did not see; NaN
            where there are none, None where nobody knows.
        seed: of the sign flips.
    """
    estimates = estimate_task(held_out, task, groups, retrained)
    return judge_estimates(estimates, clusters, rules, rows=rows, unseen_low=unseen_low, seed=seed)


def judge_estimates(
    estimates: Estimates,
    clusters: Clusters,
    rules: Rules = DEFAULT_RULES,
    *,
    rows: Masks | None = None,
    unseen_low: Float[np.ndarray, " k"] | None = None,
    seed: int = 0,
) -> Judged:
    """Verdicts of one task from the estimates of all of its features; arguments as in `judge`."""
    tests = significance_of_changes(estimates.changes, rules, seed=seed)
    evidence = evidence_table(estimates, tests, rules, unseen_low=unseen_low, seed=seed)
    features = verdict_table(estimates, evidence, clusters, rules)
    levels = level_table(estimates, features, rows or {}, rules, seed=seed)
    return Judged(features, levels)
