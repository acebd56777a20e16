"""Devices and cores: how many MLPs go into one program, and who trains which.

On a CPU an MLP fills the caches already, and a stack of them is slower than one after another; but
steps so small leave cores idle in turn, so that as many programs run at a time as there are cores.
An accelerator wants one program with many MLPs; the devices of a host share them out, and the
processes of `jax.distributed` the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Float, Int
from joblib import cpu_count

Item = TypeVar("Item")
Result = TypeVar("Result")


def over_devices(function: Callable[..., Result], split: int) -> Callable[..., Result]:
    """Gives every device its share of a stack: of the first `split` arguments, of all results."""
    devices = jax.local_devices()
    if len(devices) == 1:
        return function

    def call(*arguments: Any) -> Result:
        whole, split_up = PartitionSpec(), PartitionSpec("mlps")
        return jax.shard_map(
            function,
            mesh=jax.make_mesh(
                (len(devices),), ("mlps",), axis_types=(AxisType.Auto,), devices=devices
            ),
            in_specs=(split_up,) * split + (whole,) * (len(arguments) - split),
            out_specs=split_up,
        )(*arguments)

    return call


def choose_stack(
    mlps: int, d: int, h: int, k: int, *, wanted: int = 0, memory: float | None = None
) -> int:
    """How many MLPs to train side by side in one program: a multiple of the number of devices.

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
    per_mlp = 4 * 4 * (d * h + h * k + h + k)
    return devices * int(max(1, min(-(-mlps // devices), 0.25 * memory // per_mlp)))


def own_rows(rows: int) -> Int[np.ndarray, " n"]:
    """The rows that this process trains: all, or its share where `jax.distributed` has several."""
    padded = np.arange(-(-rows // jax.process_count()) * jax.process_count())
    return np.minimum(padded, rows - 1).reshape(-1, jax.process_count())[:, jax.process_index()]


def gather_rows(values: Float[np.ndarray, "n ..."], rows: int) -> Float[np.ndarray, "rows ..."]:
    """The results of all rows, in every process, from those that each has for the rows of `mine`.

    Args:
        values: in the order of `mine`, perhaps with more behind.
        rows: of all processes together.
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

    Compile what all items need before: threads would do it once each.
    """
    with ThreadPoolExecutor(workers()) as pool:
        return list(pool.map(work, items))


def workers() -> int:
    """How many programs run best beside each other: on a single CPU device one per core."""
    cpu = jax.default_backend() == "cpu" and jax.local_device_count() == 1
    return cpu_count() if cpu else 1
