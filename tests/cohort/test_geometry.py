"""The geometry report, and masks on grids of their own: same region, or refused with the reason."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import Case, geometry, read_case
from lens.cohort.geometry import (
    box_of,
    box_with_margin,
    dice,
    nearest,
    outside,
    sample,
    sample_mask,
    target_grid,
)
from lens.cohort.geometry_report import geometry_report
from lens.cohort.manifest import read_manifest
from lens.cohort.placement import COLUMNS, Placement, geometry_table
from lens.errors import CaseError
from tests.cohort.builders import ball, case_files, image, noise, positions, rotation, write

TILTED = rotation(x=18.5, y=2, z=-5)
CENTRE = (20, -30, 40)
FINE = (0.8, 0.8, 1.0)


def array(of: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(of)


def t2() -> sitk.Image:
    return image(noise(seed=1), direction=TILTED, centre=CENTRE)


def gland() -> sitk.Image:
    return image(ball(), direction=TILTED, centre=CENTRE)


def adc() -> sitk.Image:
    return image(noise((12, 16, 16), 2), (2, 2, 2.5), rotation(x=-7, z=11), CENTRE)


def read(folder: Path, **images: sitk.Image) -> Case:
    return read_case(case_files(folder, **({"t2": t2(), "adc": adc()} | images)), spacing_mm=FINE)


def placement(case: Case, name: str) -> Placement:
    (found,) = [p for p in case.geometry if p.name == name]
    return found


def on(mask: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """The mask on another grid, by SimpleITK's own means."""
    return sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor)


def test_nearest_is_itks_nearest_neighbour_on_oblique_grids() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        turn = rotation(*rng.uniform(-40, 40, 3))
        grid = image(np.zeros((12, 15, 18), np.uint8), (1.3, 0.9, 2.1), turn, rng.uniform(-2, 2, 3))
        mask = image(ball(radius=7), direction=TILTED)
        np.testing.assert_array_equal(array(nearest(mask, grid)), array(on(mask, grid)))


def test_nearest_is_the_shared_axes_case_in_general() -> None:
    mask = gland()
    grid = target_grid(mask, (0.5, 0.7, 1.1))
    np.testing.assert_array_equal(array(nearest(mask, grid)), array(sample_mask(mask, grid)))
    empty = image(np.zeros((10, 20, 20), np.uint8))
    assert array(nearest(empty, grid)).sum() == 0
    away = image(ball(), centre=(500, 0, 0))
    assert array(nearest(away, grid)).sum() == 0


def test_dice_of_known_overlaps() -> None:
    left, right = np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2, 4), np.uint8)
    left[:, :, :2], right[:, :, 1:3] = 1, 1
    assert dice(image(left), image(right)) == 0.5
    assert dice(image(left), image(left)) == 1
    assert dice(image(left * 0), image(left * 0)) == 1


def test_verdicts(tmp_path: Path) -> None:
    case = read(
        tmp_path, gland=gland(), lesion=image(ball(radius=4), direction=TILTED, centre=CENTRE)
    )
    assert [(p.name, p.verdict) for p in case.geometry] == [
        ("t2", "identical"),
        ("adc", "resampled"),
        ("gland", "identical"),
        ("lesion", "identical"),
    ]
    assert "size 16 x 16 x 12 against 20 x 20 x 10" in placement(case, "adc").reason
    found = placement(case, "gland")
    assert found.displacement is not None
    assert found.displacement < 1e-9
    assert found.file == str(tmp_path / "gland.mha")
    assert found.labels == ((1, int(ball().sum())),)
    assert found.taken == (1,)


def test_a_rounded_header_is_snapped_by_a_known_distance(tmp_path: Path) -> None:
    moved = image(ball(), direction=TILTED, centre=np.array(CENTRE) + TILTED @ [0, 0, 0.3])
    found = placement(read(tmp_path, gland=moved), "gland")
    assert found.verdict == "snapped"
    assert found.displacement == pytest.approx(0.15)
    assert found.displacement_mm == pytest.approx(0.3)


