"""Phantoms on masks from disk: the shapes and labels stay, the tissue shows the lesion."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from lens.cohort import Cohort, read_case, read_manifest, write_phantoms_on
from lens.cohort.anatomy import grade_of, phantom_on, read_shapes
from lens.cohort.geometry import dice, nearest
from lens.errors import CaseError, InputError
from tests.cohort.builders import ball, image, rotation, write

TILTED = rotation(x=12, y=3)
SPACING = (0.8, 0.8, 2.4)
SIZE = (22, 70, 76)


def masks() -> dict[str, sitk.Image]:
    """A gland of 40 mm with zones and a lesion, on an oblique grid far from the origin."""
    gland = ball(SIZE, 20, SPACING)
    zones = gland + (ball(SIZE, 12, SPACING) > 0)
    lesion = np.roll(ball(SIZE, 6, SPACING), (0, 16, 5), axis=(0, 1, 2))
    named = {"gland": gland, "zones": zones, "lesion": lesion}
    return {n: image(v.astype(np.uint8), SPACING, TILTED, (8, 60, -40)) for n, v in named.items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of masks and labels without images; the second patient has a gland alone."""
    folder = tmp_path_factory.mktemp("masks")
    for name, mask in masks().items():
        write(mask, folder / f"{name}.nii.gz")
    (folder / "masks.csv").write_text(
        "patient_id,study_id,gland,zones,lesion,pirads,site,split\n"
        "P/1,s1,gland.nii.gz,zones.nii.gz,lesion.nii.gz,5,A,train\n"
        "P2,s1,gland.nii.gz,,,,B,test\n"
    )
    return folder / "masks.csv"


@pytest.fixture(scope="module")
def cohort(source: Path) -> Cohort:
    return read_manifest(source, images=False)


