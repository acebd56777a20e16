"""Are the verdicts right? Planted changes whose truth is known, and how often the lens says so.

``python -m benchmarks.calibration`` prints the acceptance table and writes
``benchmarks/results/calibration.json``. Finished runs are kept (`--kept`) and not done again. A
cohort has 12 latent factors; every radiomic feature is one of them plus noise, with a true R2
between 0.2 and 0.9, every embedding a linear mix of all factors plus noise. The planted change is
made to the embedding after "fine-tuning"; where it erases factors, the noise is drawn anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

LATENTS = 12
ERASED = (0, 1, 2)
SHARES = (1.0, 0.6, 0.3)
"""Share of each erased factor that goes, so that there are losses of several sizes."""


@dataclass(frozen=True)
class Size:
    """Size of a cohort and of the analysis."""

    n: int = 720
    """Patients."""
    d: int = 768
    """Width of the embedding."""
    k: int = 240
    """Radiomic features."""
    folds: int = 5
    """Parts of the K-fold."""
    repeats: int = 1
    """Repeats of the K-fold."""


@dataclass(frozen=True)
class Config:
    """How many cohorts of which size."""

    size: Size = field(default_factory=Size)
    """Of the cohorts with planted changes."""
    seeds: int = 20
    """Cohorts with planted changes."""
    hidden: int = 32
    """Hidden units of the MLP."""
    epochs: int = 100
    """Passes over the train patients for the MLP that wins the penalty search."""
    l1: tuple[float, ...] = (0.0, 1e-6, 1e-5)
    """Grid of L1 penalties."""
    l2: tuple[float, ...] = (0.0, 1e-4)
    """Grid of squared L2 penalties."""
    flips: int = 5000
    """Sign flips of each test."""
    coverage: Size = field(default_factory=lambda: Size(n=240, d=256, k=60))
    """Of the cohorts that the intervals are judged on, ridge alone."""
    cohorts: int = 200
    """Cohorts that the intervals are judged on."""
    kept: Path = Path("runs/calibration.json")
    """Where finished runs are kept."""
    out: Path = Path(__file__).parent / "results" / "calibration.json"
    """Where the table goes."""


@dataclass(frozen=True)
class Cohort:
    """A planted cohort.

    Attributes:
        pre: embeddings before (n, d).
        ft: planted change -> embeddings after.
        r: radiomic features (n, k).
        factor: of each feature.
        true_r2: of each feature given its factor.
    """

    pre: np.ndarray
    ft: dict[str, np.ndarray]
    r: np.ndarray
    factor: np.ndarray
    true_r2: np.ndarray


def plant(size: Size, seed: int) -> Cohort:
    """Draws a cohort; the mix of factors in the embedding is the same for every seed."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(10_000).normal(size=(LATENTS, size.d))
    latent = rng.normal(size=(size.n, LATENTS))
    factor = np.arange(size.k) % LATENTS
    true_r2 = np.linspace(0.2, 0.9, size.k)
    r = latent[:, factor] * np.sqrt(true_r2)
    r += rng.normal(size=r.shape) * np.sqrt(1 - true_r2)

    def embed(factors: np.ndarray) -> np.ndarray:
        return factors @ mixing + 2 * rng.normal(size=(size.n, size.d))

    kept, partly = latent.copy(), latent.copy()
    kept[:, list(ERASED)] = 0
    partly[:, list(ERASED)] *= 1 - np.array(SHARES)
    # Channels of unequal size, as embeddings have them; a rotation mixes large and small.
    channel = np.exp(0.5 * rng.normal(size=size.d))
    pre = embed(latent) * channel
    rotation = np.linalg.qr(rng.normal(size=(size.d, size.d)))[0]
    ft = {
        "rotation": pre @ rotation,
        "scale": 0.5 * pre,
        "gain": pre * np.exp(rng.normal(size=size.d)),
        "same": pre,
        "other noise": embed(latent) * channel,
        "erased": embed(kept) * channel,
        "partly erased": embed(partly) * channel,
    }
    return Cohort(
        pre.astype(np.float32), {k: v.astype(np.float32) for k, v in ft.items()}, r, factor, true_r2
    )


