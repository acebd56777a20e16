"""The doctor's job: its files, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from experiments.doctor import Config, job
from lens.errors import InputError
from lens.settings import PlantedSettings, Rules
from tests.planted import Planted, plant


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(n=150, d=30)


def test_the_job_writes_what_it_found(planted: Planted, tmp_path: Path, capsys) -> None:
    paths = planted.write(tmp_path)
    config = Config(
        pre=paths["pre"], radiomics=paths["radiomics"], ft=(f"cls={paths['ft']}",), folds=3,
        planted=PlantedSettings(Rules(flips=199), doses=(1.0,), clusters=1, draws=1, maps=1),
        scores="raw", modality=("t2",), out=tmp_path / "out",
    )  # fmt: skip
    assert job(config) == 0
    content = json.loads((tmp_path / "out" / "doctor.json").read_text())
    said = capsys.readouterr().out
    assert content["sentence"] in said
    assert content["scores"] == "raw"
    assert str(paths["pre"]) in said
    changes = pd.read_csv(tmp_path / "out" / "doctor.csv")
    assert (changes["kind"] == "erased").sum() == 1
    assert (tmp_path / "out" / "doctor.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"planted": PlantedSettings(doses=(2.0,))}, "--doses"),
        ({"folds": 1}, "--folds 1"),
        ({"planted": PlantedSettings(draws=0)}, "--draws"),
        ({"planted": PlantedSettings(maps=0)}, "--maps"),
    ],
)
def test_wrong_values_are_refused(planted: Planted, tmp_path: Path, change, message) -> None:
    paths = planted.write(tmp_path)
    config = {"pre": paths["pre"], "radiomics": paths["radiomics"], "out": tmp_path} | change
    with pytest.raises(InputError, match=message):
        job(Config(**config))
