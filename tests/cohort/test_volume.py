"""Stacking: put on the scale of their kind, cropped and padded about the centre."""

from __future__ import annotations

import numpy as np
import pytest

from lens.cohort import Case, stack, stack_mask
from lens.errors import CaseError
from tests.cohort.builders import ball, image, noise


def case(size_zyx: tuple[int, int, int]) -> Case:
    t2, adc = noise(size_zyx, 1), noise(size_zyx, 2)
    t2[:, :, : size_zyx[2] // 2] = 0
    return Case(
        "P-07", None, {"t2": image(t2), "adc": image(adc)}, {"gland": image(ball(size_zyx))}, ()
    )


def test_channels_are_standardised_over_their_non_zero_voxels() -> None:
    volume = stack(case((10, 20, 20)), shape=(10, 20, 20))
    assert volume.dtype == np.float32
    assert volume.shape == (10, 20, 20, 3)
    seen = volume[:, :, 10:, 0]
    assert np.all(volume[:, :, :10, 0] == 0)
    # float32 sums over 2,000 voxels.
    assert abs(seen.mean()) < 1e-6
    assert abs(seen.std() - 1) < 1e-5
    assert np.all(volume[..., 1] == 0), "the missing modality is a zero channel"
    adc = noise((10, 20, 20), 2)
    # In its unit, 1e-6 mm2/s: 1200 is 0, and 500 more is 1, whatever else is in view.
    np.testing.assert_allclose(volume[..., 2], (adc - 1200) / 500, atol=1e-5)


def test_gain_does_not_change_the_volume() -> None:
    plain = case((8, 9, 10))
    louder = Case("P-07", None, {"t2": plain.images["t2"] * 37.5}, plain.masks, ())
    np.testing.assert_allclose(
        stack(louder, shape=(8, 9, 10), modalities=("t2",)),
        stack(plain, shape=(8, 9, 10), modalities=("t2",)),
        atol=1e-5,
    )


@pytest.mark.parametrize("shape", [(4, 30, 11), (16, 8, 20), (10, 21, 19), (11, 20, 21)])
def test_crop_and_pad_keep_the_centre(shape: tuple[int, int, int]) -> None:
    full = case((10, 20, 20))
    whole = stack(full, shape=(10, 20, 20))
    cut = stack(full, shape=shape)
    # Independently: pad by far too much on every side, then cut about the centre.
    pad = 40
    padded = np.pad(whole, [(pad, pad)] * 3 + [(0, 0)])
    starts = [
        pad + (size - wanted) // 2 if size >= wanted else pad - (wanted - size) // 2
        for size, wanted in zip((10, 20, 20), shape, strict=True)
    ]
    expected = padded[tuple(slice(s, s + n) for s, n in zip(starts, shape, strict=True))]
    np.testing.assert_array_equal(cut, expected)


@pytest.mark.parametrize("shape", [(4, 30, 11), (16, 8, 20)])
def test_the_mask_lands_on_the_same_voxels(shape: tuple[int, int, int]) -> None:
    gland = case((10, 20, 20)).masks["gland"]
    # 3 inside the gland and 1 outside: standardised, exactly the inside is above zero.
    marked = Case("P-07", None, {"t2": gland * 2 + 1}, {"gland": gland}, ())
    mask = stack_mask(marked, "gland", shape=shape)
    assert mask.dtype == bool
    assert mask.any()
    volume = stack(marked, shape=shape, modalities=("t2",))[..., 0]
    np.testing.assert_array_equal(mask, volume > 0)
    assert not stack_mask(marked, "lesion", shape=shape).any()


@pytest.mark.parametrize("blank", ["zero", "one value"])
def test_an_image_of_nothing_is_refused(blank) -> None:
    content = np.zeros((8, 9, 10), np.float32) if blank == "zero" else np.full((8, 9, 10), 7.0)
    images = {"t2": image(noise((8, 9, 10))), "adc": image(content.astype(np.float32))}
    case = Case("P-1", None, images, {}, ())
    with pytest.raises(CaseError, match="the adc image is of one value, or zero") as caught:
        stack(case, shape=(8, 9, 10))
    assert caught.value.patient_id == "P-1"
    assert stack(case, shape=(8, 9, 10), modalities=("t2", "none"))[..., 0].any()


def test_channels_that_a_case_has_none_of_are_refused() -> None:
    case = Case("P-1", None, {"t2": image(noise((8, 9, 10)))}, {}, ())
    with pytest.raises(CaseError, match="none of the channels T2, DWI is among the images"):
        stack(case, shape=(8, 9, 10), modalities=("T2", "DWI"))
