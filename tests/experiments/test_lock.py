"""One run at a time in a folder: the second is told who is there, and the dead hold nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from lens import lock as locks
from lens.errors import InputError
from lens.lock import held, of_file, of_folder, release_all
from lens.unfinished import unfinished


def test_a_second_run_is_told_who_is_there_and_nothing_stays(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    with held(of_folder(folder)):
        owner = json.loads((folder / "run.lock").read_text())
        assert owner["process"] == os.getpid()
        with pytest.raises(InputError) as refused, held(of_folder(folder)):
            pass
        for fact in (str(folder), owner["user"], owner["host"], str(os.getpid()), owner["since"]):
            assert fact in str(refused.value)
    assert not (tmp_path / "runs").exists(), "an empty new folder stays"
    with held(of_folder(folder)):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]


@pytest.mark.timeout(60)
def test_a_new_folder_that_another_run_removes_at_its_end_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other ends between the two steps by which this one makes the folder and the lock."""
    folder, ended, create = tmp_path / "runs" / "mine", [], locks._create

    def after_the_other(*arguments: Any) -> bool:
        if not ended:
            ended.append(folder.rmdir())
        return create(*arguments)

    monkeypatch.setattr(locks, "_create", after_the_other)
    with held(of_file(folder / "E.npz")):
        assert (folder / "E.npz.lock").is_file()
    assert ended


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["a folder", "a named pipe"])
def test_what_is_no_file_is_no_lock(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / "run.lock"
    lock.mkdir() if kind == "a folder" else os.mkfifo(lock)
    with pytest.raises(InputError, match=rf"run\.lock: is {kind}"), held(of_folder(tmp_path)):
        pass
    assert lock.exists()


def test_a_failed_run_gives_the_lock_back(tmp_path: Path) -> None:
    def fail() -> None:
        assert (tmp_path / "E.npz.lock").is_file()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), held(of_file(tmp_path / "E.npz")):
        fail()
    assert not list(tmp_path.iterdir())


def test_two_outputs_in_a_folder_are_two_locks(tmp_path: Path) -> None:
    with held(of_file(tmp_path / "a.npz")), held(of_file(tmp_path / "b.npz")):
        assert len(list(tmp_path.iterdir())) == 2


def of_a_process_that_is_gone() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("kind", ["ended", "another of its number", "without an owner"])
def test_a_stale_lock_is_taken_over_with_a_word(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owner = locks._this_process()
    if kind == "ended":
        owner = replace(owner, process=of_a_process_that_is_gone())
    if kind == "another of its number":
        owner = replace(owner, started=owner.started - 1000)
    lock = tmp_path / "run.lock"
    lock.write_text("" if kind == "without an owner" else json.dumps(asdict(owner)))
    if kind == "without an owner":
        os.utime(lock, (1e9, 1e9))
    with held(of_folder(tmp_path)):
        assert json.loads(lock.read_text())["token"] != owner.token
    assert "taken over" in caplog.text
    assert not lock.exists()


def test_of_another_host_nothing_is_known_and_the_remedy_says_so(tmp_path: Path) -> None:
    gone = of_a_process_that_is_gone()
    owner = replace(locks._this_process(), host="elsewhere", process=gone)
    (tmp_path / "run.lock").write_text(json.dumps(asdict(owner)))
    with pytest.raises(InputError, match=r"on elsewhere, .*delete .*run\.lock if it is gone"):  # noqa: SIM117
        with held(of_folder(tmp_path)):
            pass


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path: Path) -> None:
    gone = of_a_process_that_is_gone()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the threads change places between any two steps
    try:
        for turn in range(40):
            stale = replace(locks._this_process(), process=gone, token=f"stale {turn}")
            (tmp_path / "run.lock").write_text(json.dumps(asdict(stale)))
            assert what_each_gets(tmp_path, 8) == ["lock"] + ["refused"] * 7
    finally:
        sys.setswitchinterval(before)


def what_each_gets(folder: Path, runs: int) -> list[str]:
    """Who gets the lock keeps it until all have tried; anything else that they meet is told."""
    start, end = threading.Barrier(runs), threading.Barrier(runs)

    def attempt() -> str:
        start.wait()
        try:
            with held(of_folder(folder)):
                end.wait()
                return "lock"
        except InputError:
            end.wait()
            return "refused"
        except BaseException:
            end.abort()
            raise

    with ThreadPoolExecutor(runs) as pool:
        tried = [pool.submit(attempt) for _ in range(runs)]
    return sorted(each.result() for each in tried)


def test_what_a_dead_process_left_unfinished_goes_and_what_a_live_one_writes_stays(
    tmp_path: Path,
) -> None:
    code = "import os, sys; from lens.unfinished import unfinished; from pathlib import Path\n"
    code += "made = [unfinished(Path(sys.argv[1]), folder=kind) for kind in (False, True)]\n"
    code += "[each.__enter__() for each in made]\nos._exit(9)"
    for place in (tmp_path / "a.csv", tmp_path / "task" / "b.csv"):
        subprocess.run([sys.executable, "-c", code, str(place)], check=False)
    assert len(list(tmp_path.rglob(".unfinished-*"))) == 4
    (tmp_path / ".unfinished-business").touch()
    with unfinished(tmp_path / "ours.csv") as ours, held(of_folder(tmp_path)):
        assert set(tmp_path.rglob(".unfinished-*")) == {ours, tmp_path / ".unfinished-business"}


def test_what_orbax_has_unfinished_goes_with_the_process_that_holds_the_folder(
    tmp_path: Path,
) -> None:
    half_written = tmp_path / "checkpoints" / "1.orbax-checkpoint-tmp" / "arrays"
    half_written.mkdir(parents=True)
    with held(of_folder(tmp_path)):
        assert half_written.exists(), "another thread may be writing it"
        release_all([os.getpid()])
    assert not half_written.parent.exists()
