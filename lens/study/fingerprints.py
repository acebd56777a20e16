"""Hashes by which two runs are seen to be on the same data, without the data or any id."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from jaxtyping import Float

from lens.study.study import Study


def fingerprints(study: Study) -> dict[str, Any]:
    """SHA-256 of the tables of a study as they are analysed, in float32 and without ids.

    A hash is over all rows at once and does not depend on their order, so that it tells of no
    single patient, is the same under other ids and in other formats of file, and can be guessed
    only by somebody who has the whole table.

    Returns:
        ``features``: of each modality and region, by ``<modality>.<roi>``, with missing values as
        such; ``before``: of the embeddings before fine-tuning; ``after``: task -> of those after.
    """
    names = (study.features["modality"] + "." + study.features["roi"]).to_numpy(str)
    values = study.observed()
    return {
        "features": {
            str(name): rows_hash(values[:, names == name]) for name in dict.fromkeys(names)
        },
        "before": rows_hash(study.x_pre),
        "after": {task: rows_hash(x) for task, x in study.x_ft.items()},
    }


def rows_hash(values: Float[np.ndarray, "n k"]) -> str:
    """SHA-256 over the rows of an array in any order, 64 hex digits."""
    # Little-endian, so that machines of either kind agree; one NaN and one zero.
    table = np.where(np.isnan(values), np.nan, values + 0.0).astype("<f4")
    rows = sorted(hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest() for row in table)
    return hashlib.sha256(f"{table.shape}".encode() + b"".join(rows)).hexdigest()
