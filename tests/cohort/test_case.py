"""One grid per case: exact where it can be, refused where it would have to be forced."""

from __future__ import annotations

import itertools
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import map_coordinates

from lens.cohort import parse_labels, read_case
from lens.cohort.geometry import sample_mask, target_grid
from lens.cohort.geometry_report import geometry_report
from lens.cohort.manifest import Cohort
from lens.errors import CaseError, InputError
from tests.cohort.builders import ball, case_files, image, noise, positions, rotation

TILTED = rotation(x=18.5, y=2, z=-5)
OTHER = rotation(x=-7, z=11)
FINE = (0.8, 0.8, 1.0)


def array(of: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(of)


def ramp(grid: sitk.Image) -> sitk.Image:
    """A linear function of the place in the patient, in mm."""
    values = positions(grid) @ [3.0, -2.0, 1.5] + 500
    out = sitk.GetImageFromArray(values.astype(np.float64))
    out.CopyInformation(grid)
    return out


def simple(tmp_path: Path, **changed: sitk.Image):
    """A complete, unremarkable case, with some of its images exchanged."""
    content = {
        "t2": image(noise(seed=1)),
        "adc": image(noise((12, 14, 14), seed=2), (2, 2, 2.5)),
        "gland": image(ball()),
    }
    return case_files(tmp_path, **(content | changed))


def refused(files, message: str, file: str, stage: str, **options) -> None:
    with pytest.raises(CaseError, match=re.escape(message)) as caught:
        read_case(files, **options)
    assert str(caught.value).startswith(f"patient P-07, file {files_path(files, file)}: ")
    assert caught.value.stage == stage


def files_path(files, name: str) -> Path:
    return (files.images | files.masks)[name]


def test_everything_is_on_one_grid(tmp_path: Path) -> None:
    case = read_case(simple(tmp_path, dwi=image(noise(seed=3))), spacing_mm=FINE)
    assert list(case.images) == ["t2", "dwi", "adc"]
    grids = {
        (i.GetSize(), i.GetSpacing(), i.GetOrigin(), i.GetDirection())
        for i in (*case.images.values(), *case.masks.values())
    }
    assert len(grids) == 1
    assert case.images["t2"].GetSize() == (25, 25, 20)
    assert case.images["t2"].GetSpacing() == FINE
    assert {i.GetPixelID() for i in case.images.values()} == {sitk.sitkFloat32}
    assert case.masks["gland"].GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(array(case.masks["gland"]))) == {0, 1}


def test_a_ramp_in_space_is_reproduced_on_oblique_grids(tmp_path: Path) -> None:
    t2 = ramp(image(noise(), direction=TILTED, centre=(20, -30, 40)))
    adc = ramp(image(noise((14, 18, 18)), (2, 2, 2.5), OTHER, (20, -30, 40)))
    gland = image(ball(), direction=TILTED, centre=(20, -30, 40))
    case = read_case(case_files(tmp_path, t2=t2, adc=adc, gland=gland), spacing_mm=FINE)
    roi = array(case.masks["gland"]) > 0
    expected = positions(case.images["t2"]) @ [3.0, -2.0, 1.5] + 500
    for name in ("t2", "adc"):
        # Places are rounded by up to 6e-5 voxel of 2.5 mm, along three axes.
        np.testing.assert_allclose(array(case.images[name])[roi], expected[roi], atol=1e-3)


def test_interpolation_agrees_with_scipy_on_an_oblique_grid(tmp_path: Path) -> None:
    adc = image(noise((14, 18, 18), seed=5), (2, 2, 2.5), OTHER, (1, 2, -3))
    t2, gland = image(noise(), direction=TILTED), image(ball(), direction=TILTED)
    case = read_case(case_files(tmp_path, t2=t2, adc=adc, gland=gland), spacing_mm=FINE)
    to_mm = np.array(adc.GetDirection()).reshape(3, 3) * adc.GetSpacing()
    index = np.linalg.solve(
        to_mm, (positions(case.images["t2"]) - adc.GetOrigin()).reshape(-1, 3).T
    )
    expected = map_coordinates(array(adc).astype(np.float64), index[::-1], order=1, mode="nearest")
    last = np.array(adc.GetSize())[:, None] - 1
    inside = np.all((index > -0.499) & (index < last + 0.499), axis=0)
    assert 0.5 < inside.mean() <= 1
    got = array(case.images["adc"]).ravel()
    # Places are rounded by up to 6e-5 voxel, and neighbours differ by up to 800.
    np.testing.assert_allclose(got[inside], expected[inside], atol=0.15)
    assert np.abs(got[inside] - expected[inside]).mean() < 0.02


def test_the_grid_keeps_centre_extent_and_volume() -> None:
    t2 = image(noise(), (0.5, 0.5, 3.0), TILTED, (5, 6, 7))
    grid = target_grid(t2, (0.5, 0.5, 1.0))
    assert grid.GetSize() == (20, 20, 30)
    for shape in (t2, grid):
        middle = shape.TransformContinuousIndexToPhysicalPoint(
            [(n - 1) / 2 for n in shape.GetSize()]
        )
        np.testing.assert_allclose(middle, (5, 6, 7), atol=1e-9)
    # Every 3 mm slice becomes three of 1 mm, so the volume of a mask is kept exactly.
    mask = image((noise(seed=9) > 500).astype(np.uint8), (0.5, 0.5, 3.0), TILTED, (5, 6, 7))
    assert array(sample_mask(mask, grid)).sum() == 3 * array(mask).sum()


