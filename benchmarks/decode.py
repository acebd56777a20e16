"""Our closed-form decoder beside its peers.

``python -m benchmarks.decode`` prints the table of docs/benchmarks.md and writes its part of
``benchmarks/results/decode.json``. Peers are given centred arrays, of float32 and of float64, and
are spared the check for values that are not finite; our time includes both. On an accelerator, ours
and PyTorch's and himalaya's are also given arrays that are there already; weights come back to the
host in every variant.

The limit is the arithmetic of the cheapest algorithm that holds the stated accuracy, over the best
rate of a large matrix product in the same process, float32 and float64 each at its own.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.harness import Call
from benchmarks.rates import limit_seconds, product_rates

ACCURACY = 1e-5
"""Largest error of the predictions, over all, relative to float64 LAPACK, that counts as exact."""

SLOW = 1.0
"""Seconds from which a variant is called once."""

PACKAGES = ("jax", "numpy", "scipy", "scikit-learn", "torch", "himalaya")


@dataclass(frozen=True)
class Config:
    """What is measured, and how often."""

    shapes: tuple[tuple[int, int, int], ...] = ((595, 256, 2511), (5000, 512, 2511))
    """Patients, hidden units and features of the decoder."""
    conditions: tuple[float, ...] = (1.0, 1e2, 1e4)
    """Condition numbers of the projected embeddings; 1 are normal random numbers."""
    only: tuple[str, ...] = ()
    """Only variants whose names have one of these words, and ours; all by default."""
    turns: int = 7
    """Calls of each variant; one that takes over 1 s is called once."""
    out: Path = harness.RESULTS / "decode.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Measures every shape at every condition number."""
    for shape in config.shapes:
        for condition in config.conditions:
            title = f"decode {' x '.join(map(str, shape))}, condition {condition:g}"
            print(title, flush=True)
            found = decoders(shape, condition, config)
            harness.record_part(config.out, title, found | harness.facts(config, *PACKAGES))


def decoders(shape: tuple[int, int, int], condition: float, config: Config) -> dict[str, Any]:
    """Every way to the same decoder: seconds, ratios to ours and errors of the predictions."""
    z, r = planted(shape, condition)
    centred = z - z.mean(axis=0, dtype=np.float64), r - r.mean(axis=0, dtype=np.float64)
    before = product_rates()
    own = ours(z, r)
    chosen = {
        name: call
        for name, call in {**own, **peers(*centred)}.items()
        if name == "ours" or not config.only or any(word in name for word in config.only)
    }
    turns, errors = measure(chosen, set(own), *centred, config.turns)
    rates, work = product_rates(before), operations(shape, condition)
    rows = [
        row | {"error": errors[row["variant"]], "exact": errors[row["variant"]] <= ACCURACY}
        for row in turns.rows("ours")
    ]
    print("  errors", json.dumps(errors), flush=True)
    limit = limit_seconds(work, rates)
    limited = harness.over_limit(turns.seconds["ours"], limit)
    return {"rows": rows, "operations": work, "rates": rates, **limited}


def measure(
    calls: dict[str, Call], own: set[str], z: np.ndarray, r: np.ndarray, turns: int
) -> tuple[harness.Turns, dict[str, float]]:
    """Cost of each call, and the error of its predictions relative to float64 LAPACK."""
    fitted = z @ np.linalg.lstsq(z, r, rcond=None)[0]
    found: dict[str, Any] = {}
    once = harness.take_turns(
        {name: lambda n=name, call=call: found.update({n: call()}) for name, call in calls.items()},
        1,
    )
    errors = {}
    for name, weights in found.items():
        error = z @ np.asarray(weights, np.float64) - fitted
        errors[name] = float(np.linalg.norm(error) / np.linalg.norm(fitted))
    # Compilation belongs to the first call, so that only what is not compiled may stay at one.
    quick = {
        name: call
        for name, call in calls.items()
        if once.seconds[name][0] < SLOW or name in own or name.startswith("jax")
    }
    return harness.Turns({**once.costs, **harness.take_turns(quick, turns).costs}), errors


def planted(shape: tuple[int, int, int], condition: float) -> tuple[np.ndarray, np.ndarray]:
    """Projected embeddings with this condition number and features, both float32."""
    n, h, k = shape
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, h))
    if condition > 1:
        left, _ = np.linalg.qr(z - z.mean(axis=0))
        right, _ = np.linalg.qr(rng.normal(size=(h, h)))
        z = np.sqrt(n) * (left * np.geomspace(1, 1 / condition, h)) @ right
    return z.astype(np.float32), rng.random((n, k), dtype=np.float32)


