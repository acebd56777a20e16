"""Labels to train on: missing words are blank cells, and a number that is none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.common.cli import SET_ASIDE, list_set_aside
from experiments.common.training_data import labels_of
from lens.cohort.manifest import read_manifest
from lens.errors import CaseError, InputError


def read(folder: Path, *cells: str) -> tuple[Path, list[Any]]:
    (folder / "i.nii").touch()
    path = folder / "cohort.csv"
    rows = [f"P{i},i.nii,i.nii,{cell}" for i, cell in enumerate(cells)]
    path.write_text("\n".join(["patient_id,t2,gland,label", *rows]) + "\n", encoding="utf-8")
    return path, list(read_manifest(path).cases)


def label(path: Path, cases: list[Any], *, numbers: bool) -> np.ndarray:
    return labels_of(cases, path, "label", numbers=numbers)


def test_missing_words_are_no_class_and_leave_numbers_numbers(tmp_path: Path) -> None:
    path, cases = read(tmp_path, "3", "nan", "n/a", "4", "NA", "", "5")
    labelled = [files for files in cases if "label" in files.labels]
    assert [files.patient_id for files in labelled] == ["P0", "P3", "P6"]
    for numbers in (True, False):
        assert label(path, labelled, numbers=numbers).tolist() == [3.0, 4.0, 5.0]


@pytest.mark.parametrize("cell", ["<0.1", "2,5", "inf", "high"])
def test_a_number_that_is_none_is_named(tmp_path: Path, cell: str) -> None:
    path, cases = read(tmp_path, "1.5", "2", f'"{cell}"', "4")
    with pytest.raises(InputError, match=rf"cohort.csv: label: 3 of 4 .* P2 has .*{cell}"):
        label(path, cases, numbers=True)


def test_a_value_per_patient_is_no_class(tmp_path: Path) -> None:
    path, cases = read(tmp_path, *(str(0.5 + i) for i in range(20)))
    assert label(path, cases, numbers=True).shape == (20,)
    with pytest.raises(InputError, match="label has 20 different values in 20 cases"):
        label(path, cases, numbers=False)
    path, cases = read(tmp_path, *("benign", "3+4") * 10)
    assert set(label(path, cases, numbers=False)) == {"benign", "3+4"}


def test_the_terminal_lists_five_and_a_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = [CaseError(f"P{i}", "f", stage="join", reason="r", remedy="m") for i in range(200)]
    assert list_set_aside(errors, tmp_path / "failures.csv") == SET_ASIDE
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("200 patient(s) set aside")
    assert len(lines) == 7
    assert lines[-1] == "  and 195 more"
    assert len((tmp_path / "failures.csv").read_text().splitlines()) == 201
