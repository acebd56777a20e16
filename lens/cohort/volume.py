"""A case as the array that an encoder takes."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float32, Shaped

from lens.cohort.case import Case
from lens.cohort.manifest import CHANNELS
from lens.errors import CaseError

SHAPE = (64, 224, 224)
"""Depth, height and width of an encoder's input, in voxels."""


def stack(
    case: Case,
    *,
    shape: tuple[int, int, int] = SHAPE,
    modalities: tuple[str, ...] = CHANNELS,
) -> Float32[np.ndarray, "d h w c"]:
    """Stacks the images of a case into one volume.

    Each channel is standardised over its own non-zero voxels (mean 0, standard deviation 1; zeros
    stay zero), then cropped or zero-padded about the centre of the image.

    Args:
        case: from `lens.cohort.read_case`.
        shape: (D, H, W) in voxels of the case's grid, along z, y and x.
        modalities: the channels; one that the case lacks is all zeros.

    Returns:
        The volume (D, H, W, C), without units.

    Raises:
        CaseError: the case has none of the channels, or one of its images is zeros on this crop:
            an encoder would be shown nothing.
    """
    if not set(modalities) & set(case.images):
        raise CaseError(
            case.patient_id,
            "",
            stage="embed",
            reason=f"none of the channels {', '.join(modalities)} is among the images of the case, "
            f"{', '.join(case.images)}",
            remedy="Name its modalities as the manifest does.",
        )
    volume = np.zeros((*shape, len(modalities)), np.float32)
    for channel, name in enumerate(modalities):
        if name in case.images:
            voxels = sitk.GetArrayViewFromImage(case.images[name])
            volume[..., channel] = _crop_or_pad(_standardise(voxels), shape)
            if not volume[..., channel].any():
                raise _nothing_seen(case, name, shape)
    return volume


def stack_mask(
    case: Case, roi: str, *, shape: tuple[int, int, int] = SHAPE
) -> Bool[np.ndarray, "d h w"]:
    """A mask of the case on the same crop as `stack`; all False where the case lacks it."""
    if roi not in case.masks:
        return np.zeros(shape, bool)
    return _crop_or_pad(sitk.GetArrayViewFromImage(case.masks[roi]) > 0, shape)


def _nothing_seen(case: Case, name: str, shape: tuple[int, int, int]) -> CaseError:
    return CaseError(
        case.patient_id,
        next((placed.file for placed in case.geometry if placed.name == name), ""),
        stage="embed",
        reason=f"the {name} image is of one value, or zero, in the crop of {shape} voxels about "
        "its centre",
        remedy="Look at the image and its header, or enlarge the shape.",
    )


def _standardise(voxels: np.ndarray) -> np.ndarray:
    seen = voxels != 0
    values = voxels[seen].astype(np.float64)
    out = np.zeros(voxels.shape, np.float32)
    if not values.size:
        return out
    out[seen] = (values - values.mean()) / (values.std() or 1.0)
    return out


def _crop_or_pad(
    array: Shaped[np.ndarray, "z y x"], shape: tuple[int, int, int]
) -> Shaped[np.ndarray, "d h w"]:
    out = np.zeros(shape, array.dtype)
    take, put = [], []
    for size, wanted in zip(array.shape, shape, strict=True):
        length = min(size, wanted)
        take.append(slice((size - length) // 2, (size - length) // 2 + length))
        put.append(slice((wanted - length) // 2, (wanted - length) // 2 + length))
    out[tuple(put)] = array[tuple(take)]
    return out
