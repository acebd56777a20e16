"""Our closed-form decoder, the refitting bootstrap and the ridge probe beside their peers, on CPU.

``python -m benchmarks.decode`` prints the tables of docs/benchmarks.md and writes
``benchmarks/results/decode.json``; ``--parts`` measures some of it again and leaves the rest of the
file. All variants take turns in one process, with a pause before each call in which the threads of
the others fall asleep; ratios are taken turn by turn. Peers are given centred arrays, of float32
and of float64, and are spared the check for values that are not finite; our time includes both.

The limit is the arithmetic of the cheapest algorithm that holds the stated accuracy, over the best
rate of a large matrix product in the same process, float32 and float64 each at its own.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tyro

Call = Callable[[], Any]

ACCURACY = 1e-5
"""Largest error of the predictions, over all, relative to float64 LAPACK, that counts as exact."""

SLOW = 1.0
"""Seconds from which a variant is called once."""


@dataclass(frozen=True)
class Config:
    """What is measured, and how often."""

    parts: tuple[str, ...] = ("decode", "refit", "ridge", "memory")
    """Any of decode, refit, ridge and memory."""
    shapes: tuple[tuple[int, int, int], ...] = ((595, 256, 2511), (5000, 512, 2511))
    """Patients, hidden units and features of the decoder."""
    conditions: tuple[float, ...] = (1.0, 1e2, 1e4)
    """Condition numbers of the projected embeddings; 1 are normal random numbers."""
    turns: int = 7
    """Calls of each variant; one that takes over 1 s is called once."""
    widths: tuple[int, ...] = (128, 256)
    """Hidden units of the refitted decoders, for 595 patients and 2,511 features."""
    draws: int = 1000
    """Bootstrap draws, of two encoders each."""
    out: Path = Path(__file__).parent / "results" / "decode.json"
    """Where the figures go."""
    alone: int | None = None
    """Only print the peak memory of so many draws."""


def main(config: Config) -> None:
    if config.alone is not None:
        print(_peak_of(config.alone))
        return
    facts = json.loads(config.out.read_text()) if config.out.is_file() else {}
    measured: dict[str, Callable[[], dict[str, Any]]] = {}
    for n, h, k in config.shapes:
        for condition in config.conditions:
            measured[f"decode {n} x {h} x {k}, condition {condition:g}"] = (
                lambda shape=(n, h, k), condition=condition: decoders(shape, condition, config)
            )
    for h in config.widths:
        measured[f"refit 595 x {h} x 2511"] = lambda h=h: refits((595, h, 2511), config)
    measured["ridge 595 x 768 x 2511"] = lambda: probe((595, 768, 2511), config)
    measured["memory 595 x 128 x 2511"] = lambda: memory((100, config.draws))
    for title, measure in measured.items():
        if title.split()[0] not in config.parts:
            continue
        print(title, flush=True)
        facts[title] = {
            **measure(),
            "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
            "load_average": os.getloadavg()[0],
            "versions": {
                name: version(name)
                for name in ("jax", "numpy", "scipy", "scikit-learn", "torch", "himalaya")
            },
            "config": {"turns": config.turns, "draws": config.draws},
        }
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(json.dumps(facts, indent=2) + "\n")
    print(config.out)


def decoders(shape: tuple[int, int, int], condition: float, config: Config) -> dict[str, Any]:
    """Every way to the same decoder: seconds, ratios to ours and errors of the predictions."""
    z, r = planted(shape, condition)
    centred = z - z.mean(axis=0, dtype=np.float64), r - r.mean(axis=0, dtype=np.float64)
    fitted = centred[0] @ np.linalg.lstsq(*centred, rcond=None)[0]
    before = attainable()
    made = {**ours(z, r), **peers(*centred)}
    errors, seconds = {}, {}
    for name, call in made.items():
        time.sleep(0.15)
        start = time.perf_counter()
        weights = call()
        seconds[name] = [time.perf_counter() - start]
        error = centred[0] @ np.asarray(weights, np.float64) - fitted
        errors[name] = float(np.linalg.norm(error) / np.linalg.norm(fitted))
    # Compilation belongs to the first call, so that only what is not compiled may stay at one.
    quick = {
        name: call
        for name, call in made.items()
        if seconds[name][0] < SLOW or name in ours(z, r) or name.startswith("jax")
    }
    seconds.update(take_turns(quick, config.turns))
    rates, work = attainable(before), operations(shape, condition)
    limit = sum(work[name] / rates[name] for name in work)
    rows = []
    for name, values in seconds.items():
        ratio = np.array(values) / np.array(seconds["ours"][: len(values)])
        rows.append(
            {
                "variant": name,
                "seconds_median": float(np.median(values)),
                "seconds_min": min(values),
                "ratio_to_ours_median": float(np.median(ratio)),
                "ratio_to_ours_low": float(ratio.min()),
                "ratio_to_ours_high": float(ratio.max()),
                "error": errors[name],
                "exact": errors[name] <= ACCURACY,
            }
        )
        print(
            f"  {name:28} {1e3 * np.median(values):8.1f} ms (best {1e3 * min(values):.1f})  "
            f"{np.median(ratio):6.2f} of ours [{ratio.min():.2f}, {ratio.max():.2f}]  "
            f"error {errors[name]:.0e}",
            flush=True,
        )
    best = min(seconds["ours"])
    print(f"  limit {1e3 * limit:.1f} ms: ours {best / limit:.2f} of it at best", flush=True)
    return {
        "rows": rows,
        "operations": work,
        "rates": rates,
        "limit_seconds": limit,
        "ours_over_limit_best": best / limit,
        "ours_over_limit_median": float(np.median(seconds["ours"])) / limit,
    }


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
    from lens.probes import decoder

    return {
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


def attainable(before: dict[str, float] | None = None) -> dict[str, float]:
    """Operations per second of a large matrix product by type, the best of several libraries.

    The better of now and `before`: on a busy machine both may be low, never too high.
    """
    import torch
    from scipy.linalg import get_blas_funcs

    rates = {}
    for dtype in ("float32", "float64"):
        a = np.random.default_rng(0).random((1536, 1536)).astype(dtype)
        (gemm,) = get_blas_funcs(("gemm",), dtype=a.dtype)
        tensor = torch.from_numpy(a)
        calls: dict[str, Call] = {
            "numpy": lambda a=a: a @ a,
            "scipy": lambda a=a, gemm=gemm: gemm(1.0, a.T, a.T),
            "torch": lambda t=tensor: torch.mm(t, t),
        }
        seconds = take_turns(calls, 3)
        rates[dtype] = 2 * 1536**3 / min(min(values) for values in seconds.values())
        if before:
            rates[dtype] = max(rates[dtype], before[dtype])
    return rates


def copy_bandwidth() -> float:
    """Bytes per second read and written by a copy of 200 MB, the best of several."""
    source = np.ones(25_000_000)
    target = np.empty_like(source)
    seconds = take_turns({"copy": lambda: np.copyto(target, source)}, 5)["copy"]
    return 2 * source.nbytes / min(seconds)


def refits(shape: tuple[int, int, int], config: Config) -> dict[str, Any]:
    """Paired bootstrap decodes of two encoders beside loops over the draws."""

    import lens

    n, h, k = shape
    z, r, weights = _pair(shape, config.draws)
    few = weights[:48]

    def batched(w: np.ndarray) -> int:
        return sum(len(block["pre"].theta) for block in lens.refit(z, r, w))

    def normal_equations(w: np.ndarray) -> list[np.ndarray]:
        """What one writes in NumPy: patients drawn, centred, and the equations solved."""
        made = []
        for draw in w:
            rows = np.repeat(np.arange(n), draw.astype(int))
            target = r[rows] - r[rows].mean(axis=0)
            for values in z.values():
                x = values[rows] - values[rows].mean(axis=0)
                made.append(np.linalg.solve(x.T @ x, x.T @ target))
        return made

    def by_ours(w: np.ndarray) -> list[np.ndarray]:
        made = []
        for draw in w:
            rows = np.repeat(np.arange(n), draw.astype(int))
            made += [lens.decode(values[rows], r[rows]).theta for values in z.values()]
        return made

    sizes = {"ours": len(few), "lens.decode, looped": 4, "numpy solve": 4}
    functions = {
        "ours": batched,
        "lens.decode, looped": by_ours,
        "numpy solve": normal_equations,
    }
    calls: dict[str, Call] = {
        name: lambda f=f, size=sizes[name]: f(few[:size]) for name, f in functions.items()
    }
    for call in calls.values():
        call()
    before = attainable()
    seconds = take_turns(calls, 3)
    per_draw = {name: np.array(values) / sizes[name] for name, values in seconds.items()}
    (block,) = lens.refit(z, r, few[:2])
    expected = normal_equations(few[:2])
    error = max(
        np.linalg.norm(values @ (block[name].theta[draw].T - expected[2 * draw + place]))
        / np.linalg.norm(values @ expected[2 * draw + place])
        for place, (name, values) in enumerate(z.items())
        for draw in (0, 1)
    )
    start = time.perf_counter()
    batched(weights)
    whole = time.perf_counter() - start

    rates, drawn = attainable(before), float((weights > 0).sum(axis=1).mean())
    work = {
        "float64": 2 * (3 * drawn * h**2 + h**3 / 3),
        "float32": 2 * drawn * (2 * h + 1) * k,
    }
    limit = sum(work[name] / rates[name] for name in work)
    for name, values in per_draw.items():
        ratio = values / per_draw["ours"]
        print(
            f"  {name:20} {1e3 * np.median(values):7.1f} ms a draw of both encoders, "
            f"{np.median(ratio):.2f} of ours [{ratio.min():.2f}, {ratio.max():.2f}]"
        )
    print(
        f"  {config.draws} draws {whole:.1f} s, limit {1e3 * limit:.1f} ms a draw: "
        f"{whole / config.draws / limit:.2f} of it; error {error:.0e}",
        flush=True,
    )
    return {
        "seconds_per_draw": {name: float(np.median(v)) for name, v in per_draw.items()},
        "ratio_to_ours": {
            name: [float(f(v / per_draw["ours"])) for f in (np.median, np.min, np.max)]
            for name, v in per_draw.items()
        },
        "seconds_all_draws": whole,
        "patients_drawn": drawn,
        "operations_per_draw": work,
        "rates": rates,
        "limit_seconds_per_draw": limit,
        "over_limit": whole / config.draws / limit,
        "over_limit_best": float(per_draw["ours"].min() / limit),
        "error": float(error),
    }


def probe(shape: tuple[int, int, int], config: Config) -> dict[str, Any]:
    """The ridge probe with its path of penalties beside cross-validated ridges."""
    from himalaya.ridge import RidgeCV as HimalayaRidgeCV
    from sklearn.linear_model import RidgeCV

    from lens.probes.ridge import ALPHAS, ridge

    n, d, k = shape
    rng = np.random.default_rng(0)
    x, r = rng.normal(size=(n, d)), rng.random((n, k))
    alphas = n * np.array(ALPHAS)
    calls: dict[str, Call] = {
        "ours": lambda: ridge(x, r),
        "sklearn RidgeCV": lambda: RidgeCV(alphas=alphas, alpha_per_target=True).fit(x, r),
        "himalaya RidgeCV, 5 folds": lambda: HimalayaRidgeCV(
            alphas=alphas, solver_params={"warn": False}
        ).fit(x, r),
    }
    before = attainable()
    for call in calls.values():
        call()
    seconds = take_turns(calls, 3)
    rates, m = attainable(before), min(n, d)
    # Half of the inner products, their eigenvectors by tridiagonal form (14/3 m^3), the vectors of
    # the other side, and four products with the targets: scores, penalties, weights, fitted values.
    work = n * d * m + 14 / 3 * m**3 + 2 * n * d * m
    work += 2 * k * (n * m + len(ALPHAS) * m + d * m + n * m)
    limit = work / rates["float64"]
    for name, values in seconds.items():
        ratio = np.array(values) / np.array(seconds["ours"])
        print(f"  {name:26} {1e3 * np.median(values):8.0f} ms, {np.median(ratio):.2f} of ours")
    best = min(seconds["ours"])
    print(f"  limit {1e3 * limit:.0f} ms: ours {best / limit:.2f} of it at best", flush=True)
    return {
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "ratio_to_ours": {
            name: [
                float(f(np.array(v) / np.array(seconds["ours"])))
                for f in (np.median, np.min, np.max)
            ]
            for name, v in seconds.items()
        },
        "operations": work,
        "rates": rates,
        "limit_seconds": limit,
        "over_limit_best": best / limit,
        "over_limit_median": float(np.median(seconds["ours"])) / limit,
    }


def memory(draws: tuple[int, ...]) -> dict[str, Any]:
    """Peak resident memory in MiB of a process that makes so many draws, and the copy bandwidth."""
    peak = {}
    for count in draws:
        command = [sys.executable, "-m", "benchmarks.decode", "--alone", str(count)]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
        peak[str(count)] = float(out.stdout.split()[-1])
        print(f"  {count} draws: {peak[str(count)]:.0f} MiB", flush=True)
    return {"peak_mib": peak, "copy_bytes_per_second": copy_bandwidth()}


def _peak_of(draws: int) -> float:
    import lens

    z, r, weights = _pair((595, 128, 2511), draws)
    for block in lens.refit(z, r, weights):
        # As a user would: a number per feature stays, the weights go.
        np.linalg.norm(block["pre"].theta, axis=-1)
    # ru_maxrss would include the parent's memory at the fork.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _pair(
    shape: tuple[int, int, int], draws: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    from lens.paper.bootstrap import patient_weights

    n, h, k = shape
    rng = np.random.default_rng(0)
    z = {name: rng.normal(size=(n, h)) for name in ("pre", "ft")}
    return z, rng.random((n, k)), patient_weights(np.arange(n), draws, 0)


def take_turns(calls: dict[str, Call], turns: int) -> dict[str, list[float]]:
    """Seconds of each call, one of each in turn.

    The pause lets the threads of the call before fall asleep: BLAS lets them spin for some time, on
    the cores of whoever comes next.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            time.sleep(0.15)
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