def test_stored_axes_are_reoriented(tmp_path: Path) -> None:
    found = placement(read(tmp_path, gland=sitk.PermuteAxes(gland(), (2, 0, 1))), "gland")
    assert found.verdict == "reoriented"
    assert read(tmp_path / "t2", t2=t2()[::-1], gland=gland()).geometry[0].verdict == "reoriented"


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (0.7, 0.9, 2.0), (1.6, 1.6, 2.5)])
def test_a_mask_of_the_same_slab_is_resampled(tmp_path: Path, spacing, flip: bool) -> None:
    grid = target_grid(t2(), spacing)
    own = on(image(ball((24, 40, 40), 6, (0.6, 0.6, 1)), (0.6, 0.6, 1), TILTED, CENTRE), grid)
    case = read(tmp_path, gland=own[:, ::-1] if flip else own)
    found = placement(case, "gland")
    assert found.verdict == "resampled"
    assert found.reason.startswith("against t2: ")
    beforehand = read(tmp_path / "user", gland=nearest(own, t2()))
    np.testing.assert_array_equal(array(case.masks["gland"]), array(beforehand.masks["gland"]))
    # Against the definitions, from the two masks as they are.
    back = on(case.masks["gland"], own)
    both = np.count_nonzero(array(back) & array(own))
    expected = 2 * both / (array(back).sum() + array(own).sum())
    assert found.dice == pytest.approx(expected, abs=0.005)
    volumes = [array(m).sum() * np.prod(m.GetSpacing()) for m in (case.masks["gland"], own)]
    assert found.volume_change == pytest.approx(volumes[0] / volumes[1] - 1)
    assert 0.8 < expected <= 1
    assert any(
        re.fullmatch(
            r"gland: .* of its own, resampled \(nearest neighbour; Dice [01]\.\d{3}, volume .*%\)",
            note,
        )
        for note in case.notes
    )


def test_a_cropped_or_padded_mask_is_the_same_region(tmp_path: Path) -> None:
    whole = read(tmp_path, gland=gland())
    cropped = gland()[3:17, 2:18, 1:9]
    padded = sitk.ConstantPad(gland(), (5, 0, 2), (0, 4, 2))
    for number, mask in enumerate((cropped, padded)):
        case = read(tmp_path / str(number), gland=mask)
        np.testing.assert_array_equal(array(case.masks["gland"]), array(whole.masks["gland"]))
        assert placement(case, "gland").verdict == "resampled"
        assert not any("edge" in note for note in case.notes)
    tight = read(tmp_path / "tight", gland=gland()[4:16, 4:16, 2:8])
    assert (
        "gland: reaches the edge of its own field of view, where it may be cut off" in tight.notes
    )


def test_a_mask_drawn_on_another_image_of_the_case_is_resampled(tmp_path: Path) -> None:
    drawn = nearest(gland(), adc())
    case = read(tmp_path, gland=drawn)
    assert placement(case, "gland").verdict == "resampled"
    beforehand = read(tmp_path / "user", gland=on(drawn, t2()))
    assert dice(case.masks["gland"], beforehand.masks["gland"]) > 0.999
    with pytest.raises(CaseError, match="may not be resampled, since its axes are turned by"):
        read_case(case_files(tmp_path / "alone", t2=t2(), gland=drawn), spacing_mm=FINE)


def refusal(folder: Path, mask: sitk.Image) -> str:
    with pytest.raises(CaseError) as caught:
        read(folder, gland=mask)
    assert caught.value.stage == "geometry"
    assert caught.value.file == str(folder / "gland.mha")
    return caught.value.reason


def test_another_patients_grid_is_refused(tmp_path: Path) -> None:
    shifted = image(ball(), direction=TILTED, centre=np.array(CENTRE) + TILTED @ [3, 0, 0])
    assert refusal(tmp_path / "a", shifted).endswith(
        "it may not be resampled, since along x it reaches from 3.0 to 23.0 mm, where the image "
        "reaches from 0 to 20.0 mm"
    )
    coarse = image(ball((10, 12, 12)), (1.5, 1.5, 2), TILTED, np.array(CENTRE) + TILTED @ [0, 0, 3])
    assert "since along z it reaches from 3.0 to 23.0 mm" in refusal(tmp_path / "b", coarse)


