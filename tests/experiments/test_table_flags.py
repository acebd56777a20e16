"""The flags of tables: one radiomics table, or one for each modality and region."""

from __future__ import annotations

from pathlib import Path

import pytest
import tyro

from experiments.main_job.config import Config
from experiments.main_job.plan import named_files, radiomics_tables
from lens.errors import InputError


def config(*flags: str) -> Config:
    return tyro.cli(Config, args=["--pre", "p.npz", "--ft", "cls=f.npz", *flags])


def test_tables_of_modalities_and_regions_are_named() -> None:
    assert radiomics_tables(config()) is None
    assert radiomics_tables(config("--radiomics", "R.csv")) == Path("R.csv")
    parts = {"t2.gland": Path("a.csv"), "dwi.gland": Path("b.csv")}
    given = ("t2.gland=a.csv", "dwi.gland=b.csv")
    assert radiomics_tables(config("--radiomics", *given)) == parts
    twice = config("--radiomics", given[0], "--radiomics", given[1], "--folds", "3")
    assert radiomics_tables(twice) == parts
    assert named_files(twice)["--radiomics dwi.gland"] == Path("b.csv")
    for flags, message in [
        (("a.csv", "b.csv"), "each is named by what it is about"),
        (("t2.gland=a.csv", "b.csv"), "b.csv: of several tables"),
        (("t2.gland=a.csv", "t2.gland=b.csv"), "a.csv is given for t2.gland"),
    ]:
        with pytest.raises(InputError, match=message):
            radiomics_tables(config("--radiomics", *flags))


def test_the_file_behind_a_part_and_the_ids_beside_an_array_are_known(tmp_path: Path) -> None:
    (tmp_path / "x.npy").touch()
    (tmp_path / "x_ids.csv").touch()
    files = named_files(config("--radiomics", "R.xlsx:T2", "--pre", f"cls={tmp_path}/x.npy"))
    assert Path("R.xlsx") in files.values()
    assert tmp_path / "x_ids.csv" in files.values()
