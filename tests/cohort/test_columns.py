"""Columns of a manifest that nothing reads: misspelt ones are refused, others are named."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from lens.cohort import read_manifest
from lens.errors import InputError
from lens.names import check_names, closest

ROW = {"patient_id": "a", "t2": "t2.mha", "gland": "gland.mha"}


def manifest(folder: Path, **more: str) -> Path:
    for name in ("t2.mha", "gland.mha", "other.mha"):
        (folder / name).touch()
    row = ROW | more
    path = folder / "cohort.csv"
    path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    return path


@pytest.mark.parametrize(
    ("column", "cell", "meant"),
    [
        ("ADC", "other.mha", "adc"),
        ("dwi_b1500", "other.nii.gz", "dwi"),
        ("lesions", "other.mha", "lesion"),
        ("Split", "train", "split"),
        ("StudyID", "1", "study_id"),
    ],
)
def test_a_misspelt_column_is_refused_with_the_name_meant(tmp_path, column, cell, meant) -> None:
    path = manifest(tmp_path, **{column: cell})
    with pytest.raises(InputError, match=f"column '{column}' .*did you mean {meant}") as caught:
        read_manifest(path)
    assert str(caught.value).startswith(str(path))


def test_other_columns_that_hold_paths_are_named(tmp_path, caplog) -> None:
    path = manifest(tmp_path, pet="other.mha", place=f"{tmp_path}/t2.mha", note="see/also", age="6")
    with caplog.at_level(logging.WARNING):
        cohort = read_manifest(path)
    assert "column(s) 'pet', 'place' hold paths that nothing reads" in caplog.text
    assert "note" not in caplog.text
    assert cohort.cases[0].labels["age"] == 6


def test_labels_are_no_misspellings(tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        read_manifest(manifest(tmp_path, lesions="2", zone="pz", splits="3", adc_mean="900"))
    assert not caplog.text


def test_a_wrong_name_is_refused_with_the_nearest_and_all() -> None:
    known = ("t2", "dwi", "adc")
    check_names(["adc", "t2"], known, "modality", "--modality")
    with pytest.raises(InputError) as caught:
        check_names(["dwi", "DWI"], known, "modality", "--modality")
    assert str(caught.value) == (
        "--modality: no modality 'DWI'; did you mean dwi? there are t2, dwi, adc"
    )
    with pytest.raises(InputError, match="'ct'; there are t2, dwi, adc"):
        check_names(["ct"], known, "modality", "--modality")
    with pytest.raises(InputError, match="there are none"):
        check_names(["ct"], (), "modality", "--modality")
    assert closest("prostate", ("gland", "lesion")) is None
