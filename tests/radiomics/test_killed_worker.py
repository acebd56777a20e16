"""A worker that is killed in the middle of a run costs nothing: all patients, the same table."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pandas as pd

from lens.cohort import read_manifest
from lens.radiomics import cohort_features
from lens.radiomics.cohort_features import extract_cohort
from lens.radiomics.parameters import load_parameters
from tests.radiomics.phantoms import write_cohort

PATIENTS = [f"p{i}" for i in range(6)]


def kill_one(cache: Path, killed: list[int]) -> None:
    """SIGKILL to a worker of this process once the first patient is finished."""
    import psutil

    end = time.monotonic() + 60
    while time.monotonic() < end and not list(cache.glob("[!.]*.json")):
        time.sleep(0.005)
    for process in psutil.Process().children():
        if "spawn_main" in " ".join(process.cmdline()):
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)
            return


def test_a_run_with_a_killed_worker_ends_as_an_undisturbed_one(tmp_path, monkeypatch) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "setting: {binWidth: 50}\nimageType: {Original: {}, Wavelet: {}}\n"
        "featureClass: {firstorder: }\n"
    )
    parameters = load_parameters({"all": file})
    cohort = read_manifest(write_cohort(tmp_path / "cohort", PATIENTS))
    monkeypatch.setattr(cohort_features, "affordable_workers", lambda workers, *_: workers)

    def table(name: str, workers: int) -> pd.DataFrame:
        features, errors = extract_cohort(
            cohort, parameters, cache=tmp_path / name, workers=workers, progress=False
        )
        assert errors == []
        return features

    whole, killed = table("undisturbed", 1), []
    thread = threading.Thread(target=kill_one, args=(tmp_path / "killed", killed))
    thread.start()
    disturbed = table("killed", 2)
    thread.join()
    assert len(killed) == 1, "no worker was killed while it worked"
    assert disturbed["patient_id"].tolist() == PATIENTS
    pd.testing.assert_frame_equal(disturbed, whole, check_exact=True)
