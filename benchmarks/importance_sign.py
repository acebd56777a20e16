"""Where the paper's importance points the wrong way, on planted cohorts whose truth is known.

``python -m benchmarks.importance_sign`` prints the figures of ``docs/importance.md``, writes
``benchmarks/results/importance_sign.json`` and draws ``docs/importance-sign.png``. A cohort has 12
latent factors; every radiomic feature is one of them plus noise, with a true R2 between 0.05 and
0.95, every embedding a linear mix of all factors plus a little noise. The embedding after
"fine-tuning" lacks three of the factors, so that a quarter of the features lost all their
information; the others lost none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from benchmarks import harness

LATENTS = 12
ERASED = (0, 1, 2)
NOISE = 0.1
"""Deviation of an embedding's noise per channel; that of what the factors put there is 1."""
EXACT = "largest change of R2 by halving Z"


@dataclass(frozen=True)
class Config:
    """Cohorts and widths."""

    n: int = 720
    """Patients: 7 of 10 train, 1 validates, 2 are held out."""
    d: int = 768
    """Width of the embedding."""
    k: int = 240
    """Radiomic features."""
    hidden: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Hidden units."""
    seeds: int = 3
    """Cohorts."""
    epochs: int = 200
    """Passes over the train patients for the MLP."""
    out: Path = harness.RESULTS / "importance_sign.json"
    """Where the figures go."""
    figure: Path = Path(__file__).parents[1] / "docs" / "importance-sign.png"
    """Where the drawing goes."""


class Cohort(NamedTuple):
    """Embeddings before and after (n, d), features (n, k) and the factor of each (k,)."""

    pre: np.ndarray
    ft: np.ndarray
    r: np.ndarray
    factor: np.ndarray


def plant(config: Config, seed: int) -> Cohort:
    """Draws a cohort."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(LATENTS, config.d)) / np.sqrt(LATENTS)
    latent = rng.normal(size=(config.n, LATENTS))
    factor = np.arange(config.k) % LATENTS
    true_r2 = np.linspace(0.05, 0.95, config.k)
    r = latent[:, factor] * np.sqrt(true_r2)
    r += rng.normal(size=r.shape) * np.sqrt(1 - true_r2)

    def embed(factors: np.ndarray) -> np.ndarray:
        noise = NOISE * rng.normal(size=(config.n, config.d))
        return (factors @ mixing + noise).astype(np.float32)

    kept = latent.copy()
    kept[:, list(ERASED)] = 0
    return Cohort(embed(latent), embed(kept), r, factor)


def measure(cohort: Cohort, hidden: int, config: Config, seed: int) -> dict[str, Any]:
    """Importance and held-out R2 of every feature before and after, and with halved embeddings."""
    from lens.paper.importance import importance
    from lens.paper.scores import r2
    from lens.probes.decoder import decode, predict
    from lens.probes.mlp import project
    from lens.probes.scaling import fit_min_max, scale
    from lens.probes.sweep import sweep
    from lens.settings import SweepConfig

    part = np.random.default_rng(seed).permutation(len(cohort.r)) / len(cohort.r)
    train, val, test = part < 0.7, (part >= 0.7) & (part < 0.8), part >= 0.8
    fitted = train | val
    r = scale(cohort.r, fit_min_max(cohort.r[train]))
    trained = sweep(
        cohort.pre[train], r[train], cohort.pre[val], r[val],
        SweepConfig(hidden=hidden, l1=(1e-6,), l2=(1e-5,), epochs=config.epochs),
        seed=seed,
    )  # fmt: skip
    found: dict[str, Any] = {}
    z_pre, z_ft = (project(trained.projection, x) for x in (cohort.pre, cohort.ft))
    for name, z in (("pre", z_pre), ("ft", z_ft), ("half", z_pre / 2)):
        decoder = decode(z[fitted], r[fitted])
        deviation = r[test] - r[fitted].mean(axis=0)
        found[name] = {
            "importance": importance(decoder.theta),
            "r2": r2(r[test] - predict(decoder, z[test]), deviation),
        }
    return found