def planted_run(config: Config, seed: int) -> dict[str, Any]:
    """Verdicts on all planted changes of one cohort, counted."""
    from lens.settings import Rules, SweepConfig
    from lens.verdicts.clusters import cluster_features
    from lens.verdicts.folds import make_folds
    from lens.verdicts.held_out import held_out_errors
    from lens.verdicts.rules import judge

    cohort, start = plant(config.size, seed), time.perf_counter()
    groups = np.arange(config.size.n)
    folds = make_folds(groups, config.size.folds, config.size.repeats, seed)
    settings = SweepConfig(hidden=config.hidden, l1=config.l1, l2=config.l2, epochs=config.epochs)
    clusters, rules = cluster_features(cohort.r), Rules(flips=config.flips)
    held_out = held_out_errors(
        cohort.pre, cohort.ft, cohort.r, folds, settings, seed=seed, back=False
    )
    touched = np.isin(cohort.factor, ERASED)
    counts: dict[str, Any] = {"verdicts": {}, "clusters": len(clusters.medoids)}
    for change in cohort.ft:
        table = judge(held_out, change, clusters, groups, rules, seed=seed)
        safe = ~touched if "erased" in change else np.ones_like(touched)
        verdicts = table["verdict"].to_numpy()
        by_margin = table["p_maxt"].to_numpy() <= rules.level
        counts["verdicts"][change] = {
            "untouched": _count(verdicts[safe]),
            "touched": _count(verdicts[~safe]),
            "p below the level among untouched": int(by_margin[safe].sum()),
            "largest delta R2 among untouched": float(np.abs(table["delta_r2"][safe]).max()),
        }
        if change == "same":
            counts["same"] = {
                "largest delta R2": float(table["delta_r2"].abs().max()),
                "intervals without 0": int(
                    ((table["delta_r2_low"] > 0) | (table["delta_r2_high"] < 0)).sum()
                ),
            }
        if "erased" in change:
            counts[change] = {
                "delta_r2": table["delta_r2"][touched].round(4).tolist(),
                "lost": (verdicts[touched] == "lost").tolist(),
            }
    order = np.random.default_rng(seed).permutation(config.size.n)
    sides = {"erased": cohort.ft["erased"]}
    held_out = held_out_errors(cohort.pre, sides, cohort.r[order], folds, None)
    table = judge(held_out, "erased", clusters, groups, rules, seed=seed)
    counts["permuted"] = {
        "mean R2": float(table[["r2_ridge_pre", "r2_ridge_ft"]].to_numpy().mean()),
        "verdicts": _count(table["verdict"].to_numpy()),
    }
    counts["seconds"] = round(time.perf_counter() - start, 1)
    return counts


def coverage_run(config: Config, seed: int) -> dict[str, Any]:
    """Change of R2 and the ends of its interval in one cohort, ridge alone."""
    from lens.verdicts.estimates import delta_r2
    from lens.verdicts.folds import make_folds
    from lens.verdicts.held_out import PRE, held_out_errors

    size, groups = config.coverage, np.arange(config.coverage.n)
    cohort = plant(size, 1000 + seed)
    sides = {name: cohort.ft[name] for name in ("partly erased", "other noise")}
    folds = make_folds(groups, size.folds, size.repeats, seed)
    held_out = held_out_errors(cohort.pre, sides, cohort.r, folds, None)
    ridge = held_out.probes["per_channel"]
    found = {}
    for name in sides:
        change = delta_r2(ridge[PRE], ridge[name], held_out.baseline, groups)
        found[name] = {
            part: getattr(change, part).round(5).tolist() for part in ("value", "low", "high")
        }
    return found


def main(config: Config) -> None:
    """Runs what is not there yet and prints the table."""
    from tqdm import tqdm

    from lens.files import write_json

    settings = json.loads(json.dumps(asdict(config) | {"out": "", "kept": ""}, default=str))
    kept = json.loads(config.kept.read_text(encoding="utf-8")) if config.kept.is_file() else {}
    # Counts may grow; anything else that changed makes other runs.
    counts = ("seeds", "cohorts")
    same = {k: v for k, v in kept.get("config", {}).items() if k not in counts}
    if same != {k: v for k, v in settings.items() if k not in counts}:
        kept = {}
    runs: dict[str, dict[str, Any]] = {name: kept.get(name, {}) for name in ("coverage", "planted")}
    work: tuple[tuple[str, int, Callable[[Config, int], dict[str, Any]]], ...] = (
        ("coverage", config.cohorts, coverage_run),
        ("planted", config.seeds, planted_run),
    )
    for name, count, run in work:
        for seed in tqdm(range(count), desc=name, unit="cohort"):
            if str(seed) not in runs[name]:
                runs[name][str(seed)] = run(config, seed)
                if name == "planted" or seed % 20 == 19 or seed == count - 1:
                    write_json(config.kept, {"config": settings, **runs})
    rows = acceptance(config, runs)
    del settings["out"], settings["kept"]
    write_json(config.out, {"acceptance": rows, "config": settings})
    for row in rows:
        print(f"| {row['planted']} | {row['must hold']} | {row['found']} |")


