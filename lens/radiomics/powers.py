"""Third and fourth powers, as NumPy gives them."""

from __future__ import annotations

from importlib import import_module
from typing import Literal

import numpy as np
from jaxtyping import Float


def power(values: Float[np.ndarray, " n"], exponent: Literal[3, 4]) -> Float[np.ndarray, " n"]:
    """``numpy.power(values, exponent)`` to the last bit, several times sooner.

    NumPy takes positive bases together and negative ones one by one, by a function that errs by
    hardly more than half a unit in the last place. The latter are computed here from exact products
    and rounded once, which is the same number; where that is in doubt, NumPy is asked.

    Args:
        values: finite.
        exponent: 3 or 4.
    """
    powers = np.power(np.abs(values), exponent)
    doubtful = np.empty(values.shape, bool)
    kernels = import_module("lens.radiomics.kernels")
    kernels.negative_powers(values, exponent == 4, powers, doubtful)
    asked = np.flatnonzero(doubtful)
    powers[asked] = np.power(values[asked], exponent)
    return powers
