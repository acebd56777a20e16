"""Intensities: what is seen of a region must not depend on how much else is in view."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import Case, read_case, read_manifest, stack
from lens.cohort.columns import Declared
from lens.cohort.geometry import sample
from lens.cohort.intensities import encoder_input, kind_of, notes_on, parse_kinds, scaling
from lens.errors import CaseError, InputError
from lens.radiomics.extract import extract_case
from lens.radiomics.parameters import load_parameters
from tests.cohort.builders import ball, image, noise, write

SIZE = (24, 64, 64)


def scene(seed: int) -> np.ndarray:
    """Tissue about the region, and far from it bright fat, air and a rim of zeros."""
    rng = np.random.default_rng(seed)
    voxels = rng.normal(400, 60, SIZE)
    voxels[:, :12] = rng.normal(1500, 100, voxels[:, :12].shape)
    voxels[:, -14:] = rng.normal(30, 5, voxels[:, -14:].shape)
    voxels[:, :, :6] = 0
    return voxels.astype(np.float32)


def cohort_files(folder: Path, *, cut: int):
    """T2, DWI and gland; `cut` voxels are taken off T2's field of view on each side of y."""
    t2 = image(scene(1))
    whole = sitk.RegionOfInterest(t2, [64, 64 - 2 * cut, 24], [0, cut, 0])
    gland = sitk.Resample(image(ball(SIZE, 7.0)), whole, sitk.Transform(), sitk.sitkNearestNeighbor)
    write(whole, folder / "t2.mha")
    write(image(scene(2)), folder / "dwi.mha")
    write(gland, folder / "gland.mha")
    path = folder / "cohort.csv"
    path.write_text("patient_id,t2,dwi,gland\nP,t2.mha,dwi.mha,gland.mha\n")
    return read_case(read_manifest(path).cases[0], spacing_mm=(1.0, 1.0, 2.0))


def test_a_cropped_field_of_view_changes_nothing_in_the_region(tmp_path: Path) -> None:
    full, cropped = (cohort_files(tmp_path / str(cut), cut=cut) for cut in (0, 14))
    parameters = load_parameters()
    one, other = extract_case(full, parameters), extract_case(cropped, parameters)
    assert one.keys() == other.keys()
    for modality in ("t2", "dwi"):
        names = [name for name in one if name.startswith(modality)]
        a, b = (np.array([case[name] for name in names]) for case in (one, other))
        change = np.abs(b - a) / np.maximum(np.abs(a), 1e-9)
        # The same voxels on the same grid: only what is beyond the surroundings is gone.
        assert np.median(change) < 0.01, modality
    shape = (24, 36, 40)
    seen, cut = (stack(case, shape=shape, modalities=("t2", "dwi")) for case in (full, cropped))
    inside = stack(full, shape=shape, modalities=("t2", "dwi")) != 0
    assert inside.all()
    assert np.median(np.abs(cut - seen) / np.maximum(np.abs(seen), 1e-6)) < 0.01


def test_padding_and_zeros_take_no_part(tmp_path: Path) -> None:
    gland = image(ball(SIZE, 7.0))
    plain = image(scene(1))
    holed = sitk.GetArrayFromImage(plain)
    holed[::3, 28:36, 20:30] = 0
    kept = scaling(plain, [gland])
    assert scaling(image(holed), [gland]).mean == pytest.approx(kept.mean, rel=0.01)
    # The region and 10 mm about it, not the fat and air farther off.
    assert kept.mean == pytest.approx(400, rel=0.01)
    assert kept.sd == pytest.approx(60, rel=0.02)


def test_a_ct_is_never_averaged_with_its_padding() -> None:
    voxels = np.full((6, 20, 20), 40.0, np.float32)
    voxels[:, :, 10:] = -1024
    fine = image(np.zeros((6, 40, 40), np.float32), spacing=(0.5, 0.5, 2.0))
    got = sitk.GetArrayFromImage(sample(image(voxels), fine, padding=-1024.0))
    assert set(np.unique(got)) == {-1024.0, 40.0}
    outside = image(np.zeros((2, 4, 4), np.float32), centre=(100, 0, 0))
    assert np.all(sitk.GetArrayFromImage(sample(image(voxels), outside, padding=-1024.0)) == -1024)
    mixed = sitk.GetArrayFromImage(sample(image(voxels), fine))
    assert np.any((mixed > -1024) & (mixed < 40)), "without it, tissue and padding are averaged"


