"""Decoders refitted on bootstrap draws beside loops over the draws, on CPU, and their memory.

``python -m benchmarks.refit`` prints its part of the table "Many decoders" of docs/benchmarks.md
and writes its part of ``benchmarks/results/decode.json``. The limit is the arithmetic alone, at the
rate of a large matrix product; turns of the peers are of fewer draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.harness import Call
from benchmarks.rates import copy_rate, limit_seconds, product_rates

FEW = {"ours": 48, "lens.decode, looped": 4, "numpy solve": 4}
"""Draws in a turn of each variant."""

TURNS = 3


@dataclass(frozen=True)
class Config:
    """What is measured."""

    patients: int = 595
    """Patients."""
    features: int = 2511
    """Radiomic features."""
    widths: tuple[int, ...] = (128, 256)
    """Hidden units of the decoders."""
    draws: int = 1000
    """Bootstrap draws, of two encoders each."""
    memory: tuple[int, ...] = (100, 1000)
    """Draws of which the peak memory is measured, each in a process of its own (Linux), at the
    first width; none where it is empty."""
    out: Path = harness.RESULTS / "decode.json"
    """Where the figures go."""
    alone: int | None = None
    """Only print the peak memory of so many draws."""


@dataclass(frozen=True)
class Pair:
    """Two encoders' projected embeddings and the draws.

    Attributes:
        z: embeddings of each encoder (n, h).
        r: features (n, k).
        weights: of each patient in each draw (draws, n).
    """

    z: dict[str, np.ndarray]
    r: np.ndarray
    weights: np.ndarray


def main(config: Config) -> None:
    """Measures every width, then the memory."""
    if config.alone is not None:
        print(peak(pair(config, config.widths[0], config.alone)))
        return
    about = harness.facts(config, "jax", "numpy", "scipy", "torch")
    for width in config.widths:
        title = f"refit {config.patients} x {width} x {config.features}"
        print(title, flush=True)
        found = refits(pair(config, width, config.draws))
        harness.record_part(config.out, title, found | about)
    if config.memory:
        title = f"memory {config.patients} x {config.widths[0]} x {config.features}"
        print(title, flush=True)
        harness.record_part(config.out, title, memory(config) | about)


def pair(config: Config, width: int, draws: int) -> Pair:
    """Random embeddings and features, and the patients of every draw."""
    from lens.paper.bootstrap import patient_weights

    n = config.patients
    rng = np.random.default_rng(0)
    z = {name: rng.normal(size=(n, width)) for name in ("pre", "ft")}
    return Pair(z, rng.random((n, config.features)), patient_weights(np.arange(n), draws, 0))


def refits(data: Pair) -> dict[str, Any]:
    """Seconds a draw of both encoders by variant, against the limit, and the error of ours."""
    functions = {
        "ours": batched,
        "lens.decode, looped": looped,
        "numpy solve": normal_equations,
    }
    calls: dict[str, Call] = {
        name: lambda f=f, few=FEW[name]: f(data, data.weights[:few])
        for name, f in functions.items()
    }
    for call in calls.values():
        call()
    before = product_rates()
    turns = harness.take_turns(calls, TURNS).scaled({name: 1 / few for name, few in FEW.items()})
    draws = len(data.weights)
    whole = harness.cost_of(lambda: batched(data, data.weights)).seconds / draws
    rates, work = product_rates(before), operations(data)
    print(f"  {draws} draws, {1e3 * whole:.1f} ms each", flush=True)
    return {
        "rows_per_draw": turns.rows("ours"),
        "seconds_per_draw_of_all": whole,
        "patients_drawn": _drawn(data),
        "operations_per_draw": work,
        "rates": rates,
        **harness.over_limit([whole], limit_seconds(work, rates)),
        "error": largest_error(data),
    }


def batched(data: Pair, weights: np.ndarray) -> int:
    """Ours; gives the number of draws."""
    import lens

    return sum(len(block["pre"].theta) for block in lens.refit(data.z, data.r, weights))


def looped(data: Pair, weights: np.ndarray) -> list[np.ndarray]:
    """Our decoder, a draw at a time."""
    import lens

    made = []
    for rows in map(_rows, weights):
        made += [lens.decode(values[rows], data.r[rows]).theta for values in data.z.values()]
    return made


def normal_equations(data: Pair, weights: np.ndarray) -> list[np.ndarray]:
    """What one writes in NumPy: patients drawn, centred, and the equations solved."""
    made = []
    for rows in map(_rows, weights):
        target = data.r[rows] - data.r[rows].mean(axis=0)
        for values in data.z.values():
            x = values[rows] - values[rows].mean(axis=0)
            made.append(np.linalg.solve(x.T @ x, x.T @ target))
    return made


def largest_error(data: Pair) -> float:
    """Of the predictions of the first two draws, relative to the normal equations in float64."""
    import lens

    (block,) = lens.refit(data.z, data.r, data.weights[:2])
    expected = iter(normal_equations(data, data.weights[:2]))
    errors = []
    for draw in range(2):
        for name, values in data.z.items():
            theta = next(expected)
            error = values @ (block[name].theta[draw].T - theta)
            errors.append(np.linalg.norm(error) / np.linalg.norm(values @ theta))
    return float(max(errors))


def operations(data: Pair) -> dict[str, float]:
    """Multiplications and additions of one draw of both encoders, by type."""
    drawn, h, k = _drawn(data), data.z["pre"].shape[1], data.r.shape[1]
    return {
        "float64": 2 * (3 * drawn * h**2 + h**3 / 3),
        "float32": 2 * drawn * (2 * h + 1) * k,
    }


def memory(config: Config) -> dict[str, Any]:
    """Peak resident memory in MiB of a process that makes so many draws, and the copy rate."""
    sizes = ["--patients", str(config.patients), "--features", str(config.features)]
    sizes += ["--widths", str(config.widths[0])]
    peaks = {}
    for draws in config.memory:
        peaks[str(draws)] = harness.peak_of("benchmarks.refit", *sizes, "--alone", str(draws))
        print(f"  {draws} draws: {peaks[str(draws)]:.0f} MiB", flush=True)
    return {"peak_mib": peaks, "copy_bytes_per_second": copy_rate()}


def peak(data: Pair) -> float:
    """Peak memory in MiB of this process after all draws."""
    import lens

    for block in lens.refit(data.z, data.r, data.weights):
        # As a user would: a number per feature stays, the weights go.
        np.linalg.norm(block["pre"].theta, axis=-1)
    return harness.own_peak()


def _rows(draw: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(draw)), draw.astype(int))


def _drawn(data: Pair) -> float:
    """Different patients in a draw, mean over the draws."""
    return float((data.weights > 0).sum(axis=1).mean())


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
