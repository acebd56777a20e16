"""The PI-CAI archive as downloaded: what is found, what is set aside, how labels are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lens.cohort import read_manifest
from lens.cohort.picai import prepare_picai, read_marksheet
from lens.cohort.prepared import manifest_table, write_manifest
from lens.errors import InputError
from tests.cohort.archives import AUTOMATIC, HUMAN, MARKSHEET, ROWS, WHOLE, ZONAL, picai, touch


@pytest.mark.parametrize("folds", [False, True])
def test_the_archive_as_published_becomes_a_manifest(tmp_path: Path, folds: bool) -> None:
    prepared = prepare_picai(*picai(tmp_path, folds=folds))
    assert prepared.set_aside == ()
    write_manifest(prepared, tmp_path / "cohort.csv")
    first, second, third = read_manifest(tmp_path / "cohort.csv").cases
    fold = "picai_public_images_fold0/" if folds else ""
    here = tmp_path / "images" / f"{fold}10000"
    assert first.images == {
        "t2": here / "10000_1000000_t2w.mha",
        "dwi": here / "10000_1000000_hbv.mha",
        "adc": here / "10000_1000000_adc.mha",
    }
    labels = tmp_path / "picai_labels"
    assert first.masks["gland"] == labels / WHOLE / "10000_1000000.nii.gz"
    assert first.masks["lesion"] == labels / HUMAN / "10000_1000000.nii.gz"
    assert first.zones == labels / ZONAL / "10000_1000000.nii.gz"
    assert second.masks["lesion"] == labels / AUTOMATIC / "10001_1000001.nii.gz"
    assert first.labels == {
        "lesion_source": "human_expert/resampled",
        "pirads": 4.0,
        "pirads_lesions": "4,2",
        "psa": 7.7,
        "psad": 0.14,
        "volume_ml": 55.0,
        "age": 73.0,
        "isup": 3.0,
        "cspca": "YES",
        "site": "PCNN",
        "histology": "MRBx",
        "mri_date": "2019-07-02",
    }
    assert [(c.patient_id, c.study_id) for c in (second, third)] == [
        ("10001", "1000001"),
        ("10001", "1000002"),
    ]
    assert "pirads" not in third.labels


def test_paths_are_relative_where_they_can_be(tmp_path: Path) -> None:
    prepared = prepare_picai(*picai(tmp_path))
    inside = manifest_table(prepared, tmp_path / "cohort.csv")
    assert inside["t2"][0] == "images/10000/10000_1000000_t2w.mha"
    write_manifest(prepared, tmp_path / "runs" / "a" / "cohort.csv")
    elsewhere = (tmp_path / "runs" / "a" / "cohort.csv").read_text()
    assert ",../../images/10000/10000_1000000_t2w.mha," in elsewhere
    assert len(read_manifest(tmp_path / "runs" / "a" / "cohort.csv").cases) == 3


def test_labels_alone_and_flat_folders(tmp_path: Path) -> None:
    for name in ("gland", "zones", "lesion"):
        touch(tmp_path / name / "10000_1000000.nii.gz")
    (tmp_path / "marksheet.csv").write_text(MARKSHEET + ROWS[0])
    prepared = prepare_picai(None, tmp_path)
    assert manifest_table(prepared, tmp_path / "masks.csv").columns[:5].to_list() == [
        "patient_id",
        "study_id",
        "gland",
        "zones",
        "lesion",
    ]


def test_a_part_of_the_archive_is_success_with_a_list(tmp_path: Path) -> None:
    images, labels = picai(tmp_path)
    shutil.rmtree(images / "10000")
    (images / "10001" / "10001_1000001_adc.mha").unlink()
    prepared = prepare_picai(images, labels)
    assert [row["study_id"] for row in prepared.rows] == ["1000002"]
    reasons = [str(error) for error in prepared.set_aside]
    assert f"patient 10000, file {images}: no image of study 1000000" in reasons[0]
    assert "no adc image of study 1000001 (10001_1000001_adc.mha)" in reasons[1]
    fewer = prepare_picai(images, labels, modalities=("t2", "dwi"))
    assert [row["study_id"] for row in fewer.rows] == ["1000001", "1000002"]


def test_a_study_without_a_row_keeps_its_images(tmp_path: Path) -> None:
    images, labels = picai(tmp_path, ROWS[:2])
    (labels / AUTOMATIC / "10001_1000002.nii.gz").unlink()
    prepared = prepare_picai(images, labels)
    assert set(prepared.rows[2]) == {"patient_id", "study_id", "t2", "dwi", "adc", "gland", "zones"}
    assert [str(note) for note in prepared.notes] == [
        "patient 10001, study 1000002, labels: no row in the marksheet; no labels",
        "patient 10001, study 1000002, lesion: no lesion mask in any folder; left blank",
    ]


@pytest.mark.parametrize(
    ("cell", "highest", "note"),
    [
        ("", None, None),
        ("3", "3", None),
        ('"2, 5,4"', "5", None),
        ('"4,N/A"', "4", None),
        ("N/A", None, None),
        ('"4,6"', "4", "'4,6': 6 is no PIRADS category; taken as 4"),
        ("high", None, "'high': high is no PIRADS category; taken as blank"),
    ],
)
def test_the_highest_pirads_of_the_lesions(
    tmp_path: Path, cell: str, highest: str | None, note: str | None
) -> None:
    sheet = tmp_path / "marksheet.csv"
    sheet.write_text(f"patient_id,study_id,lesion_PIRADS\n1,2,{cell}\n")
    read = read_marksheet(sheet)
    assert read.labels["1", "2"].get("pirads") == highest
    assert read.labels["1", "2"].get("pirads_lesions") == (cell.strip('"') or None)
    assert [str(n) for n in read.notes] == ([f"patient 1, study 2, pirads: {note}"] if note else [])


def test_mess_in_the_marksheet_stays_in_its_row(tmp_path: Path) -> None:
    sheet = tmp_path / "marksheet.csv"
    sheet.write_text(
        "\ufeffpatient_id,study_id,psa,prostate_volume,center\n"
        ' 10.0 ,20.0,>100,"41,5",ZGT\n'
        "11,21,5,40,ZGT\n"
        "11,21,5,40,ZGT\n"
        "12,22,5,40,ZGT\n"
        "12,22,6,40,ZGT\n"
        ",23,5,40,ZGT\n"
        ",,,,\n"
        "13,24,5\n",
        encoding="utf-8",
    )
    read = read_marksheet(sheet)
    assert read.labels == {
        ("10", "20"): {"site": "ZGT"},
        ("11", "21"): {"psa": "5", "volume_ml": "40", "site": "ZGT"},
        ("13", "24"): {"psa": "5"},
    }
    assert [str(note).split(", ", 2)[2] for note in read.notes] == [
        "psa: '>100' is not a number; left blank",
        "volume_ml: '41,5' is not a number; left blank",
        "labels: listed twice, line 4; taken once",
    ]
    assert [error.reason for error in read.set_aside.values()] == [
        "lines 5 and 6 say different things about study 22",
        "line 7 has no id",
    ]


def test_a_wrong_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    images, labels = picai(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        prepare_picai(images, tmp_path / "nothing")
    with pytest.raises(InputError, match=r"no marksheet \(looked for clinical_information/marks"):
        prepare_picai(images, images)
    with pytest.raises(InputError, match=r"no image is named <patient>_<study>_t2w.mha"):
        prepare_picai(labels, labels)
    shutil.rmtree(labels / "anatomical_delineations")
    with pytest.raises(InputError, match="no whole-gland masks"):
        prepare_picai(images, labels)
