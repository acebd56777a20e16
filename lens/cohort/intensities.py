"""Intensities by the kind of modality: one choice for radiomics and encoders alike.

What each kind means, and why, is in ``docs/intensities.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float32, Shaped

from lens.cohort.geometry import box_with_margin
from lens.errors import InputError

Kind = Literal["mr", "ct", "8-bit", "units"]
"""What the numbers of an image mean: arbitrary units, Hounsfield units, gray values from 0 to 255,
or a quantity with a unit of its own."""

KINDS: dict[str, Kind] = {
    **dict.fromkeys(
        ("t1", "t1w", "t1c", "t1ce", "t1gd", "t1n", "t2", "t2w", "t2f", "flair", "pd", "swi",
         "dwi", "hbv", "mr", "mri"), "mr"
    ),
    **dict.fromkeys(("ct", "cect", "ldct"), "ct"),
    **dict.fromkeys(("us", "ultrasound", "xray", "cxr", "mammogram"), "8-bit"),
    **dict.fromkeys(("adc", "t1map", "t2map", "suv"), "units"),
}  # fmt: skip
"""Kinds of modalities by their usual names."""

MARGIN_MM = 10.0
"""Surroundings of the regions over which intensities in arbitrary units are standardised."""

AIR_HU = -1024.0
"""Hounsfield units of air as scanners store it; what is no higher is padding."""

NO_AIR_HU = -150.0
"""Hounsfield units that no soft tissue and no fat is below; what lies there is lung or air."""

BONE_HU = 500.0
"""Hounsfield units that no soft tissue is above; what is windowed for it ends lower."""

WINDOW_HU = (-1000.0, 1000.0)
"""Hounsfield units between which an encoder sees differences: from air to cortical bone."""

GRAY = 255.0
"""The brightest of 8-bit gray values."""

UNIT_SCALES = {"adc": (1200.0, 500.0)}
"""Map in units -> the values that an encoder sees as 0, and as 1 above it: ADC of soft tissue in
1e-6 mm2/s and its spread."""


class Scaling(NamedTuple):
    """Mean and standard deviation by which an image is standardised, in its own unit."""

    mean: float
    sd: float


def parse_kinds(arguments: Sequence[str]) -> dict[str, Kind]:
    """``("t1=mr", "dose=units")`` as a mapping.

    Raises:
        InputError: another form, an unknown kind, or a modality named twice.
    """
    kinds: dict[str, Kind] = {}
    for argument in arguments:
        name, _, kind = argument.partition("=")
        if not name or kind not in get_args(Kind) or name in kinds:
            raise InputError(
                f"--kind {argument!r}: write MODALITY=KIND, each modality once; a kind is one of "
                f"{', '.join(get_args(Kind))}"
            )
        kinds[name] = kind  # pyright: ignore[reportArgumentType]
    return kinds


def kind_of(modality: str, kinds: Mapping[str, Kind] | None = None) -> Kind:
    """The kind of a modality: as said, by its usual name, or else arbitrary units."""
    return (kinds or {}).get(modality) or KINDS.get(modality.lower(), "mr")


def scaling(image: sitk.Image, masks: Iterable[sitk.Image]) -> Scaling:
    """Mean and standard deviation of an image in arbitrary units, about the regions of its case.

    Over the box of all regions with `MARGIN_MM` on every side, as far as the image reaches; over
    the whole image where there is no region. Zeros are no tissue: padding, what lies outside the
    field of view, or a background that was removed.

    Args:
        image: on the grid of the masks.
        masks: 0/1.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    return _scaling(voxels, surroundings(image, masks))


def surroundings(image: sitk.Image, masks: Iterable[sitk.Image]) -> tuple[slice, ...]:
    """(z, y, x) box of all regions with `MARGIN_MM` on every side; all of it without a region."""
    inside = (sitk.GetArrayViewFromImage(mask) for mask in masks)
    return box_about(image.GetSize()[::-1], image.GetSpacing(), inside)


def box_about(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    masks: Iterable[Shaped[np.ndarray, "z y x"]],
) -> tuple[slice, ...]:
    """`surroundings` on an image of this shape (z, y, x) with voxels of this spacing (x, y, z)."""
    return box_with_margin(shape, masks, margin_voxels(spacing_mm)[::-1])


