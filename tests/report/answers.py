"""Results of many kinds, made from a finished run by changing its tables as one changes another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from lens.report.results import Results, Scope, TaskTables
from lens.settings import Rules
from lens.verdicts.doctor_summary import short_summary
from lens.verdicts.rules import VERDICTS

CALLED = ("lost", "gained", "recoded")


def with_tasks(results: Results, tables: Mapping[str, TaskTables], **facts: Any) -> Results:
    """The results with these tasks, all in one scope, its short doctor computed from them."""
    ((name, scope),) = results.scopes.items()
    facts = {**scope.facts, "spectrum": [], "patients": 200, "scored": 200, **facts}
    features = {task: each.features for task, each in tables.items()}
    facts["columns"] = len(next(iter(features.values())))
    config = results.run["config"]
    doctor = short_summary(features, facts["patients"], Rules(config["level"]), config["scores"])
    run = {**results.run, "tasks": dict.fromkeys(tables, name)}
    return dataclasses.replace(
        results,
        run=run,
        scopes={name: dataclasses.replace(scope, facts=facts, doctor=doctor)},
        tasks=dict(tables),
    )


def with_config(results: Results, **config: Any) -> Results:
    """The results of other settings."""
    run = {**results.run, "config": {**results.run["config"], **config}}
    return dataclasses.replace(results, run=run)


def with_doctor(results: Results, **content: Any) -> Results:
    """The results with other words of the doctor; none at all empties it."""
    ((name, scope),) = results.scopes.items()
    doctor = {**scope.doctor, **content} if content else {}
    scopes: dict[str, Scope] = {name: dataclasses.replace(scope, doctor=doctor)}
    return dataclasses.replace(results, scopes=scopes)


def drawn(tables: TaskTables, seed: int, *, rois: int = 1, **options: Any) -> TaskTables:
    """Tables with verdicts, changes and what goes with them at random.

    Args:
        tables: of a task of a finished run.
        seed: of the draw.
        rois: number of regions, over which the features are dealt out.
        options: of `decided`.
    """
    rng = np.random.default_rng(seed)
    features = tables.features.copy()
    k = len(features)
    features["roi"] = [f"region{i % rois}" for i in range(k)] if rois > 1 else "gland"
    features["verdict"] = rng.choice([*VERDICTS], size=k)
    size = rng.uniform(0.05, 0.6, size=k)
    sign = features["verdict"].map({"lost": -1.0, "gained": 1.0}).fillna(0.1)
    features["delta_r2"] = sign * size
    features["delta_r2_low"] = features["delta_r2"] - 0.04
    features["delta_r2_high"] = features["delta_r2"] + 0.04
    changed = features["verdict"].isin(["lost", "gained"])
    features["linear_only"] = changed & (rng.random(k) < 0.4)
    reasons = rng.choice(["learning curve", "unseen patients", "other seeds"], size=k)
    features["withheld"] = np.where(~changed & (rng.random(k) < 0.2), reasons, "")
    features["p_present_pre"] = rng.choice([0.001, 0.5], size=k)
    features["r2_ridge_pre"] = rng.uniform(0.2, 0.8, size=k)
    features["smallest_loss"] = rng.uniform(0.05, 0.6, size=k)
    features["cluster"] = np.arange(k) // 2
    features["medoid"] = np.arange(k) % 2 == 0
    return decided(dataclasses.replace(tables, features=features), seed, **options)


def decided(
    tables: TaskTables, seed: int = 0, *, p: float | None = None, verdict: str | None = None
) -> TaskTables:
    """Tables whose levels go with their features: classes of every modality and region.

    Args:
        tables: with the features as wanted.
        seed: of the groups' verdicts, where none is given.
        p: of the task; drawn where none is given.
        verdict: of every group.
    """
    rng = np.random.default_rng(seed)
    features = tables.features
    p = float(rng.choice([0.0002, 0.03, 0.4, 1.0])) if p is None else p
    rows: list[tuple[Any, ...]] = [("task", "", "", "all", np.ones(len(features), bool))]
    for (modality, roi), part in features.groupby(["modality", "roi"], sort=False):
        of_part = features.index.isin(part.index)
        rows.append(("modality", modality, roi, "all", of_part))
        for name in dict.fromkeys(part["feature_class"]):
            own = of_part & (features["feature_class"] == name).to_numpy()
            rows.append(("modality", modality, roi, name, own))
    table = pd.DataFrame([row[:4] for row in rows], columns=["level", "modality", "roi", "group"])
    table["n_features"] = [int(row[4].sum()) for row in rows]
    table["delta_r2_cv"] = [features.loc[row[4], "delta_r2"].mean() for row in rows]
    table["delta_r2_cv_low"] = table["delta_r2_cv"] - rng.uniform(0.01, 0.2, size=len(table))
    table["delta_r2_cv_high"] = table["delta_r2_cv"] + rng.uniform(0.01, 0.2, size=len(table))
    table["p_group"] = np.maximum(p, rng.random(len(table)))
    table.loc[0, "p_group"] = p
    table["detectable_group"] = 0.1
    # No group is called where the test of the whole task shows nothing.
    choice = (
        ["lost", "gained", "unchanged", "undecided"] if p <= 0.05 else ["unchanged", "undecided"]
    )
    table["verdict"] = rng.choice(choice, size=len(table)) if verdict is None else verdict
    return dataclasses.replace(tables, levels=table)


def all_of(tables: TaskTables, verdict: str, *, change: float, p: float) -> TaskTables:
    """Tables in which every feature and every group has one verdict."""
    features = tables.features.assign(
        verdict=verdict,
        withheld="",
        linear_only=False,
        delta_r2=change,
        delta_r2_low=change - 0.03,
        delta_r2_high=change + 0.03,
        p_present_pre=0.9 if verdict == "absent" else 0.001,
    )
    return decided(dataclasses.replace(tables, features=features), p=p, verdict=verdict)


def seen(tables: TaskTables, *which: str) -> TaskTables:
    """Tables that know whom fine-tuning saw: columns of ``exposed`` or ``unexposed`` patients."""
    columns = {f"r2_{name}_{side}": 0.5 for name in which for side in ("pre", "ft")}
    return dataclasses.replace(tables, features=tables.features.assign(**columns))


def failures(join: int, other: int) -> pd.DataFrame:
    """Patients left out in joining and elsewhere, one of the latter with two findings."""
    rows = [(f"J{i}", "a.csv", "join", "not in this file", "add") for i in range(join)]
    rows += [(f"O{i}", "o.nii", "read", "unreadable", "mend") for i in range(other)]
    rows += rows[-1:] if other else []
    return pd.DataFrame(rows, columns=["patient_id", "file", "stage", "reason", "remedy"])


def spectrum(task: str, leading: float) -> dict[str, Any]:
    """A row of the embeddings' spectra; collapsed with nearly all in one direction."""
    rank = 6.2 - 5.3 * leading
    collapsed = leading >= 0.95
    return {
        "task": task, "width": 12, "effective_rank": rank, "leading": leading,
        "collapsed": collapsed,
    }  # fmt: skip