def acceptance(config: Config, runs: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """The acceptance table with what was found."""
    done = [runs["planted"][str(seed)] for seed in range(config.seeds)]
    rows = []
    for change in ("rotation", "scale", "gain", "other noise"):
        counts = [run["verdicts"][change]["untouched"] for run in done]
        alarms = sum(bool(_called(count)) for count in counts)
        total = {
            name: sum(count.get(name, 0) for count in counts) for name in counts[0] | counts[-1]
        }
        rows.append(_row(change, "lost or gained in at most 2 of 20 runs",
                         f"{alarms} of {len(done)} runs; {_text(total)}"))  # fmt: skip
    for change in ("erased", "partly erased"):
        rows.append(_row(change, "power at a loss of R2 above 0.1: at least 0.8",
                         _power(done, change)))  # fmt: skip
        alarms = sum(bool(_called(run["verdicts"][change]["untouched"])) for run in done)
        rows.append(_row(change, "untouched lost or gained in at most 2 of 20 runs",
                         f"{alarms} of {len(done)} runs"))  # fmt: skip
    largest = max(run["same"]["largest delta R2"] for run in done)
    outside = sum(run["same"]["intervals without 0"] for run in done)
    rows.append(_row("same", "delta R2 = 0 to 1e-5, no interval excludes 0",
                     f"{largest:.1e}; {outside} intervals"))  # fmt: skip
    mean = np.mean([run["permuted"]["mean R2"] for run in done])
    others = sum(
        count
        for run in done
        for name, count in run["permuted"]["verdicts"].items()
        if name != "absent"
    )
    rows.append(_row("patients of R permuted", "mean R2 at most 0.02, all absent",
                     f"{mean:.4f}; {others} features not absent"))  # fmt: skip
    rows.extend(_coverage(runs["coverage"]))
    return rows


def _power(done: list[dict[str, Any]], change: str) -> str:
    """Power by the feature's true loss: its mean over the cohorts."""
    loss = -np.mean([run[change]["delta_r2"] for run in done], axis=0)
    lost = np.mean([run[change]["lost"] for run in done], axis=0)
    parts = []
    for low, high in ((0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 1.0)):
        inside = (loss > low) & (loss <= high)
        if inside.any():
            parts.append(f"{lost[inside].mean():.2f} for {low:g} to {high:g}")
    return "; ".join([f"{lost[loss > 0.1].mean():.3f}", *parts])


def _coverage(runs: dict[str, Any]) -> list[dict[str, str]]:
    rows = []
    for change in ("partly erased", "other noise"):
        value, low, high = (
            np.array([run[change][part] for run in runs.values()])
            for part in ("value", "low", "high")
        )
        truth = value.mean(axis=0)
        inside = (low <= truth) & (truth <= high)
        per_feature = inside.mean(axis=0)
        rows.append(
            _row(
                f"{change}, {len(value)} cohorts",
                "coverage of 95% intervals 0.90 to 0.98",
                f"{inside.mean():.3f}; by feature {per_feature.min():.3f} to "
                f"{per_feature.max():.3f}",
            )
        )
    return rows


def _row(planted: str, must: str, found: str) -> dict[str, str]:
    return {"planted": planted, "must hold": must, "found": found}


def _count(verdicts: np.ndarray) -> dict[str, int]:
    names, counts = np.unique(verdicts.astype(str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _called(count: dict[str, int]) -> int:
    return count.get("lost", 0) + count.get("gained", 0)


def _text(count: dict[str, int]) -> str:
    return ", ".join(f"{value} {name}" for name, value in sorted(count.items()))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
