"""False alarms and power in this cohort, from known changes planted in the user's own embeddings.

Every change is made to the embeddings *before* fine-tuning, so that the truth is known, and goes
through the same folds, probes and tests as the real analysis:

- **harmless**: rotation, one scale factor, a gain per channel, nothing at all. A verdict of lost or
  gained is a false alarm.
- **exchangeable**: other noise of the same size on both sides. Neither side has more information;
  a verdict is a false alarm, and unlike a harmless change this one differs for every patient.
- **erased**: the linear subspace from which one cluster of features is predicted is removed by dose
  (`lens.verdicts.planted_changes.remove`), with other noise on both sides. How often that is
  called lost, by the R2 that it costs, is the power.
- **damage**: noise, and the rows of other patients. Context; counts neither way.

The medoid of each cluster of near copies is tested, as in the verdicts. What holds for the planted
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

from lens.settings import PlantedSettings, Rules, SweepConfig
from lens.verdicts.clusters import Clusters, cluster_features
from lens.verdicts.evidence import estimate_task, significance_of_changes
from lens.verdicts.folds import Fold
from lens.verdicts.held_out import PRE, HeldOutErrors, held_out_errors
from lens.verdicts.judge import judge
from lens.verdicts.planted_changes import PlantedChange, add_noise, other_noise, unchanged_noise
from lens.verdicts.power import Power, power_of

_BATCH = 6
"""Planted changes whose held-out errors are in memory at once."""


@dataclass(frozen=True)
class Settings(PlantedSettings):
    """What is planted and how it is judged, with the seed of all changes and tests."""

    seed: int = 0
    """Of all changes, folds and tests."""


@dataclass(frozen=True)
class Findings:
    """Verdicts on the planted changes, and what this cohort explains at all.

    Attributes:
        planted: a row per planted change: ``kind, change, dose, cluster`` (its medoid's column),
            ``alarms`` (clusters called lost or gained), ``lost, gained, recoded``; of an erasure
            also ``r2_before, loss`` (held out), ``detected`` (1 where called lost), and of
            `lens.verdicts.power.Power` ``expected, detectable, limit``.
        features: a row per cluster: ``column, r2, p_present``, and per task
            ``detectable_<task>``, the smallest change of R2 that shows with 80% power.
        patients: in the cohort.
        rules: of the verdicts.
        noise: added to both sides, as a share of each channel's standard deviation.
    """

    planted: pd.DataFrame
    features: pd.DataFrame
    patients: int
    rules: Rules
    noise: float


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
        r: radiomic features, finite.
        columns: their names.
        groups: patient of each row.
        folds: from `lens.verdicts.folds.make_folds`.
        settings: what is planted.
        config: of the MLP; None leaves it out, and with it the verdict ``recoded``.
        on_fit: called after each of `count_fits` fits.
    """
    clusters = cluster_features(r)
    single = Clusters(*(np.arange(len(clusters.medoids)) for _ in Clusters._fields))
    run = _Run(r[:, clusters.medoids], single, groups, folds, settings, config, on_fit)
    names = np.asarray(columns)[clusters.medoids]
    features = run.explained(x_pre, x_ft)
    features.insert(0, "column", names)

    targets = _choose(features, settings)
    erased = {int(target): r[:, clusters.ids == target] for target in targets}
    noisy = add_noise(x_pre, settings.noise, settings.seed)
    planted = pd.DataFrame(
        [
            *run.rows(x_pre, _same_noise(x_pre, settings)),
            *run.rows(noisy, _other_noise(x_pre, erased, settings)),
        ]
    )
    # Changes without a target have -1 there, which numpy takes for the last name.
    planted["cluster"] = np.where(planted["target"] >= 0, names[planted["target"]], "")
    planted = planted.drop(columns="target")
    return Findings(planted, features, len(np.unique(groups)), settings.rules, settings.noise)


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
    nothing = np.zeros((0, 0))
    erased = dict.fromkeys(range(min(settings.clusters, clusters)), nothing)
    changes = (_same_noise(nothing, settings), _other_noise(nothing, erased, settings))
    sides = sum(len(each) + -(-len(each) // _BATCH) for each in changes)
    return len(folds) * (1 + tasks + sides)


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
        before = self._judge(held_out, next(iter(x_ft), PRE))
        table = pd.DataFrame({"r2": before["r2_ridge_pre"], "p_present": before["p_present_pre"]})
        for task in x_ft:
            table[f"detectable_{task}"] = self._power(held_out, task).detectable
        return table

    def rows(self, x: np.ndarray, changes: Sequence[PlantedChange]) -> Iterator[dict[str, Any]]:
        """A row of `Findings.planted` for each change, with `x` as the side before."""
        for start in range(0, len(changes), _BATCH):
            batch = changes[start : start + _BATCH]
            sides = {str(number): change.make() for number, change in enumerate(batch)}
            held_out = self._held_out(x, sides)
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
            for name, values in self._power(held_out, side)._asdict().items():
                row[name] = values[planted.target]
        return row

    def _held_out(self, x_pre: np.ndarray, sides: Mapping[str, np.ndarray]) -> HeldOutErrors:
        return held_out_errors(
            x_pre, sides, self.r, self.groups, self.folds, self.config,
            seed=self.settings.seed, back=False, on_fit=self.on_fit,
        )  # fmt: skip

    def _judge(self, held_out: HeldOutErrors, side: str) -> pd.DataFrame:
        rules, seed = self.settings.rules, self.settings.seed
        return judge(held_out, side, self.clusters, self.groups, rules, seed=seed).features

    def _power(self, held_out: HeldOutErrors, side: str) -> Power:
        rules = self.settings.rules
        changes = estimate_task(held_out, side, self.groups).changes
        tests = significance_of_changes(changes, rules, seed=self.settings.seed)
        return power_of(changes, tests, rules)


def _same_noise(x: np.ndarray, settings: Settings) -> list[PlantedChange]:
    return unchanged_noise(x, settings.draws, settings.seed)


def _other_noise(
    x: np.ndarray, erased: Mapping[int, np.ndarray], settings: Settings
) -> list[PlantedChange]:
    return other_noise(x, erased, settings.doses, settings.noise, settings.draws, settings.seed)


def _choose(features: pd.DataFrame, settings: Settings) -> np.ndarray:
    """Clusters to erase: evenly over the R2 of those above chance, else the best of all."""
    order = features["r2"].sort_values(kind="stable").index.to_numpy()
    present = order[features["p_present"].to_numpy()[order] <= settings.rules.level]
    count = min(settings.clusters, len(order))
    if len(present) < count:
        return order[-count:]
    return present[np.linspace(0, len(present) - 1, count).round().astype(int)]
