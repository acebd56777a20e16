"""What the benchmarks share: calls in turns, ratios with their range, rates and peaks, the record.

Variants take turns, so that a busy machine slows all of them, and ratios are taken turn by turn.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lens.files import write_json

Call = Callable[[], Any]
Rates = Mapping[str, float]

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


def seconds_of(call: Call) -> float:
    """Seconds of one call, after the pause."""
    time.sleep(PAUSE)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def take_turns(calls: Mapping[str, Call], turns: int) -> dict[str, list[float]]:
    """Seconds of each call, one of each in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            seconds[name].append(seconds_of(call))
    return seconds


def timing(values: Sequence[float]) -> dict[str, float]:
    """``seconds_median`` and ``seconds_min`` of a row."""
    return {"seconds_median": float(np.median(values)), "seconds_min": min(values)}


def product_rates(before: Rates | None = None) -> dict[str, float]:
    """Operations per second of a large matrix product by type, the best of several libraries.

    The better of now and `before`: on a busy machine both may be low, never too high.
    """
    import torch
    from scipy.linalg import get_blas_funcs

    side, rates = 1536, {}
    for dtype in ("float32", "float64"):
        a = np.random.default_rng(0).random((side, side)).astype(dtype)
        (gemm,) = get_blas_funcs(("gemm",), dtype=a.dtype)
        tensor = torch.from_numpy(a)
        calls: dict[str, Call] = {
            "numpy": lambda a=a: a @ a,
            "scipy": lambda a=a, gemm=gemm: gemm(1.0, a.T, a.T),
            "torch": lambda t=tensor: torch.mm(t, t),
        }
        best = min(min(values) for values in take_turns(calls, 4).values())
        rates[dtype] = max(2 * side**3 / best, before[dtype] if before else 0.0)
    return rates


def copy_rate() -> float:
    """Bytes per second, read and written, of a copy of 200 MB: the best of several."""
    source = np.ones(50_000_000, np.float32)
    target = np.empty_like(source)
    seconds = take_turns({"copy": lambda: np.copyto(target, source)}, 6)["copy"]
    return 2 * source.nbytes / min(seconds)


def limit_seconds(work: Rates, rates: Rates) -> float:
    """Seconds that operations of each type need at the rate of that type."""
    return sum(work[name] / rates[name] for name in work)


def peak_of(module: str, *arguments: str) -> float:
    """Peak resident memory in MiB of a process that runs a benchmark with ``--alone``."""
    command = [sys.executable, "-m", module, *arguments]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])


def own_peak() -> float:
    """Peak resident memory of this process in MiB (Linux).

    Not `resource.getrusage`, which would include the parent's memory at the fork.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def facts(config: Any, *packages: str, device: str = "") -> dict[str, Any]:
    """Machine, load, versions of `packages` and the settings, for the head of a record."""
    machine = f"{os.cpu_count()} CPU cores, {platform.machine()}"
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
