"""What this machine attains, and what of a case's radiomics cannot be left out."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import harness
from benchmarks.rates import copy_rate, product_rates


def loops_of(manifest: Path) -> dict[str, float]:
    """Processor seconds of a case in this process: its compiled loops, and all of its features."""
    from lens.cohort import read_case, read_manifest
    from lens.radiomics import kernels
    from lens.radiomics.extract import extract_regions
    from lens.radiomics.parameters import load_parameters

    spent = 0.0

    @contextlib.contextmanager
    def watched() -> Iterator[None]:
        def timed(call: Any) -> Any:
            def run(*arguments: Any) -> Any:
                nonlocal spent
                start = time.process_time()
                result = call(*arguments)
                spent += time.process_time() - start
                return result

            return run

        with contextlib.ExitStack() as stack:
            for name, loop in list(vars(kernels).items()):
                if hasattr(loop, "py_func"):  # compiled by Numba
                    stack.enter_context(patch.object(kernels, name, timed(loop)))
            yield

    case, parameters = read_case(read_manifest(manifest).cases[0]), load_parameters()
    with watched():
        extract_regions(case, parameters)
        spent, start = 0.0, time.process_time()
        extract_regions(case, parameters)
    return {"loops_a_case": spent, "features_a_case": time.process_time() - start}


def items_of(manifest: Path, count: int) -> list[tuple[Any, ...]]:
    """What a task of the radiomics is sent, but for the place of its result."""
    from lens.cohort import read_manifest
    from lens.radiomics.parameters import load_parameters
    from lens.radiomics.parts import Reading

    cases, parameters = read_manifest(manifest).cases, load_parameters()
    return [(cases[index % len(cases)], parameters, Reading()) for index in range(count)]


def rates_of(folder: Path, case_bytes: float) -> dict[str, float]:
    """Of this machine, and the bytes of a case."""
    rates = product_rates() | {"copy": copy_rate(), "disk": disk_rate(folder)}
    return rates | {"bytes_a_case": case_bytes}


def disk_rate(folder: Path, size: int = 2**28) -> float:
    """Bytes per second read from a new file that the system was told to forget."""
    path = folder / "disk"
    path.write_bytes(os.urandom(size))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        seconds = harness.cost_of(lambda: file.read()).seconds
    path.unlink()
    return size / seconds
