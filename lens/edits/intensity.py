"""Edits of each voxel by itself: shift, scale, contrast and gamma.

All take and give values of an image in its own unit; a dose of zero changes nothing.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def shifted(values: Float[np.ndarray, "*grid"], dose: float, sd: float) -> np.ndarray:
    """``values + dose * sd``: every value moves by the same amount.

    Args:
        values: of the image.
        dose: in `sd`.
        sd: unit of the dose, in the image's unit.
    """
    return values + dose * sd


def scaled(values: Float[np.ndarray, "*grid"], dose: float, zero: float) -> np.ndarray:
    """``zero + (values - zero) * 2^dose``: every value is multiplied, a dose of 1 doubles it.

    Args:
        values: of the image.
        dose: binary logarithm of the factor.
        zero: value that stands for no signal, such as that of air on CT.
    """
    return zero + (values - zero) * 2.0**dose


def contrasted(values: Float[np.ndarray, "*grid"], dose: float, mean: float) -> np.ndarray:
    """``mean + (values - mean) * 2^dose``: the spread is multiplied, the mean stays.

    Args:
        values: of the image.
        dose: binary logarithm of the factor.
        mean: of the region.
    """
    return mean + (values - mean) * 2.0**dose


def gamma(values: Float[np.ndarray, "*grid"], dose: float, low: float, high: float) -> np.ndarray:
    """``low + (high - low) * u^(2^dose)`` with u the place between the ends, which stay.

    Args:
        values: of the image; beyond the ends they are taken as the ends.
        dose: binary logarithm of the exponent: above zero darker, below zero brighter.
        low, high: lowest and highest value of the region.
    """
    if high <= low:
        return values.copy()
    place = np.clip((values - low) / (high - low), 0.0, 1.0)
    return low + (high - low) * place ** (2.0**dose)
