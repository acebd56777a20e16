"""A small version of ``benchmarks/interruptions.py``: killed twice, nothing lost or redone."""

from __future__ import annotations

from benchmarks.interruptions import Config, interrupted
from tests.radiomics.phantoms import write_cohort


def test_a_killed_worker_and_a_killed_job_cost_nothing_that_was_finished(tmp_path):
    manifest = write_cohort(tmp_path, [f"p{i}" for i in range(9)])
    found = interrupted(Config(cohort=manifest), tmp_path / "runs")
    assert found["tables are equal"]
    assert found["parts done again"] == 0
    assert 3 <= found["parts when the worker was killed"] <= found["parts when the job was killed"]
    assert found["parts when the job was killed"] < 9 == found["parts at the end"]
