"""Whatever fails, a job ends with one line that says what, where and what to do."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import faults
from experiments.common.failures import explain
from lens.errors import InputError
from tests.command_line import environment_of_a_user

JOB = """
import os, resource, sys, time
from dataclasses import dataclass
from pathlib import Path
from experiments.common.cli import alone, run
from lens.lock import of_folder
from lens.unfinished import unfinished

@dataclass(frozen=True)
class Config:
    out: Path
    what: str = "write"

@alone(lambda config: of_folder(config.out))
def job(config):
    if config.what == "fault":
        {}["absent"]
    if config.what == "memory":
        space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (space + (64 << 20),) * 2)
        bytearray(1 << 30)
    with unfinished(config.out / "table.csv") as temporary:
        with temporary.open("wb") as stream:
            if config.what == "wait":
                print("ready", flush=True)
                time.sleep(60)
            stream.write(bytes(4 << 20))
        temporary.replace(config.out / "table.csv")
    return 0

run(Config, job)
"""


@pytest.mark.parametrize("line", ["import lens.cohort", "from lens import cohort"])
def test_another_folder_of_our_name_is_called_so(tmp_path: Path, line: str) -> None:
    (tmp_path / "lens").mkdir()
    (tmp_path / "lens" / "__init__.py").write_text("")
    code = f"""
import sys
from experiments.common.failures import explain
for name in [name for name in sys.modules if name.partition(".")[0] == "lens"]:
    del sys.modules[name]
# What an editable installation finds by itself, a wheel does not.
sys.meta_path = [each for each in sys.meta_path if "Editable" not in getattr(each, "__name__", "")]
sys.path.insert(0, {str(tmp_path)!r})
try:
    {line}
