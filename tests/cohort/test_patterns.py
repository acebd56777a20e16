"""Folders with a naming rule: ids out of names, one file per pattern or a named reason."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

from lens.cohort.patterns import find, prepare_patterns
from lens.cohort.prepared import join_labels
from lens.errors import InputError
from tests.cohort.archives import touch

T2 = "sub-{patient}/ses-{study}/anat/sub-{patient}_*T2w.nii.gz"
GLAND = "derivatives/sub-{patient}/ses-{study}/*gland*.nii.gz"
LESION = "derivatives/sub-{patient}/ses-{study}/*lesion*.nii.gz"


def bids(root: Path, patient: str, study: str, *, lesion: bool = False) -> None:
    touch(root / f"sub-{patient}/ses-{study}/anat/sub-{patient}_acq-tra_T2w.nii.gz")
    touch(root / f"derivatives/sub-{patient}/ses-{study}/mask-gland.nii.gz")
    if lesion:
        touch(root / f"derivatives/sub-{patient}/ses-{study}/mask-lesion.nii.gz")


def test_studies_are_found_by_their_names(tmp_path: Path) -> None:
    bids(tmp_path, "01", "a", lesion=True)
    bids(tmp_path, "01", "b")
    bids(tmp_path, "Zoë Ω", "c")
    prepared = prepare_patterns(tmp_path, {"t2": T2, "gland": GLAND, "lesion": LESION})
    assert prepared.set_aside == ()
    ids = [(row["patient_id"], row["study_id"]) for row in prepared.rows]
    assert ids == [("01", "a"), ("01", "b"), ("Zoë Ω", "c")]
    assert "lesion" in prepared.rows[0]
    assert "lesion" not in prepared.rows[1]
    assert [note.column for note in prepared.notes] == ["lesion", "lesion"]


def test_two_files_for_one_place_are_set_aside_with_both_names(tmp_path: Path) -> None:
    bids(tmp_path, "01", "a")
    bids(tmp_path, "02", "a")
    touch(tmp_path / "sub-01/ses-a/anat/sub-01_acq-cor_T2w.nii.gz")
    prepared = prepare_patterns(tmp_path, {"t2": T2, "gland": GLAND})
    assert [row["patient_id"] for row in prepared.rows] == ["02"]
    message = str(prepared.set_aside[0])
    assert "patient 01" in message
    assert "2 files could be the t2" in message
    assert "sub-01_acq-cor_T2w.nii.gz and " in message
    assert "sub-01_acq-tra_T2w.nii.gz" in message


def test_a_missing_file_names_the_pattern(tmp_path: Path) -> None:
    bids(tmp_path, "01", "a")
    touch(tmp_path / "sub-02/ses-a/anat/sub-02_acq-tra_T2w.nii.gz")
    prepared = prepare_patterns(tmp_path, {"t2": T2, "gland": GLAND})
    assert [e.reason for e in prepared.set_aside] == [
        f"no gland file of study a: nothing fits {GLAND!r}"
    ]


def test_one_mask_cannot_serve_two_studies(tmp_path: Path) -> None:
    bids(tmp_path, "01", "a")
    bids(tmp_path, "01", "b")
    bids(tmp_path, "02", "a")
    for patient in ("01", "02"):
        touch(tmp_path / f"masks/{patient}.nii.gz")
    prepared = prepare_patterns(tmp_path, {"t2": T2, "gland": "masks/{patient}.nii.gz"})
    assert [row["patient_id"] for row in prepared.rows] == ["02"]
    assert {e.reason for e in prepared.set_aside} == {
        "one gland file for 2 studies of the patient (a, b)"
    }
    assert len(prepared.set_aside) == 2


@pytest.mark.parametrize(
    ("pattern", "name", "patient"),
    [
        ("{patient}_t2.mha", "a_b_t2.mha", "a_b"),
        ("*/{patient}/t2.mha", "site 1/P 7/t2.mha", "P 7"),
        ("**/{patient}-t2.mha", "x/y/z/P7-t2.mha", "P7"),
        ("**/{patient}-t2.mha", "P7-t2.mha", "P7"),
        ("P[0-9]/{patient}.mha", "P3/x.mha", "x"),
        ("{patient}/im?ge(1).mha", "p/image(1).mha", "p"),
        ("{patient}/dicom", "p/dicom", "p"),
    ],
)
def test_patterns_read_as_in_a_shell(tmp_path: Path, pattern: str, name: str, patient: str) -> None:
    root = tmp_path / "a [root] with (signs)"
    file = touch(root / name)
    assert find(root, "t2", pattern) == {(patient, ""): [file]}
    absolute = f"{tmp_path}/a [[]root] with (signs)/{pattern}"
    assert find(tmp_path, "t2", absolute) == {(patient, ""): [file]}


def test_a_repeated_placeholder_must_agree(tmp_path: Path) -> None:
    touch(tmp_path / "01/02_t2.mha")
    with pytest.raises(InputError, match="nothing fits the pattern of t2"):
        find(tmp_path, "t2", "{patient}/{patient}_t2.mha")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("sub-*/t2.mha", "has no {patient}"),
        ("{patient}/{visit}/t2.mha", "has {visit}"),
        ("{patient}/nothing.mha", "nothing fits the pattern of t2"),
    ],
)
def test_a_wrong_pattern_is_named(tmp_path: Path, pattern: str, message: str) -> None:
    touch(tmp_path / "p" / "t2.mha")
    with pytest.raises(InputError, match=re.escape(message)):
        find(tmp_path, "t2", pattern)


def test_labels_are_joined_by_id_however_it_is_encoded(tmp_path: Path) -> None:
    bids(tmp_path, unicodedata.normalize("NFD", "Zoë"), "a")
    bids(tmp_path, "01", "a")
    bids(tmp_path, "02", "a")
    prepared = prepare_patterns(tmp_path, {"t2": T2, "gland": GLAND})
    table = tmp_path / "clinical.csv"
    table.write_text("patient_id,pirads,site\n01,4,\nZoë,2,N\n", encoding="utf-8")
    joined = join_labels(prepared, table)
    assert [row.get("pirads") for row in joined.rows] == ["4", None, "2"]
    assert "site" not in joined.rows[0]
    assert [note.patient_id for note in joined.notes] == ["02"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,pirads\n01,4\n", "no column patient_id"),
        ("patient_id,pirads\n01,4\n01,5\n", "patient 01 is listed twice"),
        ("patient_id,t2\n01,4\n", "column(s) t2 name files"),
        ("patient_id,pirads\n77,4\n", "no patient in common with the images: it has '77', the"),
    ],
)
def test_a_wrong_table_of_labels_is_named(tmp_path: Path, text: str, message: str) -> None:
    bids(tmp_path, "01", "a")
    prepared = prepare_patterns(tmp_path, {"t2": T2, "gland": GLAND})
    (tmp_path / "clinical.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        join_labels(prepared, tmp_path / "clinical.csv")
