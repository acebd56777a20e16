"""Contours as masks: areas against closed forms, holes, slices; and DICOM objects in a tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Outline

from lens.cohort import read_case
from lens.cohort.contours import fill
from lens.cohort.images import load_mask, looks_like_mask
from lens.cohort.manifest import CaseFiles, read_manifest
from lens.errors import CaseError
from tests.cohort.builders import ball, image, noise, rotation, write, write_series
from tests.cohort.structures import circles, physical, write_structures
from tests.experiments.test_prepare import prepare

SPACING = (0.8, 0.9, 2.0)
SERIES = "1.2.826.0.1.3680043.2.1125.1"


def grid(size=(12, 40, 44), turned: bool = True) -> sitk.Image:
    """An oblique image."""
    direction = rotation(20, -10, 5) if turned else None
    return image(noise(size), SPACING, direction, centre=(10, -20, 30))


def mask_of(path: Path, on: sitk.Image, labels=None) -> np.ndarray:
    found = load_mask(path, "P-07", labels=labels, drawn_on={"ct": on})
    return sitk.GetArrayFromImage(found.image) > 0


def test_a_voxel_belongs_where_its_centre_lies_within() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 15))
        radius = rng.uniform(3, 14, 15)
        polygon = np.column_stack([15 + radius * np.cos(angle), 12 + radius * np.sin(angle)])
        rows, columns = np.mgrid[0:26, 0:32]
        centres = np.column_stack([columns.ravel(), rows.ravel()])
        truth = Outline([*polygon, polygon[0]], closed=True).contains_points(centres)
        assert np.array_equal(fill([polygon], (32, 26)), truth.reshape(26, 32))


def test_contours_through_centres_give_the_mask_they_were_made_of() -> None:
    square = np.array([[2, 2], [8, 2], [8, 6], [2, 6]], float)
    expected = np.zeros((10, 12), bool)
    expected[2:7, 2:9] = True
    assert np.array_equal(fill([square], (12, 10)), expected)
    assert np.array_equal(fill([square + 1e-5], (12, 10)), expected)
    assert np.array_equal(fill([square[::-1]], (12, 10)), expected)
    # The contour of a hole passes through the voxels around it, which are not of the hole.
    hole = np.array([[4, 3], [6, 3], [6, 5], [4, 5]], float)
    expected[4, 5] = False
    assert np.array_equal(fill([square, hole], (12, 10)), expected)
    diamond = np.array([[5, 1], [8, 4], [5, 7], [2, 4]], float)
    rows, columns = np.mgrid[0:10, 0:12]
    assert np.array_equal(fill([diamond], (12, 10)), np.abs(columns - 5) + np.abs(rows - 4) <= 3)


def test_a_ball_drawn_as_circles_is_the_ball(tmp_path: Path) -> None:
    on = grid()
    path = write_structures(tmp_path / "rt.dcm", {"GTV": circles(on, 10.0)})
    found = mask_of(path, on)
    # The same rule on the closed form: the polygons of 180 corners are within 2e-3 voxels of it.
    truth = ball((12, 40, 44), 10.0, SPACING) > 0
    assert np.count_nonzero(found != truth) <= 2
    volume = found.sum() * np.prod(SPACING)
    assert volume == pytest.approx(4 / 3 * np.pi * 10.0**3, rel=0.02)
    ring = write_structures(tmp_path / "ring.dcm", {"GTV": circles(on, 10.0, hole=True)})
    holed = mask_of(ring, on).sum() * np.prod(SPACING)
    assert holed == pytest.approx(volume * 3 / 4, rel=0.02)


def test_structures_are_a_region_of_a_case(tmp_path: Path) -> None:
    on = grid()
    ct = write(on, tmp_path / "ct.mha")
    contours = {"GTV": circles(on, 10.0, every=2), "node": circles(on, 5.0)}
    path = write_structures(tmp_path / "rt.dcm", contours)
    assert looks_like_mask(path)
    files = CaseFiles("P-07", None, {"ct": ct}, {"node": path}, {}, None, kinds={"ct": "ct"})
    case = read_case(files, spacing_mm=SPACING, labels={"node": (2,)})
    place = next(p for p in case.geometry if p.name == "node")
    assert (place.verdict, place.taken) == ("identical", (2,))
    with pytest.raises(CaseError, match="2 segments: 1 GTV, 2 node"):
        read_case(files, spacing_mm=SPACING)
    skipped = load_mask(path, "P-07", labels=(1,), drawn_on={"ct": on})
    assert skipped.notes[0].startswith("4 slice(s) of 1 GTV between contours have none")


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        ((0, 0, 0.4), "0.40 slices off the nearest slice"),
        ((0, 0, 9), "voxels out of the image"),
        ((30, 0, 0), "voxels out of the image"),
    ],
)
def test_contours_off_the_image_are_refused(tmp_path: Path, moved, message: str) -> None:
    on = grid(turned=False)
    shift = np.array(moved) * SPACING
    contours = [(kind, points + shift) for kind, points in circles(on, 10.0)]
    path = write_structures(tmp_path / "rt.dcm", {"GTV": contours})
    with pytest.raises(CaseError, match=message):
        mask_of(path, on)
    # The first image on whose slices they lie is taken.
    other = sitk.Image(on)
    other.SetOrigin((np.array(on.GetOrigin()) + shift).tolist())
    found = load_mask(path, "P-07", drawn_on={"mr": on, "ct": other})
    assert found.image.GetOrigin() == other.GetOrigin()


def test_contours_without_an_area_are_refused(tmp_path: Path) -> None:
    on = grid()
    (_, points), *_ = circles(on, 10.0)
    path = write_structures(tmp_path / "rt.dcm", {"POI": [("POINT", points[:1])]})
    with pytest.raises(CaseError, match=r"1 contour\(s\) that hold no area"):
        mask_of(path, on)
    path = write_structures(tmp_path / "open.dcm", {"GTV": [("OPEN_PLANAR", points)]})
    with pytest.raises(CaseError, match=r"1 contour\(s\) that hold no area"):
        mask_of(path, on)
    tilted = physical(on, np.array([[10, 10, 3], [20, 10, 5], [20, 20, 5], [10, 20, 3.0]]))
    path = write_structures(tmp_path / "tilted.dcm", {"GTV": [("CLOSED_PLANAR", tilted)]})
    with pytest.raises(CaseError, match=r"crosses 2\.0 slices"):
        mask_of(path, on)
    write_structures(path, {})
    with pytest.raises(CaseError, match="an RTSTRUCT without a structure"):
        mask_of(path, on)


def ct(folder: Path, patient: str, study: str, series: str, described: str) -> sitk.Image:
    """A CT series of a patient; gives its volume."""
    on = grid(turned=False)
    tags = {"0008|0060": "CT", "0010|0020": patient, "0020|000d": study, "0008|103e": described,
            "0008|0020": "20200131"}  # fmt: skip
    write_series(sitk.Cast(on, sitk.sitkInt16), folder, series, tags=tags)
    return on


def test_a_tree_of_ct_and_structures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "tree"
    for number, patient in enumerate(("A", "B", "C", "D")):
        series, study = f"{SERIES}.{number}", f"{SERIES}.9{number}"
        on = ct(root / patient / "ct", patient, study, series, "thorax")
        names = {"GTV-1": circles(on, 6.0), "GTV-2": circles(on, 9.0), "Heart": circles(on, 4.0)}
        if patient == "B":
            names = {"heart": circles(on, 4.0)}
        if patient == "D":
            names = {"spine": circles(on, 4.0)}
        referred = f"{SERIES}.77" if patient == "C" else series
        write_structures(
            root / patient / "rt" / "rt.dcm", names, series=referred, patient=patient, study=study
        )
    out = tmp_path / "cohort.csv"
    flags = ("--region", "tumour=gtv*", "heart=heart")
    assert prepare("dicom", root, "--out", out, *flags) == 3
    said = capsys.readouterr().err
    assert "no segment or structure fits 'gtv*'; left blank" in said
    assert "of another series; not taken" in said
    failures = pd.read_csv(tmp_path / "failures.csv", dtype=str).set_index("patient_id")
    assert list(failures.index) == ["C", "D"]
    assert "(segments and structures: spine)" in failures.loc["D", "reason"]
    first, second = read_manifest(out).cases
    assert (first.labels, first.study_id) == ({"study_date": "2020-01-31"}, f"{SERIES}.90")
    assert (list(first.masks), list(second.masks)) == (["tumour", "heart"], ["heart"])
    case = read_case(first, spacing_mm=SPACING)
    assert {p.verdict for p in case.geometry} == {"identical"}
    assert np.array_equal(
        sitk.GetArrayFromImage(case.masks["tumour"]), ball((12, 40, 44), 9.0, SPACING)
    )
    # A second series of the study: named, unless a pattern tells which.
    ct(root / "A" / "other", "A", f"{SERIES}.90", f"{SERIES}.55", "thorax arterial")
    prepare("dicom", root, "--out", out, *flags)
    failures = pd.read_csv(tmp_path / "failures.csv", dtype=str).set_index("patient_id")
    assert "2 series could be the ct: series" in failures.loc["A", "reason"]
    prepare("dicom", root, "--out", out, *flags, "--image", "ct=thorax")
    assert pd.read_csv(out)["patient_id"].to_list() == ["A", "B"]
    # A second object of one region.
    write_structures(
        root / "B" / "again" / "rt.dcm", {"heart": circles(on, 6.0)}, series=f"{SERIES}.1",
        patient="B", study=f"{SERIES}.91",
    )  # fmt: skip
    prepare("dicom", root, "--out", out, *flags, "--image", "ct=thorax")
    failures = pd.read_csv(tmp_path / "failures.csv", dtype=str).set_index("patient_id")
    assert "2 objects hold the heart: series" in failures.loc["B", "reason"]


def test_names_that_differ_in_signs_alone_are_no_region(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, study, out = tmp_path / "tree", f"{SERIES}.9", tmp_path / "cohort.csv"
    on = ct(root / "ct", "A", study, SERIES, "thorax")
    names = {"CTV+5": circles(on, 9.0), "CTV-5": circles(on, 4.0), "Heart": circles(on, 4.0)}
    write_structures(root / "rt" / "rt.dcm", names, series=SERIES, patient="A", study=study)
    assert prepare("dicom", root, "--out", out) == 1
    assert "would be the column ctv_5: 'CTV+5' and 'CTV-5'" in capsys.readouterr().err
    assert prepare("dicom", root, "--out", out, "--region", "ctv_small=ctv-5") == 0
    (files,) = read_manifest(out).cases
    case = read_case(files, spacing_mm=SPACING)
    found = sitk.GetArrayFromImage(case.masks["ctv_small"])
    assert np.array_equal(found, ball((12, 40, 44), 4.0, SPACING))


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segments_by_highdicom_are_regions_by_name(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import highdicom as hd
    import pydicom
    from highdicom.sr import CodedConcept

    root, study = tmp_path / "tree", f"{SERIES}.9"
    ct(root / "ct", "A", study, SERIES, "thorax")
    slices = [pydicom.dcmread(file) for file in sorted((root / "ct").iterdir())]
    slices.sort(key=lambda each: each.ImagePositionPatient[2])
    for each in slices:
        for name in ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber",
                     "StudyTime", "ReferringPhysicianName"):  # fmt: skip
            setattr(each, name, each.get(name, ""))
        each.FrameOfReferenceUID = f"{SERIES}.3"
    organ = CodedConcept("91723000", "SCT", "Anatomical structure")
    described = [
        hd.seg.SegmentDescription(
            number, label, organ, organ, hd.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number, label in ((1, "Liver"), (2, "Tumor"))
    ]
    outer, inner = (ball((12, 40, 44), radius, SPACING) for radius in (10.0, 5.0))
    if kind == "LABELMAP":
        outer = outer & ~inner
    segmentation = hd.seg.Segmentation(
        slices, np.stack([outer, inner], axis=-1), hd.seg.SegmentationTypeValues[kind],
        described, hd.UID(), 7, hd.UID(), 1, "maker", "model", "1", "2",
    )  # fmt: skip
    (root / "seg").mkdir()
    segmentation.save_as(root / "seg" / "seg.dcm")
    out = tmp_path / "cohort.csv"
    assert prepare("dicom", root, "--out", out) == 0
    (files,) = read_manifest(out).cases
    assert list(files.masks) == ["liver", "tumor"]
    assert "empty segment" not in capsys.readouterr().err
    case = read_case(files, spacing_mm=SPACING)
    for roi, truth in (("liver", outer), ("tumor", inner)):
        assert np.array_equal(sitk.GetArrayFromImage(case.masks[roi]), truth)
