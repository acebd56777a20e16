"""One verdict per feature and task, by rules on a table of evidence.

A cluster's medoid is tested; the other members, near copies of it, have the medoid's verdict. The
level (5% by default) holds family-wise for each question over all clusters.

The ridge probe is asked in two standardisations (`lens.verdicts.held_out.RIDGE_VIEWS`): one does
not see a gain per channel, the other neither a rotation nor a scale factor. None of these changes
the information in an embedding, and none can be called a loss or a gain, since both must agree.
The MLP sees a rotation: it was trained before fine-tuning, and reads the embedding after it as if
nothing had happened.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lens.settings import DEFAULT_RULES, Rules
from lens.verdicts.clusters import Clusters
from lens.verdicts.estimates import Estimate
from lens.verdicts.evidence import Estimates, estimate_task, evidence_table
from lens.verdicts.held_out import HeldOutErrors

VERDICTS = {
    "lost": "the embeddings explain less of the feature after fine-tuning",
    "gained": "the embeddings explain more of the feature after fine-tuning",
    "moved": "as much of the feature is there after fine-tuning, in another basis",
    "kept": "no change was shown",
    "absent": "the embeddings explain nothing of the feature, before or after",
}
"""Verdicts in the order of a report, each with its meaning."""

UNCHANGED = ("kept", "absent")
"""Verdicts that speak of no change; a report counts their features and lists none."""

SINGLE_SPLIT = ("delta_r2", "delta_r2_low", "delta_r2_high", "p_maxt", "q_bh")
"""Columns of `lens.paper.shift` whose names go to the verdicts' own; the former get ``_split``."""


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
    """Verdict of every feature, with the estimates and p values behind it.

    Args:
        held_out: held-out errors of every probe.
        task: key of the embeddings after fine-tuning that `held_out` was made from.
        clusters: of the features, all of them.
        groups: patient of each row (n,).
        rules: level and margin.
        retrained: errors of encoders fine-tuned from other seeds, under the same `task`.
        seed: of the sign flips.

    Returns:
        A row per feature: ``verdict, cluster, medoid`` (whether the feature is one); of the ridge
        probe ``delta_r2, r2_ridge_pre, r2_ridge_ft``, each with ``_low`` and ``_high``; p and q of
        the medoid, ``p_maxt, q_bh, p_present_pre, p_present_ft`` (`evidence_table`). With
        retrained encoders ``retrained`` (their number, `held_out` included) and
        ``delta_r2_retrained`` with ``_low`` and ``_high``; with an MLP its R2 by the encoder that
        it was trained on and the one that it reads, ``r2_pre_pre, r2_pre_ft, r2_ft_pre,
        r2_ft_ft``, and ``p_moved``; of any probe beyond ridge ``r2_<name>_pre, r2_<name>_ft``.
    """
    estimates = estimate_task(held_out, task, groups, retrained)
    evidence = evidence_table(estimates, clusters.medoids, rules, seed=seed)
    return pd.DataFrame(
        {
            "verdict": decide(evidence, rules)[clusters.ids],
            "cluster": clusters.ids,
            "medoid": np.isin(np.arange(len(clusters.ids)), clusters.medoids),
            **_describe(estimates, evidence.iloc[clusters.ids]),
        }
    )


def decide(evidence: pd.DataFrame, rules: Rules) -> np.ndarray:
    """Verdict of each row of evidence: the first whose rule holds, else ``kept``.

    *Kept* does not say that nothing changed: how small a change would have been shown depends on
    the number of patients.

    Args:
        evidence: columns of `lens.verdicts.evidence.evidence_table`.
        rules: level and margin.
    """
    holds = {
        "absent": absent(evidence, rules),
        "lost": changed(evidence, rules) & (evidence["delta_r2"] < 0),
        "gained": changed(evidence, rules) & (evidence["delta_r2"] > 0),
        "moved": moved(evidence, rules),
    }
    return np.select([rule.to_numpy() for rule in holds.values()], [*holds], "kept")


def absent(evidence: pd.DataFrame, rules: Rules) -> pd.Series:
    """R2 of the ridge probe is above zero neither before nor after fine-tuning."""
    return evidence[["p_present_pre", "p_present_ft"]].min(axis=1) > rules.level


def changed(evidence: pd.DataFrame, rules: Rules) -> pd.Series:
    """R2 of the ridge probe changed: lost or gained.

    - The change is significant in both standardisations, and of the same sign.
    - It is at least the margin: with enough patients a change that nobody cares about is beyond
      chance.
    - With encoders retrained from other seeds, the change that the next seed would make excludes
      zero (`lens.verdicts.retraining`), on the side of this encoder's own change.
    """
    delta = evidence["delta_r2"]
    agree = np.sign(delta) == np.sign(evidence["delta_r2_one_scale"])
    shown = agree & (evidence["p_maxt"] <= rules.level) & (delta.abs() >= rules.margin)
    if "retrained_mean" in evidence:
        one_side = (evidence["retrained_low"] > 0) | (evidence["retrained_high"] < 0)
        shown &= one_side & (np.sign(evidence["retrained_mean"]) == np.sign(delta))
    return shown


def moved(evidence: pd.DataFrame, rules: Rules) -> pd.Series:
    """The MLP trained before fine-tuning predicts the feature worse after it, ridge does not.

    - Its R2 is significantly lower after fine-tuning, by at least the margin.
    - At least half of that drop is no drop of the ridge probe's R2: the information is there.
    """
    if "frozen_drop" not in evidence:
        return pd.Series(False, index=evidence.index)
    drop = evidence["frozen_drop"]
    in_another_basis = -evidence["delta_r2"] <= drop / 2
    return (evidence["p_moved"] <= rules.level) & (drop >= rules.margin) & in_another_basis


def with_verdicts(features: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``features.parquet``: the single split's columns, then those of the verdicts.

    The single split's own change of R2, by the frozen projection, keeps its values under
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


def _describe(estimates: Estimates, evidence: pd.DataFrame) -> dict[str, np.ndarray | int]:
    """Columns of `judge` after the first three.

    Args:
        estimates: of all features.
        evidence: of each feature's medoid, a row per feature.
    """
    columns = _with_ends("delta_r2", estimates.change)
    columns |= _with_ends("r2_ridge_pre", estimates.before)
    columns |= _with_ends("r2_ridge_ft", estimates.after)
    for name in ("p_maxt", "q_bh", "p_present_pre", "p_present_ft"):
        columns[name] = evidence[name].to_numpy()
    if (band := estimates.band) is not None:
        columns |= {"retrained": band.encoders, "delta_r2_retrained": band.mean}
        columns |= {"delta_r2_retrained_low": band.low, "delta_r2_retrained_high": band.high}
    columns |= {f"r2_{name}": values for name, values in estimates.mlp.items()}
    if "p_moved" in evidence:
        columns["p_moved"] = evidence["p_moved"].to_numpy()
    for name, (before, after) in estimates.others.items():
        columns |= {f"r2_{name}_pre": before, f"r2_{name}_ft": after}
    return columns


def _with_ends(name: str, estimate: Estimate) -> dict[str, np.ndarray | int]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