def test_a_grid_between_the_voxels_is_a_header_error(tmp_path: Path) -> None:
    between = image(ball((10, 20, 21)), direction=TILTED, centre=CENTRE)
    assert "lie 0.50 voxel beside those of the image" in refusal(tmp_path, between)


def test_a_region_beyond_the_image_is_refused(tmp_path: Path) -> None:
    wide = image(ball((10, 40, 40), 11), direction=TILTED, centre=CENTRE)
    found = refusal(tmp_path, wide)
    assert re.search(r"; \d+ of its \d+ voxels lie outside the field of view of t2$", found)


def test_a_region_that_sampling_changes_is_refused(tmp_path: Path) -> None:
    voxels = np.zeros((40, 20, 20), np.uint8)
    voxels[2::4, 4:16, 4:16] = 1
    sheets = image(voxels, (1, 1, 0.5), TILTED, CENTRE)
    assert "not the same region after sampling: Dice" in refusal(tmp_path, sheets)


def test_the_report_is_a_table(tmp_path: Path) -> None:
    shifted = image(ball(), direction=TILTED, centre=(0, 0, 0))
    for name, mask in (("P1", gland()), ("P2", shifted)):
        write(t2(), tmp_path / f"{name} t2.mha")
        write(mask, tmp_path / f"{name} gland.mha")
    (tmp_path / "cohort.csv").write_text(
        "patient_id,study_id,t2,gland\n"
        + "".join(f"{p},s,{p} t2.mha,{p} gland.mha\n" for p in ("P1", "P2"))
        + "P3,s,none.mha,none.mha\n"
    )
    table, errors = geometry_report(
        read_manifest(tmp_path / "cohort.csv"), spacing_mm=FINE, progress=False
    )
    assert table.columns.to_list() == list(COLUMNS)
    assert table[["patient_id", "name", "verdict"]].to_numpy().tolist() == [
        ["P1", "t2", "identical"],
        ["P1", "gland", "identical"],
        ["P2", "gland", "refused"],
    ]
    assert table["labels"][1] == f"1 ({ball().sum()} voxels)"
    assert table["taken"][1] == "1"
    assert [error.patient_id for error in errors] == ["P3", "P2"]
    assert table["reason"][2] == errors[1].reason
    assert geometry_table([]).columns.to_list() == list(COLUMNS)


def by_definition(image: sitk.Image, mask: sitk.Image) -> int:
    """Voxels of the mask whose centre is nearer to no voxel of the image, one by one."""
    places = positions(mask)[array(mask) > 0]
    reached = [image.TransformPhysicalPointToContinuousIndex(p.tolist()) for p in places]
    last = np.array(image.GetSize()) - 0.5
    return int(np.any((np.array(reached) < -0.5) | (np.array(reached) > last), axis=1).sum())


@pytest.mark.parametrize("shift", [0, 3, 6, 9, 30])
def test_voxels_outside_are_counted_by_definition(shift: int) -> None:
    moved = image(noise(), direction=rotation(x=-7, z=11), centre=(20 + shift, -29, 40))
    assert outside(moved, gland()) == by_definition(moved, gland())
    assert outside(moved, gland() * 0) == 0


BOX = (slice(2, 7), slice(3, 11), slice(4, 13))


@pytest.mark.parametrize("padding", [None, 300.0])
@pytest.mark.parametrize("spacing", [(0.6, 0.7, 1.1), (1.0, 1.0, 2.0), (1.7, 1.3, 3.0)])
def test_a_part_of_a_grid_is_sampled_as_on_the_whole(spacing, padding: float | None) -> None:
    for source in (t2(), adc()):
        grid = target_grid(t2(), spacing)
        whole = sample(source, grid, padding=padding)
        box = tuple(
            slice(b.start, min(b.stop, n)) for b, n in zip(BOX, grid.GetSize()[::-1], strict=True)
        )
        part = sample(source, grid, padding=padding, box=box)
        np.testing.assert_array_equal(array(part), array(whole)[box])
        first = [b.start for b in box[::-1]]
        np.testing.assert_allclose(part.GetOrigin(), grid.TransformIndexToPhysicalPoint(first))
        assert part.GetSpacing() == grid.GetSpacing()


