"""Programs that are compiled in less than half the time, for tests that run them a few times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import pytest

NAME = "jax_disable_most_optimizations"


@contextmanager
def quickly_compiled() -> Iterator[None]:
    """Has XLA leave out LLVM's optimisations, in this process and those that it starts.

    Traces, XLA's own passes and the order of sums are a user's; only the machine code is plainer.
    """
    before = jax.config.values[NAME]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NAME.upper(), "1")
        jax.config.update(NAME, True)
        yield
    jax.config.update(NAME, before)
