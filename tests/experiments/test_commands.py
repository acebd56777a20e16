"""The command ``radiomic-lens``: the jobs under one name, started fast and outside a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import experiments
import lens
from experiments.common.commands import JOBS

COMMAND = Path(sys.executable).with_name("radiomic-lens")


def start(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_every_runnable_module_is_listed_with_the_first_line_of_its_docstring() -> None:
    folder = Path(str(experiments.__file__)).parent
    assert sorted(JOBS) == sorted(file.stem for file in folder.glob("[!_]*.py"))
    done = start(COMMAND, "--help")
    assert done.returncode == 0, done.stderr
    for job in JOBS:
        first = (folder / f"{job}.py").read_text(encoding="utf-8").splitlines()[0].strip('"')
        assert f"  {job:13}  {first}\n" in done.stdout + "\n"


@pytest.mark.parametrize("arguments", [("swoop",), ()])
def test_a_wrong_job_is_wrong_usage_and_shows_the_list(arguments: tuple[str, ...]) -> None:
    done = start(COMMAND, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(f"\n  {job} " in done.stderr for job in JOBS)


def test_version() -> None:
    assert start(COMMAND, "--version").stdout == f"radiomic-lens {lens.__version__}\n"


@pytest.mark.parametrize("arguments", [("--help",), ("--no-such-flag",), (), ("no-such-folder",)])
def test_a_job_runs_as_its_module_does(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command = start(COMMAND, "report", *arguments, cwd=tmp_path)
    module = start(sys.executable, "-m", "experiments.report", *arguments, cwd=tmp_path)
    assert command.returncode == module.returncode
    for own, other in ((command.stdout, module.stdout), (command.stderr, module.stderr)):
        # Boxes are drawn to the width of the text.
        assert words(own.replace("radiomic-lens report", "python -m experiments.report")) == words(
            other
        )


def words(text: str) -> list[str]:
    return text.replace("─", " ").split()


def test_a_package_of_the_same_name_in_the_folder_is_not_taken_for_ours(tmp_path: Path) -> None:
    for package in ("experiments", "lens"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('a decoy')\n")
    done = start(COMMAND, "report", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_neither_the_list_nor_a_jobs_help_imports_jax(tmp_path: Path) -> None:
    for arguments in (["--help"], ["sweep", "--help"]):
        done = start(sys.executable, "-X", "importtime", COMMAND, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
        assert not imported & {"jax", "torch", "pandas", "SimpleITK"}
