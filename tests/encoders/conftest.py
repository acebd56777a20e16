"""What encoders cost in tests is compiling, not running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compiling import quickly_compiled


@pytest.fixture(scope="package", autouse=True)
def plain_programs() -> Iterator[None]:
    with quickly_compiled():
        yield