def ours(z: np.ndarray, r: np.ndarray) -> dict[str, Call]:
    """Our decoder, the same as compiled for accelerators, and the one before it."""
    import jax

    from lens.probes import decoder

    made: dict[str, Call] = {}
    if jax.default_backend() != "cpu":
        there = jax.device_put((z, r))
        made["ours, arrays on the card"] = lambda: decoder.decode(*there).theta.T
    return made | {
        "ours": lambda: decoder.decode(z, r).theta.T,
        "ours, for accelerators": lambda: decoder._on_device(z, r, True)[0].T,  # type: ignore[index]
        "ours, safe path": lambda: decoder.decode(z, r, solver="lstsq").theta.T,
    }


def peers(z: np.ndarray, r: np.ndarray) -> dict[str, Call]:
    """Least squares of other packages on float32 and on float64 arrays."""
    import jax
    import torch
    from himalaya.ridge import Ridge as HimalayaRidge
    from scipy import linalg
    from sklearn.linear_model import LinearRegression, Ridge

    torch.set_num_threads(os.cpu_count() or 1)
    compiled = jax.jit(lambda a, b: jax.numpy.linalg.lstsq(a, b)[0])
    made: dict[str, Call] = {}
    tiny: Any = 1e-10
    for dtype in ("float32", "float64"):
        a, b = z.astype(dtype), r.astype(dtype)
        tensors = torch.from_numpy(a), torch.from_numpy(b)
        with jax.enable_x64(True):
            arrays = jax.device_put((a, b))

        def by_jax(arrays: Any = arrays) -> Any:
            with jax.enable_x64(True):
                return compiled(*arrays).block_until_ready()

        made |= {
            f"numpy lstsq {dtype}": lambda a=a, b=b: np.linalg.lstsq(a, b, rcond=None)[0],
            f"scipy gelsy {dtype}": lambda a=a, b=b: linalg.lstsq(
                a, b, lapack_driver="gelsy", check_finite=False
            )[0],  # type: ignore[index]
            f"sklearn linear {dtype}": lambda a=a, b=b: (
                LinearRegression(fit_intercept=False).fit(a, b).coef_.T
            ),
            f"sklearn ridge {dtype}": lambda a=a, b=b: (
                Ridge(alpha=tiny, fit_intercept=False, solver="cholesky").fit(a, b).coef_.T
            ),
            f"torch gels {dtype}": lambda t=tensors: torch.linalg.lstsq(*t).solution.numpy(),
            f"himalaya ridge {dtype}": lambda a=a, b=b: (
                HimalayaRidge(alpha=tiny, solver_params={"warn": False}).fit(a, b).coef_
            ),
            f"jax lstsq {dtype}": by_jax,
        }
    return made | on_card(z, r)


def on_card(z: np.ndarray, r: np.ndarray) -> dict[str, Call]:
    """Peers on the CUDA card, none where there is none."""
    import torch
    from himalaya.backend import set_backend
    from himalaya.ridge import Ridge

    if not torch.cuda.is_available():
        return {}
    made: dict[str, Call] = {}
    for dtype in ("float32", "float64"):
        a, b = (torch.tensor(v, dtype=getattr(torch, dtype), device="cuda") for v in (z, r))

        def himalaya(a: Any = a, b: Any = b) -> np.ndarray:
            set_backend("torch_cuda")
            try:
                fitted = Ridge(alpha=1e-10, solver_params={"warn": False}).fit(a, b)  # type: ignore[arg-type]
                return fitted.coef_.cpu().numpy()
            finally:
                set_backend("numpy")

        def normal(a: Any = a, b: Any = b) -> np.ndarray:
            factor = torch.linalg.cholesky(a.T @ a)
            return torch.cholesky_solve(a.T @ b, factor).cpu().numpy()

        made |= {
            f"torch gels CUDA {dtype}": lambda a=a, b=b: (
                torch.linalg.lstsq(a, b).solution.cpu().numpy()
            ),
            f"torch cholesky CUDA {dtype}": normal,
            f"himalaya ridge CUDA {dtype}": himalaya,
        }
    return made


def operations(shape: tuple[int, int, int], condition: float) -> dict[str, float]:
    """Multiplications and additions of the cheapest exact algorithm.

    In float64 half of ``z'z``, its Cholesky factor and two triangular products, in float32 the
    product with `r`. Both triangular products may be with the fewer of the rows of `z` and the
    columns of `r` where the condition number is 1; else one is with each.
    """
    n, h, k = shape
    triangular = 2 * min(n, k) if condition == 1 else n + k
    return {
        "float64": float(n * h**2 + h**3 / 3 + h**2 * triangular),
        "float32": float(2 * n * h * k),
    }


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
