"""The ridge probe with its path of penalties against cross-validated ridges.

``python -m benchmarks.ridge`` prints its part of the table "Many decoders" of docs/benchmarks.md
and writes its part of ``benchmarks/results/decode.json``. Where there is a CUDA card, himalaya runs
on it too, and the same generalised cross-validation written in PyTorch; their arrays are there
beforehand, and the weights come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.harness import Call
from benchmarks.rates import product_rates

OURS, HIMALAYA = "ours", "himalaya RidgeCV, 5 folds"

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
    peers: tuple[str, ...] = ()
    """Only peers whose names start with one of these; all by default."""
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
    calls = {
        name: call
        for name, call in variants(config).items()
        if name == OURS or not config.peers or name.startswith(config.peers)
    }
    before = product_rates()
    weights = {name: call() for name, call in calls.items()}
    errors = {name: error(values, weights) for name, values in weights.items() if is_card(name)}
    print(f"  errors {errors}", flush=True)
    turns = harness.take_turns(calls, config.turns)
    rates, work = product_rates(before), operations(config)
    return {
        "rows": turns.rows(OURS),
        "errors": errors,
        "operations": work,
        "rates": rates,
        **harness.over_limit(turns.seconds[OURS], work / rates["float64"]),
    }


def is_card(name: str) -> bool:
    """Whether a variant runs on the card."""
    return "CUDA" in name


def error(values: np.ndarray, weights: dict[str, np.ndarray]) -> float:
    """Of weights from the card, relative to those of the same method on the CPU (Frobenius norm).

    A feature whose best two penalties are nearly tied may take either.
    """
    same = [weights[name] for name in (OURS, HIMALAYA) if name in weights]
    return float(min(np.linalg.norm(values - w) / np.linalg.norm(w) for w in same))


def variants(config: Config) -> dict[str, Call]:
    """Ours and the peers, on the same random arrays and penalties."""
    from himalaya.ridge import RidgeCV as HimalayaRidgeCV
    from sklearn.linear_model import RidgeCV

    from lens.probes.ridge import RidgeProbe

    rng = np.random.default_rng(0)
    x = rng.normal(size=(config.patients, config.width))
    r = rng.random((config.patients, config.features))
    alphas = len(x) * np.array(ALPHAS)
    sklearn: Any = RidgeCV(alphas=alphas, alpha_per_target=True)
    made: dict[str, Call] = {
        OURS: lambda: RidgeProbe(alphas=ALPHAS).fit(x, r).coef,
        "sklearn RidgeCV": lambda: sklearn.fit(x, r).coef_.T,
        HIMALAYA: lambda: (
            HimalayaRidgeCV(alphas=alphas, solver_params={"warn": False}).fit(x, r).coef_
        ),
    }
    return made | on_card(x, r, alphas)


def on_card(x: np.ndarray, r: np.ndarray, alphas: np.ndarray) -> dict[str, Call]:
    """Peers on the CUDA card, none where there is none."""
    import torch
    from himalaya.backend import set_backend
    from himalaya.ridge import RidgeCV as HimalayaRidgeCV

    if not torch.cuda.is_available():
        return {}
    made: dict[str, Call] = {}
    for dtype in (torch.float64, torch.float32):
        a, b = (torch.tensor(values, dtype=dtype, device="cuda") for values in (x, r))

        def himalaya(a: Any = a, b: Any = b) -> np.ndarray:
            set_backend("torch_cuda")
            try:
                fitted = HimalayaRidgeCV(alphas=alphas, solver_params={"warn": False}).fit(a, b)
                return fitted.coef_.cpu().numpy()
            finally:
                set_backend("numpy")

        name = str(dtype).removeprefix("torch.")
        made[f"{HIMALAYA}, CUDA {name}"] = himalaya
        made[f"torch GCV, CUDA {name}"] = lambda a=a, b=b: torch_gcv(a, b, alphas)
    return made


def torch_gcv(x: Any, r: Any, alphas: np.ndarray) -> np.ndarray:
    """Weights of ridge regression by generalised cross-validation, as one writes it in PyTorch."""
    import torch

    x = (x - x.mean(0)) / x.std(0, correction=0)
    y = r - r.mean(0)
    values, u = torch.linalg.eigh(x @ x.T)
    values, u = values[1:], u[:, 1:]  # the constant's direction
    components = u.T @ y
    power = components.square()
    beyond = y.square().sum(0) - power.sum(0)
    grid = torch.tensor(alphas, dtype=x.dtype, device=x.device)[:, None]
    left = grid / (values + grid)
    errors = (left.square() @ power + beyond) / left.sum(1, keepdim=True).square()
    alpha = grid[errors.argmin(0), 0]
    return (x.T @ (u @ (components / (values[:, None] + alpha)))).cpu().numpy()


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
