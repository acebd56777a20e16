"""One verdict per feature and task, by rules on a table of evidence.

Every feature is tested by itself, at a level (5% by default) that holds family-wise for each
question over all features; the tests know the features' correlation, near copies included.
Clusters of near copies serve display and counting alone.

The ridge probe is asked in three views (`lens.verdicts.held_out.RIDGE_VIEWS`): one does not see a
gain per channel, one neither a rotation nor a scale factor, one next to nothing of a rescaling of
directions without signal. None of these changes the information in an embedding, and none can be
called a loss or a gain, since all must agree. Where the embedding after fine-tuning needs more
patients to be read than that before (`lens.verdicts.learning`), a loss must also hold as it would
be with very many; a gain in the opposite case. The MLP sees a rotation: it was trained before
fine-tuning, and reads the embedding after it as if nothing had happened.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lens.settings import Rules
from lens.verdicts.clusters import Clusters
from lens.verdicts.estimates import Estimate
from lens.verdicts.evidence import Estimates
from lens.verdicts.held_out import RIDGE_VIEWS
from lens.verdicts.learning import LASTING

VERDICTS = {
    "lost": "the embeddings explain less of the feature after fine-tuning",
    "gained": "the embeddings explain more of the feature after fine-tuning",
    "recoded": "as much of the feature is there after fine-tuning, in another basis",
    "unchanged": "a change of R2 beyond the margin of equivalence is ruled out",
    "undecided": "neither a change nor its absence is shown",
    "absent": "the embeddings are not shown to explain anything of the feature, before or after",
}
"""Verdicts in the order of a report, each with its meaning."""

NO_CHANGE = ("unchanged", "undecided", "absent")
"""Verdicts that speak of no change; a report counts their features and lists none."""

SINGLE_SPLIT = ("delta_r2", "delta_r2_low", "delta_r2_high", "p_maxt", "q_bh")
"""Columns of `lens.paper.shift` whose names go to the verdicts' own; the former get ``_split``."""


def verdict_table(
    estimates: Estimates, evidence: pd.DataFrame, clusters: Clusters, rules: Rules
) -> pd.DataFrame:
    """Verdict of every feature, with the estimates and p values behind it.

    Args:
        estimates: of `lens.verdicts.evidence.estimate_task`.
        evidence: of `lens.verdicts.evidence.evidence_table`.
        clusters: of the features, all of them.
        rules: level and margins.

    Returns:
        A row per feature: ``verdict``; ``withheld``, why a change that was shown is not called
        (`withheld`); ``cluster, medoid`` (whether the feature is one); of the ridge probe
        ``delta_r2, r2_ridge_pre, r2_ridge_ft``, each with ``_low`` and ``_high``, and the change in
        the other views ``delta_r2_one_scale, delta_r2_leading``; ``delta_r2_extrapolated,
        needs_more, lasting_share, p_extrapolated, p_maxt, q_bh, p_unchanged, detectable,
        smallest_loss, p_present_pre, p_present_ft`` (`lens.verdicts.evidence.evidence_table`);
        ``retrained``, the encoders behind the task, and with at least three ``delta_r2_retrained``
        with ``_low`` and ``_high``; with an MLP its R2 by the encoder that it was trained on and
        the one that it reads, ``r2_pre_pre, r2_pre_ft, r2_ft_pre, r2_ft_ft``, and ``p_read,
        p_recoded``; of any probe beyond ridge ``r2_<name>_pre, r2_<name>_ft``.
    """
    return pd.DataFrame(
        {
            "verdict": decide(evidence, rules),
            "withheld": withheld(evidence, rules),
            "cluster": clusters.ids,
            "medoid": np.isin(np.arange(len(clusters.ids)), clusters.medoids),
            **_describe(estimates, evidence),
        }
    )


def decide(evidence: pd.DataFrame, rules: Rules) -> np.ndarray:
    """Verdict of each row of evidence: the first whose rule holds, else ``undecided``.

    Args:
        evidence: columns of `lens.verdicts.evidence.evidence_table`.
        rules: level and margins.
    """
    called = shown(evidence, rules) & (withheld(evidence, rules) == "")
    holds = {
        "absent": absent(evidence, rules),
        "lost": called & (evidence["delta_r2"] < 0),
        "gained": called & (evidence["delta_r2"] > 0),
        "recoded": recoded(evidence, rules),
        "unchanged": unchanged(evidence, rules),
    }
    return np.select([rule.to_numpy() for rule in holds.values()], [*holds], "undecided")


def absent(evidence: pd.DataFrame, rules: Rules) -> pd.Series:
    """R2 of the ridge probe is above zero neither before nor after fine-tuning."""
    return evidence[["p_present_pre", "p_present_ft"]].min(axis=1) > rules.level