def cases(results: Results) -> dict[str, Results]:
    """Results by a name that says what they are like."""
    first, second = results.tasks.values()
    made: dict[str, Callable[[], Results]] = {
        "as it was": lambda: results,
        "nothing found": lambda: with_tasks(
            results, {"a": all_of(first, "undecided", change=0.01, p=0.7)}
        ),
        "shown unchanged": lambda: with_tasks(
            results, {"a": all_of(second, "unchanged", change=0.0, p=1.0)}
        ),
        "everything lost": lambda: with_tasks(
            results, {"a": seen(all_of(first, "lost", change=-0.5, p=0.0002), "unexposed")}
        ),
        "everything absent": lambda: with_tasks(
            results, {"a": all_of(first, "absent", change=-1000.0, p=0.9)}
        ),
        "something, but what": lambda: with_tasks(
            results, {"a": all_of(first, "undecided", change=-0.1, p=0.01)}
        ),
        "six tasks": lambda: with_tasks(
            results, {f"task-{i}": drawn(first, i) for i in range(6)}
        ),
        "five regions": lambda: with_tasks(results, {"a": drawn(first, 3, rois=5, p=0.001)}),
        "paper mode": lambda: with_config(
            with_tasks(results, {"a": drawn(first, 4)}), mode="paper"
        ),
        "raw scores": lambda: with_config(
            with_tasks(results, {"a": drawn(first, 5)}), scores="raw"
        ),
        "no doctor": lambda: with_doctor(with_tasks(results, {"a": drawn(first, 6)})),
        "full doctor": lambda: with_doctor(
            with_tasks(results, {"a": drawn(first, 7)}),
            form="full", unit="clusters of features", tested=31, explained=17, median_r2=0.52,
            detectable=0.123, tasks=[{"task": "a", "detectable": 0.231}],
            nothing_changed={"alarms": 1, "draws": 21, "low": 0.0012, "high": 0.238},
        ),
        "false alarms": lambda: with_doctor(
            with_tasks(results, {"a": all_of(first, "lost", change=-0.5, p=0.0002)}),
            form="full", unit="clusters of features", tested=31, explained=17, median_r2=0.52,
            detectable=0.123, tasks=[{"task": "a", "detectable": 0.231}],
            false_alarms=[{"change": "rotation", "alarms": 9, "runs": 14}],
            nothing_changed={"alarms": 9, "draws": 14, "low": 0.35, "high": 0.87},
        ),
        "cannot tell": lambda: with_tasks(
            results,
            {
                "a": dataclasses.replace(
                    table := all_of(first, "undecided", change=0.0, p=0.6),
                    features=table.features.assign(smallest_loss=np.inf, p_present_pre=0.001),
                )
            },
        ),
        "nothing read": lambda: with_tasks(
            results,
            {
                "a": dataclasses.replace(
                    table := all_of(first, "absent", change=0.0, p=0.6),
                    features=table.features.assign(smallest_loss=np.inf, p_present_pre=0.9),
                )
            },
        ),
        "few patients, many left out": lambda: dataclasses.replace(
            with_tasks(results, {"a": drawn(first, 8)}, scored=24, folds=0),
            failures=failures(60, 3),
        ),
        "few left out": lambda: dataclasses.replace(
            with_tasks(results, {"a": drawn(first, 9)}), failures=failures(0, 2)
        ),
        "collapsed": lambda: with_tasks(
            results,
            {"a": drawn(first, 10), "b": drawn(first, 11)},
            spectrum=[spectrum("", 0.3), spectrum("a", 0.987), spectrum("b", 0.4)],
            warnings=["128 hidden units for 96 fitted patients are too many"],
        ),
        "seen by fine-tuning": lambda: with_tasks(
            results,
            {
                "all": seen(all_of(first, "lost", change=-0.2, p=0.001), "exposed"),
                "some": seen(drawn(first, 12), "exposed", "unexposed"),
                "none": seen(drawn(first, 13), "unexposed"),
            },
        ),
        "two seeds, three seeds": lambda: with_tasks(
            results,
            {
                f"seeds-{n}": dataclasses.replace(
                    table := drawn(first, 20 + n), features=table.features.assign(retrained=n)
                )
                for n in (2, 3)
            },
        ),
    }  # fmt: skip
    return {name: make() for name, make in made.items()}
