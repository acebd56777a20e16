"""Worker processes: each item is done once, a death costs one item, an error is not swallowed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lens.errors import InputError
from lens.radiomics.parts import versions
from lens.radiomics.processes import WorkerDied
from lens.radiomics.workers import Cluster, each_in_workers
from tests.radiomics.errands import fail, prepare, prepared, square, work


def test_a_death_costs_one_item_and_a_second_attempt_is_made(tmp_path, capfd):
    names = ["a", "deadly", "b", "unlucky", "c", "d", "e"]
    outcome = dict(each_in_workers(work, [(tmp_path, name) for name in names], cluster=Cluster(2)))
    assert sorted(outcome) == list(range(len(names)))
    assert isinstance(outcome.pop(1), WorkerDied)
    assert {index: result[0] for index, result in outcome.items()} == {
        index: name for index, name in enumerate(names) if name != "deadly"
    }
    assert all(result[1] != os.getpid() for result in outcome.values())
    assert all(set(result[2].values()) == {"1"} for result in outcome.values())
    attempts = {name: len(list(tmp_path.glob(f"{name}-*"))) for name in names}
    assert attempts.pop("deadly") == attempts.pop("unlucky") == 2
    assert set(attempts.values()) <= {1, 2}
    assert capfd.readouterr().err == ""


def test_an_error_comes_back_and_the_cluster_ends():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="one third"):
        list(each_in_workers(fail, [(), ()], cluster=Cluster(1)))
    assert threading.active_count() <= before + 3, "threads of the cluster are left over"


def test_each_process_is_prepared_once_before_its_first_item():
    cluster = Cluster(2, first=prepare)
    outcome = [result for _, result in each_in_workers(prepared, [()] * 6, cluster=cluster)]
    assert len({process for process, _ in outcome}) == 2
    assert all(times == [process] for process, times in outcome)


def test_what_fails_in_preparing_is_told():
    with pytest.raises(ZeroDivisionError, match="one third"):
        list(each_in_workers(square, [(1,)], cluster=Cluster(1, first=fail)))


def test_kernels_loaded_alone_leave_linear_algebra_to_who_asks_for_it():
    """In a process of its own, since one that has it keeps it."""
    code = (
        "import sys\n"
        "from lens.radiomics.compiled import KERNELS, LINEAR_ALGEBRA, load_alone\n"
        "load_alone()\n"
        "assert KERNELS in sys.modules and LINEAR_ALGEBRA not in sys.modules\n"
        "import scipy.linalg\n"
        "load_alone()\n"
        "assert sys.modules[LINEAR_ALGEBRA] is scipy.linalg\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def scheduler():
    """A scheduler with two workers, as a user would start it, on this machine."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=":0",
        scheduler_kwargs={"dashboard": False},
        memory_limit=None,
    ) as cluster:
        yield cluster.scheduler_address  # pyright: ignore[reportAttributeAccessIssue]


def test_a_running_scheduler_does_the_work_and_keeps_running(scheduler, tmp_path):
    names = ["a", "b", "c", "d", "e"]
    for _ in range(2):
        cluster = Cluster(None, scheduler, (tmp_path,), versions())
        outcome = dict(each_in_workers(work, [(tmp_path, name) for name in names], cluster=cluster))
        assert [outcome[index][0] for index in range(5)] == names
        assert all(result[1] != os.getpid() for result in outcome.values())


@pytest.mark.parametrize(
    ("paths", "versions", "finding"),
    [
        ((Path("/nowhere/t2.nii.gz"),), {}, "does not see /nowhere/t2.nii.gz.*file system"),
        ((), {"SimpleITK": "1.0"}, "this job .*1.0.*same environment"),
    ],
)
def test_workers_that_do_not_fit_are_refused(scheduler, paths, versions, finding):
    with pytest.raises(InputError, match=finding):
        list(each_in_workers(fail, [()], cluster=Cluster(None, scheduler, paths, versions)))


def test_no_scheduler_is_refused_with_the_command_that_starts_one():
    cluster = Cluster(None, "tcp://127.0.0.1:1")
    with pytest.raises(InputError, match=r"tcp://127.0.0.1:1: no Dask.*'dask scheduler'"):
        list(each_in_workers(fail, [()], cluster=cluster))