except ImportError as error:
    print(*explain(error, "embed"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"refused: {tmp_path / 'lens'}: has the name of a package of")
    assert "radiomic-lens JOB" in done.stdout
    assert done.stdout.rstrip().endswith(" 1")


def test_a_module_of_ours_that_is_gone_is_a_fault(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    error = ModuleNotFoundError("No module named 'lens.gone'", name="lens.gone")
    assert explain(error, "embed")[0].startswith("unexpected failure (ModuleNotFoundError")


def start(out: Path, what: str = "write", **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", JOB, "--out", str(out), "--what", what]
    options["env"] = (
        environment_of_a_user()
        | {"XDG_CACHE_HOME": str(out.parent / "cache")}
        | options.pop("env", {})
    )
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_what_a_job_needs_for_a_time_goes_with_it(tmp_path: Path) -> None:
    """Also what an earlier one left that was killed."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    code = "import os, tempfile; from lens.unfinished import own_temporary_folder as own\n"
    code += "place = own(); place.__enter__(); tempfile.mkdtemp(); os._exit(9)"
    environment = {"TMPDIR": str(folder)}
    subprocess.run([sys.executable, "-c", code], env=os.environ | environment, check=False)
    (left,) = folder.iterdir()
    assert len(list(left.iterdir())) == 1
    assert start(tmp_path / "run", env=environment).returncode == 0
    assert not list(folder.iterdir())


def the_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a job that failed as expected."""
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_the_job_itself_works(tmp_path: Path) -> None:
    done = start(tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["table.csv"]


def test_out_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    assert the_line(start(tmp_path / "run")).startswith(f"refused: {tmp_path}/run: is a file")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    line = the_line(start(tmp_path / ("x" * 300)))
    assert "the name is too long for this disk; name a shorter path" in line


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    line = the_line(start(small_disk / "run", env={"XDG_CACHE_HOME": str(tmp_path)}))
    assert "the disk is full" in line
    assert "GB are left; make room or name another place" in line
    assert not list(small_disk.iterdir()), "the failed run left something"


def test_a_read_only_disk(small_disk: Path, tmp_path: Path) -> None:
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    line = the_line(start(small_disk / "run", env={"XDG_CACHE_HOME": str(tmp_path)}))
    assert line.startswith(f"failed: {small_disk}/run: lies on a disk that is read-only")


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    line = the_line(start(tmp_path / "run", preexec_fn=limited))
    assert "the file would be larger than allowed; raise the limit (ulimit -f)" in line
    assert not (tmp_path / "run").exists()


def test_not_enough_memory(tmp_path: Path) -> None:
    line = the_line(start(tmp_path / "run", "memory"))
    assert line.startswith("failed: not enough memory")
    assert not (tmp_path / "run").exists()


def test_caches_that_cannot_be_written_cost_time_alone(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    done = start(tmp_path / "run")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.endswith("compiled programs are not kept")


def test_a_fault_of_the_program_is_called_one_and_its_traceback_is_in_a_file(
    tmp_path: Path,
) -> None:
    line = the_line(start(tmp_path / "run", "fault"))
    assert "This is a fault of the program, not of your input" in line
    found = re.search(r"the details are in (\S+\.log);", line)
    assert found is not None
    log = Path(found[1]).read_text()
    assert "Traceback" in log
    assert "KeyError: 'absent'" in log
    assert re.search(r"^jax: \d", log, re.M)
    assert re.search(r"^python: 3", log, re.M)


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "interrupted: what is finished is kept"),
        (signal.SIGTERM, 143, "told to stop (SIGTERM): what is finished is kept"),
        (signal.SIGHUP, 129, "told to stop (the terminal was closed)"),
    ],
)
def test_a_signal_ends_a_job_at_once_and_nothing_half_done_stays(
    number: signal.Signals, code: int, words: str, tmp_path: Path
) -> None:
    def heeding() -> None:
        """These tests may themselves have been started with ``&`` or ``nohup``."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    command = [sys.executable, "-c", JOB, "--out", str(tmp_path / "run"), "--what", "wait"]
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding,
        env=environment_of_a_user() | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert job.stdout is not None
    assert job.stdout.readline() == "ready\n"
    assert len(list((tmp_path / "run").iterdir())) == 2, "a lock and a file under way"
    job.send_signal(number)
    _, stderr = job.communicate(timeout=30)
    assert job.returncode == code
    (line,) = stderr.strip().splitlines()
    assert line.startswith(words)
    assert not list((tmp_path / "run").iterdir())


def test_a_signal_that_was_to_be_ignored_is(tmp_path: Path) -> None:
    def ignoring() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    command = [sys.executable, "-c", JOB, "--out", str(tmp_path / "run"), "--what", "wait"]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=ignoring)
    assert job.stdout is not None
    job.stdout.readline()
    job.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert job.poll() is None
    job.terminate()
    job.communicate()
    assert job.returncode == 143


class Wrapped(Exception):
    pass


def raised(error: Exception, cause: Exception) -> Exception:
    try:
        raise error from cause
    except Exception as made:
        return made


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
TEXT = ValueError("RESOURCE_EXHAUSTED: Failed [OS error 28: ENOSPC No space left on device]")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FULL, "the disk is full"),
        (TEXT, "the disk is full"),
        (raised(Wrapped("checkpoint"), FULL), "the disk is full"),
        (raised(InputError("cannot be read"), TEXT), "the disk is full"),
        (raised(InputError("x.npz: no such file"), FileNotFoundError(2, "no")), "refused: x.npz"),
        (InputError("two\n  lines"), "refused: two lines"),
        (PermissionError(errno.EACCES, "no", "/a/b"), "/a/b: no permission; ask its owner"),
        (NotADirectoryError(errno.ENOTDIR, "no", "/a/b"), "/a/b: a file lies where a folder"),
        (OSError(errno.ESTALE, "stale", "/a"), "/a: the network drive has lost the file"),
        (OSError(errno.EMFILE, "many"), "too many files are open; raise the limit (ulimit -n)"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating."), "not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
    ],
)  # fmt: skip
def test_what_is_expected_is_a_sentence(error: Exception, expected: str) -> None:
    line, code = explain(error, "test")
    assert expected in line
    assert code == 1
    assert "\n" not in line


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("y"), RuntimeError("z"), Wrapped()])
def test_what_is_not_expected_is_not_called_the_users(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    line, code = explain(error, "test")
    assert line.startswith("unexpected failure")
    assert code == 1
    assert len(list((tmp_path / "radiomic-lens" / "logs").iterdir())) == 1


def test_jobs_that_are_killed_end_as_undisturbed_ones(tmp_path: Path) -> None:
    """The small version of ``python -m benchmarks.faults``."""
    found = faults.faults(faults.Config(jobs=("radiomics",), each=3, cases=1), tmp_path)
    assert [row["problems"] for row in found] == [[]] * 3
