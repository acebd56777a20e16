"""Large intermediate arrays: in memory up to a bound, in files that vanish with them beyond it."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike


class Scratch:
    """Says where arrays live that grow with patients times features, or draws times features.

    Args:
        limit: bytes that may be kept in memory; infinite by default.
        folder: of the files, on a disk with room; the system's temporary folder by default.
    """

    def __init__(self, limit: float = float("inf"), folder: Path | None = None) -> None:
        self.limit, self._left, self._folder = limit, limit, folder

    def share(self, part: float) -> Scratch:
        """A place of its own within this part of the bound, for arrays that are gone sooner."""
        return Scratch(part * self.limit, self._folder)

    def keep(self, array: np.ndarray) -> np.ndarray:
        """The array itself while the bound allows, else an equal one that is mapped to a file.

        A mapped array reads and writes like any other. What was touched of it stays in memory until
        the system needs the room, or `release` gives it back.
        The file has no name: it is gone when the array is, or the process.

        Raises:
            OSError: the disk has no room for it; names the folder.
        """
        self._left -= array.nbytes
        if self._left >= 0 or not array.size:
            return array
        mapped = self._mapped(array.shape, array.dtype)
        if array.any():
            mapped[...] = array
            release(mapped)
        return mapped

    def zeros(self, shape: tuple[int, ...]) -> Float[np.ndarray, ...]:
        """Zeros to be filled in later, float64: as `keep` has it."""
        size = 8 * math.prod(shape)
        self._left -= size
        return np.zeros(shape) if self._left >= 0 or not size else self._mapped(shape, np.float64)

    def _mapped(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
        """Zeros in a file without a name."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            self._reserve(file.fileno(), math.prod(shape) * np.dtype(dtype).itemsize)
            return np.memmap(file, dtype, "w+", shape=shape)

    def _reserve(self, file: int, size: int) -> None:
        """Takes the room on the disk now: where a mapped file finds none, the process is killed."""
        if not hasattr(os, "posix_fallocate"):  # macOS and Windows have no such call
            return
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            folder = str(self._folder or tempfile.gettempdir())
            raise OSError(error.errno, error.strerror, folder) from error


def release(*arrays: np.ndarray) -> None:
    """Gives the memory of mapped arrays back; their values stay in the files. Others stay as is."""
    for array in arrays:
        pages = getattr(array, "_mmap", None)  # as numpy.memmap calls it, also in its views
        if pages is not None and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            pages.madvise(mmap.MADV_DONTNEED)


IN_MEMORY = Scratch()
"""No bound."""
