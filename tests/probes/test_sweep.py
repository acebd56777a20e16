"""The sweep against a PyTorch training loop, and its laws."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from lens.probes import training
from lens.probes.devices import choose_stack
from lens.probes.grid_warnings import grid_warnings
from lens.probes.halving import Winner, halve, rounds
from lens.probes.mlp import init
from lens.probes.scaling import fit_standardise
from lens.probes.sweep import Sweep, sweep
from lens.probes.training import Data, advance, minibatches, start, to_points
from lens.settings import PAPER_L1_GRID, Mode, SweepConfig

ODD = SweepConfig(hidden=8, l1=(0.0, 1e-3, 1e-2), l2=(0.0,), epochs=15, batch=16)
SMALL = SweepConfig(hidden=8, l1=(0.0, 1e-3), l2=(0.0, 1e-2), epochs=15, batch=16)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return planted()


@pytest.fixture(scope="module")
def swept(data) -> Sweep:
    """Of `SMALL`, one MLP after the other."""
    return sweep(*data, SMALL)


@pytest.fixture(scope="module")
def halved(data) -> Winner:
    return halve(standardised(data), SMALL, seed=0)


def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 10)).astype(np.float32)
    r = 1 / (1 + np.exp(-x[:, :4] @ rng.normal(size=(4, 12))))
    return x[:45], r[:45], x[45:], r[45:]


def torch_losses(data, config: SweepConfig, seed: int, l1: float, l2: float) -> tuple[float, float]:
    """Final train and validation loss of the same training as a plain PyTorch loop."""
    import torch  # here, for processes that other tests start import this file

    x, r, x_val, r_val = data
    mean, std = fit_standardise(x) if config.mode == "default" else (np.float32(0), np.float32(1))
    x, r, x_val, r_val = (
        torch.tensor(v, dtype=torch.float32)
        for v in ((x - mean) / std, r, (x_val - mean) / std, r_val)
    )
    start = init(jax.random.fold_in(jax.random.key(seed), 0), x.shape[1], config.hidden, r.shape[1])
    net = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], config.hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(config.hidden, r.shape[1]),
    )
    with torch.no_grad():
        for parameter, value in zip(
            net.parameters(), (start.w.T, start.b, start.v.T, start.c), strict=True
        ):
            parameter.copy_(torch.tensor(np.asarray(value)))
    adam = torch.optim.Adam(net.parameters(), lr=config.rate)
    scale = r.shape[1] if config.mode == "paper" else 1
    steps = -(-len(x) // config.batch)
    for epoch in range(config.epochs):
        rows, weight = minibatches(jnp.int32(seed), jnp.int32(epoch), len(x), steps, config.batch)
        for index, used in zip(np.asarray(rows), np.asarray(weight) > 0, strict=True):
            index = index[used]
            weights = [p for p in net.parameters() if p.ndim == 2]
            loss = scale * torch.nn.functional.l1_loss(net(x[index]), r[index])
            loss = loss + l1 * sum(w.abs().sum() for w in weights)
            loss = loss + l2 * sum(w.square().sum() for w in weights)
            adam.zero_grad()
            loss.backward()
            adam.step()
    with torch.no_grad():
        return (
            torch.nn.functional.l1_loss(net(x), r).item(),
            torch.nn.functional.l1_loss(net(x_val), r_val).item(),
        )


@pytest.mark.parametrize("mode", ["default", "paper"])
def test_every_pair_ends_where_a_pytorch_loop_ends(data, mode) -> None:
    config = SweepConfig(hidden=8, l1=(0.0, 1e-3), l2=(0.0, 1e-2), epochs=15, batch=16, mode=mode)
    table = sweep(*data, config, seed=3).table
    for row in table.itertuples():
        expected = torch_losses(data, config, 3, row.l1, row.l2)
        # Two float32 trainings of 45 steps part by rounding and by ties in |.|'s gradient.
        np.testing.assert_allclose((row.train_loss, row.val_loss), expected, rtol=1e-4)
    assert table["val_loss"].nunique() == len(table), "penalties make no difference"


@pytest.mark.parametrize("stack", [2, 3, 4])
def test_stacks_change_nothing(data, swept: Sweep, stack: int) -> None:
    one = swept.table
    several = sweep(*data, SweepConfig(**{**vars(SMALL), "stack": stack})).table
    np.testing.assert_allclose(several["val_loss"], one["val_loss"], rtol=1e-5)
    assert (several["selected"] == one["selected"]).all()


def test_selects_by_mean_validation_loss_over_seeds(data) -> None:
    result = sweep(*data, SweepConfig(**{**vars(SMALL), "seeds": 3}))
    table = result.table
    assert len(table) == 12
    assert table["selected"].sum() == 1
    best = table[table["selected"]].iloc[0]
    means = table.groupby(["l1", "l2"])["val_loss"].mean()
    assert means.idxmin() == (best["l1"], best["l2"])
    same_pair = table[(table["l1"] == best["l1"]) & (table["l2"] == best["l2"])]
    assert best["val_loss"] == same_pair["val_loss"].min()
    alone = sweep(
        *data,
        SweepConfig(**{**vars(SMALL), "l1": (best["l1"],), "l2": (best["l2"],)}),
        seed=int(best["seed"]),
    )
    np.testing.assert_allclose(alone.projection.w, result.projection.w, atol=1e-6)


def test_warns_of_edges_and_duplicates(data) -> None:
    config = SweepConfig(hidden=4, l1=PAPER_L1_GRID, l2=(0.0,), epochs=2)
    warnings = grid_warnings(sweep(*data, config).table)
    assert any("l1 = 1e-06, l2 = 0 more than once" in text for text in warnings)
    edge = sweep(*data, SweepConfig(hidden=4, l1=(10.0, 20.0), l2=(0.0,), epochs=2)).table
    assert any("at the edge of its grid" in text for text in grid_warnings(edge))
    single = sweep(*data, SweepConfig(hidden=4, l1=(1e-6,), l2=(0.0,), epochs=2)).table
    assert grid_warnings(single) == ()


def test_minibatches_visit_each_row_once() -> None:
    rows, weight = minibatches(jnp.int32(0), jnp.int32(5), 45, 3, 16)
    assert sorted(np.asarray(rows)[np.asarray(weight) > 0].tolist()) == list(range(45))
    other, _ = minibatches(jnp.int32(0), jnp.int32(6), 45, 3, 16)
    assert (np.asarray(rows) != np.asarray(other)).any()


def test_reports_every_finished_epoch(data) -> None:
    counts: list[int] = []
    sweep(*data, SMALL, on_epochs=counts.append)
    assert sum(counts) == 4 * SMALL.epochs


def test_devices_change_nothing(swept: Sweep, halved: Winner) -> None:
    """Eight simulated devices, each with its share of the grid, in a process of its own."""
    script = """
