"""The sweep over penalties beside a PyTorch loop over the grid, taking turns.

``python -m benchmarks.sweep`` prints seconds of the whole grid and writes
``benchmarks/results/sweep.json``. Both train the same MLPs: the same start, the same minibatches in
the same order, the same number of epochs, Adam, mean absolute error with both penalties; their
validation losses are compared at the end, and PyTorch's in float64 beside them: Adam on an absolute
error magnifies rounding. Epochs are few by default, since time grows with them
exactly; ``--epochs 200 --turns 1`` is the published size. scikit-learn's ``MLPRegressor`` has no
absolute error and no L1 penalty; it is timed on a squared error, for orientation.

The attainable time is that of the arithmetic at the rate of a large matrix product, plus that of
the optimiser's traffic (parameters, gradient and two moments read, three of them written) at the
rate of a large copy, both measured here.
"""

from __future__ import annotations

import itertools
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.harness import Call

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
FUSED, DOUBLE, SKLEARN = "torch, fused Adam", "torch, float64", "sklearn, squared error"
"""Variants of the peers."""


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
    turns: int = 3
    """Times that each takes its turn."""
    sklearn: bool = True
    """Also time scikit-learn, one pair, and multiply."""
    out: Path = harness.RESULTS / "sweep.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Runs all in turn, prints and writes the table."""
    data = _data(config)
    losses: dict[str, np.ndarray] = {}
    calls = _variants(config, data, losses)
    limit = _limit(config)
    seconds = harness.take_turns(calls, config.turns)
    if config.sklearn:  # one pair was timed
        pairs = config.pairs[0] * config.pairs[1]
        seconds[SKLEARN] = [pairs * value for value in seconds[SKLEARN]]
    rows = []
    for name, values in seconds.items():
        rows.append(
            {
                "variant": name,
                "seconds_median": float(np.median(values)),
                **harness.ratio(seconds["torch"], values).named("times_torch"),
                "times_fused_torch_median": harness.ratio(seconds[FUSED], values).median,
                "share_of_limit": limit["seconds"] / float(np.median(values)),
            }
        )
        print(rows[-1])
    # Trainings that differ by rounding alone part as well: by how much, PyTorch itself tells.
    _torch(config, data, losses, DOUBLE)()
    apart = {}
    for label, name in (("ours", "ours"), ("torch in float64", DOUBLE)):
        difference = np.abs(losses[name] / losses["torch"] - 1)
        apart[f"{label}, median"] = float(np.median(difference))
        apart[f"{label}, largest"] = float(difference.max())
    found = {"limit": limit, "validation_losses_apart": apart}
    print(json.dumps(found))
    about = harness.facts(config, "jax", "torch", "scikit-learn", device=_device())
    harness.record(config.out, {**about, **found, "rows": rows})


def _variants(config: Config, data: Arrays, losses: dict[str, np.ndarray]) -> dict[str, Call]:
    calls = {
        "ours": _ours(config, data, _grid(config), losses),
        "torch": _torch(config, data, losses),
        FUSED: _torch(config, data, losses, FUSED),
    }
    if config.more_pairs:
        l1 = np.geomspace(1e-8, 1e-5, config.more_pairs // config.pairs[1])
        calls["ours, more pairs"] = _ours(config, data, (tuple(l1), _grid(config)[1]), {})
    if config.sklearn:
        calls[SKLEARN] = _sklearn(config, data)
    return calls


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


def _torch(
    config: Config, data: Arrays, losses: dict[str, np.ndarray], name: str = "torch"
) -> Call:
    import jax
    import torch

    from lens.probes.mlp import init
    from lens.probes.scaling import fit_standardise
    from lens.probes.training import minibatches

    torch.set_num_threads(os.cpu_count() or 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mean, std = fit_standardise(data[0])
    kind = torch.float64 if name == DOUBLE else torch.float32
    x, r, x_val, r_val = (
        torch.tensor(v, device=device, dtype=kind)
        for v in ((data[0] - mean) / std, data[1], (data[2] - mean) / std, data[3])
    )
    start = init(
        jax.random.fold_in(jax.random.key(0), 0), config.width, config.hidden, config.columns
    )
    steps = -(-config.patients // config.batch)
    order = []
    for epoch in range(config.epochs):
        rows, used = minibatches(np.int32(0), np.int32(epoch), len(x), steps, config.batch)  # type: ignore[arg-type]
        pairs = zip(np.asarray(rows), np.asarray(used) > 0, strict=True)
        order.append([torch.tensor(index[keep], device=device) for index, keep in pairs])

    def one(l1: float, l2: float) -> float:
        first = torch.nn.Linear(config.width, config.hidden)
        second = torch.nn.Linear(config.hidden, config.columns)
        net = torch.nn.Sequential(first, torch.nn.ReLU(), second).to(device, kind)
        values = (start.w.T, start.b, start.v.T, start.c)
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), values, strict=True):
                parameter.copy_(torch.tensor(np.asarray(value)))
        weights = (first.weight, second.weight)
        fused = True if name == FUSED else None
        adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=fused)
        for rows in itertools.chain(*order):
            loss = torch.nn.functional.l1_loss(net(x[rows]), r[rows])
            loss = loss + l1 * sum(w.abs().sum() for w in weights)
            loss = loss + l2 * sum(w.square().sum() for w in weights)
            adam.zero_grad()
            loss.backward()
            adam.step()
        with torch.no_grad():
            return torch.nn.functional.l1_loss(net(x_val), r_val).item()

    def call() -> None:
        losses[name] = np.array([one(*pair) for pair in itertools.product(*_grid(config))])

    return call


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


def _limit(config: Config) -> dict[str, float]:
    """What arithmetic and the optimiser's traffic need at the rates of this machine."""
    weights = config.hidden * (config.width + config.columns)
    steps = config.pairs[0] * config.pairs[1] * config.epochs * -(-config.patients // config.batch)
    # Forward and both gradients, but for that of the embeddings.
    work = 2 * config.batch * (2 * config.width + 3 * config.columns) * config.hidden
    rate, copy = harness.product_rates()["float32"], harness.copy_rate()
    seconds = steps * (work / rate + 7 * 4 * weights / copy)
    return {
        "gflops": rate / 1e9,
        "copy_gb_per_s": copy / 1e9,
        "seconds": seconds,
        "seconds_of_arithmetic": steps * work / rate,
    }


def _device() -> str:
    import jax

    return jax.devices()[0].device_kind


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
