"""The sweep over penalties beside PyTorch's ways over the same grid, taking turns.

``python -m benchmarks.sweep`` prints seconds of the whole grid and writes
``benchmarks/results/sweep.json``. All train the same MLPs: the same start, the same minibatches in
the same order, the same number of epochs, Adam, mean absolute error with both penalties; their
validation losses are compared with those in float64: Adam on an absolute error magnifies rounding.
Epochs are few by default, since time grows with them exactly; ``--epochs 200 --turns 1`` is the
published size. scikit-learn's ``MLPRegressor`` has no absolute error and no L1 penalty; it is timed
on a squared error, for orientation.

The peers on a CPU are a loop over the grid with PyTorch's threads, and single-threaded processes,
one per core, each with its share of the grid. On an accelerator both libraries use the same card at
the same precision of products, and the peers are the loop, CUDA graphs of it and the whole grid as
a stack (`benchmarks.torch_sweep`).

The attainable time is that of the arithmetic at the rate of a large matrix product, plus that of
the optimiser's traffic (parameters, gradient and two moments read, three of them written) at the
rate of a large copy, both measured here.
"""

from __future__ import annotations

import itertools
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.harness import Call
from benchmarks.rates import card_rates, copy_rate, product_rates
from benchmarks.torch_sweep import (
    DOUBLE,
    FUSED,
    LOOP,
    PER_CORE,
    WAYS,
    PerCore,
    Problem,
    as_call,
    training,
)
from lens.machine import cpu_count

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
SKLEARN = "sklearn, squared error"
ON_CPU = (LOOP, FUSED, PER_CORE, SKLEARN)
ON_CARD = (
    FUSED,
    "torch, stack as CUDA graph",
    "torch, loop of CUDA graphs",
    "torch, compiled stack as CUDA graph",
    LOOP,
    "torch, stack",
    "torch, compiled loop",
)
"""Peers by default, in this order."""

SAME = 0.05
"""Median distance of validation losses from float64 beyond which something else was trained."""


@dataclass(frozen=True)
class Config:
    """Sizes of the published sweep, but for the epochs."""

    patients: int = 595
    """Train patients."""
    validation: int = 85
    """Validation patients."""
    width: int = 768
    """Dimensions of the embedding."""
    columns: int = 2511
    """Radiomic features."""
    hidden: int = 256
    """Hidden units."""
    batch: int = 64
    """Patients per step."""
    epochs: int = 10
    """Passes over the train patients."""
    pairs: tuple[int, int] = (6, 4)
    """Values of the L1 and of the L2 penalty."""
    more_pairs: int = 0
    """Also time a grid of so many pairs, such as 256 on an accelerator."""
    peers: tuple[str, ...] = ()
    """Whom to run beside; by default those that suit the device."""
    precision: Literal["default", "float32"] = "default"
    """Of matrix products on an accelerator, in both libraries: JAX's default, which rounds factors
    to tf32, or float32."""
    turns: int = 3
    """Times that each takes its turn."""
    out: Path = harness.RESULTS / "sweep.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Runs all in turn, prints and writes the table."""
    _set_precision(config.precision)
    data = _data(config)
    losses: dict[str, np.ndarray] = {}
    found: dict[str, Any] = {"first_seconds": {}, "limit": _limit(config)}
    print(json.dumps(found["limit"]), flush=True)
    about = harness.facts(config, "jax", "torch", "scikit-learn")
    calls: dict[str, Call] = {}
    turns, rows = harness.Turns(), []
    for name, make in _makers(config, data, losses).items():
        start = time.perf_counter()
        calls[name] = make()
        calls[name]()  # compiles, captures
        found["first_seconds"][name] = time.perf_counter() - start
        print(f"{name}: ready after {found['first_seconds'][name]:.1f} s", flush=True)
        turns.go_on({each: calls[each] for each in {"ours": 0, name: 0}})
        rows = _rows(config, turns, found["limit"]["seconds"])
        print(harness.line(rows[-1], "ours"), flush=True)
        harness.record(config.out, {**about, **found, "rows": rows})
    for _ in range(config.turns - 1):
        turns.go_on(calls)
        rows = _rows(config, turns, found["limit"]["seconds"])
        harness.record(config.out, {**about, **found, "rows": rows})
    for row in rows:
        print(harness.line(row, "ours"), f"{row['share_of_limit']:.0%} of the limit", flush=True)
    # Trainings that differ by rounding alone part as well: by how much, float64 tells.
    exact = training(_problem(config, data), WAYS[DOUBLE])()
    apart = {}
    for name, values in losses.items():
        difference = np.abs(values / exact - 1)
        apart[name] = {"median": float(np.median(difference)), "largest": float(difference.max())}
        wrong = "" if apart[name]["median"] < SAME else "  NOT the same training"
        print(f"{name}: losses from float64 {apart[name]}{wrong}", flush=True)
    found["validation_losses_from_float64"] = apart
    harness.record(config.out, {**about, **found, "rows": rows})


def _rows(config: Config, turns: harness.Turns, limit: float) -> list[dict[str, Any]]:
    """Seconds of the whole grid by variant, and how many times ours that is."""
    pairs = config.pairs[0] * config.pairs[1]
    turns = turns.scaled({SKLEARN: pairs})  # one pair was timed
    more = {_more(config): config.more_pairs / pairs}
    return [
        turns.row(name, "ours")
        | {"share_of_limit": more.get(name, 1) * limit / float(np.median(values))}
        for name, values in turns.seconds.items()
    ]


def _more(config: Config) -> str:
    return f"ours, {config.more_pairs} pairs"