import json, jax
import numpy as np
from lens.probes.halving import halve
from lens.probes.sweep import Sweep, sweep
from lens.settings import SweepConfig
from tests.probes.test_sweep import SMALL, planted, standardised
found = sweep(*planted(), SMALL)
halved = halve(standardised(planted()), SMALL, seed=0)
print(json.dumps([jax.device_count(), found.table["val_loss"].tolist(), halved.w.tolist()]))
"""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    devices, losses, w = json.loads(out.stdout)
    assert devices == 8
    # one MLP per device is the same program as one MLP on one device.
    np.testing.assert_allclose(losses, swept.table["val_loss"], rtol=1e-6)
    np.testing.assert_allclose(w, halved.w, atol=1e-6)


def test_processes_share_the_grid_and_each_gets_all(data) -> None:
    """Two processes of `jax.distributed`, and a grid that they cannot share out evenly."""
    script = """
import json, sys, jax
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
from lens.probes.sweep import Sweep, sweep
from lens.settings import SweepConfig
from tests.probes.test_sweep import ODD, planted
found = sweep(*planted(), ODD)
print(json.dumps([jax.process_count(), found.table["val_loss"].tolist(),
                  found.projection.w.tolist()]))
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(port), str(rank)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    alone = sweep(*data, ODD)
    for process in processes:
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        count, losses, w = json.loads(out.splitlines()[-1])
        assert count == 2
        np.testing.assert_array_equal(np.float32(losses), alone.table["val_loss"])
        np.testing.assert_array_equal(np.float32(w), alone.projection.w)


def test_an_epoch_costs_its_arithmetic_and_no_more() -> None:
    """Counts operations, so that no change can double the work unseen."""
    n, d, h, k, batch, stack = 64, 96, 32, 200, 16, 3
    points = to_points(
        pd.DataFrame({"l1": [0.0] * stack, "l2": [0.0] * stack, "seed": range(stack)})
    )
    data = Data(jnp.ones((n, d)), jnp.ones((n, k)), jnp.ones((8, d)), jnp.ones((8, k)))
    state = start(points, d, h, k)
    program = advance.lower(data, points, state, 0, 1, batch=batch, rate=1e-3).compile()
    found = program.cost_analysis()["flops"]
    # Loop bodies are counted once: one step of every MLP. Forward and both gradients, but for that
    # of the embeddings; Adam and the penalties are about 25 operations a weight.
    products = 2 * batch * h * (2 * d + 3 * k)
    rest = 25 * h * (d + k)
    assert stack * products < found < 1.25 * stack * (products + rest)


def test_compiles_once_for_the_whole_grid(data) -> None:
    advance.clear_cache()  # pyright: ignore[reportAttributeAccessIssue]
    for l2 in ((0.0, 1e-2), (1e-3, 1e-4)):
        sweep(*data, SweepConfig(**{**vars(SMALL), "l2": l2, "seeds": 2}))
    assert advance._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]


