"""Shared test set-up: array shapes in signatures are checked at run time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from tests.shapes import check_each_kind_of_call

# Before any module of ours is imported, so that every annotated shape is checked while testing.
check_each_kind_of_call()
install_import_hook(["lens", "encoders"], "beartype.beartype")

# Keras reads it once, whichever test imports it first; its default, TensorFlow, is not needed here.
os.environ.setdefault("KERAS_BACKEND", "jax")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real cases; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real cases are not part of the repository and are not on this machine")
    return SHARED_DATA
