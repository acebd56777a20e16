"""One level of the stationary wavelet transform, as PyWavelets gives it to the last bit.

PyWavelets takes the lines of an axis one by one; here neighbouring lines are filtered at once
(`lens.radiomics.kernels.filtered`), both filters in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lens.radiomics.engine import pyradiomics


def one_level(data: np.ndarray, wavelet: Any, axes: Sequence[int]) -> dict[str, np.ndarray]:
    """``pywt.swtn(data, wavelet, level=1, axes=axes)[0]``: a band per word of ``a`` and ``d``.

    Args:
        data: float32 or float64, with an even length of at least the filter's along `axes`.
        wavelet: a ``pywt.Wavelet``.
        axes: in the order in which they are filtered.
    """
    from lens.radiomics import kernels

    filters = taps_of(wavelet, data.dtype)
    bands = {"": np.ascontiguousarray(data)}
    for axis in axes:
        taps, sources = terms(data.shape[axis], filters.shape[1])
        outer = math.prod(data.shape[:axis])
        lines = (outer, data.shape[axis], data.size // (outer * data.shape[axis]))
        made: dict[str, np.ndarray] = {}
        for word in list(bands):
            low, high = np.empty_like(data, order="C"), np.empty_like(data, order="C")
            kernels.filtered(
                bands.pop(word).reshape(lines),
                filters,
                taps,
                sources,
                low.reshape(lines),
                high.reshape(lines),
            )
            made |= {word + "a": low, word + "d": high}
        bands = made
    return bands


def taps_of(wavelet: Any, kind: np.dtype[Any]) -> Float[np.ndarray, "2 w"]:
    """The low and the high filter as PyWavelets' C code holds them in this precision.

    From its answer to an impulse, since its table of single precision is not the other one rounded.
    """
    from pywt import swt

    width = wavelet.dec_len
    impulse = np.zeros(4 * width, kind)
    impulse[2 * width] = 1
    low, high = swt(impulse, wavelet, level=1)[0]
    first = 2 * width - width // 2
    return np.array([low[first : first + width], high[first : first + width]])


def terms(length: int, width: int) -> tuple[Int[np.ndarray, "n w"], Int[np.ndarray, "n w"]]:
    """Which tap meets which sample of a periodic line for each output, in the order of the sum.

    That of PyWavelets' C code: by taps, but at the end of the line those that lie beyond it first,
    from the nearest.
    """
    reached = np.arange(length)[:, None] + width // 2
    beyond = reached - length
    place = np.arange(width)[None, :]
    taps = np.where(place <= beyond, beyond - place, place)
    return taps, (reached - taps) % length


@contextmanager
def filtered_here() -> Iterator[None]:
    """PyRadiomics has its wavelet bands from this module inside the block.

    What this module does not make, lines shorter than the filter, is left to PyWavelets.
    """
    operations = pyradiomics().imageoperations
    original = operations.pywt

    def swtn(data: np.ndarray, wavelet: Any, *, level: int, start_level: int, axes: Any) -> Any:
        ordinary = data.dtype in (np.float32, np.float64) and (level, start_level) == (1, 0)
        if not ordinary or min(data.shape[axis] for axis in axes) < wavelet.dec_len:
            return original.swtn(data, wavelet, level=level, start_level=start_level, axes=axes)
        return [one_level(data, wavelet, axes)]

    operations.pywt = SimpleNamespace(Wavelet=original.Wavelet, swtn=swtn)
    try:
        yield
    finally:
        operations.pywt = original
