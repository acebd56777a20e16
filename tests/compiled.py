"""Programs compiled with few optimisations: for runs that have to be there, whatever they find."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import pytest

FEW = "jax_disable_most_optimizations"

ENVIRONMENT = {FEW.upper(): "1"}
"""For processes that a test starts."""


@contextmanager
def compiled_quickly() -> Iterator[None]:
    """Has XLA compile in about a third of the time what is compiled inside, child processes too.

    The programs are the same but for what makes them fast: a float32 training differs in its last
    digit. Tests whose laws are about numbers, work or memory compile as users do.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setitem(os.environ, name, value)
        jax.config.update(FEW, True)
        try:
            yield
        finally:
            jax.config.update(FEW, False)