def test_columns_that_only_fill_up_change_nothing(data, monkeypatch) -> None:
    """An accelerator's second layers are wider than the table; here by three columns."""
    plain, halved = sweep(*data, SMALL), halve(Data(*data), SMALL, seed=0)
    monkeypatch.setattr(training, "filled_columns", lambda k: k + 3)
    start.clear_cache()  # pyright: ignore[reportAttributeAccessIssue]
    assert start(to_points(plain.table.head(2)), 10, 8, 12).mlp.v.shape == (2, 8, 15)
    filled, again = sweep(*data, SMALL), halve(Data(*data), SMALL, seed=0)
    start.clear_cache()  # pyright: ignore[reportAttributeAccessIssue]
    for column in ("train_loss", "val_loss"):
        np.testing.assert_allclose(filled.table[column], plain.table[column], rtol=1e-5)
    np.testing.assert_allclose(filled.projection.w, plain.projection.w, atol=1e-5)
    np.testing.assert_allclose(again.w, halved.w, atol=1e-5)


def test_stacks_follow_memory() -> None:
    per_mlp = 16 * (768 * 256 + 256 * 2511 + 256 + 2511)
    assert choose_stack(24, 768, 256, 2511, memory=4.0 * 10 * per_mlp) == 10
    assert choose_stack(24, 768, 256, 2511, memory=1e12) == 24
    assert choose_stack(24, 768, 256, 2511, memory=1.0) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [({"l1": (-1.0,)}, "negative"), ({"x": np.nan}, "x_train has values that are not finite")],
)
def test_refuses(data, change, message) -> None:
    x, r, x_val, r_val = data
    if "x" in change:
        x, config = x.copy(), SMALL
        x[0, 0] = change["x"]
    else:
        config = SweepConfig(**{**vars(SMALL), **change})
    with pytest.raises(ValueError, match=message):
        sweep(x, r, x_val, r_val, config)


def standardised(data) -> Data:
    x, r, x_val, r_val = data
    mean, std = fit_standardise(x)
    return Data(
        *(jnp.asarray(v, jnp.float32) for v in ((x - mean) / std, r, (x_val - mean) / std, r_val))
    )


def test_rounds_of_the_published_grid() -> None:
    assert rounds(24, 200) == ((7, 24), (22, 8), (67, 3), (200, 1))
    assert rounds(1, 50) == ((50, 1),)
    assert rounds(4, 1)[-1] == (1, 1)


def test_halving_with_one_pair_is_the_sweep(data) -> None:
    config = SweepConfig(hidden=8, l1=(1e-4,), l2=(1e-4,), epochs=15, batch=16)
    whole = sweep(*data, config)
    found = halve(standardised(data), config, seed=0)
    np.testing.assert_allclose(found.w, whole.projection.w, atol=1e-6)
    np.testing.assert_allclose(found.table["val_loss"], whole.table["val_loss"], rtol=1e-5)


def test_halving_goes_on_from_where_a_pair_was(data) -> None:
    config = SweepConfig(hidden=8, l1=(0.0, 1e-4, 3e-2), l2=(0.0,), epochs=18, batch=16)
    found = halve(standardised(data), config, seed=2)
    assert found.table["epochs"].tolist().count(18) == 1
    best = found.table[found.table["selected"]].iloc[0]
    assert best["epochs"] == 18
    assert not found.table["selected"][2], "a penalty that flattens everything won"
    alone = halve(standardised(data), SweepConfig(**{**vars(config), "l1": (best["l1"],)}), seed=2)
    # The same minibatches in one call or in three.
    np.testing.assert_allclose(found.w, alone.w, atol=1e-6)


@pytest.mark.parametrize("stack", [2, 3])
def test_stacks_do_not_change_the_halving(data, halved: Winner, stack: int) -> None:
    one = halved
    several = halve(standardised(data), SweepConfig(**{**vars(SMALL), "stack": stack}), seed=0)
    np.testing.assert_allclose(several.w, one.w, atol=1e-5)
    assert (several.table["epochs"] == one.table["epochs"]).all()


def test_fill_rows_do_not_choose(data, halved: Winner) -> None:
    plain = standardised(data)
    filled = plain._replace(
        x_val=jnp.concatenate([plain.x_val, 100 + plain.x_val]),
        r_val=jnp.concatenate([plain.r_val, -plain.r_val]),
        val_weight=jnp.asarray(np.repeat([1.0, 0.0], len(plain.x_val)), jnp.float32),
    )
    one, other = halved.table, halve(filled, SMALL, seed=0).table
    np.testing.assert_allclose(other["val_loss"], one["val_loss"], rtol=1e-5)


@pytest.mark.parametrize(("mode", "width"), [("default", 8), ("paper", 128)])
def test_without_a_width_it_follows_the_patients(mode: Mode, width: int) -> None:
    rng = np.random.default_rng(0)
    x, r = rng.normal(size=(70, 5)).astype(np.float32), rng.random((70, 3))
    config = SweepConfig(l1=(0.0,), l2=(0.0,), epochs=1, mode=mode)
    found = sweep(x[:60], r[:60], x[60:], r[60:], config)
    assert found.projection.w.shape == (5, width)
