"""The same function over many items, in worker processes that may die."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""Environment of a worker: the workers are the parallelism."""


class WorkerDied(RuntimeError):
    """The process that worked on an item died, and so did the next one that tried."""


def each_in_workers(
    function: Callable[..., Any], items: Sequence[tuple[Any, ...]], *, workers: int
) -> Iterator[tuple[int, Any]]:
    """``function(*item)`` for each item, on a local cluster of spawned single-thread processes.

    At most one item is under way per worker, so that a worker's death touches that item alone: it
    is tried once more elsewhere. Spawned, not forked, because JAX's threads do not survive a fork;
    a script that calls this needs its ``if __name__ == "__main__"``.

    Args:
        function: importable by name in another process.
        items: arguments of each call.
        workers: processes.

    Yields:
        Position in `items` and result, in order of completion. The result is a `WorkerDied` where
        two processes died on the item.

    Raises:
        Exception: whatever `function` raises.
    """
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    with _local_cluster(workers) as client:
        position: dict[Any, int] = {}
        waiting = iter(enumerate(items))

        def submit(count: int) -> Iterable[Any]:
            for index, item in islice(waiting, count):
                future = client.submit(function, *item, pure=False)
                position[future] = index
                yield future

        running = as_completed(submit(workers))
        for future in running:
            error = future.exception()
            if isinstance(error, KilledWorker):
                result: Any = WorkerDied("the worker process died twice")
            elif error is not None:
                raise error
            else:
                result = future.result()
            running.update(submit(1))
            yield position.pop(future), result


@contextmanager
def _local_cluster(workers: int) -> Iterator[Client]:
    from dask import config
    from distributed import Client, LocalCluster

    settings = {
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.scheduler.allowed-failures": 1,
    }
    with (
        config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            # Dask would kill a worker at a share of the memory; the operating system knows better.
            memory_limit=None,
            silence_logs=logging.CRITICAL,
            env=ONE_THREAD,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
