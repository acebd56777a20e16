"""Who can speak to the workers: nobody on one machine, who holds the certificate beyond it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from dask import config as dask_config
from distributed import Client, LocalCluster, Security

from lens.errors import InputError
from lens.radiomics.processes import each_in_processes
from lens.radiomics.workers import Cluster, each_in_workers
from tests.radiomics.errands import exits, square, strange
from tests.radiomics.phantoms import write_cohort
from tests.radiomics.ports import certificate, elsewhere, family, gets_in, listening


def two_workers(folder: Path) -> subprocess.Popen:
    """A run of four patients."""
    manifest = write_cohort(folder, [f"p{i}" for i in range(4)])
    quick = folder / "quick.yaml"
    quick.write_text("setting: {binWidth: 50}\nfeatureClass: {firstorder: , glcm: }\n")
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.radiomics", "--cohort", str(manifest), "--out",
         str(folder / "R.csv"), "--workers", "2", "--spacing", "1", "1", "2",
         "--parameters", str(quick)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_run_with_two_workers_opens_no_port_and_leaves_no_process(tmp_path):
    job = two_workers(tmp_path)
    seen: set[psutil.Process] = set()
    most, ports = 0, set()
    while job.poll() is None:
        running = family(job.pid)
        ports |= listening(running)
        seen |= set(running)
        most = max(most, len([each for each in running if "spawn_main" in _line(each)]))
        time.sleep(0.1)
    assert job.returncode == 0, job.communicate()[1]
    assert most == 2, "the workers were not seen, so neither would be their ports"
    assert ports == set()
    _, left = psutil.wait_procs(seen, timeout=30)
    assert left == []


class Killed(NamedTuple):
    """What was seen of a job that was killed at work.

    Attributes:
        blocked: signals that each of its two workers did not see, as Linux tells them.
        left: workers that did not end with it.
    """

    blocked: list[int]
    left: list[psutil.Process]


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Killed:
    job = two_workers(tmp_path_factory.mktemp("killed"))
    while len(workers := [each for each in family(job.pid) if "spawn_main" in _line(each)]) < 2:
        assert job.poll() is None, "ended before it was killed"
        time.sleep(0.1)
    files = [Path(f"/proc/{worker.pid}/status") for worker in workers]
    told = [file.read_text("utf-8").partition("SigBlk:")[2] for file in files if file.exists()]
    job.send_signal(signal.SIGKILL)
    job.wait()
    _, left = psutil.wait_procs(workers, timeout=30)
    return Killed([int(each.split()[0], 16) for each in told], left)


def test_workers_end_with_a_job_that_is_killed(killed):
    assert killed.left == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the mask")
def test_ctrl_c_reaches_no_worker_the_first_included(killed):
    """Every worker would complain of it; the job that started them ends them."""
    assert len(killed.blocked) == 2
    assert all(each & 1 << signal.SIGINT - 1 for each in killed.blocked)


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_results_that_cannot_be_sent_and_ends_without_a_signal_are_told():
    with pytest.raises(RuntimeError, match=r"cannot be sent back"):
        list(each_in_processes(strange, [()], workers=1))
    ((index, died),) = each_in_processes(exits, [()], workers=1)
    assert index == 0
    assert str(died) == "the worker process died twice (exit code 3)"


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """A scheduler and a worker with TLS as the documentation starts them; the certificate."""
    folder = tmp_path_factory.mktemp("tls")
    security = Security(require_encryption=True, **certificate(folder))
    here = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    routes = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
    with (
        dask_config.set(routes),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tls://",
            security=security, scheduler_kwargs=here, memory_limit=None,
            dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0",
        ) as cluster,
    ):  # fmt: skip
        yield cluster.scheduler_address, folder  # pyright: ignore[reportAttributeAccessIssue]


def settings(folder) -> dict[str, str]:
    """The client's part of Dask's own settings."""
    return {
        "distributed.comm.tls.ca-file": str(folder / "cert.pem"),
        "distributed.comm.tls.client.cert": str(folder / "cert.pem"),
        "distributed.comm.tls.client.key": str(folder / "key.pem"),
    }


def test_who_holds_the_certificate_gets_work_done(encrypted, caplog):
    address, folder = encrypted
    assert address.startswith("tls://")
    with dask_config.set(settings(folder)):
        done = dict(each_in_workers(square, [(3,), (4,)], cluster=Cluster(None, address)))
    assert done == {0: 9, 1: 16}
    assert "open port" not in caplog.text


def test_an_unrelated_client_gets_in_nowhere(encrypted, tmp_path):
    address, folder = encrypted
    host = address.split("//")[1].rpartition(":")[0]
    ports = {port for _, port in listening(family(os.getpid()))}
    assert int(address.rpartition(":")[2]) in ports
    other = Security(require_encryption=True, **certificate(tmp_path))
    for port in ports:
        assert not gets_in(f"tcp://{host}:{port}")
        assert not gets_in(f"tls://{host}:{port}", other)
    ours = Security(require_encryption=True, **certificate_of(folder))
    assert gets_in(address, ours), "the test would not see a client get in"


def certificate_of(folder) -> dict[str, str]:
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    return {"tls_ca_file": cert, "tls_client_cert": cert, "tls_client_key": key}


def test_http_is_on_this_machine_alone_and_says_nothing(encrypted):
    assert encrypted[0].startswith("tls://")
    assert elsewhere(listening(family(os.getpid()))) == set()
    pages = ("info/main/workers.html", "json/identity.json", "metrics", "health")
    codes = [
        http_code(f"http://{host}:{port}/{page}")
        for host, port in listening(family(os.getpid()))
        for page in pages
    ]
    assert set(codes) == {0, 404}


def http_code(page: str) -> int:
    """What a server answers; 0 where it speaks no HTTP."""
    try:
        with urllib.request.urlopen(page, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_without_a_certificate_the_settings_are_named(encrypted):
    address, _ = encrypted
    with pytest.raises(InputError, match=r"TLS needs a certificate.*COMM__TLS__CA_FILE"):
        list(each_in_workers(square, [(1,)], cluster=Cluster(None, address)))


def test_a_foreign_certificate_is_refused_in_a_sentence(encrypted, tmp_path):
    address, _ = encrypted
    certificate(tmp_path)
    before = {id(each) for each in gc.get_objects()}
    with (
        dask_config.set(settings(tmp_path)),
        pytest.raises(InputError, match=r"or not with this certificate"),
    ):
        list(each_in_workers(square, [(1,)], cluster=Cluster(None, address)))
    left = [
        each for each in gc.get_objects() if isinstance(each, Client) and id(each) not in before
    ]
    assert not left, "closed by Dask at any later moment, even while another client starts"


def test_a_client_whose_loop_does_not_start_in_time_is_told_in_a_sentence(monkeypatch):
    def late(*_args, **_settings):
        raise AssertionError

    monkeypatch.setattr("distributed.utils.LoopRunner", late)
    with pytest.raises(InputError, match=r"no Dask scheduler answers there.*AssertionError"):
        list(each_in_workers(square, [(1,)], cluster=Cluster(None, "tls://127.0.0.1:1")))


def test_an_open_port_is_called_open(caplog):
    with pytest.raises(InputError):
        list(each_in_workers(square, [(1,)], cluster=Cluster(None, "tcp://127.0.0.1:1")))
    assert "tcp://127.0.0.1:1 is an open port: whoever reaches it runs code as you" in caplog.text
