"""The names users script against."""

from __future__ import annotations

import subprocess
import sys

import pytest

import encoders
import lens
from experiments.common.commands import JOBS


@pytest.mark.parametrize("package", [lens, encoders])
def test_public_names_are_there_and_not_shadowed_by_modules(package) -> None:
    for name in package.__all__:
        assert callable(getattr(package, name)), name
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = package.nothing_of_that_name


@pytest.mark.parametrize("job", JOBS)
def test_help_does_not_import_jax(job: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"experiments.{job}", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tyro" in imported
    assert not imported & {"jax", "torch", "pandas", "SimpleITK"}
