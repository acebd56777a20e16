"""Groups of pictures that show the same thing: near duplicates, which belong into one fold.

Two pictures are alike where their details lie at the same places. Details are what is left of a
thumbnail without its slow changes, so that a dark border or a bright skin line, which unrelated
ultrasound pictures share, does not count; the thumbnails may be shifted against each other, as a
crop shifts them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 64
"""Rows and columns of a thumbnail."""

SLOW = 6.0
"""Standard deviation of the Gaussian that is taken off, in pixels of the thumbnail."""

SHIFT = 8
"""Largest shift of two thumbnails against each other along each axis, in their pixels."""

ALIKE = 0.6
"""Correlation of details from which two pictures are near duplicates."""


def details(picture: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "s s"]:
    """Details of a picture: its thumbnail without slow changes, of norm 1.

    Args:
        picture: gray values.
    """
    small = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX), float)
    left = small - gaussian_filter(small, SLOW)
    taper = np.hanning(SIDE + 2)[1:-1]
    left = (left - left.mean()) * np.sqrt(np.outer(taper, taper))
    return left / max(float(np.linalg.norm(left)), 1e-9)


def similarity(pictures: Sequence[UInt8[np.ndarray, "h w"]]) -> Float[np.ndarray, "n n"]:
    """Correlation of the details of each two pictures at their best shift, from -1 to 1.

    Args:
        pictures: gray values, of any sizes.
    """
    spectra = np.fft.rfft2(np.stack([details(each) for each in pictures]))
    near = [*range(SHIFT + 1), *range(SIDE - SHIFT, SIDE)]
    found = np.empty((len(pictures), len(pictures)))
    for row, spectrum in enumerate(spectra):
        shifted = np.fft.irfft2(spectra * spectrum.conj(), s=(SIDE, SIDE))
        found[row] = shifted[:, near][:, :, near].max(axis=(1, 2))
    return found


def groups(alike: Float[np.ndarray, "n n"], threshold: float = ALIKE) -> Int[np.ndarray, " n"]:
    """The group of each picture, counted from 0 in their order: linked by pairs that are alike.

    Args:
        alike: from `similarity`.
        threshold: from which two belong together.
    """
    first, second = np.nonzero(np.triu(alike >= threshold, 1))
    links = coo_array((np.ones(len(first)), (first, second)), shape=alike.shape)
    _, group = connected_components(links, directed=False)
    _, start = np.unique(group, return_index=True)
    order = np.argsort(np.argsort(start))
    return order[group]
