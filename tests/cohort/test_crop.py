"""A case read as far as an encoder looks: the same volume and masks, from fewer voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import CaseFiles, read_case, stack, stack_mask
from lens.cohort.intensities import Kind

SPACING = (1.0, 1.0, 2.0)
SHAPE = (21, 64, 81)

BOXES = {
    "in the middle": np.s_[8:13, 28:36, 36:44],
    "at an edge": np.s_[0:3, 56:64, 70:81],
    "beside the crop": np.s_[16:20, 2:8, 4:9],
}


def files(
    folder: Path, box: tuple[slice, ...] | None, kinds: Mapping[str, Kind], seed: int = 0
) -> CaseFiles:
    """Skewed intensities with zeros beside them; images on grids of their own, one turned."""
    rng = np.random.default_rng(seed)
    images, masks = {}, {}
    for number, name in enumerate(kinds):
        voxels = rng.lognormal(3, 1, SHAPE).astype(np.float32)
        voxels[:, :, :7] = 0
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(SPACING if number == 0 else (1.3, 0.9, 2.4))
        turn = 0.02 * number
        image.SetDirection((np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1))
        images[name] = folder / f"{name}.nii.gz"
        sitk.WriteImage(image, images[name])
    if box is not None:
        region = np.zeros(SHAPE, np.uint8)
        region[box] = 1
        mask = sitk.GetImageFromArray(region)
        mask.CopyInformation(sitk.ReadImage(images[next(iter(kinds))]))
        masks["tumour"] = folder / "tumour.nii.gz"
        sitk.WriteImage(mask, masks["tumour"])
    return CaseFiles(
        patient_id="P",
        study_id=None,
        images=images,
        masks=masks,
        labels={},
        split=None,
        kinds=dict(kinds),
    )


# Sides even and odd, smaller and larger than the image.
@pytest.mark.parametrize("shape", [(8, 32, 32), (9, 31, 50), (40, 20, 96)])
@pytest.mark.parametrize("box", BOXES)
def test_the_volume_is_that_of_the_whole_to_the_last_bit(tmp_path, shape, box):
    # Every image covers the region: the first alone, whose grid all share.
    case = files(tmp_path, BOXES[box], {"t1": "mr"})
    whole, seen = read_case(case), read_case(case, crop=shape)
    np.testing.assert_array_equal(stack(seen, shape=shape), stack(whole, shape=shape))
    np.testing.assert_array_equal(
        stack_mask(seen, "tumour", shape=shape), stack_mask(whole, "tumour", shape=shape)
    )
    assert seen.notes == whole.notes
    assert seen.geometry == whole.geometry


def test_images_on_grids_of_their_own(tmp_path):
    shape = (8, 40, 40)
    case = files(tmp_path, BOXES["in the middle"], {"t1": "mr", "dose": "units", "ct": "ct"})
    whole, seen = read_case(case), read_case(case, crop=shape)
    np.testing.assert_array_equal(stack(seen, shape=shape), stack(whole, shape=shape))
    voxels = [case.images["dose"].GetNumberOfPixels() for case in (seen, whole)]
    assert voxels[0] < voxels[1] / 3


@pytest.mark.parametrize(("kind", "needs_all"), [("mr", True), ("ct", False), ("8-bit", False)])
def test_without_a_region_the_whole_is_read_where_its_mean_is_needed(tmp_path, kind, needs_all):
    case = files(tmp_path, None, {"image": kind})
    if kind == "8-bit":
        image = sitk.ReadImage(case.images["image"])
        sitk.WriteImage(sitk.Clamp(image, sitk.sitkFloat32, 0, 255), case.images["image"])
    shape = (8, 32, 32)
    whole, seen = read_case(case), read_case(case, crop=shape)
    np.testing.assert_array_equal(stack(seen, shape=shape), stack(whole, shape=shape))
    assert (seen.images["image"].GetSize() == whole.images["image"].GetSize()) == needs_all


def test_a_slice_stays_a_slice(tmp_path):
    case = files(tmp_path, np.s_[4:5, 20:40, 20:40], {"t1": "mr"})
    for path in (*case.images.values(), *case.masks.values()):
        sitk.WriteImage(sitk.ReadImage(path)[:, :, 4:5], path)
    shape = (1, 32, 32)
    case = replace(case, flat=True)
    whole, seen = read_case(case), read_case(case, crop=shape)
    np.testing.assert_array_equal(stack(seen, shape=shape), stack(whole, shape=shape))
