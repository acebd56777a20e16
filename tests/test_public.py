"""The names users script against."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import encoders
import lens
from tests.planted import plant

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.parametrize("package", [lens, encoders])
def test_public_names_are_there_and_not_shadowed_by_modules(package) -> None:
    for name in package.__all__:
        assert callable(getattr(package, name)), name
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = package.nothing_of_that_name


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    planted = plant(n=60, d=8)
    paths = planted.write(tmp_path)
    r = planted.radiomics.iloc[:, 1:].to_numpy()
    r = (r - r.min(axis=0)) / np.ptp(r, axis=0)
    scope = {
        **paths,
        "x_train": planted.pre[:40],
        "r_train": r[:40],
        "x_val": planted.pre[40:],
        "r_val": r[40:],
        "x": planted.pre,
        "r": r,
    }
    # The README trains at full length; here the same call takes the first epochs.
    block = block.replace("x_val, r_val)", "x_val, r_val, config)")
    scope["config"] = lens.SweepConfig(hidden=6, l1=(1e-6,), l2=(1e-5,), epochs=3)
    exec(block, scope)
    assert scope["z"].shape == (60, 6)
    assert scope["score"].shape == (r.shape[1],)


@pytest.mark.parametrize("job", ["sweep", "radiomics", "embed", "convert", "report", "doctor"])
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
