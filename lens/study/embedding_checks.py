"""What an embedding must be to say anything: finite, of a size to compute with, not all the same.

All thresholds hold for float32, in which embeddings are analysed; a factor on all of them changes
no result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.errors import InputError

SMALLEST, LARGEST = 1e-15, 1e15
"""Largest magnitude of an embedding between which its squares are far from the ends of float32."""

OFTEN = 0.2
"""Share of the patients that may lack a dimension before it, and not they, is to blame."""

NARROW = 3
"""Numbers per row from which two rows are not the same by chance."""

_LISTED = 5


def check_finite(x: Float[np.ndarray, "n d"], name: str) -> None:
    """Refuses an embedding of which some dimensions are not finite in many patients.

    Where a patient lacks all of them, no dimension is to blame.

    Args:
        x: embeddings in float32.
        name: what messages call the table.

    Raises:
        InputError: names the dimension, in how many patients, and half precision.
    """
    missing = ~np.isfinite(x)
    bad = _often(missing)
    if not bad.any():
        return
    first, count = np.flatnonzero(bad)[0], int(bad.sum())
    also = f" (and {count - 1} more)" if count > 1 else ""
    raise InputError(
        f"{name}: dimension {first} (counted from 0){also} is not finite in "
        f"{missing[:, first].sum()} of {len(x)} patients. In so many that is no wrong image: an "
        "overflow of float16 (65,504), or of float32 at 3.4e38; embed in float32, or leave out "
        "the dimension on both sides"
    )


def check_usable(x: Float[np.ndarray, "n d"], name: str) -> None:
    """Refuses an embedding that is the same in all patients, or too small or large to compute with.

    Args:
        x: finite embeddings.
        name: what messages call the table.

    Raises:
        InputError: says which, and what to do.
    """
    largest = float(np.abs(x).max(initial=0.0))
    if largest == 0:
        raise InputError(
            f"{name}: every embedding is zero, as after a failed forward pass; embed again"
        )
    if (x == x[0]).all():
        raise InputError(
            f"{name}: all {len(x)} rows are one and the same embedding, which tells no patient "
            "from another; check the encoder's weights and input, and embed again"
        )
    if not SMALLEST <= largest <= LARGEST:
        raise InputError(
            f"{name}: the largest magnitude is {largest:.3g}, which squares to nothing that "
            f"float32 can hold; multiply all embeddings by one number ({SMALLEST:g} to "
            f"{LARGEST:g} is computed with)"
        )


def repeated_rows(values: Float[np.ndarray, "n k"], ids: pd.DataFrame, what: str) -> str:
    """A sentence on rows that are equal throughout; empty where there are none.

    Args:
        values: a row per study, NaN where missing.
        ids: ``patient_id`` and perhaps ``study_id`` of each row.
        what: of what they are rows, such as "embedding before fine-tuning".
    """
    if values.shape[1] < NARROW:
        return ""
    # Hashes: the rows themselves would be the table once more.
    keys = [hashlib.blake2b(np.ascontiguousarray(row).tobytes()).hexdigest() for row in values]
    groups = pd.Series(range(len(keys))).groupby(keys, sort=False).indices.values()
    several = sorted((at for at in groups if len(at) > 1), key=len, reverse=True)
    if not several:
        return ""
    largest, rows = several[0], sum(map(len, several))
    names = ["/".join(ids.astype(str).iloc[at]) for at in largest[:_LISTED]]
    first = ", ".join(names) + (", ..." if len(largest) > _LISTED else "")
    same = "nothing but zeros as" if not np.any(values[largest]) else "one and the same"
    found = f"{len(largest)} rows have {same} {what} ({first})"
    if len(several) > 1:
        found += f", and {rows - len(largest)} more are shared by two or more"
    return (
        f"{found}, as after a stuck batch, a failed pass or a file given twice: scores fall or "
        "rise with them. Make them again, or leave them out"
    )


def repeated_notes(
    sides: Mapping[str, Float[np.ndarray, "n d"]], ids: pd.DataFrame
) -> tuple[str, ...]:
    """A sentence for each table in which patients share their row, see `repeated_rows`.

    Args:
        sides: what the tables hold, such as "the embedding before fine-tuning" -> values.
        ids: of the rows.
    """
    found = (repeated_rows(values, ids, what) for what, values in sides.items())
    return tuple(text for text in found if text)


def _often(missing: Bool[np.ndarray, "n d"]) -> Bool[np.ndarray, " d"]:
    """Dimensions that are missing in many of the patients who have any."""
    there = ~missing.all(axis=1)
    return missing[there if there.any() else slice(None)].mean(axis=0) > OFTEN
