"""The arithmetic of the journey from images to the page, on numbers that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import SimpleITK as sitk

from benchmarks import journey
from benchmarks.journey_cases import SIZES, write_cases
from benchmarks.journey_cluster import Simulated, makespan, predicted
from benchmarks.journey_jobs import (
    ALONE,
    CHECK,
    EMBED_ALONE,
    FT,
    MANIFEST,
    PRE,
    RADIOMICS,
    Sampling,
)
from benchmarks.journey_limits import loops_of
from lens.cohort import write_phantoms

RUN = Simulated(workers=4, tasks=100, nap=0.1, seconds=3.0, lost=0.5)


def test_the_line_goes_through_two_samples() -> None:
    line = journey.fit({4: 11.0, 12: 27.0})
    assert line == pytest.approx((3.0, 2.0))
    assert line.at(850) == pytest.approx(1703.0)
    # Of three samples the middle one is off the others' line by 3: least squares moves it by 1.
    assert journey.fit({0: 0.0, 1: 4.0, 2: 2.0}) == pytest.approx((1.0, 1.0))


def test_a_free_worker_takes_the_next_task() -> None:
    assert makespan([1.0, 1.0, 1.0, 3.0], 2) == 4.0  # two rounds of one, and the long one last
    assert makespan([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    assert makespan([0.5] * 9, 4) == 1.5  # the ninth is alone in a third round
    assert makespan([2.0, 5.0], 1) == 7.0
    assert makespan([1.0], 8) == 1.0


def test_what_a_run_lost_is_added_task_by_task() -> None:
    # 200 tasks of 2 s on four workers, 10 s that the job does alone, and 5 ms lost a task.
    assert predicted(200, 2.0, 10.0, RUN) == pytest.approx(10 + 100 + 1)


def test_a_stage_at_its_limit_speeds_up_by_its_share() -> None:
    rows = [journey.Row("a", 60.0, 30.0), journey.Row("b", 30.0), journey.Row("c", 10.0)]
    assert journey.gain(rows, ["a"], 30.0) == pytest.approx(100 / 70)
    assert journey.gain(rows, ["a", "b"], 0.0) == pytest.approx(10)


def test_a_cluster_shortens_the_radiomics_alone() -> None:
    seconds = {MANIFEST: 5.0, RADIOMICS: 900.0, PRE: 400.0, FT: 500.0, journey.PAGE: 20.0}
    rows = [journey.Row(*row) for row in seconds.items()]
    again = journey.Line(4.0, 0.1)  # 14 s for 100 cases
    found = journey.cluster(100, rows, again, 8.0, journey.Line(2.0, 4.0), RUN)
    assert found["radiomics"] == pytest.approx(14 + 25 * 8 + 0.5)
    assert found["journey"] == pytest.approx(925 + found["radiomics"])
    assert found["journey_of_workers_without_end"] == pytest.approx(925 + 14)
    # A share of 25 cases for each of four cores, for either encoder.
    by_shares = found["journey_embedded_by_shares"]
    assert by_shares == pytest.approx(found["journey"] - 900 + 2 * (2 + 25 * 4))


def test_limits_follow_the_machine() -> None:
    config = journey.Config(cases=100, shape=(32, 64, 64))
    stages: list[str] = [MANIFEST, CHECK, RADIOMICS, PRE, FT]
    lines = dict.fromkeys(stages, journey.Line(1.0, 2.0))
    told = {"sweep": 30.0, "cross-validation": 150.0, journey.PAGE: 20.0}
    rates = {
        "bytes_a_case": 4e6,
        "disk": 1e8,
        "loops_a_case": 1.0,
        "float32": 1e10,
        "copy": 1e10,
    }
    slow, fast = (
        {row.stage: row for row in journey.table(config, lines, each, told)}
        for each in (rates, rates | {"float32": 2e10, "copy": 2e10, "disk": 2e8})
    )
    assert [*slow] == [*lines, *told]
    assert slow[RADIOMICS].seconds == 201.0
    assert slow[CHECK].limit == pytest.approx(4.0)
    for stage in (CHECK, PRE, FT, "sweep", "cross-validation"):
        assert (slow[stage].limit or 0) == pytest.approx(2 * (fast[stage].limit or 0)), stage
    assert slow[journey.PAGE].limit is None
    # Seconds of another day have no limit at the rates of this one.
    other = journey.table(replace(config, analysis=Path("a.json")), lines, rates, told)
    assert [row.stage for row in other if row.limit] == [CHECK, RADIOMICS, PRE, FT]


def test_what_compiles_runs_before_it_counts() -> None:
    sampling = Sampling((4, 12), (4, 8), (64, 224, 224))
    stages = (MANIFEST, RADIOMICS, PRE, ALONE, EMBED_ALONE)
    wanted = {n: [stage for stage in stages if sampling.wants(stage, n)] for n in (0, 8, 12)}
    assert wanted[0] == [MANIFEST, RADIOMICS, PRE]
    assert wanted[8] == [MANIFEST, ALONE, EMBED_ALONE]  # there is no job without a manifest
    assert wanted[12] == [MANIFEST, RADIOMICS, PRE]


def test_phantoms_have_the_size_of_clinical_images(tmp_path) -> None:
    told = write_cases(tmp_path, 1, {})
    images = {name: sitk.ReadImage(tmp_path / "case-000" / f"{name}.nii.gz") for name in SIZES}
    assert {name: image.GetSize() for name, image in images.items()} == SIZES
    gland = sitk.ReadImage(tmp_path / "case-000" / "gland.nii.gz")
    assert (gland.GetSize(), gland.GetSpacing()) == (SIZES["t2"], images["t2"].GetSpacing())
    # As drawn, 20 to 90 ml (`lens.cohort.phantom`), whatever was added around it.
    assert 18 < float(told["gland_ml_of_last"]) < 95


def test_the_loops_of_a_case_are_a_part_of_its_features(tmp_path: Path) -> None:
    found = loops_of(write_phantoms(tmp_path / "phantoms", 1, 0, progress=False))
    assert 0.05 * found["features_a_case"] < found["loops_a_case"] < found["features_a_case"]