def test_an_image_on_the_grid_already_is_not_interpolated(monkeypatch) -> None:
    """ITK's place of a voxel is off by a rounding, which mixes a trace of its neighbour in."""
    values = np.zeros((4, 9, 49), np.float32)
    values[..., ::2] = 1000
    source = image(values, (0.5, 0.5, 1.0), TILTED, CENTRE)
    monkeypatch.setattr(geometry.sitk, "Resample", None)
    sampled = sample(source, target_grid(source, (0.5, 0.5, 1.0)))
    np.testing.assert_array_equal(array(sampled), values)
    box = (slice(1, 3), slice(2, 9), slice(5, 40))
    part = sample(source, target_grid(source, (0.5, 0.5, 1.0)), box=box)
    np.testing.assert_array_equal(array(part), values[box])


def test_a_box_about_regions_reaches_as_far_as_the_image() -> None:
    first, second = np.zeros((2, 9, 10, 11), bool)
    first[4, 5, 6] = second[5, 2, 6] = True
    assert box_of(first) == (slice(4, 5), slice(5, 6), slice(6, 7))
    assert box_with_margin(first.shape, [first, second], (1, 3, 9)) == (
        slice(3, 7), slice(0, 9), slice(0, 11),
    )  # fmt: skip
    assert box_with_margin(first.shape, [first & second], (1, 1, 1)) == (
        slice(0, 9), slice(0, 10), slice(0, 11),
    )  # fmt: skip


def test_masks_are_sampled_where_they_are_as_everywhere() -> None:
    mask = image(ball((12, 21, 22)), direction=TILTED, centre=CENTRE)
    for spacing in ((0.5, 0.45, 1.0), (1.0, 1.0, 2.0), (2.3, 1.7, 5.0)):
        grid = target_grid(mask, spacing)
        np.testing.assert_array_equal(array(sample_mask(mask, grid)), array(nearest(mask, grid)))
    assert not array(sample_mask(mask * 0, grid)).any()


def test_the_check_looks_where_the_regions_are_and_says_the_same(tmp_path: Path) -> None:
    files = case_files(tmp_path, t2=t2(), adc=adc(), gland=gland())
    whole = read_case(files, spacing_mm=FINE)
    near = read_case(files, spacing_mm=FINE, margin=(2, 3, 1))
    assert (near.notes, near.geometry) == (whole.notes, whole.geometry)
    box = box_with_margin(
        array(whole.masks["gland"]).shape, [array(whole.masks["gland"])], (1, 3, 2)
    )
    for name, part in (near.images | near.masks).items():
        one = (whole.images | whole.masks)[name]
        np.testing.assert_array_equal(array(part), array(one)[box])
        start = [b.start for b in box[::-1]]
        np.testing.assert_allclose(part.GetOrigin(), one.TransformIndexToPhysicalPoint(start))


def test_the_report_samples_no_voxel_beyond_the_regions(tmp_path: Path, monkeypatch) -> None:
    case_files(tmp_path, t2=t2(), adc=adc(), gland=gland())
    manifest = tmp_path / "cohort.csv"
    manifest.write_text("patient_id,t2,adc,gland\nP-07,t2.mha,adc.mha,gland.mha\n")
    seen: list[int] = []
    original = geometry.sample

    def counted(*args: object, **kwargs: object) -> sitk.Image:
        made = original(*args, **kwargs)  # pyright: ignore[reportArgumentType]
        seen.append(made.GetNumberOfPixels())
        return made

    monkeypatch.setattr(geometry, "sample", counted)
    geometry_report(read_manifest(manifest), spacing_mm=FINE, progress=False)
    region = array(read(tmp_path / "whole", gland=gland()).masks["gland"])
    assert seen[:2] == [int(np.prod([b.stop - b.start for b in box_of(region)]))] * 2
