"""What every job shares: its exit code, programs compiled once, and few searches for cycles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.command_line import environment_of_a_user

JOB = """
import atexit, gc
from dataclasses import dataclass
from experiments.common.cli import run
from lens.errors import InputError

# What is registered first runs last.
atexit.register(lambda: print(gc.get_freeze_count() > 100_000))

@dataclass(frozen=True)
class Config:
    x: float = 1.0

def job(config):
    import jax
    if config.x < 0:
        raise InputError("x is negative")
    print(jax.jit(lambda x: jax.numpy.sin(x) + 1)(config.x))
    print(gc.get_threshold()[0])
    return 3

run(Config, job)
"""


def start(folder: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", JOB, *flags],
        capture_output=True,
        text=True,
        check=False,
        env=environment_of_a_user()
        | {"XDG_CACHE_HOME": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        | environment,
    )


def test_compiled_programs_are_kept_for_the_next_run(tmp_path: Path) -> None:
    kept = tmp_path / "radiomic-lens" / "jax"
    first = start(tmp_path)
    assert first.returncode == 3, first.stderr
    programs = {path.name for path in kept.iterdir() if path.name.endswith("-cache")}
    assert programs
    assert start(tmp_path).stdout == first.stdout
    assert {path.name for path in kept.iterdir() if path.name.endswith("-cache")} == programs


def test_jaxs_own_setting_goes_before(tmp_path: Path) -> None:
    done = start(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false")
    assert done.returncode == 3, done.stderr
    assert not (tmp_path / "radiomic-lens").exists()
    # A job searches for unreachable cycles seldom, and at its end all objects are left out of it.
    assert done.stdout.splitlines()[1:] == ["20000", "True"]


def test_a_refusal_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = start(tmp_path, "--x", "-1")
    assert (done.returncode, done.stderr) == (1, "refused: x is negative\n")
