"""Where the inputs behind public bug reports lie."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of the cases; tests that need it skip where it is absent."""
    if not SHARED_CASES.is_dir():
        pytest.skip("the cases are not part of the repository and are not on this machine")
    return SHARED_CASES