def test_masks_take_the_nearest_voxel() -> None:
    mask = image((noise(seed=4) > 500).astype(np.uint8), (0.7, 0.9, 3.1), TILTED)
    grid = target_grid(mask, (0.5, 0.45, 1.0))
    by_itk = sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor)
    # ITK may take the other of two equally near voxels: those places are left out.
    steps = [
        ((np.arange(n) - (n - 1) / 2) * new / old + (m - 1) / 2) % 1
        for n, new, m, old in zip(
            grid.GetSize(), grid.GetSpacing(), mask.GetSize(), mask.GetSpacing(), strict=True
        )
    ]
    clear = [np.abs(step - 0.5) > 1e-6 for step in steps]
    keep = np.ix_(clear[2], clear[1], clear[0])
    assert array(by_itk)[keep].size > 5000
    np.testing.assert_array_equal(array(sample_mask(mask, grid))[keep], array(by_itk)[keep])


def test_header_rounding_does_not_move_a_mask_that_lies_between_voxels() -> None:
    voxels = (noise(seed=4) > 500).astype(np.uint8)
    exact = image(voxels, (0.5, 0.5, 2.0), TILTED)
    rounded = image(voxels, (0.5000001, 0.4999999, 1.9999998), TILTED)
    # Halving the resolution puts every new centre exactly between two old ones.
    pair = [sample_mask(m, target_grid(m, (1.0, 1.0, 4.0))) for m in (exact, rounded)]
    np.testing.assert_array_equal(array(pair[0]), array(pair[1]))


def stored(original: sitk.Image, order: tuple[int, ...], flips: tuple[int, ...]) -> sitk.Image:
    """The same image in space, stored with other axes, by SimpleITK's own means."""
    out = sitk.PermuteAxes(original, order)
    return out[:: flips[0], :: flips[1], :: flips[2]]


STORED = list(
    itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
)


@pytest.mark.parametrize(("order", "flips"), STORED[1::5])
def test_how_the_axes_are_stored_does_not_matter(tmp_path: Path, order, flips) -> None:
    t2 = image(noise((9, 20, 17)), direction=TILTED)
    voxels = ball((9, 20, 17))
    voxels[:, :, :7] = 0
    gland = image(voxels, direction=TILTED)
    plain = read_case(case_files(tmp_path / "a", t2=t2, gland=gland), spacing_mm=FINE)
    mask = read_case(
        case_files(tmp_path / "b", t2=t2, gland=stored(gland, order, flips)), spacing_mm=FINE
    )
    np.testing.assert_array_equal(array(mask.masks["gland"]), array(plain.masks["gland"]))
    assert "gland: stored with flipped or permuted axes, put in order (exact)" in mask.notes
    both = read_case(
        case_files(tmp_path / "c", t2=stored(t2, order, flips), gland=gland), spacing_mm=FINE
    )
    assert any(note.startswith("t2: axes stored as") for note in both.notes)
    np.testing.assert_array_equal(array(both.masks["gland"]), array(plain.masks["gland"]))
    # Interpolation weights differ in their last bits.
    np.testing.assert_allclose(array(both.images["t2"]), array(plain.images["t2"]), atol=1e-3)


def test_rounding_of_a_header_is_snapped_and_said(tmp_path: Path) -> None:
    # 0.4 degrees about z move the corners of 20 x 20 voxels by 0.07 voxel.
    gland = image(ball(), direction=rotation(z=0.4))
    case = read_case(simple(tmp_path, gland=gland), spacing_mm=FINE)
    exact = read_case(simple(tmp_path / "exact"), spacing_mm=FINE)
    np.testing.assert_array_equal(array(case.masks["gland"]), array(exact.masks["gland"]))
    assert any(n.startswith("gland: geometry snapped to t2, which it left by") for n in case.notes)
    assert not any("snapped" in note for note in exact.notes)


@pytest.mark.parametrize(("shift", "accepted"), [(0.2, True), (0.3, False), (0.5, False)])
def test_the_limit_of_snapping_is_a_quarter_voxel(
    tmp_path: Path, shift: float, accepted: bool
) -> None:
    for axis, mm in enumerate((1.0, 1.0, 2.0)):
        centre = np.zeros(3)
        centre[axis] = shift * mm
        files = simple(tmp_path / str(axis), gland=image(ball(), centre=centre))
        if accepted:
            assert any("snapped" in note for note in read_case(files, spacing_mm=FINE).notes)
        else:
            found = f"the gland mask is not on the grid of t2: centres {shift * mm:.2f} mm apart"
            refused(files, found, "gland", "geometry", spacing_mm=FINE)


