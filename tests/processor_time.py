"""The time that the tests took: by the clock, and of the processor, which other work delays less.

The processor time of a test is that of its process and of the processes that it started and waited
for. The end of a run tells the sum and the files that cost most.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator

import pytest

LISTED, AT_LEAST = 8, 5.0
"""Files that are told at the end, and the seconds below which a file is not."""

NAME = "processor seconds"

_by_file: Counter[str] = Counter()
_begun = time.perf_counter()
_before = pytest.StashKey[float]()


def processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.stash[_before] = processor_seconds()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Hands on the time of a test with the report of its end, from a worker's process too."""
    if call.when == "teardown":
        item.user_properties.append((NAME, processor_seconds() - item.stash[_before]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        spent = [value for name, value in report.user_properties if name == NAME]
        _by_file[report.nodeid.partition("::")[0]] += sum(map(float, spent))  # pyright: ignore


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    wall, tests = time.perf_counter() - _begun, sum(_by_file.values())
    # Workers that have ended are among those that were waited for.
    terminalreporter.write_line(
        f"time: {wall:.0f} s by the clock, {processor_seconds():.0f} s of the processor "
        f"({tests:.0f} s in tests)"
    )
    for file, seconds in _by_file.most_common(LISTED):
        if seconds >= AT_LEAST:
            terminalreporter.write_line(f"  {seconds:6.1f} s  {file}")
