"""A Dask cluster larger than this machine: tasks sleep for the time that a real one computes.

Sleeping takes no core, so that eight workers run on two. Scheduler, worker processes, messages and
the job's way of handing out cases are the real ones; what the cases compute, read and write is not
there, and neither are a network and a shared disk.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Simulated:
    """One run of sleeping tasks.

    Attributes:
        workers: single-threaded.
        tasks: that were run.
        nap: seconds that each slept.
        seconds: from the first submission to the last result.
        lost: what of that is above the makespan of the sleeping alone.
    """

    workers: int
    tasks: int
    nap: float
    seconds: float
    lost: float


def makespan(durations: Sequence[float], workers: int) -> float:
    """Seconds until the last task ends, where each worker that is free takes the next one."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)


def predicted(tasks: int, duration: float, serial: float, run: Simulated) -> float:
    """Seconds of tasks of full length on as many workers as `run` had.

    What `run` lost is added whole, a task's share for each task: an upper bound, for the scheduler
    has more time beside longer tasks. `serial` is what the job does alone, before and after.
    """
    return serial + makespan([duration] * tasks, run.workers) + run.lost * tasks / run.tasks


def simulate(items: Sequence[tuple[Any, ...]], nap_seconds: float, workers: int) -> Simulated:
    """Runs sleeping tasks on a real Dask cluster of this machine, as `extract_cohort` runs cases.

    Args:
        items: what a real task is sent.
        nap_seconds: that each sleeps.
        workers: processes of one thread.
    """
    from distributed import LocalCluster

    from lens.radiomics.workers import Cluster, each_in_workers

    local: Any = partial(LocalCluster, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    with local(n_workers=workers) as started:
        cluster = Cluster(None, started.scheduler_address)

        def run(count: int, seconds: float) -> float:
            sent = [(seconds, *item) for item in items[:count]]
            start = time.perf_counter()
            for _ in each_in_workers(nap, sent, cluster=cluster):
                pass
            return time.perf_counter() - start

        run(4 * workers, 0.0)  # imports, in every worker
        seconds = run(len(items), nap_seconds)
    asleep = makespan([nap_seconds] * len(items), workers)
    return Simulated(workers, len(items), nap_seconds, seconds, seconds - asleep)


def nap(seconds: float, *_: Any) -> None:
    """A task."""
    time.sleep(seconds)