@pytest.mark.parametrize("roi", ["gland", "lesion"])
def test_labels_above_zero_are_the_region_and_listed(tmp_path: Path, roi: str) -> None:
    voxels = ball(radius=6 if roi == "gland" else 4).astype(np.int16)
    voxels[:5] *= 3
    case = read_case(simple(tmp_path, **{roi: image(voxels)}), spacing_mm=(1.0, 1.0, 2.0))
    np.testing.assert_array_equal(array(case.masks[roi]), voxels > 0)
    counts = [int((voxels == value).sum()) for value in (1, 3)]
    assert (
        f"{roi}: mask values 1 ({counts[0]} voxels), 3 ({counts[1]} voxels); "
        f"every value above 0 is taken as {roi}" in case.notes
    )


def test_a_region_that_looks_inverted_is_noted(tmp_path: Path) -> None:
    files = simple(tmp_path, gland=image(1 - ball()))
    case = read_case(files, spacing_mm=(1.0, 1.0, 2.0))
    says = f"covers {(1 - ball()).mean():.0%} of the image and reaches all its borders"
    assert [note for note in case.notes if note.startswith(f"gland: {says}")]
    (placed,) = (placement for placement in case.geometry if placement.name == "gland")
    assert placed.reason.startswith(says)
    table, _ = geometry_report(Cohort(tmp_path / "c.csv", (files,), ()), progress=False)
    assert table.set_index("name")["reason"]["gland"].startswith("covers ")
    open_border = np.ones((10, 20, 20), np.uint8)
    open_border[0] = 0
    few = np.zeros((10, 20, 20), np.uint8)
    few[:, 10], few[:, :, 10], few[5] = 1, 1, 1
    for usual in (ball(), open_border, few):
        case = read_case(simple(tmp_path, gland=image(usual)), spacing_mm=(1.0, 1.0, 2.0))
        assert not any("borders" in note for note in case.notes)
        assert all(placement.reason == "" for placement in case.geometry if placement.dice)


def test_labels_can_be_chosen_per_region(tmp_path: Path) -> None:
    voxels = ball().astype(np.int16)
    voxels[:5] *= 3
    files = simple(tmp_path, gland=image(voxels), lesion=image(voxels))
    case = read_case(files, spacing_mm=(1.0, 1.0, 2.0), labels={"lesion": (3,)})
    np.testing.assert_array_equal(array(case.masks["gland"]), voxels > 0)
    np.testing.assert_array_equal(array(case.masks["lesion"]), voxels == 3)
    counts = [int((voxels == value).sum()) for value in (1, 3)]
    listed = f"1 ({counts[0]} voxels), 3 ({counts[1]} voxels)"
    assert f"lesion: mask values {listed}; 3 taken as lesion" in case.notes
    found = {p.name: (p.labels, p.taken) for p in case.geometry}
    assert found["gland"] == (((1, counts[0]), (3, counts[1])), (1, 3))
    assert found["lesion"][1] == (3,)
    none = read_case(files, labels={"lesion": (7,)})
    assert list(none.masks) == ["gland"]
    assert (
        f"lesion: the mask has no voxel of label 7 (it holds {listed}), taken as no lesion"
        in none.notes
    )
    refused(
        files,
        f"the gland mask has no voxel of label 2, 7 (it holds {listed})",
        "gland",
        "read",
        labels={"gland": (2, 7)},
    )


def test_labels_are_written_as_text_and_checked(tmp_path: Path) -> None:
    assert parse_labels(("gland=1,2", "lesion=3")) == {"gland": (1, 2), "lesion": (3,)}
    with pytest.raises(InputError, match="label 'gland': write region=value"):
        parse_labels(("gland",))
    with pytest.raises(InputError, match="labels of gland are given twice"):
        parse_labels(("gland=1", "gland=2"))
    with pytest.raises(InputError, match="name one or more values above 0"):
        read_case(simple(tmp_path), labels={"gland": (0, 1)})


def test_a_small_block_is_enough(tmp_path: Path) -> None:
    voxels = np.zeros((10, 20, 20), np.uint8)
    voxels[4:6, 9:11, 9:11] = 1
    case = read_case(simple(tmp_path, lesion=image(voxels)), spacing_mm=(1.0, 1.0, 2.0))
    assert array(case.masks["lesion"]).sum() == 8


def test_without_t2_the_first_image_is_the_reference(tmp_path: Path) -> None:
    adc = image(noise(seed=2))
    case = read_case(case_files(tmp_path, adc=adc, gland=image(ball())), spacing_mm=(1.0, 1.0, 2.0))
    np.testing.assert_allclose(array(case.images["adc"]), array(adc), rtol=1e-6)
    assert case.notes == ()


def test_a_case_and_its_errors_travel_between_processes(tmp_path: Path) -> None:
    case = read_case(simple(tmp_path), spacing_mm=FINE)
    again = pickle.loads(pickle.dumps(case))
    np.testing.assert_array_equal(array(again.images["adc"]), array(case.images["adc"]))
    assert again.images["adc"].GetOrigin() == case.images["adc"].GetOrigin()


def test_spacing_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every spacing must be positive"):
        read_case(simple(tmp_path), spacing_mm=(0.5, 0.5, 0.0))
