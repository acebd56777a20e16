"""Small changes of a case that a feature should survive: pose, contour and noise.

After Zwanenburg et al., Assessing robustness of radiomic features by image perturbation, Scientific
Reports 9, 614 (2019): rotation and translation against the grid, contour randomisation, growing
and shrinking, and added noise, here all at once in each version of a case.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from lens.cohort.case import Case
from lens.radiomics.extract import bounding_box

ROTATION_DEG = 3.0
"""Largest rotation about each axis through the centre of the ROIs, either way, in degrees."""

TRANSLATION_MM = 1.0
"""Largest shift along each axis, either way, in mm."""

GROWTH_MM = 0.3
"""Standard deviation in mm by which a whole contour moves out or in (dilation, erosion)."""

CONTOUR_MM = 0.5
"""Standard deviation in mm by which each place of a contour moves out or in beside that."""

CONTOUR_LENGTH_MM = 4.0
"""Distance in mm over which such movements are alike (sd of the Gaussian that smooths them)."""

NOISE_SD = 0.05
"""Standard deviation of the added white noise, in standard deviations of the first ROI's voxels."""

MARGIN_MM = 14.0
"""Surroundings in mm that are kept: more than any pose, contour and wavelet reach."""


def perturbed(case: Case, rng: np.random.Generator) -> Case:
    """Another version of the case, cut to the ROIs and their surroundings.

    Image and masks move together against the grid; then each contour moves on its own and noise is
    added. Images take a cubic B-spline, since linear interpolation would smooth one version more
    than the next, by how far it falls between voxels. Contours move as the zero line of a distance
    map, by at most half the depth of the region, so that none vanishes.

    Args:
        case: images and masks on one grid; a mask at least.
        rng: equal state, equal version.
    """
    small = surroundings(case)
    pose = _pose(next(iter(small.masks.values())), rng)
    masks = {roi: _moved_contour(mask, pose, rng) for roi, mask in small.masks.items()}
    roi = next(iter(small.masks.values()))
    images = {name: _noisy(image, roi, pose, rng) for name, image in small.images.items()}
    return replace(case, images=images, masks=masks)


def surroundings(case: Case) -> Case:
    """The case within `MARGIN_MM` of its ROIs, as far as the images reach."""
    boxes = [bounding_box(mask) for mask in case.masks.values()]
    first = np.min([box[0] for box in boxes], axis=0)
    last = np.max([box[1] for box in boxes], axis=0)
    image = next(iter(case.images.values()))
    margin = np.ceil(MARGIN_MM / np.array(image.GetSpacing())).astype(int)
    start = np.maximum(first - margin, 0)
    stop = np.minimum(last + 1 + margin, image.GetSize())
    box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return replace(
        case,
        images={name: image[box] for name, image in case.images.items()},
        masks={roi: mask[box] for roi, mask in case.masks.items()},
    )


def _pose(mask: sitk.Image, rng: np.random.Generator) -> sitk.Transform:
    first, last = bounding_box(mask)
    centre = [(a + b) / 2 for a, b in zip(first, last, strict=True)]
    pose = sitk.Euler3DTransform()
    pose.SetCenter(mask.TransformContinuousIndexToPhysicalPoint(centre))
    pose.SetRotation(*np.deg2rad(rng.uniform(-ROTATION_DEG, ROTATION_DEG, 3)).tolist())
    pose.SetTranslation(rng.uniform(-TRANSLATION_MM, TRANSLATION_MM, 3).tolist())
    return pose


def _moved_contour(mask: sitk.Image, pose: sitk.Transform, rng: np.random.Generator) -> sitk.Image:
    depth = sitk.GetArrayFromImage(_resampled(_depth(mask), pose, sitk.sitkLinear))
    sigma = CONTOUR_LENGTH_MM / np.array(mask.GetSpacing()[::-1])
    field = gaussian_filter(rng.normal(size=depth.shape), sigma, mode="wrap")
    moves = rng.normal(0, GROWTH_MM) + CONTOUR_MM * field / field.std()
    limit = depth.max() / 2
    moved = sitk.GetImageFromArray((depth + np.clip(moves, -limit, limit) > 0).astype(np.uint8))
    moved.CopyInformation(mask)
    return moved


def _depth(mask: sitk.Image) -> sitk.Image:
    """Distance in mm to the contour, positive inside, which runs between voxels."""
    to_inside, to_outside = (
        sitk.SignedMaurerDistanceMap(region, squaredDistance=False, useImageSpacing=True)
        for region in (mask, mask == 0)
    )
    inside = sitk.Cast(mask, sitk.sitkFloat32)
    # The maps measure to the centre of the nearest voxel beyond the contour, half a voxel too far.
    half = min(mask.GetSpacing()) / 2
    return inside * (to_outside - half) - (1 - inside) * (to_inside - half)


def _noisy(
    image: sitk.Image, roi: sitk.Image, pose: sitk.Transform, rng: np.random.Generator
) -> sitk.Image:
    inside = sitk.GetArrayViewFromImage(image)[sitk.GetArrayViewFromImage(roi) > 0]
    array = sitk.GetArrayFromImage(_resampled(image, pose, sitk.sitkBSpline))
    noise = rng.normal(0, NOISE_SD * inside.std(dtype=np.float64), array.shape)
    made = sitk.GetImageFromArray((array + noise).astype(np.float32))
    made.CopyInformation(image)
    return made


def _resampled(image: sitk.Image, pose: sitk.Transform, interpolator: int) -> sitk.Image:
    resample = sitk.ResampleImageFilter()
    resample.SetReferenceImage(image)
    resample.SetTransform(pose)
    resample.SetInterpolator(interpolator)
    resample.SetUseNearestNeighborExtrapolator(True)
    return resample.Execute(image)
