"""The manifest: what it accepts, and one named refusal per fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lens.cohort import read_manifest
from lens.errors import InputError

FILES = ("a_t2.mha", "a_adc.mha", "a_gland.mha", "a_lesion.mha", "b_t2.mha", "b_gland.mha")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    for name in FILES:
        (tmp_path / "img" / name).touch()
    (tmp_path / "img" / "series").mkdir()
    (tmp_path / "img" / "series" / "0.dcm").touch()
    return tmp_path


def manifest(folder: Path, text: str) -> Path:
    path = folder / "cohort.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_paths_labels_and_split(folder: Path) -> None:
    absolute = folder / "img" / "b_t2.mha"
    path = manifest(
        folder,
        "\ufeffadc,patient_id,t2,gland,lesion,pirads,site,split\n"
        "img/a_adc.mha,007,img/series,img/a_gland.mha,img/a_lesion.mha,4,12a,train\n"
        f"img/a_adc.mha,NA,{absolute},img/b_gland.mha,,,7,test\n\n",
    )
    cohort = read_manifest(path)
    assert cohort.set_aside == ()
    first, second = cohort.cases
    assert first.patient_id == "007"
    assert second.patient_id == "NA"
    assert list(first.images) == ["t2", "adc"]
    assert first.images["t2"] == folder / "img" / "series"
    assert first.masks == {
        "gland": folder / "img" / "a_gland.mha",
        "lesion": folder / "img" / "a_lesion.mha",
    }
    assert second.images["t2"] == absolute
    assert list(second.masks) == ["gland"]
    # One text cell makes a column text; a blank cell is no label.
    assert first.labels == {"pirads": 4.0, "site": "12a"}
    assert second.labels == {"site": "7"}
    assert (first.split, second.split) == ("train", "test")


def test_studies_of_a_patient_are_told_apart(folder: Path) -> None:
    row = "img/a_t2.mha,img/a_gland.mha"
    path = manifest(folder, f"patient_id,study_id,t2,gland\nP1,s1,{row}\nP1,s2,{row}\nP2,,{row}\n")
    studies = [(case.patient_id, case.study_id) for case in read_manifest(path).cases]
    assert studies == [("P1", "s1"), ("P1", "s2"), ("P2", None)]


def test_a_bad_row_is_set_aside_and_the_others_go_on(folder: Path) -> None:
    path = manifest(
        folder,
        "patient_id,t2,gland,lesion\n"
        "P1,img/a_t2.mha,img/a_gland.mha,\n"
        "P2,img/nowhere.mha,img/a_gland.mha,\n"
        "P3,img/a_t2.mha,,\n"
        "P4,,img/a_gland.mha,\n"
        "P5,img/a_t2.mha,img/a_gland.mha,img/gone.mha\n",
    )
    cohort = read_manifest(path)
    assert [case.patient_id for case in cohort.cases] == ["P1"]
    assert [error.patient_id for error in cohort.set_aside] == ["P2", "P3", "P4", "P5"]
    assert {error.stage for error in cohort.set_aside} == {"read"}
    messages = [str(error) for error in cohort.set_aside]
    assert "patient P2, file" in messages[0]
    assert "nowhere.mha: the t2 file does not exist" in messages[0]
    assert "no gland is given" in messages[1]
    assert "no t2 is given" in messages[2]
    assert "gone.mha: the lesion file does not exist" in messages[3]


ROW = "img/a_t2.mha,img/a_gland.mha"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("patient_id,t2,gland\n", "no rows"),
        (f"id,t2,gland\nP1,{ROW}\n", "no column patient_id (found: id, t2, gland)"),
        ("patient_id,gland\nP1,img/a_gland.mha\n", "no modality column"),
        (f"patient_id,t2,gland\nP1,{ROW}\nP1,{ROW}\n", "patient P1 is listed twice"),
        (
            f"patient_id,study_id,t2,gland\nP1,s,{ROW}\nP1,s,{ROW}\n",
            "patient P1, study s is listed twice",
        ),
        (f"patient_id,t2,gland\n,{ROW}\n", "no patient_id"),
        (f"patient_id,t2,gland,t2\nP1,{ROW},x\n", "named twice: t2"),
        (f"patient_id,t2,gland\nP1,{ROW},4\n", "line 2: 4 cells where the header has 3"),
        (f"patient_id,t2,gland,split\nP1,{ROW},dev\n", "patient P1 has split 'dev'"),
        (
            f"patient_id,t2,gland,split\nP1,{ROW},train\nP2,{ROW},\n",
            "patient P2 has no split",
        ),
        (
            f"patient_id,study_id,t2,gland,split\nP1,a,{ROW},train\nP1,b,{ROW},test\n",
            "patient P1 is in both train and test",
        ),
        ("patient_id,t2,gland\nP1,no.mha,no.mha\n", "none of its 1 case(s) can be used"),
    ],
)
def test_manifest_faults_name_the_file_and_the_finding(
    folder: Path, text: str, message: str
) -> None:
    path = manifest(folder, text)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


def test_a_missing_or_binary_manifest_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.csv: no such file"):
        read_manifest(folder / "nothing.csv")
    (folder / "cohort.csv").write_bytes(b"\xff\xfe\x00patient_id")
    with pytest.raises(InputError, match="not readable as UTF-8"):
        read_manifest(folder / "cohort.csv")


def test_a_manifest_in_latin_1_is_refused_with_the_place_and_the_remedy(folder: Path) -> None:
    path = folder / "cohort.csv"
    path.write_text("patient_id,t2,gland\nP1,a,b\nMüller,a,b\n", encoding="latin-1")
    with pytest.raises(
        InputError, match=r"cohort.csv, line 3: .*\(byte 0xfc near .*M\?ller.*CSV UTF"
    ):
        read_manifest(path)


def test_masks_and_labels_can_be_read_alone(folder: Path) -> None:
    (folder / "img" / "a_zones.mha").touch()
    path = manifest(
        folder,
        "patient_id,t2,gland,zones,lesion,pirads\n"
        "P1,gone.mha,img/a_gland.mha,img/a_zones.mha,img/a_lesion.mha,4\n"
        "P2,,img/b_gland.mha,,,\n",
    )
    with pytest.raises(InputError, match="none of its 2 case"):
        read_manifest(path)
    first, second = read_manifest(path, images=False).cases
    assert first.images == {}
    assert first.zones == folder / "img" / "a_zones.mha"
    assert list(first.masks) == ["gland", "lesion"]
    assert first.labels == {"pirads": 4.0}
    assert second.zones is None
    only_masks = manifest(folder, "patient_id,gland\nP1,img/a_gland.mha\n")
    assert len(read_manifest(only_masks, images=False).cases) == 1


def test_blank_columns_and_cells_that_say_none(folder: Path) -> None:
    """A spreadsheet leaves columns; ``n/a`` is what BIDS writes where there is nothing."""
    path = manifest(
        folder,
        "patient_id,,t2,gland,lesion,,\n"
        "Mu\u0308ller,,img/a_t2.mha,img/a_gland.mha,n/a,,\n"
        "b,,img/b_t2.mha,img/b_gland.mha,img/a_lesion.mha,,\n",
    )
    first, second = read_manifest(path).cases
    assert first.patient_id == "M\u00fcller"
    assert list(first.masks) == ["gland"]
    assert list(second.masks) == ["gland", "lesion"]
    assert not first.labels


def test_a_gleason_score_is_no_number(folder: Path) -> None:
    """Python reads 3_4 as 34."""
    row = "img/a_t2.mha,img/a_gland.mha"
    path = manifest(folder, f"patient_id,t2,gland,gleason\na,{row},3_4\nb,{row},4_3\n")
    assert [case.labels["gleason"] for case in read_manifest(path).cases] == ["3_4", "4_3"]


def test_patients_with_the_same_image_files_are_named(folder: Path, caplog) -> None:
    (folder / "img" / "link.mha").symlink_to("a_t2.mha")
    one = "img/a_t2.mha,img/a_adc.mha,img/a_gland.mha"
    rows = [
        f"P1,s1,{one}",
        f"P1,s2,{one}",
        "P2,s1,img/../img/a_t2.mha,img/a_adc.mha,img/b_gland.mha",
        f"P3,s1,{folder}/img/link.mha,img/a_adc.mha,img/a_gland.mha",
        "P4,s1,img/a_t2.mha,img/b_t2.mha,img/a_gland.mha",
        "P5,s1,img/b_t2.mha,img/a_adc.mha,img/b_gland.mha",
        "P5,s2,img/b_t2.mha,img/a_adc.mha,img/b_gland.mha",
    ]
    text = "patient_id,study_id,t2,adc,gland\n"
    assert len(read_manifest(manifest(folder, text + "\n".join(rows))).cases) == 7
    (warning,) = caplog.messages
    assert "the very same image files" in warning
    assert ": P1, P2, P3. Correct the paths" in warning
    caplog.clear()
    read_manifest(manifest(folder, text + "\n".join([*rows[:2], *rows[4:]])))
    assert caplog.messages == []
    many = [f"Q{n},s1,{one}" for n in range(8)]
    read_manifest(manifest(folder, text + "\n".join(many)))
    assert "Q0, Q1, Q2, Q3, Q4, and 3 more. Correct" in caplog.messages[0]