def _makers(
    config: Config, data: Arrays, losses: dict[str, np.ndarray]
) -> dict[str, Callable[[], Call]]:
    """For each variant what makes its call."""
    made: dict[str, Callable[[], Call]] = {
        "ours": lambda: _ours(config, data, _grid(config), losses),
    }
    if config.more_pairs:
        l1 = np.geomspace(1e-8, 1e-5, config.more_pairs // config.pairs[1])
        grid = (tuple(l1), _grid(config)[1])
        made[_more(config)] = lambda: _ours(config, data, grid, {})
    problem = _problem(config, data)
    for name in config.peers or (ON_CPU if harness.on_cpu() else ON_CARD):
        if name == SKLEARN:
            made[name] = lambda: _sklearn(config, data)
        elif name == PER_CORE:
            made[name] = lambda: as_call(
                PerCore(problem, WAYS[FUSED], cpu_count()), losses, PER_CORE
            )
        else:
            made[name] = lambda name=name: as_call(training(problem, WAYS[name]), losses, name)
    return made


def _data(config: Config) -> Arrays:
    """Embeddings and features in 0..1 that share twelve factors."""
    rng = np.random.default_rng(0)
    n = config.patients + config.validation
    latent = rng.normal(size=(n, 12))
    x = latent @ rng.normal(size=(12, config.width)) + 2 * rng.normal(size=(n, config.width))
    r = latent @ rng.normal(size=(12, config.columns)) + 3 * rng.normal(size=(n, config.columns))
    r = (r - r.min(axis=0)) / (r.max(axis=0) - r.min(axis=0))
    x, r = x.astype(np.float32), r.astype(np.float32)
    train, val = np.split(np.arange(n), [config.patients])
    return x[train], r[train], x[val], r[val]


def _grid(config: Config) -> tuple[tuple[float, ...], tuple[float, ...]]:
    l1, l2 = config.pairs
    return tuple(np.geomspace(1e-7, 1e-5, l1)), tuple(np.geomspace(1e-6, 1e-3, l2))


def _ours(
    config: Config, data: Arrays, grid: tuple[tuple[float, ...], ...], losses: dict[str, np.ndarray]
) -> Call:
    from lens.probes.sweep import sweep
    from lens.settings import SweepConfig

    settings = SweepConfig(
        hidden=config.hidden, l1=grid[0], l2=grid[1], epochs=config.epochs, batch=config.batch
    )

    def call() -> None:
        losses["ours"] = sweep(*data, settings).table["val_loss"].to_numpy()

    call()  # compiles
    return call


def _problem(config: Config, data: Arrays) -> Problem:
    """What PyTorch is to train, with our start and our minibatches."""
    import jax

    from lens.probes.mlp import init
    from lens.probes.scaling import fit_standardise
    from lens.probes.training import minibatches

    mean, std = fit_standardise(data[0])
    start = init(
        jax.random.fold_in(jax.random.key(0), 0), config.width, config.hidden, config.columns
    )
    order, n = [], len(data[0])
    steps = -(-n // config.batch)
    for epoch in range(config.epochs):
        rows, used = minibatches(np.int32(0), np.int32(epoch), n, steps, config.batch)  # type: ignore[arg-type]
        pairs = zip(np.asarray(rows), np.asarray(used) > 0, strict=True)
        order.append([index[keep] for index, keep in pairs])
    return Problem(
        x=(data[0] - mean) / std,
        r=data[1],
        x_val=(data[2] - mean) / std,
        r_val=data[3],
        start=tuple(np.array(value) for value in (start.w.T, start.b, start.v.T, start.c)),
        order=order,
        pairs=list(itertools.product(*_grid(config))),
    )


def _sklearn(config: Config, data: Arrays) -> Call:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    def call() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # epochs are few on purpose
            MLPRegressor(
                hidden_layer_sizes=(config.hidden,),
                batch_size=config.batch,  # type: ignore[arg-type]
                max_iter=config.epochs,
                n_iter_no_change=10_000,
            ).fit(data[0], data[1])

    return call


def step_seconds(config: Config, rate: float, copy: float) -> tuple[float, float]:
    """What a step of one MLP needs at least: seconds of arithmetic and of the optimiser's traffic.

    Args:
        config: the sizes.
        rate: operations per second of a large matrix product.
        copy: bytes per second of a large copy.
    """
    weights = config.hidden * (config.width + config.columns)
    # Forward and both gradients, but for that of the embeddings.
    work = 2 * config.batch * (2 * config.width + 3 * config.columns) * config.hidden
    return work / rate, 7 * 4 * weights / copy


def _limit(config: Config) -> dict[str, float]:
    """What arithmetic and the optimiser's traffic need at the rates of this machine."""
    steps = config.pairs[0] * config.pairs[1] * config.epochs * -(-config.patients // config.batch)
    if harness.on_cpu():
        rate, copy = product_rates()["float32"], copy_rate()
    else:
        found = card_rates()
        rate = found["tf32" if config.precision == "default" else "float32"]
        copy = found["copy"]
    arithmetic, traffic = step_seconds(config, rate, copy)
    return {
        "gflops": rate / 1e9,
        "copy_gb_per_s": copy / 1e9,
        "seconds": steps * (arithmetic + traffic),
        "seconds_of_arithmetic": steps * arithmetic,
    }


def _set_precision(precision: str) -> None:
    """Products of float32 in both libraries alike: as JAX has them by default, or exact."""
    import jax
    import torch

    torch.set_num_threads(cpu_count())
    if precision == "float32":
        jax.config.update("jax_default_matmul_precision", "float32")
    torch.backends.cuda.matmul.allow_tf32 = precision == "default"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
