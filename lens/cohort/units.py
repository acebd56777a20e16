"""The unit of an ADC map, recognised from the gland."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

PLAUSIBLE = (300.0, 3500.0)
"""Median ADC of a prostate in 1e-6 mm2/s, generously: tissue lies at 500 to 2000, urine at 3000,
and the units in use differ by a factor of 1000."""

UNITS = {"1e-6 mm2/s": 1.0, "1e-3 mm2/s": 1e3, "mm2/s": 1e6}
"""Unit -> factor that takes it to 1e-6 mm2/s."""


class AdcUnit(NamedTuple):
    """What the unit of a map is, judged by its median.

    Attributes:
        unit: a key of `UNITS`, or None where the median fits none of them.
        factor: takes the map to 1e-6 mm2/s; 1 where the unit is not known.
        median: of the positive values in the region.
    """

    unit: str | None
    factor: float
    median: float


def adc_unit(image: sitk.Image, gland: sitk.Image) -> AdcUnit:
    """Recognises the unit of an ADC map by its median in the gland.

    Args:
        image: the map, on the grid of `gland`.
        gland: uint8 0/1. Values of zero, where no fit was made, do not count.
    """
    values = sitk.GetArrayViewFromImage(image)[sitk.GetArrayViewFromImage(gland) > 0]
    positive = values[values > 0]
    median = float(np.median(positive)) if positive.size else 0.0
    for unit, factor in UNITS.items():
        if PLAUSIBLE[0] <= median * factor <= PLAUSIBLE[1]:
            return AdcUnit(unit, factor, median)
    return AdcUnit(None, 1.0, median)


def in_standard_unit(image: sitk.Image, found: AdcUnit) -> tuple[sitk.Image, list[str]]:
    """The map in 1e-6 mm2/s, with a note where it was scaled or its unit is not known."""
    if found.unit is None:
        low, high = PLAUSIBLE
        return image, [
            f"adc: a median of {found.median:.4g} in the gland fits no unit of ADC ({low:g} to "
            f"{high:g} expected in 1e-6 mm2/s); left as it is, so check the map"
        ]
    if found.factor == 1:
        return image, []
    scaled = sitk.Cast(sitk.Cast(image, sitk.sitkFloat64) * found.factor, sitk.sitkFloat32)
    return scaled, [
        f"adc: a median of {found.median:.3g} in the gland means {found.unit}; multiplied by "
        f"{found.factor:g} to 1e-6 mm2/s"
    ]


def look_swapped(adc: AdcUnit, dwi: AdcUnit) -> bool:
    """Whether the column `adc` holds no ADC map while `dwi` holds what looks like one.

    A diffusion image has no unit, and may by chance lie where an ADC map would; then nothing can be
    said. But an ADC map that fits no unit beside a diffusion image that fits one is no chance.
    """
    return adc.unit is None and dwi.unit is not None
