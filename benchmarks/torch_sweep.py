"""PyTorch's ways to train the sweep's grid: in loops, in one stack, as graphs, in processes.

All start from the same weights and see the same minibatches in the same order, as ours do.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness import Call

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Problem:
    """What is trained, on what and in which order, as NumPy arrays.

    Attributes:
        x, r, x_val, r_val: standardised embeddings and scaled features.
        start: weights and biases as PyTorch's linear layers have them.
        order: for each epoch the rows of its minibatches.
        pairs: L1 and L2 penalty of each MLP.
    """

    x: np.ndarray
    r: np.ndarray
    x_val: np.ndarray
    r_val: np.ndarray
    start: tuple[np.ndarray, ...]
    order: list[list[np.ndarray]]
    pairs: list[tuple[float, float]]


@dataclass(frozen=True)
class Way:
    """How PyTorch trains the grid.

    Attributes:
        fused: Adam in one kernel; PyTorch's default otherwise.
        stacked: all pairs in one step by `torch.func.vmap`, one after another otherwise.
        compile: the loss by `torch.compile`, in this mode; not compiled where empty.
        graph: an epoch is captured as a CUDA graph once and replayed.
        dtype: of all arrays.
    """

    fused: bool = True
    stacked: bool = False
    compile: str = ""
    graph: bool = False
    dtype: str = "float32"


LOOP, FUSED, DOUBLE = "torch", "torch, fused Adam", "torch, float64"
PER_CORE = "torch, a process per core"
WAYS = {
    LOOP: Way(fused=False),
    FUSED: Way(),
    "torch, compiled loop": Way(compile="reduce-overhead"),
    "torch, loop of CUDA graphs": Way(graph=True),
    "torch, loop of compiled CUDA graphs": Way(graph=True, compile="default"),
    "torch, stack": Way(stacked=True),
    "torch, stack as CUDA graph": Way(stacked=True, graph=True),
    "torch, compiled stack as CUDA graph": Way(stacked=True, graph=True, compile="default"),
    DOUBLE: Way(stacked=True, dtype="float64"),
}


def training(problem: Problem, way: Way) -> Callable[[], np.ndarray]:
    """A call that trains the whole grid and gives the validation loss of each pair."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = getattr(torch, way.dtype)
    x, r, x_val, r_val = (
        torch.tensor(values, device=device, dtype=kind)
        for values in (problem.x, problem.r, problem.x_val, problem.r_val)
    )
    start = [torch.tensor(values, device=device, dtype=kind) for values in problem.start]
    order = [[torch.tensor(rows, device=device) for rows in epoch] for epoch in problem.order]
    mlps = len(problem.pairs) if way.stacked else 1
    parameters = [
        (values.expand(mlps, *values.shape) if way.stacked else values).clone().requires_grad_()
        for values in start
    ]
    penalties = [torch.zeros(mlps if way.stacked else (), device=device, dtype=kind) for _ in "12"]
    each = (0, 0, 0, 0)

    def loss(rows: Any) -> Any:
        function: Any = _loss
        if way.stacked:
            function = torch.func.vmap(_loss, (*each, 0, 0, None, None))
        return function(*parameters, *penalties, x[rows], r[rows]).sum()

    def validation() -> Any:
        function: Any = _error
        if way.stacked:
            function = torch.func.vmap(_error, (*each, None, None))
        with torch.no_grad():
            return function(*parameters, x_val, r_val).reshape(-1).double().cpu().numpy()

    captured = way.graph and device.type == "cuda"
    adam = torch.optim.Adam(
        parameters, lr=LEARNING_RATE, fused=way.fused or None, capturable=captured
    )
    objective: Any = loss
    if way.compile:
        from torch._dynamo import mark_static_address

        for values in (*parameters, *penalties, x, r):
            mark_static_address(values)  # else graphs copy their inputs every step
        objective = torch.compile(loss, mode=way.compile, dynamic=False)

    def epoch(minibatches: list[Any]) -> None:
        for rows in minibatches:
            adam.zero_grad()
            objective(rows).backward()
            adam.step()

    def reset(pairs: list[tuple[float, float]]) -> None:
        with torch.no_grad():
            for parameter, values in zip(parameters, start, strict=True):
                parameter.copy_(values.expand_as(parameter))
            for penalty, values in zip(penalties, np.array(pairs).T, strict=True):
                penalty.copy_(torch.tensor(values, dtype=kind).reshape(penalty.shape))
        for state in adam.state.values():
            for values in state.values():
                values.zero_()

    if way.graph:
        epoch = _replayed(epoch, [rows.clone() for rows in order[0]], captured)

    def train(pairs: list[tuple[float, float]]) -> np.ndarray:
        reset(pairs)
        for minibatches in order:
            epoch(minibatches)
        return validation()

    def call() -> np.ndarray:
        groups = [problem.pairs] if way.stacked else [[pair] for pair in problem.pairs]
        return np.concatenate([train(pairs) for pairs in groups])

    return call


def _loss(w: Any, b: Any, v: Any, c: Any, l1: Any, l2: Any, x: Any, r: Any) -> Any:
    """Mean absolute error of one MLP with both penalties."""
    absolute = w.abs().sum() + v.abs().sum()
    squared = w.square().sum() + v.square().sum()
    return _error(w, b, v, c, x, r) + l1 * absolute + l2 * squared


def _error(w: Any, b: Any, v: Any, c: Any, x: Any, r: Any) -> Any:
    from torch.nn.functional import l1_loss, linear, relu

    return l1_loss(linear(relu(linear(x, w, b)), v, c), r)


def _replayed(epoch: Callable[[list[Any]], None], rows: list[Any], captured: bool) -> Any:
    """An epoch that copies its minibatches to where a graph of it reads them, and replays it."""
    import torch

    def copied(minibatches: list[Any], then: Callable[[], None]) -> None:
        for target, source in zip(rows, minibatches, strict=True):
            target.copy_(source)
        then()

    if not captured:  # where there are no graphs, the same without one
        return lambda minibatches: copied(minibatches, lambda: epoch(rows))
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(2):
            epoch(rows)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # JAX has threads of its own on the same card.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        epoch(rows)
    # The graph reads arrays by their addresses; the epoch is what keeps them.
    return lambda minibatches, _kept=epoch: copied(minibatches, graph.replay)


class PerCore:
    """A single-threaded process per core, each with its share of the grid, waiting to be called."""

    def __init__(self, problem: Problem, way: Way, cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._order = np.concatenate(
            [np.arange(len(problem.pairs))[i::cores] for i in range(cores)]
        )
        self._links = []
        for number in range(cores):
            here, there = context.Pipe()
            share = problem.pairs[number::cores]
            arguments = (there, {**vars(problem), "pairs": share}, way)
            context.Process(target=_serve, args=arguments, daemon=True).start()
            self._links.append(here)

    def __call__(self) -> np.ndarray:
        """Validation losses of all pairs, in the order of the grid."""
        for link in self._links:
            link.send(True)
        losses = np.concatenate([link.recv() for link in self._links])
        return losses[np.argsort(self._order)]


def _serve(link: Any, parts: dict[str, Any], way: Way) -> None:
    import torch

    torch.set_num_threads(1)
    call = training(Problem(**parts), way)
    with contextlib.suppress(EOFError):  # the benchmark has ended
        while link.recv():
            link.send(call())


def as_call(train: Callable[[], np.ndarray], losses: dict[str, np.ndarray], name: str) -> Call:
    """A call that keeps the losses under a name."""

    def call() -> None:
        losses[name] = train()

    return call
