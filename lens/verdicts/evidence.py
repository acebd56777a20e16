"""Evidence behind the verdicts: estimates and p values from held-out errors, before any rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.settings import Rules
from lens.verdicts.estimates import Estimate, concatenate, delta_r2, r2_score, select, significance
from lens.verdicts.held_out import (
    PRE,
    RIDGE_VIEWS,
    HeldOutErrors,
    ProbeErrors,
    mlp_column_names,
)
from lens.verdicts.retraining import Band, retraining_band


@dataclass(frozen=True)
class Estimates:
    """Estimates of one task for every feature.

    Attributes:
        before, after: R2 of the ridge probe (``per_channel``) on either encoder.
        changes: change of R2 in each of `RIDGE_VIEWS`.
        mlp: ``pre_pre, pre_ft, ft_pre, ft_ft`` -> R2 of the MLP, by the encoder that it was trained
            on and the one that it reads; empty without an MLP.
        frozen_drop: R2 of the MLP trained before fine-tuning on the encoder before minus that on
            the encoder after; None without an MLP.
        others: name of any other probe -> its R2 before and after.
        band: of the change under retraining; None without retrained encoders.
    """

    before: Estimate
    after: Estimate
    changes: dict[str, Estimate]
    mlp: dict[str, Float[np.ndarray, " k"]]
    frozen_drop: Estimate | None
    others: dict[str, tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]]
    band: Band | None

    @property
    def change(self) -> Estimate:
        """Change of R2 that is reported, in the first of `RIDGE_VIEWS`."""
        return self.changes[RIDGE_VIEWS[0]]


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
        retrained: errors of encoders fine-tuned from other seeds, under the same `task`.
    """
    base, views = held_out.baseline, held_out.probes
    ridge, mlp = views[RIDGE_VIEWS[0]], held_out.mlp

    def value(errors: ProbeErrors) -> np.ndarray:
        return r2_score(errors, base, groups).value

    def change(errors: HeldOutErrors, view: str) -> Estimate:
        sides = errors.probes[view]
        return delta_r2(sides[PRE], sides[task], errors.baseline, groups)

    runs = (held_out, *retrained)
    return Estimates(
        before=r2_score(ridge[PRE], base, groups),
        after=r2_score(ridge[task], base, groups),
        changes={view: change(held_out, view) for view in RIDGE_VIEWS},
        mlp={name: value(mlp[key]) for name, key in mlp_column_names(task) if key in mlp},
        frozen_drop=delta_r2(mlp[PRE, task], mlp[PRE, PRE], base, groups) if mlp else None,
        others={
            name: (value(sides[PRE]), value(sides[task]))
            for name, sides in views.items()
            if name not in RIDGE_VIEWS
        },
        band=retraining_band([change(run, RIDGE_VIEWS[0]).value for run in runs])
        if retrained
        else None,
    )


def evidence_table(
    estimates: Estimates, medoids: np.ndarray, rules: Rules, *, seed: int = 0
) -> pd.DataFrame:
    """What the rules look at, a row per cluster of features, from the cluster's medoid.

    Every p value holds for all clusters together (maxT).

    Args:
        estimates: of all features.
        medoids: features that are tested.
        rules: number of sign flips.
        seed: of the sign flips.

    Returns:
        Columns

        - ``p_present_pre, p_present_ft``: R2 is at most zero before, after (one family);
        - ``delta_r2, delta_r2_one_scale``: change of R2 in either of `RIDGE_VIEWS`;
        - ``p_maxt, q_bh``: no change of R2; the larger one of both views;
        - with an MLP ``frozen_drop``, by how much the R2 of the MLP trained before fine-tuning is
          lower after it, and ``p_moved``: it is not lower;
        - with retrained encoders ``retrained_mean, retrained_low, retrained_high``: change of R2
          that fine-tuning from another seed would make.
    """
    options: dict[str, Any] = {"flips": rules.flips, "seed": seed}
    changes = [select(estimates.changes[view], medoids) for view in RIDGE_VIEWS]
    tests = [significance(change, **options) for change in changes]
    levels = concatenate(select(estimates.before, medoids), select(estimates.after, medoids))
    present = significance(levels, alternative="greater", **options).p_maxt
    columns = {
        "p_present_pre": present[: len(medoids)],
        "p_present_ft": present[len(medoids) :],
        "delta_r2": changes[0].value,
        "delta_r2_one_scale": changes[1].value,
        "p_maxt": np.maximum(*(test.p_maxt for test in tests)),
        "q_bh": np.maximum(*(test.q_bh for test in tests)),
    }
    if estimates.frozen_drop is not None:
        drop = select(estimates.frozen_drop, medoids)
        columns["frozen_drop"] = drop.value
        columns["p_moved"] = significance(drop, alternative="greater", **options).p_maxt
    if estimates.band is not None:
        for name in ("mean", "low", "high"):
            columns[f"retrained_{name}"] = getattr(estimates.band, name)[medoids]
    return pd.DataFrame(columns)