def test_a_case_of_ct_is_read_so_and_one_of_mr_is_not(tmp_path: Path) -> None:
    voxels = np.full((6, 20, 20), 40.0, np.float32)
    voxels[:, :, 10:] = -1024
    write(image(voxels), tmp_path / "ct.mha")
    path = tmp_path / "cohort.csv"
    path.write_text("patient_id,ct\nP,ct.mha\n")
    seen = {}
    for kind in ("ct", "mr"):
        cohort = read_manifest(path, declared=Declared(kinds={"ct": kind}))
        case = read_case(cohort.cases[0], spacing_mm=(0.4, 0.4, 2.0))
        seen[kind] = set(np.unique(sitk.GetArrayFromImage(case.images["ct"])))
    assert seen["ct"] == {-1024.0, 40.0}
    assert len(seen["mr"]) > 2, "arbitrary units have no padding of their own"


@pytest.mark.parametrize(
    ("kind", "values", "seen"),
    [
        ("ct", [-2000, -1000, 0, 500, 3000], [-1, -1, 0, 0.5, 1]),
        ("8-bit", [0, 51, 102, 204, 255], [0, 0.2, 0.4, 0.8, 1]),
    ],
)
def test_fixed_scales(kind, values, seen) -> None:
    voxels = np.zeros((2, 2, 5), np.float32) + np.array(values, np.float32)
    got = encoder_input(image(voxels), "x", kind, [])
    np.testing.assert_allclose(got[0, 0], seen, atol=1e-6)
    case = Case("P", None, {"x": image(voxels)}, {}, (), kinds={"x": kind})
    padded = stack(case, shape=(4, 4, 7), modalities=("x",))
    assert padded[0, 0, 0, 0] == (-1 if kind == "ct" else 0), "beyond a CT is air"


def test_kinds_by_name_and_by_flag() -> None:
    assert [kind_of(name) for name in ("T2", "flair", "ct", "us", "adc")] == [
        "mr", "mr", "ct", "8-bit", "units",
    ]  # fmt: skip
    assert kind_of("t2", {"t2": "units"}) == "units"
    assert parse_kinds(["pet=units"]) == {"pet": "units"}
    for wrong in ("pet", "pet=suv", "=mr"):
        with pytest.raises(InputError, match="write MODALITY=KIND"):
            parse_kinds([wrong])


def test_values_that_are_not_of_their_kind_are_refused(tmp_path: Path) -> None:
    write(image(noise() * 5), tmp_path / "xray.mha")
    path = tmp_path / "cohort.csv"
    path.write_text("patient_id,xray\nP,xray.mha\n")
    with pytest.raises(CaseError, match="gray values go from 0 to 255") as caught:
        read_case(read_manifest(path).cases[0])
    assert "--kind xray=mr" in str(caught.value)
    read_case(read_manifest(path, declared=Declared(kinds={"xray": "mr"})).cases[0])


@pytest.mark.parametrize(
    ("values", "noted"),
    [
        ([24, 1064, 1100, 2000], True),
        ([-2000, 24, 1064, 2000], True),
        ([-1024, 24, 1064, 2000], True),
        ([-3024, -40, 1064, 2000], True),
        ([-1000, -100, 40, 1200], False),
        ([-2000, -1000, 40, 1200], False),
        ([-100, 40, 100, 240], False),
    ],
    ids=["plain", "padded", "padded at -1024", "resampled", "CT", "padded CT", "windowed"],
)
def test_a_ct_without_its_intercept_is_noted_whatever_its_padding(values, noted) -> None:
    ct = image(np.zeros((2, 2, 4), np.float32) + np.array(values, np.float32))
    notes = notes_on(ct, "ct", "ct")
    assert bool(notes) is noted
    assert all("check that slope and intercept were applied" in note for note in notes)
