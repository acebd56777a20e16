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
"""Environment in which a worker starts: the workers are the parallelism."""


class WorkerDied(RuntimeError):
    """The process that worked on an item died, and so did the one that had nothing else to do."""


def each_in_workers(
    function: Callable[..., Any], items: Sequence[tuple[Any, ...]], *, workers: int
) -> Iterator[tuple[int, Any]]:
    """``function(*item)`` for each item, on a local cluster of spawned single-thread processes.

    Items whose worker died are tried once more at the end, one at a time: with nothing beside it
    an item has all the memory, and a second death is its own. A result that a dying worker still
    held is asked for again, so a repeated call should find its work done.

    Spawned, not forked, because JAX's threads do not survive a fork; a script that calls this
    needs its ``if __name__ == "__main__"``.

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
    with _local_cluster(workers) as client:
        suspects: list[int] = []
        for index, result in _each(client, function, enumerate(items), at_once=workers):
            if isinstance(result, WorkerDied):
                suspects.append(index)
            else:
                yield index, result
        yield from _each(client, function, ((i, items[i]) for i in suspects), at_once=1)


def _each(
    client: Client,
    function: Callable[..., Any],
    items: Iterable[tuple[int, tuple[Any, ...]]],
    at_once: int,
) -> Iterator[tuple[int, Any]]:
    """One attempt at each item, with `at_once` of them under way."""
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    waiting = iter(items)
    index_of: dict[Any, int] = {}

    def submit(count: int) -> Iterator[Any]:
        for index, item in islice(waiting, count):
            future = client.submit(function, *item, pure=False)
            index_of[future] = index
            yield future

    running = as_completed(submit(at_once))
    for future in running:
        error = future.exception()
        if error is not None and not isinstance(error, KilledWorker):
            raise error
        result = future.result() if error is None else WorkerDied("the worker process died twice")
        index = index_of.pop(future)
        # A result still held would be computed again when its worker dies.
        future.release()
        running.update(submit(1))
        yield index, result


@contextmanager
def _local_cluster(workers: int) -> Iterator[Client]:
    from dask import config
    from distributed import Client, LocalCluster

    settings = {
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.scheduler.allowed-failures": 0,
        "distributed.nanny.pre-spawn-environ": ONE_THREAD,
    }
    with (
        _quiet(logging.getLogger("distributed")),
        config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            scheduler_kwargs={"dashboard": False},
            # Dask would kill a worker at a share of the memory; the operating system knows better.
            memory_limit=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _quiet(log: logging.Logger) -> Iterator[None]:
    """Dask narrates every start and stop; a user follows the bar, and failures are returned."""
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
