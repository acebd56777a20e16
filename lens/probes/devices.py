"""Sharing out the work: how many MLPs go into one program, and who trains which.

On a CPU one MLP fills the caches already, and a stack of them is slower than one after another; but
steps so small leave cores idle, so that one program per core runs at a time. An accelerator wants
one program with many MLPs. The devices of a host share out each stack, and the processes of
`jax.distributed` the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Float, Int

from lens.machine import cpu_count

Item = TypeVar("Item")
Result = TypeVar("Result")

_MEMORY_SHARE = 0.25
"""Of a device's memory for weights and moments; the rest is for data and activations."""

_ALIGNED = 8
"""Columns that an accelerator's rows of weights are a multiple of."""

_COPIES = 4
"""Arrays of the weights' size that training holds: weights, gradient, two moments."""


def choose_stack(
    mlps: int, d: int, h: int, k: int, *, wanted: int = 0, memory: float | None = None
) -> int:
    """Number of MLPs to train in one program: a multiple of the number of devices.

    One per device on a CPU; on an accelerator as many as fit in a quarter of its memory, with
    weights, gradient and two moments each.

    Args:
        mlps: size of the grid times seeds.
        d, h, k: widths of embedding, projection and radiomic table.
        wanted: take so many, rounded up to what all devices can share; 0 chooses.
        memory: bytes available per device; asked of the first where not given.
    """
    devices = jax.local_device_count()
    if wanted:
        return -(-wanted // devices) * devices
    if memory is None:
        if jax.default_backend() == "cpu":
            return devices
        memory = float((jax.devices()[0].memory_stats() or {}).get("bytes_limit", 8e9))
    bytes_per_mlp = _COPIES * 4 * (d * h + h * k + h + k)
    fitting = _MEMORY_SHARE * memory // bytes_per_mlp
    return devices * int(max(1, min(-(-mlps // devices), fitting)))


def filled_columns(k: int) -> int:
    """Columns of the second layer's weights, those that only fill up included.

    Matrix units read rows of whole 32 bytes fast, and others much slower, so that an accelerator
    gets a multiple of eight columns.
    """
    return k if jax.default_backend() == "cpu" else -(-k // _ALIGNED) * _ALIGNED


def own_rows(rows: int) -> Int[np.ndarray, " n"]:
    """Rows of the grid that this process trains: its share where `jax.distributed` has several.

    All processes get as many; where they do not divide the grid, the last row fills up.
    """
    padded = np.arange(-(-rows // jax.process_count()) * jax.process_count())
    return np.minimum(padded, rows - 1).reshape(-1, jax.process_count())[:, jax.process_index()]


def gather_rows(values: Float[np.ndarray, "n ..."], rows: int) -> Float[np.ndarray, "rows ..."]:
    """Results of all rows of the grid, in every process.

    Args:
        values: results of this process, in the order of `own_rows`; more may follow.
        rows: size of the grid.
    """
    values = values[: -(-rows // jax.process_count())]
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import process_allgather

        values = np.stack(process_allgather(values), axis=1).reshape(-1, *values.shape[1:])
    return values[:rows]


def to_chunks(rows: Int[np.ndarray, " n"], stack: int) -> list[Int[np.ndarray, " mlps"]]:
    """Rows in portions of `stack`; the last row fills the last portion up."""
    return list(np.pad(rows, (0, -len(rows) % stack), mode="edge").reshape(-1, stack))


def map_in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`work` of every item, in order, `workers` of them at a time.

    What it compiles must be compiled before: threads would compile it once each.
    """
    with ThreadPoolExecutor(workers()) as pool:
        return list(pool.map(work, items))


def workers() -> int:
    """Number of programs to run at a time: one per core on a single CPU device, otherwise one."""
    cpu = jax.default_backend() == "cpu" and jax.local_device_count() == 1
    return cpu_count() if cpu else 1


def over_devices(function: Callable[..., Result], split: int) -> Callable[..., Result]:
    """The function with its work split over this process's devices, along a leading axis.

    Args:
        function: from arrays to arrays, all of whose results have the axis.
        split: number of leading arguments that have the axis, its length a multiple of the number
            of devices; the others go whole to each device.
    """
    devices = jax.local_devices()
    if len(devices) == 1:
        return function

    def call(*arguments: Any) -> Result:
        whole, part = PartitionSpec(), PartitionSpec("shares")
        return jax.shard_map(
            function,
            mesh=jax.make_mesh(
                (len(devices),), ("shares",), axis_types=(AxisType.Auto,), devices=devices
            ),
            in_specs=(part,) * split + (whole,) * (len(arguments) - split),
            out_specs=part,
        )(*arguments)

    return call
