"""nnU-Net, the Medical Segmentation Decathlon and BIDS: whole, in part and wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from experiments.common.cohorts import read_cohort
from experiments.prepare import Check
from lens.cohort import parse_labels, read_case
from lens.cohort.bids import prepare_bids
from lens.cohort.decathlon import prepare_decathlon
from lens.cohort.nnunet import prepare_nnunet
from lens.cohort.prepared import write_manifest
from lens.errors import InputError
from tests.cohort.archives import touch
from tests.cohort.builders import ball, image, noise, write
from tests.cohort.layouts import BRAIN, bids, nnunet, segmented
from tests.experiments.test_prepare import prepare

LABELS = ("--label", "whole_tumor=1,2,3", "core=2,3", "enhancing=3")


def test_channels_and_regions_of_nnunet(tmp_path: Path) -> None:
    prepared = prepare_nnunet(nnunet(tmp_path))
    first = prepared.rows[0]
    assert first == {
        "patient_id": "BRATS_001",
        "t1w": tmp_path / "imagesTr" / "BRATS_001_0000.nii.gz",
        "flair": tmp_path / "imagesTr" / "BRATS_001_0001.nii.gz",
        "mask": tmp_path / "labelsTr" / "BRATS_001.nii.gz",
    }
    assert (len(prepared.rows), prepared.set_aside) == (2, ())
    assert prepared.flags == LABELS
    assert [str(note) for note in prepared.notes] == [
        "patient BRATS_003, mask: a test image without a mask in labelsTs; left out"
    ]
    touch(tmp_path / "labelsTs" / "BRATS_003.nii.gz")
    prepared = prepare_nnunet(tmp_path)
    assert [row["split"] for row in prepared.rows] == ["train", "train", "test"]


def test_the_first_version_of_nnunet(tmp_path: Path) -> None:
    old = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "Liver"}}
    for case in ("liver_1", "liver_2"):
        touch(tmp_path / "imagesTr" / f"{case}_0000.nii.gz")
        touch(tmp_path / "labelsTr" / f"{case}.nii.gz")
    touch(tmp_path / "imagesTr" / "._liver_1_0000.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(old))
    prepared = prepare_nnunet(tmp_path)
    assert [list(row) for row in prepared.rows] == [["patient_id", "ct", "liver"]] * 2
    assert (prepared.flags, prepared.notes) == (("--label", "liver=1"), ())


def test_values_that_make_no_region_are_not_measured(tmp_path: Path) -> None:
    """The flags take what ``dataset.json`` lists, and neither ``ignore`` nor a value beyond it."""
    content = {
        "channel_names": {"0": "CT"}, "file_ending": ".nii.gz",
        "labels": {"background": 0, "Liver": 1, "ignore": 2},
    }  # fmt: skip
    liver = ball(radius=3).astype(np.uint8)
    stored = 2 * ball().astype(np.uint8)
    stored[liver > 0] = 1
    stored[:, :2] = 7
    write(image(noise()), tmp_path / "imagesTr" / "p_0000.nii.gz")
    write(image(stored), tmp_path / "labelsTr" / "p.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    out = tmp_path / "cohort.csv"
    prepared = prepare_nnunet(tmp_path)
    write_manifest(prepared, out)
    assert prepared.flags == ("--label", "liver=1")
    flags = Check(cohort=out, out=tmp_path / "g.csv", label=prepared.flags[1:])
    (files,) = read_cohort(flags, label=flags.label).cases
    spacing = image(liver).GetSpacing()
    case = read_case(files, spacing_mm=spacing, labels=parse_labels(flags.label))
    assert np.array_equal(sitk.GetArrayFromImage(case.masks["liver"]), liver)


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ({"channel_names": {"0": "T1w", "1": "Mask"}}, {}, "two images or regions are called mask"),
        ({"channel_names": {"0": "patient ID", "1": "T1"}}, {}, "called patient_id, as a column"),
        ({"channel_names": {"0": "T1w", "1": "split"}}, {}, "called split, as a column of every"),
        ({"channel_names": {"0": "T1w", "1": "Gland"}}, {}, "an image is called gland"),
        ({"labels": {"background": 0, "FLAIR": 1}}, {}, "two images or regions are called flair"),
        ({"labels": {"flair": 1, "b": 2}}, {}, "two images or regions are called flair"),
        ({"labels": {"study_id": 1, "b": 2}}, {}, "called study_id, as a column"),
        ({"labels": {"ADC": 1}}, {}, "a mask is called adc"),
        ({}, {"modalities": ("t1", "t1")}, "two images or regions are called t1"),
        ({}, {"labels": ("split=1",)}, "called split, as a column"),
    ],
)
def test_no_channel_takes_the_place_of_a_column(
    tmp_path: Path, content: dict[str, Any], flags: dict[str, Any], message: str
) -> None:
    nnunet(tmp_path, BRAIN | content)
    with pytest.raises(InputError, match=rf"{message}.*: --modalities, --label$"):
        prepare_nnunet(tmp_path, **flags)


def test_a_case_of_both_parts_is_refused(tmp_path: Path) -> None:
    nnunet(tmp_path)
    for channel in ("0000", "0001"):
        touch(tmp_path / "imagesTs" / f"BRATS_002_{channel}.nii.gz")
    assert len(prepare_nnunet(tmp_path).rows) == 2, "test cases without masks are left out"
    touch(tmp_path / "labelsTs" / "BRATS_002.nii.gz")
    with pytest.raises(InputError, match=r"1 case.s. are in both imagesTr and imagesTs.*BRATS_002"):
        prepare_nnunet(tmp_path)


def test_names_that_differ_in_case_alone_are_named(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "raw")
    (root / "labelsTr" / "BRATS_002.nii.gz").rename(root / "labelsTr" / "Brats_002.nii.gz")
    touch(root / "labelsTs" / "brats_003.nii.gz")
    prepared = prepare_nnunet(root)
    assert [(error.patient_id, error.reason) for error in prepared.set_aside] == [
        ("BRATS_002", "an image without its mask; labelsTr has Brats_002 (upper and lower case)"),
        (
            "Brats_002",
            "no t1w image (channel 0); imagesTr has BRATS_002 (upper and lower case)",
        ),
        (
            "brats_003",
            "no t1w image (channel 0); imagesTs has BRATS_003 (upper and lower case)",
        ),
    ]
    assert prepared.notes[-1].found.endswith("; labelsTs has brats_003 (upper and lower case)")


def test_subjects_that_differ_in_case_alone_are_named(tmp_path: Path) -> None:
    root = bids(tmp_path)
    table = root / "participants.tsv"
    table.write_text(table.read_text().replace("sub-02", "sub-A1") + "sub-9\t3\tI\n")
    (root / "sub-02").rename(root / "sub-a1")
    for file in (root / "sub-a1/ses-pre/anat").iterdir():
        file.rename(file.with_name(file.name.replace("sub-02", "sub-a1")))
    prepared = prepare_bids(root)
    reasons = {error.patient_id: error.reason for error in prepared.set_aside}
    assert reasons == {
        "02": "no flair image of session pre",
        "a1": "no mask (lesion) of session pre",
        "A1": "a row of participants.tsv without images; there is a folder sub-a1 (upper and lower "
        "case)",
        "9": "a row of participants.tsv without images",
    }
    mask = root / "derivatives/manual/sub-02/ses-pre/anat/"
    (mask / "sub-02_ses-pre_space-T1w_desc-lesion_mask.nii.gz").rename(
        mask / "sub-A1_ses-pre_space-T1w_desc-lesion_mask.nii.gz"
    )
    reasons = {error.patient_id: error.reason for error in prepare_bids(root).set_aside}
    assert reasons["a1"].endswith("; there is one of sub-A1 (upper and lower case)")
    assert reasons["A1"].endswith("; there is sub-a1 (upper and lower case)")


def test_a_file_of_the_decathlon_in_other_letters_is_named(tmp_path: Path) -> None:
    root = hippocampus(tmp_path)
    (root / "labelsTr" / "h_1.nii.gz").rename(root / "labelsTr" / "H_1.nii.gz")
    (error,) = prepare_decathlon(root, tmp_path / "volumes").set_aside
    assert error.reason == (
        "no mask of the image h_1.nii.gz; labelsTr has H_1.nii.gz (upper and lower case)"
    )


def test_a_name_of_two_columns_of_bids_is_refused(tmp_path: Path) -> None:
    root = bids(tmp_path)
    patterns = {"lesion": "*_T1w"}, {"lesion": "*manual*_mask"}
    with pytest.raises(InputError, match=r"called lesion, and one.*--image NAME=PATTERN, --mask"):
        prepare_bids(root, images=patterns[0], masks=patterns[1])
    with pytest.raises(InputError, match="called split"):
        prepare_bids(root, images={"split": "*_T1w"})


def test_latin_1_is_refused_with_the_place_and_the_remedy(tmp_path: Path) -> None:
    place = r"json, line 2: not readable as UTF-8 \(byte 0xfc near '.*M\?ller.*'\)\. Save it as UTF"
    root = nnunet(tmp_path / "raw")
    text = '{\n"by": "Müller",' + json.dumps(BRAIN)[1:]
    (root / "dataset.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=place):
        prepare_nnunet(root)
    (root / "dataset.json").write_text(text, encoding="utf-8-sig")
    assert len(prepare_nnunet(root).rows) == 2
    root = bids(tmp_path / "bids")
    rows = "participant_id\tby\nsub-01\tMüller\n"
    (root / "participants.tsv").write_text(rows, encoding="latin-1")
    with pytest.raises(InputError, match=r"tsv, line 2: not readable as UTF-8 \(byte 0xfc near"):
        prepare_bids(root)


def test_an_incomplete_nnunet_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = nnunet(tmp_path / "raw")
    (root / "labelsTr" / "BRATS_002.nii.gz").unlink()
    (root / "imagesTr" / "BRATS_001_0000.nii.gz").rename(
        root / "imagesTr" / "BRATS_004_0000.nii.gz"
    )
    touch(root / "labelsTr" / "BRATS_005.nii.gz")
    for file in ("imagesTr/BRATS_006_0000.nii.gz", "imagesTr/BRATS_006_0001.nii.gz"):
        touch(root / file)
    touch(root / "labelsTr" / "BRATS_006.nii.gz")
    touch(root / "imagesTr" / "BRATS_006_0002.nii.gz")
    touch(root / "imagesTr" / "readme.nii.gz")
    out = tmp_path / "cohort.csv"
    assert prepare("nnunet", root, "--out", out) == 3
    said = capsys.readouterr()
    assert said.out == f"1 study: {out}\nfor the jobs that read it: {' '.join(LABELS)}\n"
    failures = pd.read_csv(tmp_path / "failures.csv", dtype=str).set_index("patient_id")["reason"]
    assert failures.to_dict() == {
        "BRATS_001": "no t1w image (channel 0)",
        "BRATS_002": "an image without its mask",
        "BRATS_004": "no flair image (channel 1)",
        "BRATS_005": "no t1w image (channel 0)",
    }
    notes = pd.read_csv(tmp_path / "cohort-notes.csv", dtype=str)["found"].to_list()
    assert "imagesTr/BRATS_006_0002.nii.gz: channel 2, and dataset.json names 2" in notes
    assert "imagesTr/readme.nii.gz: no <case>_0000.nii.gz" in notes
    assert "dataset.json announces 2 cases" in notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "no JSON object"),
        ({"labels": BRAIN["labels"]}, "no channel_names"),
        (BRAIN | {"channel_names": {"1": "CT", "2": "T1"}}, "numbers 1, 2, where 0 to 1"),
        (BRAIN | {"labels": {}}, "no labels"),
        (BRAIN | {"labels": {"background": 0}}, "nothing but background"),
        (BRAIN | {"labels": {"tumor": "big"}}, "'tumor' has the value 'big'"),
        (BRAIN | {"labels": {"tumor": [1, -1]}}, "'tumor' has the value -1"),
        (BRAIN | {"labels": {"a b": 1, "a_b": 2}}, "a name of its own"),
        (BRAIN | {"file_ending": 3}, "file_ending 3"),
    ],
)
def test_a_wrong_dataset_json_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    nnunet(tmp_path)
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=message):
        prepare_nnunet(tmp_path)


def test_the_folder_above_is_answered_with_its_datasets(tmp_path: Path) -> None:
    nnunet(tmp_path / "Dataset001_Brain")
    with pytest.raises(InputError, match="Give one of its folders: Dataset001_Brain"):
        prepare_nnunet(tmp_path)


def hippocampus(root: Path, cases: tuple[str, ...] = ("h_1", "h_2")) -> Path:
    """A task of the Decathlon as published, with the hidden files of its archives."""
    pairs = []
    for case in cases:
        for folder in ("imagesTr", "labelsTr"):
            touch(root / folder / f"{case}.nii.gz")
            touch(root / folder / f"._{case}.nii.gz")
        pairs.append({"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"})
    content = {
        "name": "Hippocampus", "modality": {"0": "MRI"}, "numTraining": 2, "numTest": 1,
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": pairs, "test": ["./imagesTs/h_3.nii.gz"],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_the_pairs_of_the_decathlon(tmp_path: Path) -> None:
    root = hippocampus(tmp_path / "Task04")
    prepared = prepare_decathlon(root, tmp_path / "volumes")
    assert [row["patient_id"] for row in prepared.rows] == ["h_1", "h_2"]
    assert set(prepared.rows[0]) == {"patient_id", "mri", "mask"}
    assert prepared.flags == ("--label", "anterior=1", "posterior=2")
    assert [note.taken for note in prepared.notes] == ["left out"]
    (root / "labelsTr" / "h_1.nii.gz").unlink()
    touch(root / "imagesTr" / "h_9.nii.gz")
    prepared = prepare_decathlon(root, tmp_path / "volumes")
    assert [error.reason for error in prepared.set_aside] == ["no mask of the image h_1.nii.gz"]
    assert prepared.notes[0].found == "imagesTr/h_9.nii.gz: not in dataset.json"


def _without_pairs(content: dict[str, Any]) -> None:
    del content["training"]


def _with_names(content: dict[str, Any]) -> None:
    content["training"] = ["./imagesTr/h_1.nii.gz"]


def _twice(content: dict[str, Any]) -> None:
    content["training"] *= 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_pairs, "no list training"),
        (_with_names, "entry 1 of training is"),
        (_twice, "training lists h_1 twice"),
    ],
)
def test_a_list_that_is_no_list_of_pairs_is_refused(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = hippocampus(tmp_path) / "dataset.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        prepare_decathlon(tmp_path, tmp_path / "volumes")


def test_without_dataset_json_names_make_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        touch(tmp_path / "images" / f"{name}.nii.gz")
    for name in ("b", "c"):
        touch(tmp_path / "labels" / f"{name}.nii.gz")
    out = tmp_path / "out" / "cohort.csv"
    assert prepare("decathlon", tmp_path, "--out", out) == 1
    assert "no dataset.json" in capsys.readouterr().err
    flags = ("--modalities", "mr", "--label", "anterior=1", "posterior=2")
    assert prepare("decathlon", tmp_path, "--out", out, *flags) == 3
    failures = pd.read_csv(out.parent / "failures.csv", dtype=str)
    assert failures["reason"].to_list() == [
        "no mask of the image a.nii.gz", "no image of the mask c.nii.gz",
    ]  # fmt: skip
    assert pd.read_csv(out)["mr"].to_list() == ["../images/b.nii.gz"]


def test_modalities_on_the_fourth_axis_become_volumes(tmp_path: Path) -> None:
    t2, adc = noise(seed=1), noise(seed=2)
    grid = image(t2)
    both = sitk.JoinSeries(grid, image(adc))
    truth = ball() + ball(radius=3)
    content = {
        "modality": {"0": "T2", "1": "FLAIR"}, 
        "labels": {"0": "background", "1": "rim", "2": "core"},
        "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"}
                     for c in ("p_1", "p_2")],
    }  # fmt: skip
    root = tmp_path / "task"
    for case, whole in (("p_1", both), ("p_2", grid)):
        write(whole, root / "imagesTr" / f"{case}.nii.gz")
        write(image(truth.astype(np.uint8)), root / "labelsTr" / f"{case}.nii.gz")
    (root / "dataset.json").write_text(json.dumps(content))
    out = tmp_path / "cohort.csv"
    prepared = prepare_decathlon(root, tmp_path / "cohort-volumes")
    assert "a fourth axis of 2 is needed" in prepared.set_aside[0].reason
    write_manifest(prepared, out)
    flags = Check(cohort=out, out=tmp_path / "g.csv", label=prepared.flags[1:])
    (files,) = read_cohort(flags, label=flags.label).cases
    case = read_case(files, spacing_mm=grid.GetSpacing(), labels=parse_labels(flags.label))
    for name, array in (("t2", t2), ("flair", adc)):
        assert np.array_equal(sitk.GetArrayFromImage(case.images[name]), array)
    for value, roi in enumerate(("rim", "core"), start=1):
        assert np.array_equal(sitk.GetArrayFromImage(case.masks[roi]) > 0, truth == value)
    (root / "imagesTr" / "p_1.nii.gz").write_bytes(
        (root / "imagesTr" / "p_1.nii.gz").read_bytes()[:-2000]
    )
    assert len(prepare_decathlon(root, tmp_path / "again").set_aside) == 2


def test_sessions_and_tables_of_bids(tmp_path: Path) -> None:
    prepared = prepare_bids(bids(tmp_path))
    assert prepared.set_aside == ()
    labels = [
        {name: cell for name, cell in row.items() if isinstance(cell, str)} for row in prepared.rows
    ]
    assert labels == [
        {"patient_id": "01", "study_id": "post", "age": "034", "grade": "II"},
        {"patient_id": "01", "study_id": "pre", "age": "034", "grade": "II", "weight": "70"},
        {"patient_id": "02", "study_id": "pre", "grade": "IV"},
    ]
    assert {name for row in prepared.rows for name in row if isinstance(row[name], Path)} == {
        "t1w", "flair", "lesion",
    }  # fmt: skip
    assert {note.found.split(" lies in ")[1] for note in prepared.notes} == {"the space MNI152"}


def test_what_bids_lacks_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = bids(tmp_path / "data")
    (root / "sub-01/ses-post/anat/sub-01_ses-post_FLAIR.nii.gz").unlink()
    for mask in (root / "derivatives/manual/sub-01/ses-pre/anat").iterdir():
        mask.unlink()
    with (root / "participants.tsv").open("a") as stream:
        stream.write("sub-03\t40\tII\n")
    out = tmp_path / "cohort.csv"
    assert prepare("bids", root, "--out", out) == 3
    failures = pd.read_csv(tmp_path / "failures.csv", dtype=str)
    assert failures["reason"].to_list() == [
        "no flair image of session post",
        "no mask (lesion) of session pre",
        "a row of participants.tsv without images",
    ]
    assert pd.read_csv(out, dtype=str)["patient_id"].to_list() == ["02"]
    capsys.readouterr()
    assert prepare("bids", root, "--out", out, "--image", "t1w=*_T1w") == 3
    assert capsys.readouterr().out.startswith("2 studies")


def test_several_runs_are_refused_unless_a_pattern_picks_one(tmp_path: Path) -> None:
    root = bids(tmp_path)
    first = root / "sub-02/ses-pre/anat/sub-02_ses-pre_T1w.nii.gz"
    for run in ("1", "2"):
        touch(first.with_name(f"sub-02_ses-pre_run-{run}_T1w.nii.gz"))
    first.unlink()
    (error,) = prepare_bids(root).set_aside
    assert "2 files could be the t1w" in error.reason
    assert "run-1_T1w.nii.gz and " in error.reason
    assert "--image t1w=" in error.remedy
    picked = prepare_bids(root, images={"t1w": "*sub-02_ses-pre_run-2_T1w"})
    assert str(picked.rows[-1]["t1w"]).endswith("run-2_T1w.nii.gz")
    with pytest.raises(InputError, match="nothing fits the pattern of t1w"):
        prepare_bids(root, images={"t1w": "*_run-3_T1w"})


def test_values_of_bids_masks_are_named_by_their_table(tmp_path: Path) -> None:
    root = segmented(tmp_path, "index\tname\n0\tBackground\n1\tGray Matter\n3\tWM\n")
    assert prepare_bids(root).flags == ("--label", "gray_matter=1", "wm=3")
    own = root / "derivatives/seg/sub-01/anat/sub-01_desc-tissue_dseg.tsv"
    own.write_text("index\tname\n1\tCSF\n")
    assert prepare_bids(root).flags == ("--label", "csf=1")
    for place in ("sub-02/anat/sub-02_T1w", "derivatives/seg/sub-02/anat/sub-02_desc-tissue_dseg"):
        touch(root / f"{place}.nii.gz")
    prepared = prepare_bids(root)
    assert [row["patient_id"] for row in prepared.rows] == ["01"]
    (error,) = prepared.set_aside
    assert (error.patient_id, error.file) == (
        "02",
        str(root / "derivatives/seg/desc-tissue_dseg.tsv"),
    )
    assert "values named otherwise than in" in error.reason
    own.write_text("index\tname\n1.5\tCSF\n")
    with pytest.raises(InputError, match=r"index '1.5'"):
        prepare_bids(root)
    own.write_text("value\tname\n1\tCSF\n")
    with pytest.raises(InputError, match="no column index"):
        prepare_bids(root)
    own.unlink()
    touch(root / "derivatives/seg/sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    with pytest.raises(InputError, match="Say which are meant: --mask dseg="):
        prepare_bids(root)
    assert prepare_bids(root, masks={"brain": "*_mask"}).flags == ()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("subject\tage\nsub-01\t3\n", "no column participant_id"),
        ("participant_id\tage\nsub-01\t3\nsub-01\t4\n", "01 listed twice"),
        ("participant_id\tage\nsub-01\n", "1 cells where the header has 2"),
        ("participant_id\tt1w\nsub-01\t3\n", "column.s. t1w, as images and masks have"),
    ],
)
def test_a_wrong_participants_table_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    (bids(tmp_path) / "participants.tsv").write_text(rows)
    with pytest.raises(InputError, match=message):
        prepare_bids(tmp_path)


def test_folders_that_are_no_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder sub-"):
        prepare_bids(tmp_path)
    touch(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz")
    with pytest.raises(InputError, match="no mask"):
        prepare_bids(tmp_path)
    with pytest.raises(InputError, match=r"no dataset\.json"):
        prepare_nnunet(tmp_path)
