"""A case as the array that an encoder takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float32, Shaped

from lens.cohort.case import Case
from lens.cohort.intensities import Scaling, encoder_input, kind_of, outside_value
from lens.cohort.prostate import channels as default_channels
from lens.errors import CaseError

SHAPE = (64, 224, 224)
"""Depth, height and width of an encoder's input, in voxels."""


def stack(
    case: Case,
    *,
    shape: tuple[int, int, int] = SHAPE,
    modalities: tuple[str, ...] | None = None,
    scalings: Mapping[str, Scaling] | None = None,
) -> Float32[np.ndarray, "d h w c"]:
    """Stacks the images of a case into one volume.

    Each channel is put on the scale of its kind (`lens.cohort.intensities.encoder_input`), then
    cropped or padded about the centre of the image.

    Args:
        case: from `lens.cohort.read_case`.
        shape: (D, H, W) in voxels of the case's grid, along z, y and x.
        modalities: the channels, one that the case lacks is all zeros; by default the images of
            the case (`lens.cohort.prostate.channels`).
        scalings: modality -> mean and standard deviation that take the place of those of the image,
            as for a case of which a part was edited.

    Returns:
        The volume (D, H, W, C), without units.

    Raises:
        CaseError: the case has none of the channels, or one of its images is zeros on this crop:
            an encoder would be shown nothing.
    """
    if modalities is None:
        modalities = default_channels(tuple(case.images))
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
            kind = kind_of(name, case.kinds)
            seen = encoder_input(
                case.images[name], name, kind, case.masks.values(), (scalings or {}).get(name)
            )
            volume[..., channel] = _crop_or_pad(seen, shape, outside_value(kind))
            if np.ptp(volume[..., channel]) == 0:
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


def _crop_or_pad(
    array: Shaped[np.ndarray, "z y x"], shape: tuple[int, int, int], outside: float = 0
) -> Shaped[np.ndarray, "d h w"]:
    out = np.full(shape, outside, array.dtype)
    take, put = [], []
    for size, wanted in zip(array.shape, shape, strict=True):
        length = min(size, wanted)
        take.append(slice((size - length) // 2, (size - length) // 2 + length))
        put.append(slice((wanted - length) // 2, (wanted - length) // 2 + length))
    out[tuple(put)] = array[tuple(take)]
    return out