@pytest.fixture(scope="module")
def written(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    manifest, errors = write_phantoms_on(cohort, tmp_path_factory.mktemp("p"), 3, progress=False)
    assert errors == ()
    return manifest


def array(of: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(of)


def test_the_manifest_keeps_ids_labels_and_splits(written: Path) -> None:
    first, second = read_manifest(written).cases
    assert (first.patient_id, first.study_id, first.split) == ("P/1", "s1", "train")
    assert first.labels == {"pirads": 5.0, "site": "A"}
    assert second.labels == {"site": "B"}
    assert list(first.images) == ["t2", "dwi", "adc"]
    assert list(second.masks) == ["gland"]


def test_the_shapes_are_those_on_disk(written: Path) -> None:
    first = read_manifest(written).cases[0]
    for name in ("gland", "lesion"):
        original = masks()[name]
        got = sitk.ReadImage(str(first.masks[name]))
        assert got.GetSpacing() == pytest.approx(SPACING)
        # The voxels are the same ones, cut out about the gland.
        assert array(got).sum() == array(original).sum()
        assert dice(nearest(got, original), original) == 1


def test_the_images_show_what_the_masks_say(written: Path) -> None:
    case = read_case(read_manifest(written).cases[0], spacing_mm=(1.0, 1.0, 2.0))
    assert {p.name: p.verdict for p in case.geometry} == {
        "t2": "identical",
        "dwi": "resampled",
        "adc": "resampled",
        "gland": "identical",
        "lesion": "identical",
    }
    gland, lesion = (array(case.masks[roi]) > 0 for roi in ("gland", "lesion"))
    mean = {
        name: (array(i)[lesion].mean(), array(i)[gland & ~lesion].mean())
        for name, i in case.images.items()
    }
    assert mean["adc"][0] < 0.75 * mean["adc"][1]
    assert mean["t2"][0] < 0.8 * mean["t2"][1]
    assert mean["dwi"][0] > 1.2 * mean["dwi"][1]
    zones = array(nearest(masks()["zones"] == 2, case.masks["gland"])) > 0
    t2 = array(case.images["t2"])
    assert np.median(t2[zones & ~lesion]) < 0.9 * np.median(t2[gland & ~zones & ~lesion])


def test_contrast_grows_with_the_grade(cohort: Cohort) -> None:
    shapes = read_shapes(cohort.cases[0], 1.5)
    ratios = []
    for grade in (3, 5):
        images, made = phantom_on(shapes, grade, np.random.default_rng(4))
        lesion = sitk.Resample(made["lesion"], images["adc"], sitk.Transform(), sitk.sitkLinear)
        adc = array(images["adc"])
        rest = array(nearest(made["gland"], images["adc"])) > 0
        inside = array(lesion) > 0
        ratios.append(adc[inside].mean() / adc[rest & ~inside].mean())
    assert ratios[1] < ratios[0] - 0.1 < 0.9


def test_finer_masks_are_sampled(cohort: Cohort) -> None:
    shapes = read_shapes(cohort.cases[0], 1.5)
    assert shapes.gland.GetSpacing() == pytest.approx((1.5, 1.5, 2.4))
    original = masks()["gland"]
    assert dice(nearest(shapes.gland, original), original) > 0.95


def test_a_case_does_not_depend_on_the_others(
    cohort: Cohort, written: Path, tmp_path: Path
) -> None:
    alone = dataclasses.replace(cohort, cases=cohort.cases[1:])
    manifest, _ = write_phantoms_on(alone, tmp_path / "a", 3, progress=False)
    other, _ = write_phantoms_on(alone, tmp_path / "b", 4, progress=False)
    t2 = [array(sitk.ReadImage(str(m.parent / "P2_s1" / "t2.mha"))) for m in (written, manifest)]
    np.testing.assert_array_equal(*t2)
    assert (other.parent / "P2_s1" / "t2.mha").read_bytes() != (
        manifest.parent / "P2_s1" / "t2.mha"
    ).read_bytes()


def test_a_finished_case_is_left_and_a_lost_file_made_again(
    cohort: Cohort, written: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(written.parent, folder)
    lost, kept = folder / "P-1_s1" / "adc.mha", folder / "P2_s1" / "adc.mha"
    content, time = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    write_phantoms_on(cohort, folder, 3, progress=False)
    assert lost.read_bytes() == content
    assert kept.stat().st_mtime_ns == time
    assert (folder / "cohort.csv").read_bytes() == written.read_bytes()


def test_what_cannot_be_used_is_set_aside(source: Path, tmp_path: Path) -> None:
    for name in ("gland.nii.gz", "zones.nii.gz", "lesion.nii.gz"):
        shutil.copy(source.parent / name, tmp_path / name)
    write(masks()["gland"] * 0, tmp_path / "empty.nii.gz")
    moved = masks()["lesion"]
    moved.SetOrigin((0, 0, 0))
    write(moved, tmp_path / "moved.nii.gz")
    (tmp_path / "masks.csv").write_text(
        "patient_id,gland,lesion\nA,empty.nii.gz,\nB,gland.nii.gz,moved.nii.gz\n"
        "C,gland.nii.gz,none.nii.gz\nD,gland.nii.gz,lesion.nii.gz\n"
    )
    cohort = read_manifest(tmp_path / "masks.csv", images=False)
    manifest, errors = write_phantoms_on(cohort, tmp_path / "p", 0, spacing_mm=1.5, progress=False)
    assert pd.read_csv(manifest)["patient_id"].to_list() == ["D"]
    reasons = {error.patient_id: error.reason for error in errors}
    assert reasons["A"] == "the gland mask is empty"
    assert reasons["B"].startswith("the lesion mask does not belong to the gland mask: along")
    assert reasons["C"] == "the lesion file does not exist"
    assert all(isinstance(error, CaseError) for error in errors)
    with pytest.raises(InputError, match="no phantom could be made; the first: patient"):
        write_phantoms_on(
            dataclasses.replace(cohort, cases=cohort.cases[:1]), tmp_path / "q", 0, progress=False
        )
    (tmp_path / "cohort.csv").touch()
    with pytest.raises(InputError, match="a manifest that was not written here"):
        write_phantoms_on(cohort, tmp_path, 0, progress=False)
    with pytest.raises(InputError, match="it must be positive"):
        write_phantoms_on(cohort, tmp_path / "r", 0, spacing_mm=0, progress=False)


@pytest.mark.parametrize(
    ("labels", "grade"),
    [
        ({"pirads": 4.0, "isup": 5.0}, 4),
        ({"pirads": 1.0}, 2),
        ({"pirads": "3"}, 3),
        ({"pirads": "high", "isup": 1.0}, 3),
        ({"isup": 0.0}, 2),
        ({"isup": "5"}, 5),
        ({"isup": 9.0}, None),
        ({}, None),
    ],
)
def test_the_grade_comes_from_the_labels(labels: dict[str, str | float], grade: int | None) -> None:
    assert grade_of(labels) == grade
