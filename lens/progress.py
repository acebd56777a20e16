"""Progress of long stages: what a stage reports to, whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[..., object]
"""Called with the number of finished units, one by default."""

Bar = Callable[[int, str, str], AbstractContextManager[Advance]]
"""From a total, a title and a unit to the context in which units are counted."""


@contextmanager
def silent(total: int, title: str, unit: str) -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda count=1: None


@contextmanager
def tqdm_bar(total: int, title: str, unit: str) -> Iterator[Advance]:
    """A line on standard error, none for no work; ``TQDM_DISABLE`` and its kin are heeded."""
    if not total:
        with silent(total, title, unit) as advance:
            yield advance
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit=unit, smoothing=0.1) as bar:
        yield bar.update
