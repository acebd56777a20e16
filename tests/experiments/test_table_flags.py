"""The flags of tables: one radiomics table, or one for each modality and region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tyro

import experiments.doctor as doctor
import experiments.sweep as sweep
from experiments.main_job.config import Config
from experiments.main_job.plan import named_files, radiomics_tables
from lens.errors import InputError
from tests.planted import plant


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


@pytest.mark.parametrize("module", [sweep, doctor], ids=["sweep", "doctor"])
def test_the_column_of_ids_and_the_pooling_of_tokens_are_heeded(module, tmp_path, capsys) -> None:
    planted = plant(n=60, d=12)
    paths = {name: tmp_path / f"{name}.npz" for name in ("pre", "ft")}
    for name, path in paths.items():
        tokens = np.repeat(getattr(planted, name)[:, None], 3, axis=1)
        np.savez(path, patient_id=planted.ids, embeddings=tokens)
    planted.radiomics.rename(columns={"patient_id": "Person"}).to_csv(
        tmp_path / "r.csv", index=False
    )
    words = [
        *("--pre", f"{paths['pre']}", "--ft", f"cls={paths['ft']}", "--folds", "3"),
        *("--radiomics", f"{tmp_path / 'r.csv'}", "--out", f"{tmp_path / 'out'}", "--dry-run"),
    ]
    flags = ["--id-column", "Person", "--pool-tokens", "mean"]
    assert module.job(tyro.cli(module.Config, args=[*words, *flags])) == 0
    assert "12 dimensions" in capsys.readouterr().out
    for left_out, message in ((flags[:2], "--pool-tokens"), (flags[2:], "--id-column")):
        with pytest.raises(InputError, match=message):
            module.job(tyro.cli(module.Config, args=[*words, *left_out]))
