"""One level of the stationary wavelet transform, as PyWavelets gives it to the last bit.

PyWavelets takes the lines of an axis one by one; here neighbouring lines are filtered at once
(`lens.radiomics.kernels.filtered`), both filters in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float, Int

from lens.cohort.geometry import cut
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


class Band(NamedTuple):
    """A wavelet band as PyRadiomics passes it on: an array (z, y, x), a spacing (x, y, z; mm)."""

    array: Float[np.ndarray, "z y x"]
    spacing: tuple[float, ...]

    def GetSpacing(self) -> tuple[float, ...]:
        """By SimpleITK's name."""
        return self.spacing

    def image(self) -> sitk.Image:
        """For what takes no arrays; its place in space decides nothing."""
        made = sitk.GetImageFromArray(self.array)
        made.SetSpacing(self.spacing)
        return made


@contextmanager
def filtered_here() -> Iterator[None]:
    """PyRadiomics has its wavelet bands from this module inside the block, and cuts them out here.

    What this module does not make, several levels or lines shorter than the filter, is left to
    PyWavelets.
    """
    operations = pyradiomics().imageoperations
    package, transform, crop = operations.pywt, operations._swt3, operations.cropToTumorMask
    masks: dict[str, Any] = {}

    def swtn(data: np.ndarray, wavelet: Any, *, level: int, start_level: int, axes: Any) -> Any:
        if (level, start_level) != (1, 0) or not _wide(data, wavelet, axes):
            return package.swtn(data, wavelet, level=level, start_level=start_level, axes=axes)
        return [one_level(data, wavelet, axes)]

    def swt3(image: sitk.Image, axes: Any, **settings: Any) -> Any:
        named = settings.get("wavelet", "coif1")
        wavelet = named if isinstance(named, package.Wavelet) else package.Wavelet(named)
        whole = sitk.GetArrayViewFromImage(image)
        data = np.pad(whole, [(0, n % 2) for n in whole.shape], "wrap")
        levels = settings.get("level", 1), settings.get("start_level", 0)
        if levels != (1, 0) or not _wide(data, wavelet, axes):
            return transform(image, axes, **settings)
        inside = tuple(slice(0, n) for n in whole.shape)
        bands = {
            word.replace("a", "L").replace("d", "H"): Band(band[inside], image.GetSpacing())
            for word, band in one_level(data, wavelet, axes).items()
        }
        return bands.pop("L" * len(axes)), [bands]

    def cropped(image: Any, mask: sitk.Image, box: np.ndarray, **settings: Any) -> Any:
        if not isinstance(image, Band):
            return crop(image, mask, box, **settings)
        low, high = np.reshape(box, (-1, 2))[::-1].T.tolist()
        part = tuple(slice(first, last + 1) for first, last in zip(low, high, strict=True))
        if masks.get("of") is not mask or masks["part"] != part:
            masks.update(of=mask, part=part, cut=cut(mask, part))
        return Band(np.ascontiguousarray(image.array[part]), image.spacing), masks["cut"]

    operations.pywt = SimpleNamespace(Wavelet=package.Wavelet, swtn=swtn)
    operations._swt3, operations.cropToTumorMask = swt3, cropped
    try:
        yield
    finally:
        operations.pywt = package
        operations._swt3, operations.cropToTumorMask = transform, crop


def _wide(data: np.ndarray, wavelet: Any, axes: Sequence[int]) -> bool:
    """Whether lines of this kind are filtered here."""
    ordinary = data.dtype in (np.float32, np.float64)
    return ordinary and min(data.shape[axis] for axis in axes) >= wavelet.dec_len