def margin_voxels(spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """`MARGIN_MM` in voxels of this spacing, along each axis."""
    return tuple(np.ceil(MARGIN_MM / np.array(spacing_mm) - 1e-6).astype(int).tolist())


def encoder_input(
    image: sitk.Image,
    modality: str,
    kind: Kind,
    masks: Iterable[sitk.Image],
    scaled: Scaling | None = None,
) -> Float32[np.ndarray, "d h w"]:
    """An image as an encoder sees it, without units.

    ``mr`` and maps without a fixed scale: standard scores over the surroundings of the regions,
    zeros stay zero. Maps with one (`UNIT_SCALES`): on that scale, zeros stay zero. ``ct``:
    `WINDOW_HU` onto -1 to 1. ``8-bit``: onto 0 to 1. `scaled` takes the place of mean and standard
    deviation of the surroundings, as for an image of which a part was edited.
    """
    voxels = sitk.GetArrayFromImage(image)
    return encoder_voxels(voxels, modality, kind, lambda: surroundings(image, masks), scaled)


def encoder_voxels(
    voxels: Shaped[np.ndarray, "d h w"],
    modality: str,
    kind: Kind,
    box: Callable[[], tuple[slice, ...]],
    scaled: Scaling | None = None,
) -> Float32[np.ndarray, "d h w"]:
    """`encoder_input` of voxels in memory.

    Args:
        voxels: in their own units.
        modality: its name.
        kind: what its numbers mean.
        box: gives the surroundings of the regions (`box_about`), which not every kind needs.
        scaled: mean and standard deviation in place of those over this box.
    """
    voxels = voxels.astype(np.float32)
    if kind == "ct":
        low, high = WINDOW_HU
        return (np.clip(voxels, low, high) - (low + high) / 2) / np.float32((high - low) / 2)
    if kind == "8-bit":
        return voxels / np.float32(GRAY)
    fixed = _fixed_scale(modality, kind)
    mean, sd = fixed or scaled or _scaling(voxels, box())
    # In double precision, since intensities may be large beside their spread.
    out = ((voxels.astype(np.float64) - mean) / sd).astype(np.float32)
    out[voxels == 0] = 0
    return out


def is_standardised(modality: str, kind: Kind) -> bool:
    """Whether an encoder sees the image by mean and standard deviation of its own."""
    return kind in ("mr", "units") and _fixed_scale(modality, kind) is None


def _fixed_scale(modality: str, kind: Kind) -> tuple[float, float] | None:
    return UNIT_SCALES.get(modality) if kind == "units" else None


def _scaling(voxels: Shaped[np.ndarray, "z y x"], box: tuple[slice, ...]) -> Scaling:
    near = voxels[box]
    values = near[near != 0].astype(np.float64)
    if not values.size:
        values = voxels[voxels != 0].astype(np.float64)
    if not values.size:
        return Scaling(0.0, 1.0)
    return Scaling(float(values.mean()), float(values.std()) or 1.0)


def outside_value(kind: Kind) -> float:
    """What an encoder sees beyond the image: air on a CT, else zero."""
    return -1.0 if kind == "ct" else 0.0


def notes_on(image: sitk.Image, modality: str, kind: Kind) -> list[str]:
    """What the values of an image say against its kind, a sentence each.

    Raises:
        ValueError: the values cannot be of this kind; with what to do.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    low, high = float(voxels.min()), float(voxels.max())
    if kind == "8-bit" and (low < 0 or high > GRAY):
        raise ValueError(
            f"{modality} holds values from {low:g} to {high:g}, and gray values go from 0 to 255"
        )
    if kind == "ct":
        # Padding is no measurement, however far below air it is set.
        lowest = float(voxels.min(where=voxels > AIR_HU, initial=np.inf))
        if lowest >= 0 or (lowest > NO_AIR_HU and high > BONE_HU):
            beside = f" beside padding of {low:g}" if low <= AIR_HU else ""
            missed = 0 if lowest >= 0 else NO_AIR_HU
            return [f"{modality}: no value below {missed:g}{beside}, where Hounsfield units of air "
                    "and fat lie; check that slope and intercept were applied"]  # fmt: skip
    return []
