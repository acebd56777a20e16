"""Worker processes of this machine, each at the end of a pipe that has no name and no port.

Nothing listens: a worker is spoken to through the pair of sockets that it was born with, which no
other process can find or open. A worker ends with the process that started it, however that ended.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from lens.allocator import freed_memory_kept
from lens.unfinished import undisturbed

GRACE_S = 5.0
"""Seconds for a worker to take its temporary files away before it is killed."""

ONE_THREAD: dict[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""Environment in which a worker starts: the workers are the parallelism."""


class WorkerDied(RuntimeError):
    """The process that worked on an item died, and so did the one that had nothing else to do."""


class _Worker(NamedTuple):
    """A process and our end of its pipe."""

    process: Any
    pipe: Connection

    def death(self) -> str:
        """Of a process whose pipe has closed: how it ended."""
        self.process.join(GRACE_S)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"


def each_in_processes(
    function: Callable[..., Any],
    items: Sequence[tuple[Any, ...]],
    *,
    workers: int,
    first: Callable[[], None] | None = None,
) -> Iterator[tuple[int, Any]]:
    """``function(*item)`` for each item, in spawned single-thread processes of this machine.

    Items whose worker died are tried once more at the end, one at a time: with nothing beside it
    an item has all the memory, and a second death is its own.

    Args:
        function: importable by name in another process.
        items: arguments of each call, which can be pickled.
        workers: processes.
        first: what each process does before its first item, importable by name.

    Yields:
        Position in `items` and result, in order of completion. The result is a `WorkerDied` where
        two processes died on the item.

    Raises:
        Exception: whatever `function` raises.
    """
    suspects: list[int] = []
    for index, result in _each(function, list(enumerate(items)), workers, first):
        if isinstance(result, WorkerDied):
            suspects.append(index)
        else:
            yield index, result
    yield from _each(function, [(index, items[index]) for index in suspects], 1, first)


def _each(
    function: Callable[..., Any],
    items: Sequence[tuple[int, tuple[Any, ...]]],
    workers: int,
    first: Callable[[], None] | None,
) -> Iterator[tuple[int, Any]]:
    """One attempt at each item, with `workers` of them under way."""
    waiting = iter(items)
    busy: dict[Any, tuple[_Worker, int]] = {}
    idle: list[_Worker] = []
    try:
        while True:
            while len(busy) < workers and (item := next(waiting, None)) is not None:
                worker = idle.pop() if idle else _start(first)
                busy[worker.pipe] = worker, item[0]
                # A worker that is dead already is found so below, by its closed pipe.
                with suppress(OSError):
                    worker.pipe.send((function, item[1]))
            if not busy:
                return
            for pipe in wait(list(busy)):
                worker, index = busy.pop(pipe)
                try:
                    failed, result = worker.pipe.recv()
                except (EOFError, OSError):
                    result = WorkerDied(f"the worker process died twice ({worker.death()})")
                    _stop([worker])
                else:
                    idle.append(worker)
                    if failed:
                        raise result
                yield index, result
    finally:
        _stop([*idle, *(worker for worker, _ in busy.values())])


def _start(first: Callable[[], None] | None) -> _Worker:
    context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, first), daemon=True)
    resource_tracker.ensure_running()  # which the first start does, and unblocks Ctrl-C on the way
    # Ctrl-C reaches all processes of a terminal; the job that started a worker ends it, and does
    # not end itself while one is being started, which would complain of that.
    with _environment(ONE_THREAD), _blocked(signal.SIGINT), undisturbed():
        process.start()
    theirs.close()
    return _Worker(process, ours)


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()
        worker.process.terminate()
    for worker in workers:
        worker.process.join(GRACE_S)
        worker.process.kill()
        worker.process.join()


def _serve(pipe: Connection, first: Callable[[], None] | None) -> None:
    """What a worker does: calls until its pipe closes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The first message imports what the work needs, in which no garbage is worth a search.
    gc.disable()
    with freed_memory_kept(), suppress(EOFError, OSError):
        while True:
            function, item = pipe.recv()
            try:
                if first is not None:
                    first, _ = None, first()
                gc.enable()
                outcome = False, function(*item)
            except Exception as error:
                outcome = True, error
            try:
                pipe.send(outcome)
            except (AttributeError, TypeError, pickle.PicklingError) as error:
                pipe.send((True, RuntimeError(f"{outcome[1]!r} cannot be sent back ({error})")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    os._exit(1)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """A signal that processes started in the block never see."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
