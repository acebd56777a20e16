"""The same function over many items, in worker processes that may die."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.errors import InputError
from lens.radiomics.processes import WorkerDied, each_in_processes

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

ENCRYPTED = "tls://"
"""Beginning of an address at which both ends show a certificate."""


@dataclass(frozen=True)
class Cluster:
    """Where the work is done.

    Attributes:
        workers: processes to start on this machine; not used with a `scheduler`.
        scheduler: address of a running Dask scheduler (``tls://host:8786``), or None.
        paths: files and folders that its workers must see.
        versions: of libraries, and of the code, that its workers must have.
        first: what each process of this machine does before its first item.
    """

    workers: int | None
    scheduler: str | None = None
    paths: tuple[Path, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    first: Callable[[], None] | None = None


def each_in_workers(
    function: Callable[..., Any], items: Sequence[tuple[Any, ...]], *, cluster: Cluster
) -> Iterator[tuple[int, Any]]:
    """``function(*item)`` for each item, in processes of this machine or on a Dask cluster.

    Items whose worker died are tried once more at the end, one at a time: with nothing beside it
    an item has all the memory, and a second death is its own. On a cluster a result that a dying
    worker still held is asked for again, so a repeated call should find its work done; a running
    scheduler has its own number of deaths that an item may cause
    (``distributed.scheduler.allowed-failures``).

    Processes of this machine open no port (`lens.radiomics.processes`); Dask is for `scheduler`
    alone, since its local cluster always serves HTTP. A script that calls this needs its
    ``if __name__ == "__main__"``.

    Args:
        function: importable by name in another process.
        items: arguments of each call.
        cluster: the processes.

    Yields:
        Position in `items` and result, in order of completion. The result is a `WorkerDied` where
        two processes died on the item.

    Raises:
        InputError: the scheduler is not there, has no workers, or they do not fit.
        Exception: whatever `function` raises.
    """
    if cluster.scheduler is None:
        workers, first = cluster.workers or 1, cluster.first
        yield from each_in_processes(function, items, workers=workers, first=first)
        return
    with _connected(cluster, cluster.scheduler) as (client, at_once):
        suspects: list[int] = []
        for index, result in _each(client, function, enumerate(items), at_once=at_once):
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
def _connected(cluster: Cluster, scheduler: str) -> Iterator[tuple[Client, int]]:
    """A client of the cluster, and how many items to have under way."""
    with _quiet(logging.getLogger("distributed")), _client(scheduler) as client:
        _check_workers(client, cluster)
        # Twice the threads, so that no worker waits for this process between two items.
        threads: Any = client.nthreads()
        yield client, 2 * sum(threads.values())


@contextmanager
def _client(address: str) -> Iterator[Client]:
    """A client by Dask's own security settings (``distributed.comm.tls``)."""
    from distributed import Client
    from distributed.utils import LoopRunner

    if not address.startswith(ENCRYPTED):
        log.warning(
            "--scheduler %s is an open port: whoever reaches it runs code as you and reads what is "
            "sent. With tls:// and a certificate it is closed (docs/radiomics.md)",
            address,
        )
    try:
        LoopRunner().run_sync(_answers, address)
        client = Client(address, timeout="5s")
    except TypeError as error:
        raise InputError(
            f"--scheduler {address}: TLS needs a certificate, and Dask's settings name none. Set "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, __CLIENT__CERT and __CLIENT__KEY, as "
            "docs/radiomics.md shows"
        ) from error
    # An AssertionError is Dask's own where its event loop does not start within ten seconds.
    except (OSError, TimeoutError, ValueError, RuntimeError, AssertionError) as error:
        why = str(error) or type(error).__name__
        raise InputError(
            f"--scheduler {address}: no Dask scheduler answers there, or not with this "
            f"certificate ({why}). Start one with 'dask scheduler' and "
            "give the address that it prints (tls://HOST:8786, or tcp://HOST:8786 without TLS)"
        ) from error
    with client:
        yield client


async def _answers(address: str) -> None:
    """Connects as a client would.

    Apart from one, since Dask closes a client whose start failed when it is collected; were that
    while another starts, both would wait for the same lock.
    """
    from distributed import Security
    from distributed.comm.core import connect

    comm = await connect(address, timeout=5, **Security().get_connection_args("client"))
    await comm.close()


def _check_workers(client: Client, cluster: Cluster) -> None:
    """Refuses a cluster that would fail on every case, or give parts of other versions."""
    address = cluster.scheduler
    try:
        client.wait_for_workers(1, timeout=30)
    except TimeoutError as error:
        raise InputError(
            f"--scheduler {address}: the scheduler has no worker. "
            f"Start some with 'dask worker {address} --nthreads 1'"
        ) from error
    found: Any = client.run(facts, cluster.paths, tuple(cluster.versions), on_error="return")
    for worker, fact in found.items():
        if not isinstance(fact, tuple):
            raise InputError(
                f"--scheduler {address}: worker {worker} cannot import this package ({fact}). "
                "Start the workers from the same environment and folder as this job"
            )
        missing, versions = fact
        if missing:
            raise InputError(
                f"--scheduler {address}: worker {worker} does not see {missing[0]}. The images and "
                "the cache must lie on a file system that all workers share, under the same path"
            )
        differing = [
            name for name in cluster.versions if versions.get(name) != cluster.versions[name]
        ]
        if differing:
            there, here = ({n: v.get(n) for n in differing} for v in (versions, cluster.versions))
            raise InputError(
                f"--scheduler {address}: worker {worker} has {there}, this job {here}. "
                "Start the workers from the same environment and folder"
            )


def facts(paths: Sequence[Path], packages: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What a worker does not see of `paths` (absolute), and its versions of `packages`."""
    from lens.radiomics.parts import versions

    missing = [str(path) for path in paths if not path.exists()]
    return missing, {name: version for name, version in versions().items() if name in packages}


@contextmanager
def _quiet(log: logging.Logger) -> Iterator[None]:
    """Dask narrates every start and stop; a user follows the bar, and failures are returned."""
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
