"""Programs of encoders in less than half the time: what they cost is compiling, not running."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def quickly_compiled() -> Iterator[None]:
    """Without LLVM's optimisations, for these tests and the processes that they start.

    Traces, XLA's own passes and the order of what is added are a user's; only the machine code is
    plainer.
    """
    name = "jax_disable_most_optimizations"
    before = jax.config.values[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name.upper(), "1")
        jax.config.update(name, True)
        yield
    jax.config.update(name, before)