def shown(evidence: pd.DataFrame, rules: Rules) -> pd.Series:
    """A change of the ridge probe's R2 is shown in these patients and this encoder.

    - The change is significant in all views, and of the same sign.
    - Its own interval excludes zero.
    - It is at least the margin: with enough patients a change that nobody cares about is beyond
      chance.
    """
    delta = evidence["delta_r2"]
    agree = pd.Series(True, index=evidence.index)
    for view in RIDGE_VIEWS[1:]:
        agree &= np.sign(evidence[f"delta_r2_{view}"]) == np.sign(delta)
    excludes = (evidence["delta_r2_low"] > 0) | (evidence["delta_r2_high"] < 0)
    beyond = (evidence["p_maxt"] <= rules.level) & (delta.abs() >= rules.margin)
    return agree & excludes & beyond


def withheld(evidence: pd.DataFrame, rules: Rules) -> np.ndarray:
    """Why a change that is `shown` is not called; an empty text where it is, or none is shown.

    - ``learning curve``: the embedding with less of the feature needs more patients to be read, and
      the change expected with very many of them is not significant on the same side or below the
      margin, or changes are as a whole much smaller there (`LASTING`) than with these.
    - ``unseen patients``: a gain must hold in patients whom fine-tuning did not see, where these
      are known: the interval of their change lies above zero. An encoder may know the others by
      heart.
    - ``other seeds``: with encoders retrained from other seeds, the change that the next seed would
      make must exclude zero on the side of this encoder's own (`lens.verdicts.retraining`).
    """
    delta = evidence["delta_r2"]
    reasons: dict[str, Any] = {"learning curve": _learnable(evidence, rules)}
    if "unseen_low" in evidence:
        reasons["unseen patients"] = (delta > 0) & ~(evidence["unseen_low"] > 0)
    if "retrained_low" in evidence:
        low, high = evidence["retrained_low"], evidence["retrained_high"]
        reasons["other seeds"] = ~np.where(delta > 0, low > 0, high < 0)
    found = [np.asarray(shown(evidence, rules) & reason) for reason in reasons.values()]
    return np.select(found, [*reasons], "").astype(object)


def _learnable(evidence: pd.DataFrame, rules: Rules) -> pd.Series:
    """The encoder with less of the feature needs more patients, and they would bring it back."""
    side, beyond = np.sign(evidence["delta_r2"]), evidence["delta_r2_extrapolated"]
    holds = (side * beyond >= rules.margin) & (evidence["p_extrapolated"] <= rules.level)
    return (evidence["needs_more"] == side) & ~(holds & (evidence["lasting_share"] >= LASTING))


def recoded(evidence: pd.DataFrame, rules: Rules) -> pd.Series:
    """The MLP trained before fine-tuning reads the feature worse after it, ridge does not.

    - It reads the feature before fine-tuning at all: its R2 is above zero.
    - Its R2 is significantly lower after fine-tuning, by at least the margin.
    - At least half of that drop is no drop of the ridge probe's R2: the information is there.
    """
    if "frozen_drop" not in evidence:
        return pd.Series(False, index=evidence.index)
    drop = evidence["frozen_drop"]
    read = evidence["p_read"] <= rules.level
    in_another_basis = -evidence["delta_r2"] <= drop / 2
    return read & (evidence["p_recoded"] <= rules.level) & (drop >= rules.margin) & in_another_basis


def unchanged(evidence: pd.DataFrame, rules: Rules) -> pd.Series:
    """A change of R2 of the margin of equivalence or more is ruled out, by the interval too."""
    margin = rules.equivalence
    within = (evidence["delta_r2_low"] > -margin) & (evidence["delta_r2_high"] < margin)
    return within & (evidence["p_unchanged"] <= rules.level)


def with_verdicts(features: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``features.parquet``: the single split's columns, then those of the verdicts.

    The single split's own change of R2, by the frozen projection, keeps its values under
    ``delta_r2_split`` (with ``_low`` and ``_high``), ``p_maxt_split`` and ``q_bh_split``.

    Args:
        features: of `lens.paper.shift.Shift`.
        verdicts: of `lens.verdicts.judge`, with the same ``column`` first.
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
    """Columns of `verdict_table` after the first four."""
    columns = _with_ends("delta_r2", estimates.change)
    columns |= _with_ends("r2_ridge_pre", estimates.before)
    columns |= _with_ends("r2_ridge_ft", estimates.after)
    names = [f"delta_r2_{view}" for view in RIDGE_VIEWS[1:]]
    names += ["delta_r2_extrapolated", "needs_more", "lasting_share", "p_extrapolated"]
    names += ["p_maxt", "q_bh", "p_unchanged", "detectable", "smallest_loss"]
    names += ["p_present_pre", "p_present_ft"]
    columns |= {name: evidence[name].to_numpy() for name in names}
    columns["retrained"] = estimates.encoders
    if (band := estimates.band) is not None:
        columns["delta_r2_retrained"] = band.mean
        columns |= {"delta_r2_retrained_low": band.low, "delta_r2_retrained_high": band.high}
    columns |= {f"r2_{name}": values for name, values in estimates.mlp.items()}
    for name in ("p_read", "p_recoded"):
        if name in evidence:
            columns[name] = evidence[name].to_numpy()
    for name, (before, after) in estimates.others.items():
        columns |= {f"r2_{name}_pre": before, f"r2_{name}_ft": after}
    return columns


def _with_ends(name: str, estimate: Estimate) -> dict[str, np.ndarray | int]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
