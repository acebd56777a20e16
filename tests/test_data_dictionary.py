"""The data dictionary, held against the files of a run: every column, in both directions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lens
from lens.report.results import FILES
from lens.verdicts.rules import VERDICTS
from tests.planted import plant

DICTIONARY = (Path(__file__).parents[1] / "docs" / "tables.md").read_text(encoding="utf-8")
WITHOUT_COLUMNS = {"run.json", "doctor/doctor.json"}


def documented() -> dict[str, list[str]]:
    """File -> the names in the first cells of the tables of its section."""
    sections = re.split(r"^## `(.+?)`.*$", DICTIONARY, flags=re.MULTILINE)[1:]
    return {
        file: [
            name
            for row in re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
            for name in re.findall(r"`([^`]+)`", row)
        ]
        for file, text in zip(sections[::2], sections[1::2], strict=True)
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything on: confounds, exposure, other seeds, ceiling, the whole doctor."""
    planted = plant(n=90, d=16, latents=4)
    rng = np.random.default_rng(0)
    ids, k = planted.ids, planted.radiomics.shape[1] - 1
    labels = pd.DataFrame(
        {"patient_id": ids, "volume_ml": rng.uniform(20, 90, 90), "site": np.arange(90) % 3}
    )
    exposed = pd.DataFrame({"patient_id": ids, "used": np.arange(90) % 2 == 0})
    icc = pd.DataFrame({"column": planted.radiomics.columns[1:], "icc": np.full(k, 0.9)})
    again = [(ids, planted.ft + 0.1 * rng.normal(size=planted.ft.shape)) for _ in range(2)]
    radiomics = planted.radiomics.copy()
    radiomics.iloc[3, 2:] = np.nan  # A patient set aside.
    comparison = lens.compare(
        (ids, planted.pre), {"cls": (ids, planted.ft)}, radiomics,
        retrained={"cls": again}, labels=labels, adjust="volume_ml", site="site",
        exposure={"cls": exposed}, repeatability=icc, doctor="full", progress=False,
        hidden=4, epochs=2, l1=(0.0,), l2=(0.0,), folds=3, repeats=1, bootstraps=20, flips=99,
    )  # fmt: skip
    return comparison.save(tmp_path_factory.mktemp("run"))


def columns(path: Path) -> list[str]:
    if path.suffix == ".npz":
        with np.load(path) as content:
            return [*content]
    return [*(pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path))]


@pytest.mark.parametrize("file", sorted(set(FILES) - WITHOUT_COLUMNS))
def test_every_column_of_a_run_is_explained_and_nothing_else_is(run: Path, file: str) -> None:
    path = next((p for p in (run / file, run / "cls" / file) if p.exists()), None)
    if path is None:
        # The main job alone keeps these beside the table that holds their columns.
        assert file in ("verdicts.parquet", "exposure.csv")
        return
    found, known = columns(path), documented()[file]
    assert not [name for name in found if name not in known], (
        f"docs/tables.md lacks columns of {file}"
    )
    assert not [name for name in known if name not in found], (
        f"{file} lacks columns of docs/tables.md"
    )
    assert len(known) == len(set(known))


def test_every_file_has_a_section() -> None:
    assert set(documented()) == set(FILES) - WITHOUT_COLUMNS


def test_the_verdicts_are_named_in_their_order() -> None:
    names = re.findall(r"^\| \*\*(\w+)\*\* \|", DICTIONARY, flags=re.MULTILINE)
    assert names == [*VERDICTS]


def test_verdicts_are_a_part_of_the_features() -> None:
    known = documented()
    assert set(known["verdicts.parquet"]) <= set(known["features.parquet"])
