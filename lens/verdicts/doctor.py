"""Can this cohort show anything? Known changes planted in the user's own embeddings.

Every change is made to the embeddings *before* fine-tuning, so that the truth is known, and goes
through the same folds, probes and tests as the real analysis:

- **harmless**: rotation, one scale factor, a gain per channel, nothing at all. Any call of lost or
  gained is a false alarm.
- **exchangeable**: other noise of the same size on both sides. Neither side holds more; any call
  is a false alarm, and unlike a harmless change this one differs for every patient.
- **erased**: the linear subspace that tells one cluster of features is taken out by dose
  (`lens.verdicts.planted_changes.remove`), with other noise on both sides. How often that is
  called lost, by the R2 that it costs, is the power.
- **damage**: noise, and the rows of other patients. Context; counts neither way.

One feature speaks for each cluster of near copies, as in the verdicts. What holds for the planted
changes holds for a real fine-tuning as far as its noise is like theirs; where the embeddings after
fine-tuning are given, the smallest loss that would show is also worked out from these.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from lens.settings import Rules, SweepConfig
from lens.verdicts.clusters import Clusters, cluster_features
from lens.verdicts.estimates import delta_r2
from lens.verdicts.folds import Fold
from lens.verdicts.held_out import PRE, HeldOutErrors, held_out_errors
from lens.verdicts.planted_changes import add_noise, gain, remove, rescale, rotate, shuffle
from lens.verdicts.rules import judge
from lens.verdicts.sign_flips import critical_value

Kind = Literal["harmless", "exchangeable", "erased", "damage"]

POWER = 0.8
"""Power at which a loss counts as detectable."""

BINS = (0.0, 0.02, 0.05, 0.1, 0.2, np.inf)
"""Edges of the losses of R2 by which power is told."""

SMALL = 0.1
"""A cohort that shows losses of this R2 answers the question; beyond, it does so in part."""

_BATCH = 6
"""Planted versions held out together: bounds memory at so many sets of errors."""


@dataclass(frozen=True)
class Settings:
    """What is planted, and how it is judged.

    Attributes:
        rules: of the verdicts.
        doses: shares of a cluster's subspace that are taken out.
        clusters: how many clusters are erased, each by each dose.
        draws: of every harmless and exchangeable change that is random.
        noise: deviation of the other noise on both sides, over that of the channel.
        seed: of all changes.
    """

    rules: Rules = field(default_factory=lambda: Rules(flips=2000))
    doses: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    clusters: int = 6
    draws: int = 4
    noise: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class Findings:
    """What came of the planted changes.

    Attributes:
        plants: a row per planted change: ``kind, change, dose, cluster`` (its medoid's column),
            ``alarms`` (clusters called lost or gained), ``lost, gained, moved``; of an erasure also
            ``r2_before, loss`` (held out), ``detected`` (called lost), ``expected`` (power at
            that loss), ``detectable`` (loss with 80% power by its standard error) and ``limit``
            (Student's t that a call needs).
        features: a row per cluster: ``column, r2, p_present``, and per task
            ``detectable_<task>``, the smallest change of R2 that shows with 80% power.
        patients: in the cohort.
        rules: of the verdicts.
        noise: of both sides.
    """

    plants: pd.DataFrame
    features: pd.DataFrame
    patients: int
    rules: Rules
    noise: float


class Plant(NamedTuple):
    """A change to plant.

    Attributes:
        kind, change, dose: for the table.
        target: cluster that is erased, -1 for none.
        make: the changed embeddings.
    """

    kind: Kind
    change: str
    dose: float
    target: int
    make: Callable[[], np.ndarray]


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
    """Plants every change and judges it.

    Args:
        x_pre: embeddings before fine-tuning.
        x_ft: task -> embeddings after it, for the smallest loss that would show there; may be none.
        r: radiomic features, finite.
        columns: their names.
        groups: patient of each row.
        folds: from `lens.verdicts.folds.make_folds`.
        settings: what is planted.
        config: of the MLP; None leaves it out, and with it the verdict ``moved``.
        on_fit: told after each of `count_fits` fits.
    """
    clusters = cluster_features(r)
    medoids = r[:, clusters.medoids]
    single = Clusters(*(np.arange(len(clusters.medoids)) for _ in Clusters._fields))
    run = _Run(medoids, single, groups, folds, settings.rules, settings.seed, config, on_fit)
    names = np.asarray(columns)[clusters.medoids]

    real = run.hold(x_pre, x_ft)
    before = judge(real, next(iter(x_ft), PRE), single, groups, settings.rules, seed=settings.seed)
    features = pd.DataFrame(
        {"column": names, "r2": before["r2_ridge_pre"], "p_present": before["p_present_pre"]}
    )
    for task in x_ft:
        features[f"detectable_{task}"] = run.power(real, task).detectable
    targets = _choose(features, settings)
    members = [np.flatnonzero(clusters.ids == target) for target in targets]
    noisy = add_noise(x_pre, settings.noise, settings.seed)
    plain = _unchanged_base(x_pre, settings)
    other = _noisy_base(x_pre, r, targets, members, settings)
    rows = [*run.rows(x_pre, plain), *run.rows(noisy, other)]
    plants = pd.DataFrame(rows)
    # Changes without a target have -1 there, which numpy takes for the last name.
    plants["cluster"] = np.where(plants["target"] >= 0, names[plants["target"]], "")
    plants = plants.drop(columns="target")
    return Findings(plants, features, len(np.unique(groups)), settings.rules, settings.noise)


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
    plain = len(_unchanged_base(np.zeros((0, 0)), settings))
    other = settings.draws + len(settings.doses) * min(settings.clusters, clusters)
    sides = sum(count + -(-count // _BATCH) for count in (plain, other))
    return len(folds) * (1 + tasks + sides)


def summary(findings: Findings) -> dict[str, Any]:
    """The doctor's answer, for a printed table, a file or a section of the report.

    Returns:
        ``answer`` (yes, partly, no), ``sentence``, ``patients``, ``clusters``, ``explained``
        (clusters above chance before fine-tuning), ``median_r2`` (of these), ``false_alarms`` (rows
        ``change, alarms, runs``), ``power`` (rows ``low, high, plants, detected``), ``detectable``
        (loss of R2 with 80% power; None where no planted loss has it), ``tasks`` (rows ``task,
        detectable``: median over the explained clusters), ``level, margin, noise``.
    """
    plants, features = findings.plants, findings.features
    explained = features["p_present"] <= findings.rules.level
    safe = plants[plants["kind"].isin(["harmless", "exchangeable"])]
    alarms = [
        {"change": change, "alarms": int((rows["alarms"] > 0).sum()), "runs": len(rows)}
        for change, rows in safe.groupby("change", sort=False)
    ]
    facts = {
        "patients": findings.patients,
        "clusters": len(features),
        "explained": int(explained.sum()),
        "median_r2": float(features.loc[explained, "r2"].median()) if explained.any() else None,
        "false_alarms": alarms,
        "power": _by_loss(plants),
        "detectable": _detectable(plants, findings.rules.margin),
        "tasks": [
            {
                "task": name.removeprefix("detectable_"),
                "detectable": float(features.loc[explained, name].median()),
            }
            for name in map(str, features.columns)
            if name.startswith("detectable_") and explained.any()
        ],
        "level": findings.rules.level,
        "margin": findings.rules.margin,
        "noise": findings.noise,
    }
    answer, sentence = _answer(facts)
    return {"answer": answer, "sentence": sentence, **facts}


def table(content: Mapping[str, Any]) -> pd.DataFrame:
    """The summary's figures as one table: ``question, found``."""
    rows = [
        ("clusters of features explained before fine-tuning, of all",
         f"{content['explained']} of {content['clusters']}"),
        *((f"false alarms: {row['change']}", f"{row['alarms']} of {row['runs']} runs")
          for row in content["false_alarms"]),
        *((f"called lost where R2 falls by {_range(row)}",
           f"{row['detected']} of {row['plants']} ({row['detected'] / row['plants']:.0%})")
          for row in content["power"]),
        ("smallest loss of R2 with 80% power, planted", _number(content["detectable"])),
        *((f"smallest change of R2 with 80% power, {row['task']}", _number(row["detectable"]))
          for row in content["tasks"]),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["question", "found"])


class _Power(NamedTuple):
    """Per feature: smallest change with 80% power, the power at the change that was found, and the
    critical value behind them."""

    detectable: Float[np.ndarray, " k"]
    expected: Float[np.ndarray, " k"]
    limit: Float[np.ndarray, " k"]


@dataclass(frozen=True)
class _Run:
    """One cohort's way from a planted embedding to its rows of the table."""

    r: np.ndarray
    clusters: Clusters
    groups: np.ndarray
    folds: Sequence[Fold]
    rules: Rules
    seed: int
    config: SweepConfig | None
    on_fit: Callable[[], object] | None

    def hold(self, x_pre: np.ndarray, sides: Mapping[str, np.ndarray]) -> HeldOutErrors:
        return held_out_errors(
            x_pre,
            sides,
            self.r,
            self.folds,
            self.config,
            seed=self.seed,
            back=False,
            on_fit=self.on_fit,
        )

    def rows(self, base: np.ndarray, plants: Sequence[Plant]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(plants), _BATCH):
            batch = plants[start : start + _BATCH]
            sides = {str(number): plant.make() for number, plant in enumerate(batch)}
            held_out = self.hold(base, sides)
            for number, plant in enumerate(batch):
                yield self._row(plant, held_out, str(number))

    def _row(self, plant: Plant, held_out: HeldOutErrors, side: str) -> dict[str, Any]:
        judged = judge(held_out, side, self.clusters, self.groups, self.rules, seed=self.seed)
        counts = judged["verdict"].value_counts()
        lost, gained, moved = (int(counts.get(name, 0)) for name in ("lost", "gained", "moved"))
        row = {"kind": plant.kind, "change": plant.change, "dose": plant.dose,
               "target": plant.target, "alarms": lost + gained, "lost": lost, "gained": gained,
               "moved": moved, "r2_before": np.nan, "loss": np.nan, "detected": np.nan,
               "expected": np.nan, "detectable": np.nan, "limit": np.nan}  # fmt: skip
        if plant.target >= 0:
            target = judged.iloc[plant.target]
            row["r2_before"], row["loss"] = target["r2_ridge_pre"], -target["delta_r2"]
            row["detected"] = float(target["verdict"] == "lost")
            for name, values in self.power(held_out, side)._asdict().items():
                row[name] = values[plant.target]
        return row

    def power(self, held_out: HeldOutErrors, side: str) -> _Power:
        """From the standard errors of the change on this side, in the worse of the two views."""
        detectable, expected, limits = [], [], []
        for sides in held_out.ridge.values():
            change = delta_r2(sides[PRE], sides[side], held_out.baseline, self.groups)
            p = change.patients
            error = np.linalg.norm(change.influence, axis=0) * np.sqrt(p / (p - 1))
            limit = critical_value(
                change.influence, p, self.rules.level, flips=self.rules.flips, seed=self.seed
            )
            detectable.append((limit + stats.norm.ppf(POWER)) * error)
            limits.append(limit)
            fall = np.divide(-change.value, error, out=np.zeros_like(error), where=error > 0)
            shown = stats.norm.cdf(fall - limit)
            expected.append(np.where(-change.value >= self.rules.margin, shown, 0.0))
        worse = np.argmax(detectable, axis=0)
        return _Power(
            np.maximum(np.max(detectable, axis=0), self.rules.margin),
            np.min(expected, axis=0),
            np.array(limits)[worse],
        )


def _choose(features: pd.DataFrame, settings: Settings) -> np.ndarray:
    """Clusters to erase: evenly over the R2 of those above chance, else the best of all."""
    order = features["r2"].sort_values(kind="stable").index.to_numpy()
    present = order[features["p_present"].to_numpy()[order] <= settings.rules.level]
    count = min(settings.clusters, len(order))
    if len(present) < count:
        return order[-count:]
    return present[np.linspace(0, len(present) - 1, count).round().astype(int)]


def _unchanged_base(x: np.ndarray, settings: Settings) -> list[Plant]:
    """Changes to the embeddings as they are."""
    seeds = range(settings.seed, settings.seed + settings.draws)
    return [
        Plant("harmless", "nothing", 0.0, -1, lambda: x),
        *(
            Plant("harmless", "scale", factor, -1, lambda f=factor: rescale(x, f))
            for factor in (0.5, 2.0)
        ),
        *(Plant("harmless", "rotation", 1.0, -1, lambda s=s: rotate(x, s)) for s in seeds),
        *(Plant("harmless", "gain per channel", 1.0, -1, lambda s=s: gain(x, s)) for s in seeds),
        *(
            Plant("damage", "noise", share, -1, lambda share=share: add_noise(x, share, seeds[0]))
            for share in (0.5, 1.0)
        ),
        Plant("damage", "rows of others", 1.0, -1, lambda: shuffle(x, settings.seed)),
    ]


def _noisy_base(
    x: np.ndarray,
    r: np.ndarray,
    targets: np.ndarray,
    members: Sequence[np.ndarray],
    settings: Settings,
) -> list[Plant]:
    """Changes with other noise than the side before has, which is drawn from `settings.seed`."""
    plants: list[Plant] = []

    def other_noise(change: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
        seed = settings.seed + 1 + len(plants)
        return lambda: change() + (add_noise(x, settings.noise, seed) - x)

    for _ in range(settings.draws):
        make = other_noise(lambda: x)
        plants.append(Plant("exchangeable", "other noise", settings.noise, -1, make))
    for target, features in zip(targets.tolist(), members, strict=True):
        for dose in settings.doses:
            make = other_noise(lambda f=features, dose=dose: remove(x, r[:, f], dose))
            plants.append(Plant("erased", "erased", dose, target, make))
    return plants


def _by_loss(plants: pd.DataFrame) -> list[dict[str, Any]]:
    erased = plants[plants["kind"] == "erased"]
    rows = []
    for low, high in itertools.pairwise(BINS):
        inside = erased[(erased["loss"] > low) & (erased["loss"] <= high)]
        if len(inside):
            rows.append(
                {"low": low, "high": high if np.isfinite(high) else None,
                 "plants": len(inside), "detected": int(inside["detected"].sum())}
            )  # fmt: skip
    return rows


def power_curve(plants: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Losses of R2 up to the largest that was planted, and the power at each.

    An erasure's own standard error tells the loss that would show with 80% power there. It grows
    with the loss; monotone regression over the erasures says how, and Student's t the rest.
    """
    erased = plants[(plants["kind"] == "erased") & (plants["loss"] > 0)]
    if erased.empty:
        return np.zeros(0), np.zeros(0)
    fit = IsotonicRegression(out_of_bounds="clip").fit(erased["loss"], erased["detectable"])
    loss = np.linspace(0.0, float(erased["loss"].max()), 1001)
    limit, margin = float(erased["limit"].mean()), stats.norm.ppf(POWER)
    power = stats.norm.cdf((limit + margin) * loss / fit.predict(loss) - limit)
    return loss, np.maximum.accumulate(power)


def _detectable(plants: pd.DataFrame, margin: float) -> float | None:
    """Where the curve reaches `POWER`."""
    loss, power = power_curve(plants)
    reached = loss[power >= POWER]
    return max(float(reached[0]), margin) if len(reached) else None


def _answer(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Whether the cohort can answer the question, and why."""
    size = f"With {facts['patients']} patients"
    if not facts["explained"]:
        return "no", (
            f"{size} this cohort cannot answer the question: the embeddings before fine-tuning "
            f"explain none of the {facts['clusters']} clusters of features beyond chance, so that "
            "nothing can be seen to be lost."
        )
    alarms = sum(row["alarms"] for row in facts["false_alarms"])
    runs = sum(row["runs"] for row in facts["false_alarms"])
    if stats.binom.sf(alarms - 1, runs, facts["level"]) < 0.01:
        return "no", (
            f"{size} this cohort cannot answer the question: {alarms} of {runs} changes that take "
            "nothing away were called a loss or a gain."
        )
    limits = [facts["detectable"], *(row["detectable"] for row in facts["tasks"])]
    worst = np.inf if None in limits else max(limits)
    known = f"{facts['explained']} of {facts['clusters']} clusters of features"
    if worst > facts["median_r2"]:
        what = "no planted loss" if np.isinf(worst) else f"only a loss of R2 above {worst:.2f}"
        return "no", (
            f"{size} this cohort cannot answer the question: {what} shows with 80% power, and the "
            f"median R2 of the explained features ({known}) is {facts['median_r2']:.2f}."
        )
    if worst > SMALL:
        return "partly", (
            f"{size} this cohort can answer the question in part: it shows losses of R2 of "
            f"{worst:.2f} or more with 80% power, for {known}; smaller ones may go unseen."
        )
    return "yes", (
        f"{size} this cohort can answer the question: it shows losses of R2 of {worst:.2f} or more "
        f"with 80% power, for {known}."
    )


def _range(row: Mapping[str, Any]) -> str:
    if row["high"] is None:
        return f"more than {row['low']:g}"
    return f"{row['low']:g} to {row['high']:g}"


def _number(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.3f}"
