"""What the fits of all folds owe to the embeddings alone, kept while features come in blocks.

Held-out errors take room for every patient, feature, probe and encoder. They are worked out for a
block of features at a time, whose errors are gone before the next; decompositions of the embeddings
and the shared MLP's projections serve all blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from lens.allocator import give_back_memory
from lens.probes.probe import FittedProbe, Probe, fitter
from lens.probes.spectral import Spectrum
from lens.scratch import IN_MEMORY, Scratch, release

Fit = Callable[[Float[np.ndarray, "n k"]], FittedProbe]

LEAST_COLUMNS = 64
"""Features of the smallest block: every block reads all decompositions."""


def column_blocks(columns: int, column_bytes: int, most: float) -> Iterator[slice]:
    """Blocks of features that differ by one at most in width.

    Args:
        columns: features.
        column_bytes: that one of them takes in a block.
        most: bytes of a block; `LEAST_COLUMNS` features may be more.
    """
    width = max(LEAST_COLUMNS, most // column_bytes if np.isfinite(most) else columns, 1)
    ends = np.linspace(0, columns, 1 + max(1, int(-(-columns // width)))).round().astype(int)
    for start, end in pairwise(ends):
        yield slice(int(start), int(end))


class FoldFits:
    """Decompositions and projections by fold, made when first asked for.

    Args:
        scratch: where they live; beyond its bound in files. Without one, decompositions are not
            kept: every fit makes its own.
    """

    def __init__(self, scratch: Scratch | None = None) -> None:
        self._scratch = IN_MEMORY if scratch is None else scratch
        self._kept: list[np.ndarray] = []
        self._keeps, self._fits, self._projected = scratch is not None, {}, {}

    def fit(self, key: Hashable, probe: Probe, rows: Callable[[], Float[np.ndarray, "n d"]]) -> Fit:
        """The fit of a probe to the rows of `key`, for any features.

        Args:
            key: of fold, encoder, probe and rows.
            probe: that is fitted.
            rows: gives the embeddings, where they have not been decomposed yet.
        """
        if not self._keeps:
            return fitter(probe, rows())
        if key not in self._fits:
            self._fits[key] = fitter(probe, rows(), self._keep)
        return self._fits[key]

    def project(
        self, key: Hashable, made: Callable[[], Float[np.ndarray, "n h"]] | None = None
    ) -> Float[np.ndarray, "n h"]:
        """The projected embeddings of `key`, float64.

        Args:
            key: of fold and pair of encoders.
            made: gives them, where they are not there yet.
        """
        if key not in self._projected:
            assert made is not None
            # They are float32 in float64.
            self._projected[key] = self._put(made().astype(np.float32))
        return self._projected[key].astype(np.float64)

    def release(self) -> None:
        """Gives back the memory of what lives in files."""
        release(*self._kept)

    def end_fold(self) -> None:
        """The same, and where a fold is one of many blocks' what its arrays took."""
        self.release()
        if self._keeps:
            give_back_memory()

    def _put(self, array: np.ndarray) -> np.ndarray:
        self._kept.append(self._scratch.keep(array))
        return self._kept[-1]

    def _keep(self, made: Any) -> Any:
        """A decomposition with its matrices in the scratch."""
        changed = {}
        for field in fields(made):
            value = getattr(made, field.name)
            if isinstance(value, np.ndarray) and value.ndim == 2:
                changed[field.name] = self._put(value)
            elif isinstance(value, Spectrum):
                changed[field.name] = value._replace(u=self._put(value.u))
        return replace(made, **changed)
