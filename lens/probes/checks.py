"""What fits refuse, in one wording."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float

AnyArray = Array | np.ndarray


def check_rows(**arrays: AnyArray) -> None:
    """Refuses arrays, by name, that differ in rows or have columns that are not finite.

    Raises:
        ValueError: names the arrays, or the first column.
    """
    (first, rows), *others = ((name, values.shape[0]) for name, values in arrays.items())
    for name, count in others:
        if count != rows:
            raise ValueError(
                f"{first} has {rows} rows, {name} has {count}; they must be one patient each"
            )
    for name, values in arrays.items():
        bad = np.flatnonzero(~np.isfinite(np.asarray(values)).all(axis=0))
        if bad.size:
            raise ValueError(f"{name} is not finite in column {bad[0]} and {bad.size - 1} more")


def check_losses(val_loss: Float[np.ndarray, " n"]) -> None:
    """Refuses a grid of penalties of which no MLP has a finite validation loss.

    Raises:
        ValueError: says what to look at.
    """
    if not np.isfinite(val_loss).any():
        raise ValueError(
            "no penalty pair gave a finite validation loss; check the embeddings' scale"
        )
