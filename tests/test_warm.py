"""Commands answered by forks are commands: words, folder, output, exit codes, one another."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import warm


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("commands")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "IMPORTED", ("colorsys",))
        environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        with warm.warm_python(folder, environment):
            yield folder


def shell(commands: Path, folder: Path, text: str) -> tuple[int, str, str]:
    environment = os.environ | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=environment, text=True,
        capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_words_folder_output_and_exit_code(commands: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import sys\nprint(__name__, sys.argv)\nsys.exit(7)\n")
    code, out, err = shell(commands, tmp_path, "python own.py 'a b' --c")
    assert (code, out, err) == (7, "__main__ ['own.py', 'a b', '--c']\n", "")
    code, out, _ = shell(commands, tmp_path, "python -c 'import os, sys; print(os.getcwd())' x")
    assert (code, out) == (0, f"{tmp_path}\n")
    assert shell(commands, tmp_path, "echo 'print(3)' | python -")[:2] == (0, "3\n")
    code, out, err = shell(commands, tmp_path, "python -m own y")
    assert code == 7
    assert "'y'" in out
    code, out, _ = shell(commands, tmp_path, "X=6 python -c 'import os; print(os.environ[\"X\"])'")
    assert (code, out) == (0, "6\n")
    assert shell(commands, tmp_path, "python -V")[1].startswith("Python 3")
    there = "import sys; print(*(name in sys.modules for name in ('colorsys', 'numpy')))"
    assert shell(commands, tmp_path, f'python -c "{there}"')[:2] == (0, "True False\n")


def test_a_fault_has_its_traceback_and_a_signal_its_code(commands: Path, tmp_path: Path) -> None:
    code, _, err = shell(commands, tmp_path, "python -c 'import numpy\n1 / 0'")
    assert code == 1
    assert err.endswith("ZeroDivisionError: division by zero\n")
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert shell(commands, tmp_path, f"python -c '{killed}'")[0] == 247
    kept = "import lens.errors; lens.errors.mine = 1"
    assert shell(commands, tmp_path, f"python -c '{kept}'")[0] == 0
    assert shell(commands, tmp_path, "python -c 'import lens.errors; lens.errors.mine'")[0] == 1


def test_commands_run_beside_and_within_each_other(commands: Path, tmp_path: Path) -> None:
    inner = 'import subprocess; print(subprocess.check_output(["python", "-c", "print(5)"]))'
    assert shell(commands, tmp_path, f"python -c '{inner}'")[1] == "b'5\\n'\n"
    both = (
        "python -c 'import time, pathlib\nwhile not pathlib.Path(\"x\").exists(): time.sleep(0.1)'"
    )
    assert shell(commands, tmp_path, f'{both} & python -c \'open("x", "w")\'; wait')[0] == 0
