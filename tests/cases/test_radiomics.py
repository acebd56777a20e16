"""Parameter files that ask for what they would not get: honoured, or refused before any patient."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.radiomics import Config, job
from lens.errors import InputError
from lens.files import read_table


def config(folder: Path, parameters: str, out: Path, **flags) -> Config:
    return Config(
        folder / "cohort.csv", out, parameters=(str(folder / parameters),), workers=1,
        spacing=(1.0, 1.0, 2.0), **flags,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parameters", "finding"),
    [
        ("only.yaml", r"only\.yaml: LBP3D needs trimesh.*: pip install trimesh"),
        ("params.yaml", r"params\.yaml: LBP3D needs trimesh.*: pip install trimesh"),
        ("s2.yaml", r"s2\.yaml: shape2D is of regions of a single slice"),
    ],
)
def test_a_filter_that_cannot_be_computed_is_refused_before_the_first_patient(
    cases, tmp_path, parameters, finding
):
    folder = cases / "filter_not_available"
    with pytest.raises(InputError, match=finding):
        job(config(folder, parameters, tmp_path / "R.csv"))
    assert not list((tmp_path / "radiomics-cache").glob("*"))


@pytest.mark.parametrize(
    ("parameters", "finding", "setting"),
    [
        ("min.yaml", "Size of the ROI is too small (minimum size: 100000", "minimumROISize"),
        ("resh.yaml", "Resegmentation excluded too many voxels", "resegmentRange"),
    ],
)
def test_a_setting_that_leaves_nothing_is_named_as_the_cause(
    cases, tmp_path, parameters, finding, setting
):
    folder = cases / "filter_not_available"
    assert job(config(folder, parameters, tmp_path / "R.csv")) == 1
    assert not (tmp_path / "R.csv").exists()
    failures = (tmp_path / "failures.csv").read_text()
    assert finding in failures
    assert setting in failures
    assert parameters in failures


def test_the_label_of_a_parameter_file_is_not_ignored(cases, tmp_path):
    folder = cases / "parameter_file_label"
    with pytest.raises(InputError, match=r"params\.yaml: label: 2 .*say --label gland=2"):
        job(config(folder, "params.yaml", tmp_path / "R.csv"))
    assert job(config(folder, "params.yaml", tmp_path / "R.csv", label=("gland=2",))) == 0
    mean = read_table(tmp_path / "R.csv")["t2.gland.original_firstorder_Mean"]
    assert mean.item() == pytest.approx(1529.4, abs=0.05)
