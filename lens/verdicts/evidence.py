"""Evidence behind the verdicts: estimates and p values from held-out errors, before any rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import false_discovery_control

from lens.settings import Rules
from lens.verdicts.estimates import (
    Estimate,
    concatenate,
    delta_r2,
    equivalence,
    r2_score,
    significance,
)
from lens.verdicts.held_out import (
    HALVED,
    PRE,
    RIDGE_VIEWS,
    HeldOutErrors,
    ProbeErrors,
    mlp_column_names,
)
from lens.verdicts.learning import (
    VIEW,
    extrapolated_change,
    lasting_share,
    learning_change,
    learning_cost,
    needs_more,
)
from lens.verdicts.power import power_of, smallest_loss
from lens.verdicts.retraining import MIN_ENCODERS, Band, retraining_band
from lens.verdicts.sign_flips import Significance


@dataclass(frozen=True)
class Estimates:
    """Estimates of one task for every feature.

    Attributes:
        before, after: R2 of the ridge probe (``per_channel``) on either encoder.
        changes: change of R2 in each of `RIDGE_VIEWS`.
        extrapolated: change of R2 that is expected of fits to very many patients.
        learning: of `lens.verdicts.learning.learning_cost`, over the features whose R2 has an
            interval above zero before or after.
        mlp: ``pre_pre, pre_ft, ft_pre, ft_ft`` -> R2 of the MLP, by the encoder that it was trained
            on and the one that it reads; empty without an MLP.
        frozen_before: R2 of the MLP trained before fine-tuning on the encoder before; None without
            an MLP.
        frozen_drop: `frozen_before` minus its R2 on the encoder after.
        others: name of any other probe -> its R2 before and after.
        encoders: fine-tuned encoders behind the task, each from its own seed.
        band: of the change under retraining; None with too few of them.
    """

    before: Estimate
    after: Estimate
    changes: dict[str, Estimate]
    extrapolated: Estimate
    learning: Estimate
    mlp: dict[str, Float[np.ndarray, " k"]]
    frozen_before: Estimate | None
    frozen_drop: Estimate | None
    others: dict[str, tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]]
    encoders: int
    band: Band | None

    @property
    def change(self) -> Estimate:
        """Change of R2 that is reported, in the first of `RIDGE_VIEWS`."""
        return self.changes[RIDGE_VIEWS[0]]


@dataclass(frozen=True)
class FeatureEstimates:
    """What a feature's held-out errors say of it, whatever the other features.

    Attributes:
        estimates: ``before, after, extrapolated, learning``, the names in `RIDGE_VIEWS`, and with
            an MLP ``frozen_before, frozen_drop``: see `Estimates`. ``learning`` is that of
            `lens.verdicts.learning.learning_change`.
        mlp, others: of `Estimates`.
    """

    estimates: dict[str, Estimate]
    mlp: dict[str, Float[np.ndarray, " k"]]
    others: dict[str, tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]]


def estimate_features(held_out: HeldOutErrors, task: str, groups: np.ndarray) -> FeatureEstimates:
    """Estimates of some features from their held-out errors; arguments as in `estimate_task`."""
    base, views = held_out.baseline, held_out.probes
    ridge, mlp = views[RIDGE_VIEWS[0]], held_out.mlp

    def value(errors: ProbeErrors) -> np.ndarray:
        return r2_score(errors, base, groups).value

    found = {
        name: r2_score(ridge[side], base, groups)
        for name, side in (("before", PRE), ("after", task))
    }
    found |= {view: view_change(held_out, view, task, groups) for view in RIDGE_VIEWS}
    found["extrapolated"] = extrapolated_change(held_out, task, groups)
    found["learning"] = learning_change(held_out, task, groups)
    if mlp:
        found["frozen_before"] = r2_score(mlp[PRE, PRE], base, groups)
        found["frozen_drop"] = delta_r2(mlp[PRE, task], mlp[PRE, PRE], base, groups)
    return FeatureEstimates(
        found,
        mlp={name: value(mlp[key]) for name, key in mlp_column_names(task) if key in mlp},
        others={
            name: (value(each[PRE]), value(each[task]))
            for name, each in views.items()
            if name not in (*RIDGE_VIEWS, *HALVED.values())
        },
    )


def view_change(held_out: HeldOutErrors, view: str, task: str, groups: np.ndarray) -> Estimate:
    """Change of R2 in a view."""
    sides = held_out.probes[view]
    return delta_r2(sides[PRE], sides[task], held_out.baseline, groups)


def task_estimates(
    features: FeatureEstimates, retrained: Sequence[Float[np.ndarray, " k"]] = ()
) -> Estimates:
    """Estimates of a task from those of all of its features.

    Args:
        features: all of them.
        retrained: change of R2 in the first of `RIDGE_VIEWS` of each encoder that was fine-tuned
            from another seed.
    """
    each = features.estimates
    before, after = each["before"], each["after"]
    changes = {view: each[view] for view in RIDGE_VIEWS}
    runs = [changes[RIDGE_VIEWS[0]].value, *retrained]
    return Estimates(
        before=before,
        after=after,
        changes=changes,
        extrapolated=each["extrapolated"],
        learning=learning_cost(each["learning"], (before.low > 0) | (after.low > 0)),
        mlp=features.mlp,
        frozen_before=each.get("frozen_before"),
        frozen_drop=each.get("frozen_drop"),
        others=features.others,
        encoders=len(runs),
        band=retraining_band(runs) if len(runs) >= MIN_ENCODERS else None,
    )


def estimate_task(
    held_out: HeldOutErrors,
    task: str,
    groups: np.ndarray,
    retrained: Sequence[HeldOutErrors] = (),
) -> Estimates:
    """Estimates of a task from its held-out errors.

    Args:
        held_out: errors of every probe.
        task: key of the embeddings after fine-tuning.
        groups: patient of each row (n,).
        retrained: errors of encoders fine-tuned from other seeds, under the same `task`; the first
            of `RIDGE_VIEWS` is enough.
    """
    again = [view_change(run, RIDGE_VIEWS[0], task, groups).value for run in retrained]
    return task_estimates(estimate_features(held_out, task, groups), again)


def significance_of_changes(
    changes: Mapping[str, Estimate], rules: Rules, *, seed: int
) -> dict[str, Significance]:
    """p values of no change of R2 in each of `RIDGE_VIEWS`, over all features together."""
    return {
        view: significance(change, flips=rules.flips, seed=seed) for view, change in changes.items()
    }


def evidence_table(
    estimates: Estimates,
    tests: Mapping[str, Significance],
    rules: Rules,
    *,
    unseen_low: Float[np.ndarray, " k"] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """What the rules look at, a row per feature.

    Every p value but `p_extrapolated`, and those behind `q_bh`, holds for all features together
    (maxT).

    Args:
        estimates: of all features.
        tests: of `significance_of_changes`.
        rules: level, margins and number of sign flips.
        unseen_low: lower end of the change of R2 in patients whom fine-tuning did not see; NaN
            where there are none, None where nobody knows.
        seed: of the sign flips.

    Returns:
        Columns

        - ``p_present_pre, p_present_ft``: R2 is at most zero before, after (one family);
        - ``delta_r2`` with ``_low`` and ``_high``, and ``delta_r2_<view>`` of the other
          `RIDGE_VIEWS`: change of R2;
        - ``p_maxt``: no change of R2, the largest one of the views; ``q_bh``: false discovery rate
          of the largest of the views' unadjusted p values;
        - ``needs_more``: encoder that needs more patients to be read, 1 before, -1 after, 0 neither
          is shown; ``lasting_share`` of all changes that is expected to be left with very many
          patients; ``delta_r2_extrapolated``, the change expected of fits to very many patients,
          and ``p_extrapolated``: it is zero, of each feature by itself, as it is asked of changes
          that are shown family-wise already (`lens.verdicts.learning`);
        - ``p_unchanged``: the change is at least ``rules.equivalence``;
        - ``detectable``: smallest change that would be shown with 80% power, had it the spread of
          the observed one; ``smallest_loss``: the same of a loss, which has a spread of its own;
        - with an MLP ``p_read``: the R2 before of the MLP trained there is at most zero;
          ``frozen_drop``, by how much it is lower after fine-tuning, and ``p_recoded``: it is not;
        - with enough retrained encoders ``retrained_low, retrained_high``: change of R2 that
          fine-tuning from another seed would make;
        - ``unseen_low`` as given.
    """
    options: dict[str, Any] = {"flips": rules.flips, "seed": seed}
    change, k = estimates.change, len(estimates.change.value)
    levels = concatenate(estimates.before, estimates.after)
    present = significance(levels, alternative="greater", **options).p_maxt
    columns = {
        "p_present_pre": present[:k],
        "p_present_ft": present[k:],
        "delta_r2": change.value,
        "delta_r2_low": change.low,
        "delta_r2_high": change.high,
    }
    columns |= {f"delta_r2_{v}": estimates.changes[v].value for v in RIDGE_VIEWS[1:]}
    extrapolated = significance(estimates.extrapolated, **options)
    cost = significance(estimates.learning, **options)
    power, before = power_of(estimates.changes, tests, rules), estimates.before
    columns |= {
        "needs_more": np.full(k, needs_more(estimates.learning, cost.p, rules.level)),
        "lasting_share": np.full(k, lasting_share(estimates.changes[VIEW], estimates.extrapolated)),
        "delta_r2_extrapolated": estimates.extrapolated.value,
        "p_extrapolated": extrapolated.p,
        "p_maxt": np.max([test.p_maxt for test in tests.values()], axis=0),
        "q_bh": false_discovery_control(np.max([test.p for test in tests.values()], axis=0)),
        "p_unchanged": equivalence(change, rules.equivalence, **options),
        "detectable": power.detectable,
        "smallest_loss": smallest_loss(power, before.value, before.patients, rules),
    }
    if estimates.frozen_before is not None and estimates.frozen_drop is not None:
        read = significance(estimates.frozen_before, alternative="greater", **options)
        drop = significance(estimates.frozen_drop, alternative="greater", **options)
        columns |= {"p_read": read.p_maxt, "p_recoded": drop.p_maxt}
        columns["frozen_drop"] = estimates.frozen_drop.value
    if estimates.band is not None:
        columns |= {"retrained_low": estimates.band.low, "retrained_high": estimates.band.high}
    if unseen_low is not None:
        columns["unseen_low"] = unseen_low
    return pd.DataFrame(columns)
