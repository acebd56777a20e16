"""Lost to a linear reader, or lost? A nonlinear probe reads every feature that changed.

Ridge reads what a linear map can. A feature may leave its reach and still be there, along a curve.
Kernel ridge with a Gaussian kernel on the leading components, fitted and scored in the same folds,
reads it then. No verdict follows from it: a representation that gives a feature away to nonlinear
readers only has changed. The report says so beside the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.probes.kernel_ridge import KernelRidgeProbe
from lens.probes.ridge import SHARE
from lens.scratch import IN_MEMORY, Scratch
from lens.settings import Scores
from lens.verdicts.estimates import delta_r2, r2_score
from lens.verdicts.folds import Fold
from lens.verdicts.held_out import PRE, held_out_errors

READER = KernelRidgeProbe(share=SHARE)

COLUMNS = (
    "r2_kernel_pre", "r2_kernel_ft", "delta_r2_kernel", "delta_r2_kernel_low",
    "delta_r2_kernel_high",
)  # fmt: skip


def nonlinear_columns(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Float[np.ndarray, "n e"],
    r: Float[np.ndarray, "n k"],
    groups: np.ndarray,
    folds: Sequence[Fold],
    verdicts: pd.DataFrame,
    *,
    scores: Scores = "normal",
    on_fit: Callable[[], object] | None = None,
    scratch: Scratch = IN_MEMORY,
) -> pd.DataFrame:
    """Columns about the nonlinear reader, a row per feature.

    Args:
        x_pre, x_ft: embeddings before and after fine-tuning.
        r: radiomic features, NaN where missing.
        groups: patient of each row.
        folds: from `lens.verdicts.folds`.
        verdicts: features of `lens.verdicts.judge.judge`.
        scores: of the features, as for the verdicts.
        on_fit: called after each of two fits per fold, if any feature changed.
        scratch: where the errors live.

    Returns:
        ``r2_kernel_pre, r2_kernel_ft, delta_r2_kernel`` with ``_low`` and ``_high``, NaN for
        features that neither lost nor gained; ``linear_only``: the change is one of the linear
        reader. The kernel's own change is less than half of ridge's, and on the side where ridge
        reads less of the feature the kernel's R2 has an interval above zero.
    """
    table = pd.DataFrame(np.nan, index=range(r.shape[1]), columns=[*COLUMNS])
    table["linear_only"] = False
    changed = np.flatnonzero(verdicts["verdict"].isin(["lost", "gained"]))
    if not changed.size:
        return table
    held_out = held_out_errors(
        x_pre, {"ft": x_ft}, r[:, changed], groups, folds, None,
        scores=scores, probes={"kernel": READER}, on_fit=on_fit, scratch=scratch,
    )  # fmt: skip
    sides, baseline = held_out.probes["kernel"], held_out.baseline
    before, after = (r2_score(sides[side], baseline, groups) for side in (PRE, "ft"))
    change = delta_r2(sides[PRE], sides["ft"], baseline, groups)
    table.loc[changed, [*COLUMNS]] = np.column_stack(
        [before.value, after.value, change.value, change.low, change.high]
    )
    ridge = verdicts["delta_r2"].to_numpy()[changed]
    less = np.where(ridge < 0, after.low, before.low)
    own = np.sign(ridge) * change.value
    table.loc[changed, "linear_only"] = (own < np.abs(ridge) / 2) & (less > 0)
    return table
