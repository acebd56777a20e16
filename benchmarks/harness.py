"""What the benchmarks share: calls in turns, ratios with their range, rates and peaks, the record.

Variants take turns, so that a busy machine slows all of them, and ratios are taken turn by turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from lens.disk import write_json

Call = Callable[[], Any]

RESULTS = Path(__file__).parent / "results"
PAUSE = 0.15
"""Seconds before a call, in which the threads of the call before fall asleep: BLAS lets them spin
for some time, on the cores of whoever comes next."""

LOCAL = ("out", "folder", "figure", "alone")
"""Fields of a benchmark's settings that say where, not what; they are not recorded."""


class Ratio(NamedTuple):
    """Median, smallest and largest ratio over the turns (unitless)."""

    median: float
    low: float
    high: float

    def named(self, prefix: str) -> dict[str, float]:
        """As entries of a row: ``<prefix>_median``, ``_low`` and ``_high``."""
        return {f"{prefix}_{name}": value for name, value in self._asdict().items()}

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio(values: Sequence[float], over: Sequence[float]) -> Ratio:
    """Ratio of two variants turn by turn, for as many turns as both have."""
    turns = min(len(values), len(over))
    each = np.array(values[:turns]) / np.array(over[:turns])
    return Ratio(float(np.median(each)), float(each.min()), float(each.max()))


class Cost(NamedTuple):
    """Of one call: seconds on the clock, and of the processor, child processes included."""

    seconds: float
    processor: float


def cost_of(call: Call) -> Cost:
    """What one call costs, after the pause."""
    time.sleep(PAUSE)
    used, start = processor_seconds(), time.perf_counter()
    call()
    return Cost(time.perf_counter() - start, processor_seconds() - used)


def processor_seconds() -> float:
    """Of all threads of this process, of its children and of those that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:2])
    return total


class Turns:
    """What several calls cost, one of each in turn.

    Attributes:
        costs: of each call, a `Cost` per turn.
    """

    def __init__(self, costs: Mapping[str, list[Cost]] | None = None) -> None:
        self.costs: dict[str, list[Cost]] = dict(costs or {})

    def add(self, name: str, cost: Cost) -> None:
        """One more turn of one call, measured elsewhere."""
        self.costs.setdefault(name, []).append(cost)

    def go_on(self, calls: Mapping[str, Call]) -> None:
        """One more turn."""
        for name, call in calls.items():
            self.add(name, cost_of(call))

    @property
    def seconds(self) -> dict[str, list[float]]:
        """On the clock, of each call and turn."""
        return {name: [cost.seconds for cost in costs] for name, costs in self.costs.items()}

    def scaled(self, factors: Mapping[str, float]) -> Turns:
        """The same with the costs of some calls multiplied, of which a part was run."""
        return Turns(
            {
                name: [Cost(*(factors.get(name, 1) * value for value in cost)) for cost in costs]
                for name, costs in self.costs.items()
            }
        )

    def row(self, name: str, base: str) -> dict[str, Any]:
        """Median and least cost of a call, and its ratio to another's turn by turn."""
        row: dict[str, Any] = {"variant": name}
        for kind in Cost._fields:
            own, other = ([getattr(c, kind) for c in self.costs[n]] for n in (name, base))
            row |= {f"{kind}_median": float(np.median(own)), f"{kind}_min": min(own)}
            row |= ratio(own, other).named(f"{kind}_to_{base}")
        return row

    def rows(self, base: str) -> list[dict[str, Any]]:
        """A row per call, each printed too."""
        rows = [self.row(name, base) for name in self.costs]
        for row in rows:
            print(f"  {line(row, base)}", flush=True)
        return rows


def line(row: Mapping[str, Any], base: str) -> str:
    """A row of `Turns` as text: milliseconds and ratios."""

    def ratios(kind: str) -> Ratio:
        return Ratio(*(row[f"{kind}_to_{base}_{name}"] for name in Ratio._fields))

    return (
        f"{row['variant']:36} {1e3 * row['seconds_median']:10.2f} ms "
        f"(best {1e3 * row['seconds_min']:.2f}), {ratios('seconds')} of {base}; "
        f"processor {1e3 * row['processor_median']:.1f} ms, {ratios('processor')}"
    )


def over_limit(seconds: Sequence[float], limit: float) -> dict[str, float]:
    """A limit and how far calls are from it, the best and the median one; printed too."""
    found = {
        "limit_seconds": limit,
        "over_limit_best": min(seconds) / limit,
        "over_limit_median": float(np.median(seconds)) / limit,
    }
    print(f"  limit {1e3 * limit:.2f} ms: ours {found['over_limit_best']:.2f} of it at best")
    return found


def take_turns(calls: Mapping[str, Call], turns: int) -> Turns:
    """What each call costs, one of each in turn."""
    made = Turns()
    for _ in range(turns):
        made.go_on(calls)
    return made


class Run(NamedTuple):
    """A process that has ended well: cost, largest memory in MiB, and what it wrote."""

    cost: Cost
    peak_mib: float
    output: str
    errors: str


def run_process(*words: object) -> Run:
    """Runs Python with these words; of its memory and processor time its children's are part.

    Raises:
        RuntimeError: it failed; with the end of what it wrote.
    """
    command = [sys.executable, *map(str, words)]
    used, start = processor_seconds(), time.perf_counter()
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    peak = Peak(process.pid)
    output, errors = process.communicate()
    cost = Cost(time.perf_counter() - start, processor_seconds() - used)
    mib = peak.stop()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {command}\n{errors[-4000:]}")
    return Run(cost, mib, output, errors)


def peak_of(module: str, *arguments: str) -> float:
    """Peak resident memory in MiB of a process that runs a benchmark with ``--alone``."""
    return float(run_process("-m", module, *arguments).output.split()[-1])


class Peak:
    """The largest sum of resident memory over a process and its children, ten times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._largest = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> float:
        """Ends the watch; the peak in MiB."""
        self._done.set()
        self._thread.join()
        return self._largest / 2**20

    def _watch(self) -> None:
        process = psutil.Process(self._pid)
        while not self._done.wait(0.1):
            try:
                family = [process, *process.children(recursive=True)]
                self._largest = max(self._largest, sum(p.memory_info().rss for p in family))
            except psutil.NoSuchProcess:
                continue


def own_peak() -> float:
    """Peak resident memory of this process in MiB (Linux).

    Not `resource.getrusage`, which would include the parent's memory at the fork.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def on_cpu() -> bool:
    """Whether JAX has no accelerator."""
    import jax

    return jax.default_backend() == "cpu"


def device_kind() -> str:
    """What JAX runs on."""
    import jax

    return jax.devices()[0].device_kind


def facts(config: Any, *packages: str) -> dict[str, Any]:
    """Machine, load, versions of `packages` and the settings, for the head of a record."""
    machine = f"{os.cpu_count()} CPU cores, {platform.machine()}"
    device = device_kind() if "jax" in packages and not on_cpu() else ""
    return {
        "machine": f"{machine}, {device}" if device else machine,
        "load_average": os.getloadavg()[0],
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in packages},
        "config": {
            name: value
            for name, value in asdict(config).items()
            if name not in LOCAL and not isinstance(value, Path)
        },
    }


def record(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a benchmark's figures as JSON and prints where they are."""
    write_json(path, dict(content))
    print(path, flush=True)


def record_part(path: Path, title: str, content: Mapping[str, Any]) -> None:
    """Replaces one part of a file that several measurements share."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    record(path, {**known, title: dict(content)})
