"""What is special to MRI of the prostate: names of its columns, and what is known of them.

Nothing here takes effect in a cohort that does not use these names; all else in this package takes
modalities and regions as the manifest names them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lens.cohort.units import adc_unit, in_standard_unit, look_swapped
from lens.errors import CaseError

MODALITIES = ("t2", "dwi", "adc")
"""Image columns, in the order in which a case holds them; radiomics parameters for each come with
the package, ``lens/radiomics/<modality>.yaml``."""

REGIONS = ("gland", "lesion")
"""Mask columns: where there is a gland column every case needs a gland, while a blank lesion cell
means that there is none."""

REQUIRED = ("gland",)
"""Regions without which a case is set aside."""

ZONES = "zones"
"""Mask column, 1 peripheral and 2 transition zone: no region of its own, but the anatomy from which
phantoms are made."""

MENTION_OUTSIDE = 0.1
"""Share of a lesion outside the gland from which it is mentioned; glands drawn automatically miss
some of the lesions that reach the capsule."""


def is_prostate(header: Collection[str]) -> bool:
    """Whether a manifest with these columns is of prostate MRI: a gland, and one of `MODALITIES`.

    All of its columns are known by name, so that none needs to be recognised.
    """
    return "gland" in header and not set(MODALITIES).isdisjoint(header)


def channels(modalities: Sequence[str]) -> tuple[str, ...]:
    """What an encoder is shown by default: the modalities, or all of `MODALITIES` where those of
    the cohort are some of them. Encoders of prostate MRI read all three, zeros for an absent one.
    """
    return MODALITIES if set(modalities) <= set(MODALITIES) else tuple(modalities)


def check_regions_fit(
    masks: Mapping[str, sitk.Image], files: Mapping[str, Path], patient_id: str
) -> list[str]:
    """Notes on how a lesion lies in its gland; none where a case has not both.

    Raises:
        CaseError: it lies outside, or is the gland itself.
    """
    if not masks.keys() >= {"gland", "lesion"}:
        return []
    gland, lesion = (sitk.GetArrayViewFromImage(masks[roi]) > 0 for roi in ("gland", "lesion"))
    if np.array_equal(gland, lesion):
        raise CaseError(
            patient_id,
            files["lesion"],
            stage="read",
            reason="the lesion is the whole gland, voxel by voxel",
            remedy="Check which file each column names, or say which labels make the lesion.",
        )
    share = np.count_nonzero(lesion & ~gland) / np.count_nonzero(lesion)
    if share == 1:
        raise CaseError(
            patient_id,
            files["lesion"],
            stage="geometry",
            reason="the lesion lies entirely outside the gland",
            remedy="Check that both masks belong to this study and to the same grid.",
        )
    if share > MENTION_OUTSIDE:
        return [f"lesion: {share:.0%} of its volume lies outside the gland, and is kept"]
    return []


def standardise_maps(
    images: dict[str, sitk.Image],
    masks: Mapping[str, sitk.Image],
    files: Mapping[str, Path],
    patient_id: str,
) -> list[str]:
    """Puts an ADC map into 1e-6 mm2/s, judged in the gland, in place; gives notes.

    Raises:
        CaseError: adc and dwi look swapped.
    """
    if "adc" not in images or "gland" not in masks:
        return []
    found = adc_unit(images["adc"], masks["gland"])
    if "dwi" in images:
        other = adc_unit(images["dwi"], masks["gland"])
        if look_swapped(found, other):
            raise CaseError(
                patient_id,
                files["adc"],
                stage="read",
                reason=f"adc and dwi look swapped: in the gland adc has a median of "
                f"{found.median:.4g}, which fits no unit of ADC, and dwi has {other.median:.4g}, "
                f"which fits {other.unit}",
                remedy="Exchange the two in the manifest, or convert the ADC map to 1e-6 mm2/s.",
            )
    images["adc"], notes = in_standard_unit(images["adc"], found)
    return notes
