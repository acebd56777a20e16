"""The ridge probe with its path of penalties against cross-validated ridges, on CPU.

``python -m benchmarks.ridge`` prints its part of the table "Many decoders" of docs/benchmarks.md
and writes its part of ``benchmarks/results/decode.json``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.harness import Call

ALPHAS = tuple(np.geomspace(1e-3, 1e5, 25).tolist())
"""Penalties of all variants, in units of the number of patients."""


@dataclass(frozen=True)
class Config:
    """What is measured, and how often."""

    patients: int = 595
    """Patients."""
    width: int = 768
    """Dimensions of the embedding."""
    features: int = 2511
    """Radiomic features."""
    turns: int = 3
    """Calls of each variant."""
    out: Path = harness.RESULTS / "decode.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Measures, prints and writes."""
    title = f"ridge {config.patients} x {config.width} x {config.features}"
    print(title, flush=True)
    about = harness.facts(config, "numpy", "scipy", "scikit-learn", "himalaya")
    harness.record_part(config.out, title, probe(config) | about)


def probe(config: Config) -> dict[str, Any]:
    """Seconds by variant, ratios to ours, and ours against the limit."""
    calls = variants(config)
    before = harness.product_rates()
    for call in calls.values():
        call()
    seconds = harness.take_turns(calls, config.turns)
    rates, work = harness.product_rates(before), operations(config)
    limit = work / rates["float64"]
    ratios = {name: harness.ratio(values, seconds["ours"]) for name, values in seconds.items()}
    for name, to_ours in ratios.items():
        print(f"  {name:26} {1e3 * np.median(seconds[name]):8.0f} ms, {to_ours} of ours")
    best = min(seconds["ours"])
    print(f"  limit {1e3 * limit:.0f} ms: ours {best / limit:.2f} of it at best", flush=True)
    return {
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "ratio_to_ours": ratios,
        "operations": work,
        "rates": rates,
        "limit_seconds": limit,
        "over_limit_best": best / limit,
        "over_limit_median": float(np.median(seconds["ours"])) / limit,
    }


def variants(config: Config) -> dict[str, Call]:
    """Ours and the peers, on the same random arrays and penalties."""
    from himalaya.ridge import RidgeCV as HimalayaRidgeCV
    from sklearn.linear_model import RidgeCV

    from lens.probes.ridge import RidgeProbe

    rng = np.random.default_rng(0)
    x = rng.normal(size=(config.patients, config.width))
    r = rng.random((config.patients, config.features))
    alphas = len(x) * np.array(ALPHAS)
    return {
        "ours": lambda: RidgeProbe(alphas=ALPHAS).fit(x, r),
        "sklearn RidgeCV": lambda: RidgeCV(alphas=alphas, alpha_per_target=True).fit(x, r),
        "himalaya RidgeCV, 5 folds": lambda: HimalayaRidgeCV(
            alphas=alphas, solver_params={"warn": False}
        ).fit(x, r),
    }


def operations(config: Config) -> float:
    """Multiplications and additions, all in float64.

    Half of the inner products, their eigenvectors by tridiagonal form (14/3 m^3), the vectors of
    the other side, and three products with the targets: components, penalties, weights.
    """
    n, d, k = config.patients, config.width, config.features
    m = min(n, d)
    products = 2 * k * (n * m + len(ALPHAS) * m + d * m)
    return n * d * m + 14 / 3 * m**3 + 2 * n * d * m + products


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
