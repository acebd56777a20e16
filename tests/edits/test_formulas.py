"""Edits as closed forms: what they do to the image, and that they leave the rest alone."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import SimpleITK as sitk

from lens.edits import filters, shape
from lens.edits.catalogue import KINDS, parse_doses, parse_edits
from lens.edits.versions import ARMS, editable, edited, matched_noise, versions
from lens.errors import CaseError, InputError
from tests.edits.builders import ball, case, edit, ready, voxels

LOCAL = [
    "shift", "scale", "contrast", "gamma", "smooth", "sharpen", "texture:2", "wavelet:HHH",
    "wavelet:LLH",
]  # fmt: skip

GRIDS = {
    "volume": {},
    "thick slices": {"spacing": (0.5, 0.5, 3.0), "shape": (6, 40, 40)},
    "at the border": {"centre": (1.0, 2.0, 21.0)},
}


def test_every_kind_is_tried() -> None:
    assert {name.partition(":")[0] for name in LOCAL} | {"grow"} == set(KINDS)


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("grid", GRIDS)
def test_outside_of_the_region_not_a_bit_changes(name: str, grid: str) -> None:
    of = ready(case(**GRIDS[grid]))
    before = voxels(of.case)
    for dose in edit(name).doses:
        made = edited(of, edit(name), dose, ("t2",), of.region, carry=True)
        after = voxels(made.case)
        assert np.array_equal(after[~of.region], before[~of.region])
        assert np.mean(after[of.region] != before[of.region]) > 0.9
        assert made.rms > 0
        assert made.case.masks is not None
        assert np.isfinite(after).all()


@pytest.mark.parametrize("name", [name for name in LOCAL if "H" not in name])
def test_a_single_slice_is_edited_in_its_plane(name: str) -> None:
    of = ready(case(shape=(1, 40, 40), spacing=(1.0, 1.0, 7.0), radius=8.0))
    (dose, *_) = edit(name).doses
    made = voxels(edited(of, edit(name), dose, ("t2",), of.region, carry=True).case)
    assert np.array_equal(made[~of.region], voxels(of.case)[~of.region])
    assert np.mean(made[of.region] != voxels(of.case)[of.region]) > 0.9


def test_a_wavelet_band_of_a_single_slice_has_two_letters() -> None:
    of = ready(case(shape=(1, 40, 40), radius=8.0))
    hh = edit("wavelet:HH", 1.0, flat=True)
    made = voxels(edited(of, hh, 1.0, ("t2",), of.region, carry=True).case)
    assert np.array_equal(made[~of.region], voxels(of.case)[~of.region])
    assert made[of.region].std() > voxels(of.case)[of.region].std()
    with pytest.raises(InputError, match="wavelet band 'HHH'"):
        edit("wavelet:HHH", 1.0, flat=True)


def test_a_shift_moves_every_value_by_the_dose() -> None:
    of = ready(case(low=500, high=900))
    sd = of.scalings["t2"].sd
    made = edited(of, edit("shift"), -0.5, ("t2",), of.region, carry=True)
    moved = voxels(made.case)[of.region].astype(float) - voxels(of.case)[of.region]
    # float32 values of up to 900 have steps of 6e-5.
    np.testing.assert_allclose(moved, -0.5 * sd, atol=2e-4)
    assert made.rms == pytest.approx(0.5, rel=1e-6)


def test_a_scale_multiplies_and_on_ct_multiplies_what_lies_above_air() -> None:
    of = ready(case())
    made = voxels(edited(of, edit("scale"), 0.25, ("t2",), of.region, carry=True).case)
    inside = voxels(of.case)[of.region]
    np.testing.assert_allclose(made[of.region], inside * 2**0.25, rtol=1e-6)
    ct = ready(case(images=("ct",), low=-100, high=100))
    made = voxels(edited(ct, edit("scale"), 0.25, ("ct",), ct.region, carry=True).case, "ct")
    inside = voxels(ct.case, "ct")[ct.region]
    np.testing.assert_allclose(made[ct.region] + 1000, (inside + 1000) * 2**0.25, rtol=1e-5)


def test_contrast_keeps_the_mean_and_multiplies_the_spread() -> None:
    of = ready(case(low=500, high=900))
    made = voxels(edited(of, edit("contrast"), 1.0, ("t2",), of.region, carry=True).case)
    before, after = voxels(of.case)[of.region], made[of.region]
    assert after.mean(dtype=float) == pytest.approx(before.mean(dtype=float), rel=1e-6)
    assert after.std(dtype=float) == pytest.approx(2 * before.std(dtype=float), rel=1e-5)


def test_gamma_keeps_the_ends_and_bends_between() -> None:
    of = ready(case())
    before = voxels(of.case)[of.region].astype(float)
    for dose, darker in ((1.0, True), (-1.0, False)):
        made = voxels(edited(of, edit("gamma"), dose, ("t2",), of.region, carry=True).case)
        after = made[of.region].astype(float)
        assert after.min() == pytest.approx(before.min(), rel=1e-6)
        assert after.max() == pytest.approx(before.max(), rel=1e-6)
        assert (np.median(after) < np.median(before)) == darker
        assert np.array_equal(np.argsort(after), np.argsort(before))


def test_smoothing_lowers_the_spread_and_sharpening_raises_it() -> None:
    of = ready(case())
    spread = {0.0: voxels(of.case)[of.region].std()}
    for dose in (1.0, 2.0):
        made = edited(of, edit("smooth"), dose, ("t2",), of.region, carry=True)
        spread[dose] = voxels(made.case)[of.region].std()
    sharp = edited(of, edit("sharpen"), 1.0, ("t2",), of.region, carry=True)
    assert spread[2.0] < 0.6 * spread[1.0] < 0.5 * spread[0.0]
    assert voxels(sharp.case)[of.region].std() > 1.2 * spread[0.0]


def test_smoothing_takes_nothing_from_outside() -> None:
    plain = case()
    inside = np.asarray(sitk.GetArrayViewFromImage(plain.masks["lesion"]) > 0)
    values = np.where(inside, np.float32(700), voxels(plain))
    np.testing.assert_allclose(
        filters.smoothed(values.astype(float), inside, (1.0, 1.0, 1.0), 3.0)[inside], 700, rtol=1e-9
    )


def test_smoothing_is_by_mm_and_not_by_voxels() -> None:
    # A plane wave of wavelength L loses exp(-2 (pi sigma / L)^2) under a Gaussian of sigma.
    for edge in (0.5, 1.0):
        z = np.arange(int(64 / edge)) * edge
        wave = np.broadcast_to(np.sin(2 * np.pi * z / 16)[:, None, None], (len(z), 3, 3)).copy()
        everywhere = np.ones(wave.shape, bool)
        made = filters.smoothed(wave, everywhere, (edge, 9.0, 9.0), 2.0)
        middle = slice(len(z) // 4, -len(z) // 4)
        left = made[middle, 1, 1].std() / wave[middle, 1, 1].std()
        assert left == pytest.approx(np.exp(-2 * (np.pi * 2 / 16) ** 2), rel=0.02)


def test_wavelet_bands_add_up_to_the_image() -> None:
    values = np.random.default_rng(0).uniform(100, 900, (7, 12, 9))
    total = sum(filters.band(values, name) for name in filters.bands(flat=False))
    np.testing.assert_allclose(total, values, rtol=1e-9)


def test_a_wavelet_band_is_that_of_the_same_name_in_the_radiomics() -> None:
    from radiomics import imageoperations

    made = sitk.GetImageFromArray(np.random.default_rng(0).uniform(100, 900, (8, 12, 10)))
    mask = sitk.GetImageFromArray(np.ones((8, 12, 10), np.uint8))

    def energy(values: np.ndarray) -> dict[str, float]:
        image = sitk.GetImageFromArray(values)
        found = imageoperations.getWaveletImage(image, mask, wavelet="coif1")
        return {name: float(sitk.GetArrayFromImage(each).std()) for each, name, _ in found}

    values = sitk.GetArrayFromImage(made)
    before = energy(values)
    after = energy(filters.gained(values, "LLH", 1.0))
    gains = {name: after[name] / before[name] for name in before}
    assert max(gains, key=lambda name: gains[name]) == "wavelet-LLH"
    assert gains["wavelet-LLH"] > 1.4


def test_texture_has_the_size_and_the_length_asked_for() -> None:
    region = np.ones((24, 48, 48), bool)
    field = filters.texture(region, (2.0, 1.0, 1.0), 3.0, np.random.default_rng(0))
    assert field.mean() == pytest.approx(0, abs=1e-9)
    assert field.std() == pytest.approx(1)
    # White noise smoothed by sigma correlates by exp(-(distance / 2 sigma)^2), in mm on every axis.
    for axis, edge in enumerate((2.0, 1.0, 1.0)):
        apart = int(4 / edge)
        near = np.mean(field * np.roll(field, apart, axis))
        assert near == pytest.approx(np.exp(-((4 / 6) ** 2)), abs=0.08)


def test_all_doses_add_the_same_texture() -> None:
    of, added = ready(case()), edit("texture:2")
    fields = [
        (voxels(edited(of, added, dose, ("t2",), of.region, carry=True).case) - voxels(of.case))
        / dose
        for dose in added.doses
    ]
    assert np.corrcoef(fields[0][of.region], fields[1][of.region])[0, 1] > 0.99


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 1.4)])
@pytest.mark.parametrize("dose", [-2.0, 2.0])
def test_growing_makes_a_ball_of_the_new_radius(spacing, dose: float) -> None:
    shape_ = (40, 60, 60) if spacing[2] == 1.0 else (30, 80, 80)
    of = ready(case(shape=shape_, spacing=spacing, radius=12.0))
    made = edited(of, edit("grow", dose), dose, ("t2",), of.region, carry=True).case
    after = sitk.GetArrayViewFromImage(made.masks["lesion"]) > 0
    assert after.sum() / of.region.sum() == pytest.approx(((12 + dose) / 12) ** 3, rel=0.06)
    # What the image held at the old contour lies at the new one.
    centre = tuple((n - 1) / 2 for n in shape_)
    wanted = ball(shape_, centre, 12.0 + dose, spacing[::-1])
    painted = np.where(of.region, 900.0, 100.0).astype(np.float32)
    image = sitk.GetImageFromArray(painted)
    image.CopyInformation(of.case.images["t2"])
    step = ready(type(of.case)("P-07", None, {"t2": image}, of.case.masks, ()))
    moved = voxels(edited(step, edit("grow", dose), dose, ("t2",), of.region, carry=True).case)
    assert np.mean((moved > 500) != wanted) < 0.01


def test_growing_moves_nothing_beyond_its_reach() -> None:
    of = ready(case(shape=(32, 48, 48), radius=7.0))
    made = edited(of, edit("grow", 1.0), 1.0, ("t2",), of.region, carry=True)
    far = shape.distance(of.region, of.spacing_mm) > shape.REACH + 1
    assert far.any()
    assert np.array_equal(voxels(made.case)[far], voxels(of.case)[far])


def test_growing_carries_other_regions_and_all_images() -> None:
    of = ready(case(shape=(32, 48, 48), radius=5.0, organ=13.0, images=("t2", "dwi")))
    made = edited(of, edit("grow", 2.0), 2.0, ("t2", "dwi"), of.region, carry=True).case
    gland, lesion = (sitk.GetArrayFromImage(made.masks[roi]) > 0 for roi in ("gland", "lesion"))
    assert lesion.sum() > of.region.sum()
    assert not np.any(lesion & ~gland)
    assert np.any(voxels(made, "dwi") != voxels(of.case, "dwi"))


def test_a_thin_region_cannot_shrink_far() -> None:
    of = ready(case(radius=3.0))
    with pytest.raises(CaseError, match="too thin"):
        list(versions(of, edit("grow", -4.0), ("t2",)))


def test_a_soft_edge_rises_from_nothing() -> None:
    soft, hard = (ready(case(low=500), edge_mm=mm) for mm in (3.0, 0.0))
    change = {}
    for name, of in (("soft", soft), ("hard", hard)):
        made = edited(of, edit("shift"), 1.0, ("t2",), of.region, carry=True).case
        change[name] = voxels(made).astype(float) - voxels(of.case)
    depth = -shape.distance(hard.region, hard.spacing_mm)
    assert np.all(change["soft"][depth < 0] == 0)
    deep = depth >= 3
    assert deep.any()
    np.testing.assert_allclose(change["soft"][deep], change["hard"][deep])
    rim = hard.region & (depth < 1)
    assert np.all(change["soft"][rim] < 0.4 * change["hard"][rim])


def test_values_stay_in_the_range_of_their_kind_and_it_is_counted() -> None:
    us = ready(case(images=("us",), low=0, high=255))
    made = edited(us, edit("shift"), 1.0, ("us",), us.region, carry=True)
    assert voxels(made.case, "us").max() <= 255
    assert 0.1 < made.clipped < 0.5
    mr = ready(case(low=1, high=900))
    made = edited(mr, edit("shift"), -1.0, ("t2",), mr.region, carry=True)
    # Zero would say that there is no tissue.
    assert voxels(made.case)[mr.region].min() > 0
    assert made.clipped > 0


def test_noise_is_as_large_as_the_edit_and_lies_where_it_does() -> None:
    of = ready(case(low=500))
    for name in ("contrast", "grow"):
        made = edited(of, edit(name), 1.0, ("t2",), of.region, carry=True)
        noise = matched_noise(of, made.case, ("t2",))
        assert noise.rms == pytest.approx(made.rms, rel=1e-3)
        changed = [voxels(each.case) != voxels(of.case) for each in (made, noise)]
        assert not np.any(changed[1] & ~changed[0])


def test_there_are_three_arms_of_every_dose() -> None:
    found = list(versions(ready(case()), edit("shift", -1.0, 1.0), ("t2",)))
    assert [(dose, arm) for dose, arm, _ in found] == [(d, a) for d in (-1.0, 1.0) for a in ARMS]


def test_an_edit_that_changes_nothing_is_refused() -> None:
    flat = case()
    image = sitk.GetImageFromArray(np.full((16, 24, 24), 5, np.float32))
    of = ready(type(flat)("P-07", None, {"t2": image}, flat.masks, ()))
    with pytest.raises(CaseError, match="changes no voxel"):
        list(versions(of, edit("contrast"), ("t2",)))


@pytest.mark.parametrize(("radius", "said"), [(0.0, "0 voxel"), (0.9, "1 voxel")])
def test_a_region_too_small_is_refused(radius: float, said: str) -> None:
    with pytest.raises(CaseError, match=said):
        ready(case(shape=(15, 23, 23), radius=radius))


def test_a_missing_region_and_a_value_that_is_no_number_are_refused() -> None:
    made = case()
    del made.masks["lesion"]
    with pytest.raises(CaseError, match="no region lesion"):
        ready(made)
    made = case()
    made.images["t2"][0, 0, 0] = float("nan")
    with pytest.raises(CaseError, match="NaN or infinite"):
        ready(made)


@pytest.mark.parametrize(
    ("names", "doses", "said"),
    [
        (["shfit"], [], "did you mean shift"),
        (["shift", "shift"], [], "named twice"),
        (["texture"], [], "texture:LENGTH"),
        (["texture:long"], [], "texture:LENGTH"),
        (["smooth:2"], [], "takes no setting"),
        (["wavelet:HHX"], [], "wavelet band 'HHX'"),
        (["smooth"], ["smooth=-1"], "above 0 alone"),
        (["shift"], ["shift=0,1"], "other than 0"),
        (["shift"], ["shift=nan"], "other than 0"),
        (["shift"], ["shift=1,1"], "each another"),
        (["shift"], ["shift=99"], "up to 5"),
        (["shift"], ["grow=1"], "--doses"),
        (["shift"], ["shift:1"], "write EDIT=DOSE"),
        (["shift"], ["shift=one"], "write EDIT=DOSE"),
    ],
)
def test_wrong_edits_are_refused(names: list[str], doses: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_edits(names, parse_doses(doses), flat=False)


def test_a_region_that_fills_the_image_has_no_contour_to_move() -> None:
    made = case((6, 8, 8))
    full = sitk.GetImageFromArray(np.ones((6, 8, 8), np.uint8))
    of = editable(dataclasses.replace(made, masks={"lesion": full}), "lesion")
    (grow,) = parse_edits(["grow"], {}, flat=False)
    with pytest.raises(CaseError, match="fills the image, where there is no contour"):
        list(versions(of, grow, ("t2",)))


def test_noise_of_an_image_that_did_not_change_is_none() -> None:
    """A warp of all images moves nothing in one that is the same everywhere."""
    made = case((12, 16, 16), images=("t2", "adc"))
    flat = sitk.GetImageFromArray(np.full((12, 16, 16), 7, np.float32))
    of = editable(dataclasses.replace(made, images=made.images | {"adc": flat}), "lesion")
    (grow,) = parse_edits(["grow"], {}, flat=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [each for _, arm, each in versions(of, grow, ("t2", "adc")) if arm == "noise"]
    for each in found:
        assert each is not None
        assert (sitk.GetArrayViewFromImage(each.case.images["adc"]) == 7).all()
