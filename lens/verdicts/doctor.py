"""False alarms and power in this cohort, from known changes planted in the user's own embeddings.

Every change is made to the embeddings *before* fine-tuning, so that the truth is known, and goes
through the same folds, probes and tests as the real analysis:

- **harmless**: nothing at all, one scale factor, rotations, a gain per channel, one direction 30
  times as large, all but the leading directions 5 times as large. A verdict of lost or gained is
  a false alarm.
- **exchangeable**: other noise of the same kind on each side: normal, normal and loud in a few
  patients, skewed. Neither side holds more; a verdict is a false alarm. Each draw has two noises of
  its own, so that false alarms are counted over independent draws.
- **erased**: in the linear subspace from which one cluster of features is predicted, a part is
  replaced by that of other patients (`lens.verdicts.planted_changes.replace`), with other noise on
  both sides. How often that is
  called lost, by the R2 that it costs, is the power.
- **damage**: noise, and the rows of other patients. Context; counts neither way.

The medoid of each cluster of near copies is tested, which saves the time of the others and hardly
lowers the family-wise limit. What holds for the planted
changes holds for a real fine-tuning as far as its noise is like theirs; where the embeddings after
fine-tuning are given, the smallest loss that would show is also worked out from these.
`lens.verdicts.doctor_summary` draws the conclusion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.settings import PlantedSettings, Rules, Scores, SweepConfig
from lens.verdicts.clusters import Clusters, cluster_features
from lens.verdicts.doctor_plan import PlantedChange, comparisons, count_changes, plan
from lens.verdicts.evidence import estimate_task, significance_of_changes
from lens.verdicts.fold_values import impute, target_values
from lens.verdicts.folds import Fold
from lens.verdicts.held_out import PRE, HeldOutErrors, held_out_errors
from lens.verdicts.judge import judge
from lens.verdicts.power import Power, power_of


@dataclass(frozen=True)
class Settings(PlantedSettings):
    """What is planted and how it is judged, with the seed of all changes and tests."""

    scores: Scores = "normal"
    """Whether normal scores of the features are judged or their values."""
    seed: int = 0
    """Of all changes, folds and tests."""


@dataclass(frozen=True)
class Findings:
    """Verdicts on the planted changes, and what this cohort explains at all.

    Attributes:
        planted: a row per planted change: ``kind, change, dose, cluster`` (its medoid's column),
            ``alarms`` (clusters called lost or gained), ``lost, gained, recoded``; of an erasure
            also ``r2_before, loss`` (held out), ``detected`` (1 where called lost), and of
            `lens.verdicts.power.Power` ``expected, detectable, limit``, the first of them 0 where
            the loss was shown and not called (`lens.verdicts.rules.withheld`).
        features: a row per cluster: ``column, r2, p_present``, and per task
            ``detectable_<task>``, the smallest loss of R2 that would be shown with 80% power
            (`lens.verdicts.power.smallest_loss`).
        patients: in the cohort.
        rules: of the verdicts.
        noise: added to both sides, as a share of each channel's standard deviation.
        scores: whether normal scores of the features were judged or their values.
    """

    planted: pd.DataFrame
    features: pd.DataFrame
    patients: int
    rules: Rules
    noise: float
    scores: Scores = "normal"


def examine(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Mapping[str, Float[np.ndarray, "n e"]],
    r: Float[np.ndarray, "n k"],
    columns: Sequence[str],
    groups: np.ndarray,
    folds: Sequence[Fold],
    settings: Settings = Settings(),
    config: SweepConfig | None = None,
    *,
    on_fit: Callable[[], object] | None = None,
) -> Findings:
    """Verdicts on every planted change.

    Args:
        x_pre: embeddings before fine-tuning.
        x_ft: task -> embeddings after it, for the smallest loss that would show there; may be none.
        r: radiomic features, NaN where missing.
        columns: their names.
        groups: patient of each row.
        folds: from `lens.verdicts.folds.make_folds`.
        settings: what is planted.
        config: of the MLP; None leaves it out, and with it the verdict ``recoded``.
        on_fit: called after each of `count_fits` fits.
    """
    filled = impute(r, np.ones(len(r), bool))
    clusters = cluster_features(filled)
    single = Clusters(*(np.arange(len(clusters.medoids)) for _ in Clusters._fields))
    run = _Run(r[:, clusters.medoids], single, groups, folds, settings, config, on_fit)
    names = np.asarray(columns)[clusters.medoids]
    features = run.explained(x_pre, x_ft)
    features.insert(0, "column", names)

    # What is erased are the values that the probes predict.
    values = target_values(filled, np.ones(len(r), bool), settings.scores)
    erased = {int(each): values[:, clusters.ids == each] for each in _choose(features, settings)}
    changes = plan(x_pre, erased, groups, settings, settings.seed)
    planted = pd.DataFrame([row for batch in comparisons(changes) for row in run.rows(batch)])
    # Changes without a target have -1 there, which numpy takes for the last name.
    planted["cluster"] = np.where(planted["target"] >= 0, names[planted["target"]], "")
    return Findings(
        planted.drop(columns="target"), features, len(np.unique(groups)),
        settings.rules, settings.noise, settings.scores,
    )  # fmt: skip


def count_fits(
    tasks: int, clusters: int, folds: Sequence[Fold], settings: Settings = Settings()
) -> int:
    """Fits of `examine`, for a progress bar.

    Args:
        tasks: number of fine-tuned embeddings.
        clusters: number of clusters of near copies.
        folds: of the analysis.
        settings: what is planted.
    """
    changes = count_changes(clusters, settings)
    return len(folds) * (1 + tasks + sum(changes) + len(changes))


@dataclass(frozen=True)
class _Run:
    """The analysis of one cohort, for any number of planted changes.

    Attributes:
        r: the medoids' features.
        clusters: of these, each by itself.
        groups, folds, settings, config, on_fit: as in `examine`.
    """

    r: np.ndarray
    clusters: Clusters
    groups: np.ndarray
    folds: Sequence[Fold]
    settings: Settings
    config: SweepConfig | None
    on_fit: Callable[[], object] | None

    def explained(self, x_pre: np.ndarray, x_ft: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """R2 and p of every feature before fine-tuning, and what is detectable in each task."""
        held_out = self._held_out(x_pre, x_ft)
        judged = {side: self._judge(held_out, side) for side in (x_ft or (PRE,))}
        before = next(iter(judged.values()))
        table = pd.DataFrame({"r2": before["r2_ridge_pre"], "p_present": before["p_present_pre"]})
        for task in x_ft:
            table[f"detectable_{task}"] = judged[task]["smallest_loss"]
        return table

    def rows(self, batch: Sequence[PlantedChange]) -> Iterator[dict[str, Any]]:
        """A row of `Findings.planted` for each of some changes with the same side before."""
        sides = {str(number): change.after() for number, change in enumerate(batch)}
        held_out = self._held_out(batch[0].before(), sides)
        for number, change in enumerate(batch):
            yield self._row(change, held_out, str(number))

    def _row(self, planted: PlantedChange, held_out: HeldOutErrors, side: str) -> dict[str, Any]:
        judged = self._judge(held_out, side)
        counts = judged["verdict"].value_counts()
        lost, gained, recoded = (int(counts.get(name, 0)) for name in ("lost", "gained", "recoded"))
        row = {"kind": planted.kind, "change": planted.change, "dose": planted.dose,
               "target": planted.target, "alarms": lost + gained, "lost": lost, "gained": gained,
               "recoded": recoded, "r2_before": np.nan, "loss": np.nan, "detected": np.nan,
               "expected": np.nan, "detectable": np.nan, "limit": np.nan}  # fmt: skip
        if planted.target >= 0:
            target = judged.iloc[planted.target]
            row["r2_before"], row["loss"] = target["r2_ridge_pre"], -target["delta_r2"]
            row["detected"] = float(target["verdict"] == "lost")
            power = self._power(held_out, side)
            for name in ("expected", "detectable", "limit"):
                row[name] = getattr(power, name)[planted.target]
            if target["withheld"]:
                row["expected"] = 0.0
        return row

    def _held_out(self, x_pre: np.ndarray, sides: Mapping[str, np.ndarray]) -> HeldOutErrors:
        return held_out_errors(
            x_pre, sides, self.r, self.groups, self.folds, self.config,
            scores=self.settings.scores, seed=self.settings.seed, back=False, on_fit=self.on_fit,
        )  # fmt: skip

    def _judge(self, held_out: HeldOutErrors, side: str) -> pd.DataFrame:
        rules, seed = self.settings.rules, self.settings.seed
        return judge(held_out, side, self.clusters, self.groups, rules, seed=seed).features

    def _power(self, held_out: HeldOutErrors, side: str) -> Power:
        rules = self.settings.rules
        changes = estimate_task(held_out, side, self.groups).changes
        tests = significance_of_changes(changes, rules, seed=self.settings.seed)
        return power_of(changes, tests, rules)


def _choose(features: pd.DataFrame, settings: Settings) -> np.ndarray:
    """Clusters to erase: evenly over the R2 of those above chance, else the best of all."""
    order = features["r2"].sort_values(kind="stable").index.to_numpy()
    present = order[features["p_present"].to_numpy()[order] <= settings.rules.level]
    count = min(settings.clusters, len(order))
    if len(present) < count:
        return order[-count:]
    return present[np.linspace(0, len(present) - 1, count).round().astype(int)]