def figures(runs: list[dict[str, Any]], erased: np.ndarray) -> dict[str, float]:
    """The figures of one width, means over the cohorts."""
    from scipy.stats import rankdata

    def change(run: dict[str, Any], what: str) -> np.ndarray:
        return run["ft"][what] - run["pre"][what]

    def mean(values: list[Any]) -> float:
        return round(float(np.mean(values)), 4)

    return {
        "rank correlation of importance with held-out R2": mean(
            [
                np.corrcoef([rankdata(run["pre"][name]) for name in ("importance", "r2")])[0, 1]
                for run in runs
            ]
        ),
        "share of erased features whose importance rose": mean(
            [(change(run, "importance") > 0)[erased] for run in runs]
        ),
        "share of erased features whose R2 fell": mean(
            [(change(run, "r2") < 0)[erased] for run in runs]
        ),
        "mean change of R2 of erased features": mean([change(run, "r2")[erased] for run in runs]),
        "mean change of R2 of the others": mean([change(run, "r2")[~erased] for run in runs]),
        "mean R2 before": mean([run["pre"]["r2"] for run in runs]),
        "importance after halving Z over importance before, least": mean(
            [(run["half"]["importance"] / run["pre"]["importance"]).min() for run in runs]
        ),
        "importance after halving Z over importance before, largest": mean(
            [(run["half"]["importance"] / run["pre"]["importance"]).max() for run in runs]
        ),
        EXACT: float(
            f"{max(np.abs(run['half']['r2'] - run['pre']['r2']).max() for run in runs):.1e}"
        ),
    }


def draw(
    rows: dict[str, dict[str, float]], runs: dict[int, Any], erased: np.ndarray, path: Path
) -> None:
    """Importance against R2 at the narrow and a wide layer, and what became of the features."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from lens.files import atomic
    from lens.report.figures import COLOURS, STYLE

    narrow, wide = min(runs), max(h for h in runs if h <= 128)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.2, 3.5), layout="constrained")
        axes = figure.subplots(1, 3)
        for panel, hidden in zip(axes, (narrow, wide), strict=False):
            before = runs[hidden][0]["pre"]
            panel.scatter(before["r2"], before["importance"], s=9, lw=0, color=COLOURS["pre"])
            rank = rows[str(hidden)]["rank correlation of importance with held-out R2"]
            panel.set_title(f"{hidden} hidden units: rank r = {rank:+.2f}".replace("-", "−"))
            panel.set_xlabel("Held-out R2 (before fine-tuning)")
            panel.set_ylabel("Importance of the paper")
        panel = axes[2]
        run = runs[wide][0]
        for mask, colour, name in (
            (~erased, COLOURS["stable"], "untouched"),
            (erased, COLOURS["ft"], "information erased"),
        ):
            panel.scatter(
                (run["ft"]["r2"] - run["pre"]["r2"])[mask],
                (run["ft"]["importance"] - run["pre"]["importance"])[mask],
                s=9, lw=0, color=colour, label=name,
            )  # fmt: skip
        panel.axhline(0, color="black", lw=0.8)
        panel.axvline(0, color="black", lw=0.8)
        panel.set_title(f"{wide} hidden units: the change")
        panel.set_xlabel("Change of held-out R2")
        panel.set_ylabel("Change of importance")
        panel.set_ylim(bottom=-0.3)
        panel.legend(frameon=False, loc="lower left", handletextpad=0.1)
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=140)


def main(config: Config) -> None:
    """Measures, prints and draws."""
    from tqdm import tqdm

    start = time.perf_counter()
    cohorts = [plant(config, seed) for seed in range(config.seeds)]
    erased = np.isin(cohorts[0].factor, ERASED)
    runs: dict[int, list[dict[str, Any]]] = {hidden: [] for hidden in config.hidden}
    with tqdm(total=config.seeds * len(config.hidden), unit="MLP") as bar:
        for hidden in config.hidden:
            for seed, cohort in enumerate(cohorts):
                runs[hidden].append(measure(cohort, hidden, config, seed))
                bar.update()
    rows = {str(hidden): figures(found, erased) for hidden, found in runs.items()}
    seconds = round(time.perf_counter() - start)
    about = harness.facts(config, "jax", "numpy")
    harness.record(config.out, {**about, "hidden units": rows, "seconds": seconds})
    draw(rows, runs, erased, config.figure)
    print("| | " + " | ".join(f"h = {hidden}" for hidden in rows) + " |")
    print("|---|" + "---|" * len(rows))
    for name in next(iter(rows.values())):
        form = ".1e" if name == EXACT else ".2f"
        print(f"| {name} | " + " | ".join(f"{row[name]:{form}}" for row in rows.values()) + " |")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
